//! `flydex-loadtest`: drives sessions of the real protocol and prints figures beside their floors.

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use flydex_loadtest::bench::{Figure, micro, relay};
use flydex_loadtest::rig::Rig;
use flydex_loadtest::stub::{self, StubArguments};

/// Measures FlyDex against floors of the same run.
#[derive(Debug, Parser)]
#[command(name = "flydex-loadtest", version)]
struct Cli {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Codec and gate in this process.
    Micro {
        /// Tries of each.
        #[arg(long, default_value_t = 20_000)]
        rounds: u32,
    },
    /// Round trips through relay and connector, with a stub in place of Codex.
    Relay {
        /// Tries of each.
        #[arg(long, default_value_t = 2_000)]
        rounds: u32,
    },
    /// The stub itself, as the connector starts it.
    #[command(name = "app-server", hide = true)]
    AppServer(StubArguments),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().what {
        None => {
            print(&micro::run(20_000)?);
            measure_relay(2_000)
        }
        Some(What::Micro { rounds }) => {
            print(&micro::run(rounds)?);
            Ok(())
        }
        Some(What::Relay { rounds }) => measure_relay(rounds),
        Some(What::AppServer(arguments)) => stub::serve(arguments).context("serve the stub"),
    }
}

fn measure_relay(rounds: u32) -> anyhow::Result<()> {
    flydex_runtime::tls::install_provider();
    let runtime = tokio::runtime::Runtime::new().context("start the async runtime")?;
    let folder = tempfile::tempdir().context("make a folder")?;
    let figures = runtime.block_on(async {
        let rig = Rig::start(folder.path()).await?;
        relay::run(&rig, rounds).await
    })?;
    print(&figures);
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the program's output")]
fn print(figures: &[Figure]) {
    for figure in figures {
        println!("{}", figure.line());
    }
}
