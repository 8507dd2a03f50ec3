//! `cargo xtask cluster`: a whole cluster on this computer, for a person or for the fault suite.

use std::os::unix::process::CommandExt as _;
use std::path::Path;

use anyhow::Context as _;

use crate::test::BUILD;
use crate::{need, shell, web};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// `up` starts it and says where everything is; `check` runs the fault suite. Each has its own `--help`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true, value_name = "up|check")]
    rest: Vec<String>,
}

/// Installs and builds what it needs, and hands over to the cluster's own program. What is measured is built with
/// optimisation.
///
/// # Errors
/// When something that it needs is missing or does not build.
pub(crate) fn run(root: &Path, arguments: &Arguments) -> anyhow::Result<bool> {
    need::redis(root)?;
    need::postgres(root)?;
    web::build(root, false)?;
    let measures = arguments.rest.first().is_some_and(|word| word == "check");
    if measures {
        need::networks(root)?;
        need::codex(root)?;
        need::chromium(root)?;
        need::browser_driver(root)?;
    }
    let profile = if measures { "release" } else { "debug" };
    let names = ["flydex-server", "flydex-connector", "flydex-tests"];
    let packages = names.into_iter().flat_map(|name| ["--package", name]);
    let optimised: Vec<&str> = ["build", "--locked", "--release", "--bins"].into_iter().chain(packages).collect();
    shell::run(&mut shell::cargo(root, if measures { &optimised } else { &BUILD }))?;
    let program = shell::target(root).join(profile).join("flydex-cluster");
    // In place of this process, so that nothing returns to the terminal before the cluster has ended.
    let error = shell::command(root, &program.to_string_lossy(), &arguments.rest).exec();
    Err(error).with_context(|| format!("start {}", program.display()))
}
