//! The binary `flydex`.

use std::process::ExitCode;

fn main() -> ExitCode {
    flydex_connector::cli::main(std::env::args_os())
}
