//! `flydex-simulate`: the model and the simulation beyond what the tests have time for.

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use flydex_proof::model::{self, Bounds, Relay};

/// Walks the model of ownership, or runs seeds of the simulation.
#[derive(Parser)]
struct Arguments {
    /// Walk the model instead of simulating.
    #[arg(long)]
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
    let fine = arguments.model.is_none_or(walk);
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

fn say(line: &str) {
    // A reader that has gone away wants no more lines.
    let _ = writeln!(std::io::stdout(), "{line}");
}
