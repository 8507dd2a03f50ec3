//! `flydex-server`: one image, one role per process.

use clap::Parser as _;
use flydex_server::cli::Cli;
use flydex_server::launch::{self, Voice};

fn main() {
    std::process::exit(launch::run(Cli::parse(), std::env::vars(), &Terminal));
}

/// Whoever started the process.
struct Terminal;

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "the program's own output")]
impl Voice for Terminal {
    fn say(&self, line: &str) {
        println!("{line}");
    }

    fn complain(&self, line: &str) {
        eprintln!("flydex-server: {line}");
    }
}
