//! `cargo xtask`: the one door for whoever works on FlyDex.

mod attack;
mod bench;
mod check;
mod cluster;
mod count;
mod demo;
mod fuzz;
mod need;
mod proto;
mod shell;
mod simulate;
mod test;
mod web;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Builds, runs and checks FlyDex. Each command installs what it lacks, or names it and how to get it.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build and start everything on this computer, and print the address and a QR code.
    ///
    /// Your own `codex` is used when it is on the PATH and signed in; otherwise a pinned Codex from npm with a
    /// scripted model on loopback. Ctrl-C ends everything.
    Demo(demo::Arguments),
    /// Run all tests and end with `N passed, N failed`.
    ///
    /// Installs what they need: Chromium (Debian package, as root), the pinned Codex and the browser driver (npm, by
    /// lock files), and builds the web app. Rust tests run by cargo-nextest if it is there, else by cargo test.
    Test(test::Arguments),
    /// Check form: rustfmt, clippy, dependencies, documentation, generated code, the tidy rules, the web app's types.
    Check(check::Arguments),
    /// Measure: round trips through the relay beside a bare forwarder, codec, gate, long lists.
    Bench(bench::Arguments),
    /// Fuzz the frame codec and the conversions. The committed corpus is replayed by `cargo xtask test`.
    Fuzz(fuzz::Arguments),
    /// Simulate nodes, directory, connector and devices under seeded faults, or walk the model of ownership.
    ///
    /// A seed that fails is printed with the command that replays it.
    Simulate(simulate::Arguments),
    /// Start a cluster on this computer (`up`), or run the fault suite on one (`check`).
    ///
    /// Three gateways, three nodes and two control processes with Redis and PostgreSQL, which are installed where they
    /// are missing (Debian packages, as root). `check` kills, freezes, drains and cuts them off under load, and ends
    /// with a table of figures beside their bounds and `N passed, N failed`.
    Cluster(cluster::Arguments),
    /// Attack a cluster on this computer, and end with a table of what was tried and stopped and `N passed, N failed`.
    ///
    /// Gateways, nodes and control in two regions with Redis and PostgreSQL, real connectors and the real Codex. The
    /// attacks are `tests/src/attack`; `cargo xtask test` runs them too.
    Attack(attack::Arguments),
    /// Generate the code of the `.proto` files, in Rust and for the web app, and docs/protocol-reference.md.
    Proto(proto::Arguments),
    /// Build the web app into services/web/dist when its sources changed.
    Web(web::Arguments),
}

fn main() -> ExitCode {
    match run(Cli::parse().task) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            shell::say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> anyhow::Result<bool> {
    let root = shell::root();
    match task {
        Task::Demo(arguments) => demo::run(&root, &arguments),
        Task::Test(arguments) => test::run(&root, &arguments),
        Task::Check(arguments) => check::run(&root, &arguments),
        Task::Bench(arguments) => bench::run(&root, &arguments),
        Task::Fuzz(arguments) => fuzz::run(&root, &arguments),
        Task::Simulate(arguments) => simulate::run(&root, &arguments),
        Task::Cluster(arguments) => cluster::run(&root, &arguments),
        Task::Attack(arguments) => attack::run(&root, &arguments),
        Task::Proto(arguments) => proto::run(&root, &arguments).map(|()| true),
        Task::Web(arguments) => web::run(&root, &arguments).map(|()| true),
    }
}
