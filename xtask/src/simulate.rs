//! `cargo xtask simulate`: the proof of ownership, fence and journal, further than the tests go.

use std::path::Path;

use crate::shell;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// `--seeds N` (default 10,000), `--seed N` to replay one with its trace, or `--model quick|full`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// Builds with optimisation and runs.
///
/// # Errors
/// When it does not build.
pub(crate) fn run(root: &Path, arguments: &Arguments) -> anyhow::Result<bool> {
    let build = ["build", "--locked", "--release", "--package", "flydex-proof", "--bin", "flydex-simulate"];
    shell::run(&mut shell::cargo(root, &build))?;
    let tool = shell::target(root).join("release/flydex-simulate").to_string_lossy().into_owned();
    shell::succeeds(&mut shell::command(root, &tool, &arguments.rest))
}
