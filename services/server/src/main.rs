//! `flydex-server`: one image, one role per process.

use anyhow::Context as _;
use clap::Parser as _;
use flydex_runtime::config::{self, EXIT_BAD_CONFIG};
use flydex_runtime::telemetry::log::chain;
use flydex_server::all;
use flydex_server::cli::{AllFlags, Cli, Role};
use flydex_server::config::AllConfig;

fn main() {
    let cli = Cli::parse();
    let code = match cli.role {
        Role::All(flags) => run_all(&flags),
    };
    std::process::exit(code);
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "the program's own output")]
fn run_all(flags: &AllFlags) -> i32 {
    let config: AllConfig = match config::load(flags.config.as_deref(), std::env::vars(), flags.layer()) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("flydex-server: {}", chain(&error));
            return EXIT_BAD_CONFIG;
        }
    };
    if flags.dump_config {
        print!("{}", toml::to_string_pretty(&config).unwrap_or_default());
        return 0;
    }
    flydex_runtime::tls::install_provider();
    let outcome = tokio::runtime::Runtime::new()
        .context("start the async runtime")
        .and_then(|runtime| runtime.block_on(all::run(config, flags.owner_link, |line| println!("{line}"))));
    match outcome {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("flydex-server: {error:#}");
            1
        }
    }
}
