//! `cargo xtask demo`: everything on this computer, by a person or by a browser without one.

use std::path::Path;

use crate::test::BUILD;
use crate::{need, shell, web};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Do what a person would in a real Chromium, then end with `N passed, N failed`.
    #[arg(long)]
    check: bool,
    /// Use the pinned Codex and the scripted model even where your own codex is signed in.
    #[arg(long)]
    scripted: bool,
    /// Port of the relay; 0 takes a free one.
    #[arg(long, default_value_t = 48200)]
    port: u16,
}

/// Builds everything and hands over to the demo's own program.
///
/// # Errors
/// When something that it needs is missing or does not build.
pub(crate) fn run(root: &Path, arguments: &Arguments) -> anyhow::Result<bool> {
    let own = !arguments.check && !arguments.scripted && is_own_codex_ready(root);
    if !own {
        need::codex(root)?;
    }
    if arguments.check {
        need::chromium(root)?;
        need::browser_driver(root)?;
    }
    web::build(root, false)?;
    shell::run(&mut shell::cargo(root, &BUILD))?;
    let demo = shell::target(root).join("debug/flydex-demo");
    let port = if arguments.check { 0 } else { arguments.port }.to_string();
    let mut words = vec!["--port", &port];
    words.extend(own.then_some("--own-codex"));
    words.extend(arguments.check.then_some("--check"));
    shell::succeeds(&mut shell::command(root, &demo.to_string_lossy(), &words))
}

/// Whether a codex on the PATH is signed in.
fn is_own_codex_ready(root: &Path) -> bool {
    shell::works(&mut shell::command(root, "codex", &["login", "status"]))
}
