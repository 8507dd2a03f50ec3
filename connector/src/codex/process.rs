//! Finding the Codex program and starting an app-server of our own.

use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::config::CodexConfig;

/// Places of npm and of Codex's own installer below the home folder.
const HOME_PLACES: &[&str] = &[
    ".local/bin/codex",
    ".npm-global/bin/codex",
    ".codex/bin/codex",
    "node_modules/.bin/codex",
    ".volta/bin/codex",
    ".bun/bin/codex",
];
/// Places of a system-wide installation.
const SYSTEM_PLACES: &[&str] = &["/usr/local/bin/codex", "/usr/bin/codex", "/opt/homebrew/bin/codex"];

/// The Codex program: the configured one, else the first of `PATH`, else the known places of npm.
///
/// A configured program that is not there is an error of the configuration: no other is taken instead.
pub(super) fn find(config: &CodexConfig) -> Option<PathBuf> {
    if let Some(program) = &config.program {
        return is_program(program).then(|| program.clone());
    }
    let on_path = config.search_path.iter().flat_map(std::env::split_paths).map(|folder| folder.join("codex"));
    let in_home = config.home.iter().flat_map(|home| HOME_PLACES.iter().map(|place| home.join(place)));
    let in_system = SYSTEM_PLACES.iter().map(PathBuf::from);
    on_path.chain(in_home).chain(in_system).find(|candidate| candidate.is_absolute() && is_program(candidate))
}

/// Codex's state folder.
pub(super) fn codex_home(config: &CodexConfig) -> Option<PathBuf> {
    config.codex_home.clone().or_else(|| config.home.as_ref().map(|home| home.join(".codex")))
}

/// The command that serves one client over its standard input and output.
pub(super) fn app_server(program: &Path, config: &CodexConfig) -> Command {
    let mut command = Command::new(program);
    command.arg("app-server");
    if let Some(codex_home) = &config.codex_home {
        command.env("CODEX_HOME", codex_home);
    }
    if let Some(home) = &config.home {
        command.current_dir(home);
    }
    command
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn program(folder: &Path, mode: u32) -> PathBuf {
        let path = folder.join("codex");
        std::fs::write(&path, "#!/bin/sh\n").expect("a file");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("a mode");
        path
    }

    #[test]
    fn the_configured_program_goes_before_the_path_and_is_never_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let found = program(folder.path(), 0o755);
        let search_path = Some(folder.path().as_os_str().to_owned());
        let config = CodexConfig { search_path, ..CodexConfig::default() };
        assert_eq!(find(&config), Some(found));
        let config = CodexConfig { program: Some(folder.path().join("missing")), ..config };
        assert_eq!(find(&config), None);
    }

    #[test]
    fn a_file_that_cannot_be_run_is_not_a_program() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = program(folder.path(), 0o644);
        assert_eq!(find(&CodexConfig { program: Some(path), ..CodexConfig::default() }), None);
    }
}
