//! `flydex-simulate`: the model and the simulation beyond what the tests have time for.

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use flydex_proof::model::{self, Bounds, Relay};
use flydex_proof::simulation;

/// Walks the model of ownership, or runs seeds of the simulation.
#[derive(Parser)]
struct Arguments {
    /// How many seeds to run.
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Run this seed alone and print its trace.
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// Walk the model instead.
    #[arg(long, conflicts_with_all = ["seeds", "from", "seed"])]
    model: Option<Extent>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Extent {
    /// As far as the tests do.
    Quick,
    /// With more faults, epochs and commands.
    Full,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let fine = match (arguments.model, arguments.seed) {
        (Some(extent), _) => walk(extent),
        (None, Some(seed)) => replay(seed),
        (None, None) => simulate(arguments.from, arguments.seeds),
    };
    if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn walk(extent: Extent) -> bool {
    let all: &[Bounds] = match extent {
        Extent::Quick => &model::QUICK,
        Extent::Full => &model::FULL,
    };
    all.iter().all(|bounds| {
        let walk = model::walk(Relay { bounds: *bounds, without: None }, None);
        say(&format!("{bounds:?}: {} states, {} invariants broken", walk.states, walk.broken.len()));
        for (name, path) in &walk.broken {
            say(&format!("{name}\n{path}"));
        }
        walk.broken.is_empty()
    })
}

fn replay(seed: u64) -> bool {
    let run = simulation::run(seed, None);
    say(&run.trace);
    let failure = run.failure.as_deref();
    say(&format!("seed {seed}: {}", failure.unwrap_or("no invariant is broken and every command is answered")));
    failure.is_none()
}

fn simulate(from: u64, seeds: u64) -> bool {
    let (mut failed, mut asked) = (0_u64, 0);
    for seed in from..from.saturating_add(seeds) {
        let run = simulation::run(seed, None);
        asked += run.asked;
        if let Some(failure) = run.failure {
            failed += 1;
            say(&format!("seed {seed}: {failure}\n  again: cargo xtask simulate --seed {seed}"));
        }
    }
    say(&format!("{seeds} seeds, {asked} commands, {failed} failed"));
    failed == 0
}

fn say(line: &str) {
    // A reader that has gone away wants no more lines.
    let _ = writeln!(std::io::stdout(), "{line}");
}
