//! `cargo xtask demo`: everything on this computer, by a person or by a browser without one.

use std::path::{Path, PathBuf};

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
    /// Take the pictures of the phone's views into this folder, then end.
    #[arg(long, value_name = "FOLDER")]
    pictures: Option<PathBuf>,
    /// Port of the relay; 0 takes a free one.
    #[arg(long, default_value_t = 48200)]
    port: u16,
}

/// Builds everything and hands over to the demo's own program.
///
/// # Errors
/// When something that it needs is missing or does not build.
pub(crate) fn run(root: &Path, arguments: &Arguments) -> anyhow::Result<bool> {
    let alone = arguments.check || arguments.pictures.is_some();
    let own = !alone && !arguments.scripted && is_own_codex_ready(root);
    if !own {
        need::codex(root)?;
    }
    if alone {
        need::chromium(root)?;
        need::browser_driver(root)?;
    }
    web::build(root, false)?;
    shell::run(&mut shell::cargo(root, &BUILD))?;
    let demo = shell::target(root).join("debug/flydex-demo");
    let port = if alone { 0 } else { arguments.port }.to_string();
    let mut words = vec!["--port", &port];
    words.extend(own.then_some("--own-codex"));
    words.extend(arguments.check.then_some("--check"));
    let pictures = arguments.pictures.as_ref().map(|folder| folder.to_string_lossy().into_owned());
    words.extend(pictures.iter().flat_map(|folder| ["--pictures", folder.as_str()]));
    shell::succeeds(&mut shell::command(root, &demo.to_string_lossy(), &words))
}

/// Whether a codex on the PATH is signed in.
fn is_own_codex_ready(root: &Path) -> bool {
    shell::works(&mut shell::command(root, "codex", &["login", "status"]))
}
