//! The attack suite against a cluster of real processes on this computer.

use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use flydex_tests::attack::relay::Ground;
use flydex_tests::attack::suite;
use flydex_tests::cluster::{Cluster, RegionSettings, Settings};

/// What the second region takes longer, each way: every machine links to the first.
const FARTHER: Duration = Duration::from_millis(30);

/// Attacks a cluster on this computer; `cargo xtask attack` builds what it needs and runs it.
#[derive(Parser)]
#[command(name = "flydex-attack")]
struct Cli {
    /// Only the attacks whose name contains this.
    filter: Option<String>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    flydex_runtime::tls::install_provider();
    let Cli { filter } = Cli::parse();
    say("starting Redis, PostgreSQL and the processes of the cluster");
    // The second region is there to be sent what was said in the first.
    let regions = vec![
        RegionSettings { name: "one", gateways: 2, nodes: 2 },
        RegionSettings { name: "two", gateways: 1, nodes: 1 },
    ];
    let cluster = Cluster::start(Settings { regions, controls: 1, ..Settings::default() }).await?;
    cluster.regions[1].balancer.set_delay(FARTHER);
    let cluster = Arc::new(cluster);
    let stopped = suite(&Ground::Cluster(cluster), filter.as_deref(), &say).await;
    std::process::exit(i32::from(!stopped));
}

#[expect(clippy::print_stdout, reason = "the program's own output")]
fn say(line: &str) {
    println!("{line}");
}
