//! `cargo xtask bench`: hands over to the load tool, which knows the scenarios.

use std::path::Path;

use crate::{shell, web};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Words for the load tool, for example `--help`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// Builds with optimisation and measures.
///
/// # Errors
/// When it does not build.
pub(crate) fn run(root: &Path, arguments: &Arguments) -> anyhow::Result<bool> {
    web::build(root, false)?;
    let packages = ["--package", "flydex-loadtest", "--package", "flydex-server", "--package", "flydex-connector"];
    let build: Vec<&str> = ["build", "--locked", "--release"].into_iter().chain(packages).collect();
    shell::run(&mut shell::cargo(root, &build))?;
    let tool = shell::target(root).join("release/flydex-loadtest");
    shell::succeeds(&mut shell::command(root, &tool.to_string_lossy(), &arguments.rest))
}
