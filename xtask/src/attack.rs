//! `cargo xtask attack`: the attack suite against a cluster of real processes on this computer.

use std::os::unix::process::CommandExt as _;
use std::path::Path;

use anyhow::Context as _;

use crate::test::BUILD;
use crate::{need, shell, web};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only the attacks whose name contains this.
    filter: Option<String>,
}

/// Installs and builds what it needs, and hands over to the suite's own program.
///
/// # Errors
/// When something that it needs is missing or does not build.
pub(crate) fn run(root: &Path, arguments: &Arguments) -> anyhow::Result<bool> {
    need::redis(root)?;
    need::postgres(root)?;
    need::codex(root)?;
    web::build(root, false)?;
    shell::run(&mut shell::cargo(root, &BUILD))?;
    let program = shell::target(root).join("debug").join("flydex-attack");
    let words: Vec<&str> = arguments.filter.as_deref().into_iter().collect();
    // In place of this process, so that nothing returns to the terminal before the cluster has ended.
    let error = shell::command(root, &program.to_string_lossy(), &words).exec();
    Err(error).with_context(|| format!("start {}", program.display()))
}
