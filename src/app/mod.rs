//! The program: reads what was typed and runs it.

pub mod config;
mod demo;
mod gateway;
mod sims;

use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::args::{Arguments, Command};
use crate::cli::exit::Outcome;

/// Runs the program to its end.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    log(arguments.verbose);
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

fn log(verbose: u8) {
    use tracing_subscriber::EnvFilter;
    let default = match verbose {
        0 => "warn,pmgate=info",
        1 => "info,pmgate=debug",
        _ => "debug,pmgate=trace",
    };
    let filter = EnvFilter::try_from_env("PMGATE_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}

async fn run(command: Command) -> Outcome {
    match command {
        Command::Demo(args) => demo::run(args).await,
        Command::Serve(args) => gateway::serve(&args.config).await,
        Command::Sim(args) => sims::run(args).await,
        Command::Driver(command) => crate::cli::driver::run(command).await,
        _ => Err(crate::cli::exit::Exit::usage(anyhow::anyhow!("not yet"))),
    }
}
