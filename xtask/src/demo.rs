//! `cargo xtask demo`: everything on this computer, by a person or by a browser without one.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

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
    let own = !alone && !arguments.scripted && is_signed_in(root, "codex");
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
    // In place of this process, so that nothing returns to the terminal before the demo has ended.
    let error = shell::command(root, &demo.to_string_lossy(), &words).exec();
    Err(error).with_context(|| format!("start {}", demo.display()))
}

/// Whether a codex on the PATH, or what stands in its place, is signed in.
fn is_signed_in(root: &Path, codex: &str) -> bool {
    shell::works(&mut shell::command(root, codex, &["login", "status"]))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_own_codex_is_used_when_it_is_there_and_signed_in() {
        let folder = std::env::temp_dir().join(format!("flydex-xtask-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let codex = folder.join("codex").to_string_lossy().into_owned();
        assert!(!is_signed_in(&folder, &codex), "there is none");
        for (status, signed_in) in [(0, true), (1, false)] {
            let script = format!("#!/bin/sh\n[ \"$*\" = \"login status\" ] && exit {status}\nexit 2\n");
            std::fs::write(&codex, script).expect("a program");
            std::fs::set_permissions(&codex, std::fs::Permissions::from_mode(0o755)).expect("it can be run");
            assert_eq!(is_signed_in(&folder, &codex), signed_in, "status {status}");
        }
        std::fs::remove_dir_all(&folder).expect("the folder is ours");
    }
}
