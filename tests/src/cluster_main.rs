//! A cluster on this computer, for a person to look at, or to be tried by the fault suite.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use flydex_tests::canary;
use flydex_tests::cluster::part::Part;
use flydex_tests::cluster::{Cluster, RegionSettings, Settings, Store, suite};

/// Starts a cluster on this computer; `cargo xtask cluster` builds what it needs and runs it.
#[derive(Parser)]
#[command(name = "flydex-cluster")]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Starts it, says where everything is, and ends it at Ctrl-C.
    Up(UpArguments),
    /// Does to it what networks and machines do, under load, and judges what devices were told and machines did.
    Check(CheckArguments),
}

#[derive(clap::Args)]
struct UpArguments {
    /// Gateways of a region.
    #[arg(long, default_value_t = 3)]
    gateways: usize,
    /// Nodes of a region.
    #[arg(long, default_value_t = 3)]
    machines: usize,
    /// Control processes.
    #[arg(long, default_value_t = 2)]
    control: usize,
    /// Regions: one or two.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=2))]
    regions: u8,
    /// Port of the web app; 0 takes a free one.
    #[arg(long, default_value_t = 48200)]
    port: u16,
}

#[derive(clap::Args)]
struct CheckArguments {
    /// Only the trials whose name contains this.
    filter: Option<String>,
    /// Write every figure, every history and every log into this folder.
    #[arg(long, value_name = "FOLDER")]
    keep: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    flydex_runtime::tls::install_provider();
    match Cli::parse().what {
        What::Up(arguments) => up(&arguments).await,
        What::Check(arguments) => {
            let passed = suite::check(arguments.filter.as_deref(), arguments.keep.as_deref(), &say).await?;
            std::process::exit(i32::from(!passed));
        }
    }
}

#[expect(clippy::print_stdout, reason = "the program's own output")]
fn say(line: &str) {
    println!("{line}");
}

async fn up(arguments: &UpArguments) -> anyhow::Result<()> {
    canary::off();
    let names = ["one", "two"];
    let region = |name| RegionSettings { name, gateways: arguments.gateways, nodes: arguments.machines };
    let regions = names.into_iter().take(arguments.regions.into()).map(region).collect();
    say("starting Redis, PostgreSQL and the processes of the cluster");
    let settings = Settings { regions, controls: arguments.control, port: arguments.port, ..Settings::default() };
    let cluster = Cluster::start(settings).await?;
    say(&places(&cluster)?);
    say(&format!("1. Sign in:  {}", cluster.account().await?));
    say(&format!("2. Pair:     flydex connect --server {}", cluster.origin()));
    say("Ctrl-C ends everything.");
    tokio::signal::ctrl_c().await?;
    say("stopping: gateways and nodes drain first");
    cluster.stop().await?;
    say("everything has ended");
    Ok(())
}

/// Where everything is, a line each.
fn places(cluster: &Cluster) -> anyhow::Result<String> {
    let mut lines = vec![format!("web app      {}", cluster.origin()), place(&cluster.web)?];
    lines.push(format!("API          https://localhost:{}", cluster.front.port()));
    for control in &cluster.controls {
        lines.push(place(control)?);
    }
    lines.push(format!("postgres     {}", cluster.postgres.url()));
    for region in &cluster.regions {
        lines.push(format!(
            "region {:<5} wss://localhost:{}, QUIC at the same port",
            region.name,
            region.balancer.port()
        ));
        for part in region.gateways.iter().chain(&region.nodes).filter(|part| part.runs()) {
            lines.push(place(part)?);
        }
        if let Store::Alone(redis) = &region.store {
            lines.push(format!("  redis      {}", redis.url()));
        }
    }
    lines.push(format!("logs         {}", cluster.folder().display()));
    Ok(lines.join("\n"))
}

fn place(part: &Part) -> anyhow::Result<String> {
    let pid = part.process()?.pid().unwrap_or_default();
    Ok(format!(
        "  {:<15} {:<21} metrics http://{}/metrics  pid {pid}",
        part.name,
        part.address()?.to_string(),
        part.admin()?
    ))
}
