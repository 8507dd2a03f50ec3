//! `flydex-isolate`: the fuzzer of two accounts, further than the tests go.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Parser;
use flydex_isolation::chance::Chance;
use flydex_isolation::fuzz::report::Report;
use flydex_isolation::fuzz::{self, Options, Progress};
use flydex_runtime::clock::Clock;

/// How often is said how far it is.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// Swaps the values of two accounts for one another in everything that can be said to the relay.
#[derive(Parser)]
struct Arguments {
    /// How many messages to send.
    #[arg(long, default_value_t = 1_000_000)]
    operations: u64,
    /// Decides everything that is drawn.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Relays that run beside one another; as many as there are processors without it.
    #[arg(long)]
    relays: Option<u64>,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let clock = Clock::system();
    let began = clock.instant();
    let relays =
        arguments.relays.unwrap_or_else(|| thread::available_parallelism().map_or(1, |count| count.get() as u64));
    let progress = Arc::new(Progress::default());
    let mut chance = Chance::new(arguments.seed);
    // A relay on a thread of its own wakes no other: that is most of what a message costs.
    let running: Vec<_> = (0..relays.max(1))
        .map(|_| {
            let operations = arguments.operations.div_ceil(relays.max(1));
            let options = Options { seed: chance.number(), operations, fault: None };
            let progress = progress.clone();
            let watcher = thread::current();
            thread::spawn(move || {
                let report = run(options, &progress);
                watcher.unpark();
                report
            })
        })
        .collect();
    while running.iter().any(|thread| !thread.is_finished()) {
        thread::park_timeout(PROGRESS_INTERVAL);
        let (operations, findings) = progress.so_far();
        say(&format!(
            "{operations} of {} operations, {}, {findings} findings",
            arguments.operations,
            rate(operations, began, &clock)
        ));
    }
    let mut report = Report::default();
    for thread in running {
        report.add(thread.join().ok().context("a relay failed")??);
    }
    let measured = rate(report.operations, began, &clock);
    report.judge_times();
    for finding in &report.findings {
        say(finding);
    }
    if !report.findings.is_empty() {
        say(&format!(
            "again: cargo xtask fuzz isolation --seed {} --operations {}",
            arguments.seed, arguments.operations
        ));
    }
    say(&format!("{} operations, {measured}; the times of {} surfaces compared", report.operations, report.timed()));
    say(&format!("{report}"));
    Ok(if report.verdicts().1 == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run(options: Options, progress: &Progress) -> anyhow::Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(fuzz::run(options, progress))
}

fn rate(operations: u64, began: Instant, clock: &Clock) -> String {
    let seconds = clock.instant().saturating_duration_since(began).as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = operations as f64 / seconds.max(0.001);
    format!("{rate:.0}/s in {seconds:.0} s")
}

fn say(line: &str) {
    // A reader that has gone away wants no more lines.
    let _ = writeln!(std::io::stdout(), "{line}");
}
