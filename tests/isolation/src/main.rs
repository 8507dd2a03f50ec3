//! `flydex-isolate`: the fuzzer of two accounts, further than the tests go.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser;
use flydex_isolation::fuzz::{self, Options};
use flydex_runtime::clock::Clock;

/// Swaps the values of two accounts for one another in everything that can be said to the relay.
#[derive(Parser)]
struct Arguments {
    /// How many messages to send.
    #[arg(long, default_value_t = 1_000_000)]
    operations: u64,
    /// Decides everything that is drawn.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let Arguments { operations, seed } = Arguments::parse();
    let clock = Clock::system();
    let began = clock.instant();
    let report = fuzz::run(Options { seed, operations, fault: None }).await?;
    let seconds = clock.instant().saturating_duration_since(began).as_secs_f64();
    for finding in &report.findings {
        say(&format!("{finding}\n  again: cargo xtask fuzz isolation --seed {seed} --operations {operations}"));
    }
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = report.operations as f64 / seconds;
    let skew = report.time_skew();
    say(&format!(
        "{} operations in {seconds:.1} s ({rate:.0}/s), {} findings; what exists took longer in {:.2} % of {} pairs",
        report.operations,
        report.findings.len(),
        skew * 100.0,
        report.slower.1,
    ));
    let passed = report.findings.is_empty() && report.time_is_alike();
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn say(line: &str) {
    // A reader that has gone away wants no more lines.
    let _ = writeln!(std::io::stdout(), "{line}");
}
