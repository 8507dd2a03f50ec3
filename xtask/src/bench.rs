//! `cargo xtask bench`: hands over to the load tool, which knows the scenarios.

use std::path::Path;

use crate::{need, shell, web};

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
    let names = ["flydex-loadtest", "flydex-server", "flydex-connector", "flydex-tests"];
    let packages = names.into_iter().flat_map(|name| ["--package", name]);
    let build: Vec<&str> = ["build", "--locked", "--release", "--bins"].into_iter().chain(packages).collect();
    shell::run(&mut shell::cargo(root, &build))?;
    let release = shell::target(root).join("release");
    let tool = release.join("flydex-loadtest").to_string_lossy().into_owned();
    if !shell::succeeds(&mut shell::command(root, &tool, &arguments.rest))? || !arguments.rest.is_empty() {
        return Ok(arguments.rest.is_empty());
    }
    need::chromium(root)?;
    need::browser_driver(root)?;
    let views = release.join("flydex-views").to_string_lossy().into_owned();
    shell::succeeds(&mut shell::command::<&str>(root, &views, &[]))
}
