//! The program: reads what was typed and runs it.

pub mod config;
mod demo;
mod gateway;
mod log;
mod sims;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use crate::cli;
use crate::cli::args::{Arguments, Command, Config};
use crate::cli::exit::Outcome;

/// Runs the program to its end.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    log::start(arguments.verbose);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            crate::cli::out::complain(&format!("the runtime does not start: {error}"));
            return ExitCode::from(1);
        }
    };
    match runtime.block_on(run(arguments.command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => exit.report(),
    }
}

/// `config check`.
fn check(file: &std::path::Path) -> Outcome {
    let config = config::load(file)?;
    cli::out::line(&format!(
        "{} is good: rack {}, {} PDUs, {} hosts",
        file.display(),
        config.rack,
        config.devices.len(),
        config.site.hosts.len()
    ));
    Ok(())
}

async fn run(command: Command) -> Outcome {
    match command {
        Command::Demo(args) => demo::run(args).await,
        Command::Serve(args) => gateway::serve(&args.config).await,
        Command::Sim(args) => sims::run(args).await,
        Command::Config(Config::Check { file }) => check(&file),
        Command::Driver(command) => cli::driver::run(command).await,
        Command::Ca(command) => cli::ca::run(command),
        Command::Pdu(command) => cli::pdu::run(command).await,
        Command::Outlet(command) => cli::switch::outlet(command).await,
        Command::Host(command) => cli::switch::host(command).await,
        Command::Group(command) => cli::switch::group(command).await,
        Command::Limits { client } => cli::plan::limits(&client).await,
        Command::Audit(command) => cli::audit::run(command).await,
        Command::Plan(command) => cli::plan::run(command).await,
        Command::Series(args) => cli::series::run(args).await,
        Command::Store(command) => cli::store::run(command).await,
        Command::Events(args) => cli::events::run(args).await,
        Command::Completions { shell } => {
            clap_complete::generate(
                shell,
                &mut Arguments::command(),
                "pmgate",
                &mut std::io::stdout(),
            );
            Ok(())
        }
    }
}
