//! `cargo xtask fuzz`: the targets in proto/fuzz, on a nightly toolchain.

use std::path::Path;

use anyhow::bail;

use crate::{need, shell};

/// The version of cargo-fuzz that is installed where there is none.
const CARGO_FUZZ_VERSION: &str = "0.13.2";
/// The targets of proto/fuzz.
const TARGETS: [&str; 5] = ["frame", "lanes", "messages", "command", "agent"];

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// One target; all in turn without it.
    #[arg(value_parser = TARGETS)]
    target: Option<String>,
    /// Seconds for each target.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

/// Fuzzes each target for its time; what it finds of interest is added to its corpus.
///
/// # Errors
/// When the nightly toolchain or cargo-fuzz cannot be had.
pub(crate) fn run(root: &Path, arguments: &Arguments) -> anyhow::Result<bool> {
    if !shell::works(&mut shell::command(root, "cargo", &["+nightly", "--version"])) {
        bail!("fuzzing needs a nightly toolchain: `rustup toolchain install nightly`");
    }
    need::cargo_tool(root, "cargo-fuzz", CARGO_FUZZ_VERSION)?;
    let limit = format!("-max_total_time={}", arguments.seconds);
    let mut passed = true;
    for target in TARGETS.iter().filter(|target| arguments.target.as_deref().is_none_or(|one| one == **target)) {
        let words = ["+nightly", "fuzz", "run", "--fuzz-dir", "fuzz", target, "--", &limit];
        passed &= shell::succeeds(&mut shell::command(&root.join("proto"), "cargo", &words))?;
    }
    Ok(passed)
}
