//! A look at Codex from outside, for the doctor: is the program there, which version is it, and does the
//! shared daemon listen safely.

use std::path::PathBuf;
use std::process::Stdio;

use flydex_domain::error::ErrorCode;
use flydex_domain::limits::CODEX_REQUEST_TIMEOUT;
use tokio::process::Command;

use super::config::CodexConfig;
use super::{process, socket, version};

/// What a look at Codex found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The program.
    pub program: Option<PathBuf>,
    /// Its version and whether this connector only reads with it, or why it cannot be used.
    pub version: Result<(String, bool), ErrorCode>,
    /// The shared daemon.
    pub daemon: Daemon,
}

/// The shared daemon, as found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Daemon {
    /// Nobody listens: the connector starts an app-server of its own.
    Absent,
    /// It listens, and only this user can reach it.
    Safe,
    /// It is not used, and why.
    Refused(String),
}

/// Looks, without starting anything but `codex --version`.
pub async fn probe(config: &CodexConfig) -> Probe {
    let program = process::find(config);
    let version = match &program {
        Some(program) => version_of(program.clone()).await,
        None => Err(ErrorCode::CodexNotFound),
    };
    let daemon = match process::codex_home(config) {
        Some(home) => daemon_at(&socket::path(&home)).await,
        None => Daemon::Absent,
    };
    Probe { program, version, daemon }
}

async fn daemon_at(path: &std::path::Path) -> Daemon {
    match socket::attach(path).await {
        Ok(_) => Daemon::Safe,
        Err(socket::Error::Absent) => Daemon::Absent,
        Err(error @ (socket::Error::Unsafe(_) | socket::Error::Io(_))) => Daemon::Refused(error.to_string()),
    }
}

async fn version_of(program: PathBuf) -> Result<(String, bool), ErrorCode> {
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(CODEX_REQUEST_TIMEOUT, command.output()).await;
    let output = output.map_err(|_| ErrorCode::CodexUnavailable)?.map_err(|_| ErrorCode::CodexNotFound)?;
    let said = String::from_utf8_lossy(&output.stdout);
    // "codex-cli 0.169.0"; the judge reads "<client>/<version>".
    let number = said.split_ascii_whitespace().last().unwrap_or_default();
    let judged = version::judge(&format!("codex/{number}"))?;
    Ok((judged.text, judged.read_only))
}
