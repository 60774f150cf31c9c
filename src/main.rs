//! The program `pmgate`; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    pmgate::app::main()
}
