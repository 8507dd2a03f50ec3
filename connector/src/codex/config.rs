//! What the desk lets Codex do remotely, and where Codex is found.

use std::ffi::OsString;
use std::path::PathBuf;

/// A folder in which threads may be started remotely.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedDirectory {
    /// Its absolute path, as it is given to Codex.
    pub path: PathBuf,
    /// What people see.
    pub label: String,
}

/// What the desk allows while the connector runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// Folders in which threads may be started remotely.
    pub directories: Vec<AllowedDirectory>,
    /// "Accept for this session" may be answered remotely.
    pub session_acceptance: bool,
    /// Turns may be started in threads that run without approvals and with full access.
    pub allow_unguarded: bool,
}

/// Where Codex is, and what the desk allows at first.
#[derive(Clone, Debug, Default)]
pub struct CodexConfig {
    /// The Codex program (`FLYDEX_CODEX`); absent: `PATH`, then the known places of npm.
    pub program: Option<PathBuf>,
    /// Codex's state folder (`CODEX_HOME`); absent: `~/.codex`.
    pub codex_home: Option<PathBuf>,
    /// The user's home folder (`HOME`).
    pub home: Option<PathBuf>,
    /// Where programs are looked for (`PATH`).
    pub search_path: Option<OsString>,
    /// Folders in which threads may be started remotely. Default: none.
    pub directories: Vec<AllowedDirectory>,
    /// "Accept for this session" may be answered remotely. Default: no.
    pub session_acceptance: bool,
    /// Turns may be started in threads that run without approvals and with full access. Default: no.
    pub allow_unguarded: bool,
    /// This connector's version, as it introduces itself to Codex.
    pub connector_version: String,
}

impl CodexConfig {
    /// What the desk allows at first.
    #[must_use]
    pub fn allowed(&self) -> Allowed {
        Allowed {
            directories: self.directories.clone(),
            session_acceptance: self.session_acceptance,
            allow_unguarded: self.allow_unguarded,
        }
    }

    /// The defaults, with the places taken from the process's environment. To be called once, at start.
    #[must_use]
    pub fn from_environment() -> Self {
        let path = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        Self {
            program: path("FLYDEX_CODEX"),
            codex_home: path("CODEX_HOME"),
            home: path("HOME"),
            search_path: std::env::var_os("PATH"),
            connector_version: env!("CARGO_PKG_VERSION").to_owned(),
            ..Self::default()
        }
    }
}
