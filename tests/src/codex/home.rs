//! A Codex home whose model is the scripted one, and the shared app-server that runs in it.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, bail};
use serde_json::json;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::model::{self, Model};
use crate::wait;

/// Where the socket of the shared app-server lies in a Codex home.
const SOCKET: &str = "app-server-control/app-server-control.sock";
/// Names the Codex binary; without it the one in `tests/codex/node_modules` is used.
const BINARY_VARIABLE: &str = "FLYDEX_CODEX";

/// A fresh Codex home and a folder to work in. Removed when dropped.
pub struct CodexHome {
    root: TempDir,
    binary: PathBuf,
}

impl CodexHome {
    /// Writes a home whose only model is `model`.
    ///
    /// # Errors
    /// When no Codex is installed, or a file cannot be written.
    pub fn create(model: &Model) -> anyhow::Result<Self> {
        Self::create_with(&model.base_url())
    }

    /// Writes a home whose only model answers at `base_url`.
    ///
    /// # Errors
    /// When no Codex is installed, or a file cannot be written.
    pub fn create_with(base_url: &str) -> anyhow::Result<Self> {
        let binary = find_binary()?;
        let root = tempfile::Builder::new().prefix("fx").tempdir().context("make a folder for Codex")?;
        let home = Self { root, binary };
        std::fs::create_dir(home.path())?;
        std::fs::create_dir(home.workspace())?;
        write_configuration(&home.path(), base_url)?;
        Ok(home)
    }

    /// What `CODEX_HOME` must be.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.root.path().join("codex")
    }

    /// A folder that threads may work in.
    #[must_use]
    pub fn workspace(&self) -> PathBuf {
        self.root.path().join("workspace")
    }

    /// A folder outside of every folder that Codex may write to without asking.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn outside() -> anyhow::Result<TempDir> {
        // Codex counts /tmp as writable.
        let base = if Path::new("/var/tmp").is_dir() { PathBuf::from("/var/tmp") } else { std::env::current_dir()? };
        Ok(tempfile::Builder::new().prefix("fx-outside").tempdir_in(base)?)
    }

    /// The Codex binary.
    #[must_use]
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// The socket of the shared app-server.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.path().join(SOCKET)
    }

    /// A command that runs Codex in this home and sees nothing of the user's own.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .env("CODEX_HOME", self.path())
            .env("HOME", self.root.path())
            .env(API_KEY_VARIABLE, "scripted")
            .env_remove("OPENAI_API_KEY")
            .current_dir(self.workspace())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Starts the shared app-server and waits until it answers.
    ///
    /// # Errors
    /// When it ends at once or does not answer in time.
    pub async fn start_daemon(&self) -> anyhow::Result<Daemon> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.root.path().join("daemon.log"))?;
        let socket = self.socket();
        if let Some(folder) = socket.parent() {
            make_private_folder(folder)?;
        }
        let child = self
            .command()
            .args(["app-server", "--listen", &format!("unix://{}", socket.display())])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("start codex app-server")?;
        let mut daemon = Daemon { child, socket };
        daemon.answered().await.with_context(|| format!("its log: {}", self.daemon_log()))?;
        Ok(daemon)
    }

    /// What the shared app-server wrote to its standard error.
    #[must_use]
    pub fn daemon_log(&self) -> String {
        std::fs::read_to_string(self.root.path().join("daemon.log")).unwrap_or_default()
    }
}

/// The variable that Codex reads the model's key from.
pub const API_KEY_VARIABLE: &str = "FLYDEX_SCRIPTED_KEY";

/// The shared app-server. Killed when dropped.
pub struct Daemon {
    child: Child,
    socket: PathBuf,
}

impl Daemon {
    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Its process id, unless it has ended.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Kills it as a crash would, and takes its socket away.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill().await.context("kill the app-server")?;
        std::fs::remove_file(&self.socket).or_else(ignore_missing).context("remove its socket")
    }

    async fn answered(&mut self) -> anyhow::Result<()> {
        let socket = self.socket.clone();
        let connected = wait::until("the app-server's socket", || async {
            tokio::net::UnixStream::connect(&socket).await.ok().map(drop)
        });
        tokio::select! {
            connected = connected => connected,
            ended = self.child.wait() => bail!("codex app-server ended at once: {}", ended?),
        }
    }
}

fn ignore_missing(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

fn make_private_folder(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    Ok(())
}

fn write_configuration(home: &Path, base_url: &str) -> anyhow::Result<()> {
    let catalog = home.join("models.json");
    std::fs::write(&catalog, catalog_json().to_string())?;
    let configuration = format!(
        r#"model = "{name}"
model_provider = "scripted"
model_catalog_json = "{catalog}"
approval_policy = "on-request"
sandbox_mode = "workspace-write"
check_for_update_on_startup = false

[features]
plugins = false
request_permissions_tool = true

[analytics]
enabled = false

[model_providers.scripted]
name = "Scripted"
base_url = "{base_url}"
wire_api = "responses"
env_key = "{API_KEY_VARIABLE}"
request_max_retries = 1
stream_max_retries = 1
"#,
        name = model::NAME,
        catalog = catalog.display(),
    );
    std::fs::write(home.join("config.toml"), configuration)?;
    Ok(())
}

/// The one model, with the tools that the flows need: commands and patches.
fn catalog_json() -> serde_json::Value {
    json!({"models": [{
        "slug": model::NAME,
        "display_name": "FlyDex scripted",
        "description": "Says what the prompt tells it to say.",
        "default_reasoning_level": "medium",
        "supported_reasoning_levels": [{"effort": "medium", "description": "the only one"}],
        "shell_type": "unified_exec",
        "visibility": "list",
        "supported_in_api": true,
        "priority": 1,
        "additional_speed_tiers": [],
        "service_tiers": [],
        "availability_nux": null,
        "upgrade": null,
        "base_instructions": "Do what the user says.",
        "default_reasoning_summary": "none",
        "support_verbosity": false,
        "default_verbosity": null,
        "apply_patch_tool_type": "freeform",
        "web_search_tool_type": "text",
        "truncation_policy": {"mode": "tokens", "limit": 10000},
        "supports_parallel_tool_calls": true,
        "supports_image_detail_original": false,
        "context_window": 272000,
        "max_context_window": 272000,
        "effective_context_window_percent": 95,
        "experimental_supported_tools": [],
        "input_modalities": ["text"],
        "supports_search_tool": false,
    }]})
}

/// Finds the pinned Codex.
///
/// # Errors
/// When there is none; the message says how to get it.
pub fn find_binary() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os(BINARY_VARIABLE) {
        let path = PathBuf::from(path);
        return if path.is_file() { Ok(path) } else { bail!("{BINARY_VARIABLE}: no such file: {}", path.display()) };
    }
    let modules = Path::new(env!("CARGO_MANIFEST_DIR")).join("codex/node_modules/@openai");
    installed(&modules).with_context(|| format!("no Codex in {}: run `npm ci --prefix tests/codex`", modules.display()))
}

/// The native binary lies in a package per platform: `codex-<os>-<cpu>/vendor/<target>/bin/codex`.
fn installed(modules: &Path) -> Option<PathBuf> {
    let packages = std::fs::read_dir(modules).ok()?.flatten();
    packages
        .filter_map(|package| std::fs::read_dir(package.path().join("vendor")).ok())
        .flat_map(std::iter::Iterator::flatten)
        .map(|target| target.path().join("bin/codex"))
        .find(|binary| binary.is_file())
}
