//! The connector: `flydex` with its own state, beside the Codex of the test.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::process::{Child, Command};

use crate::canary::{self, Allowed, WatchedFolder};
use crate::codex::CodexHome;
use crate::process::{self, Lines, Process};
use crate::server::Settings;

/// The connector's part of its folder; the rest of it is a home for Codex.
const STATE: &str = "flydex";
/// Files of the state that hold a secret, which no other file may.
const SECRET_FILES: &[Allowed] = &[(MACHINE_KEY_FILE, &["machine key"]), (PAIRED_FILE, &["machine credential"])];
/// Holds the machine key.
const MACHINE_KEY_FILE: &str = "machine-key.pem";
/// Holds whom the machine is paired with, and its credential.
const PAIRED_FILE: &str = "paired.json";

/// Where a connector keeps its state and which Codex it works with.
pub struct Machine {
    state: WatchedFolder,
    origin: String,
    /// The test's Codex; none for the person's own.
    codex: Option<ScriptedCodex>,
    workspace: PathBuf,
    otlp_endpoint: Option<String>,
    log_filter: Option<String>,
}

struct ScriptedCodex {
    home: PathBuf,
    binary: PathBuf,
}

/// A running connector.
pub struct Connector {
    process: Process,
}

impl Machine {
    /// A machine that was never paired.
    ///
    /// # Errors
    /// When its folder cannot be made.
    pub fn new(origin: &str, codex: &CodexHome) -> anyhow::Result<Self> {
        let scripted = ScriptedCodex { home: codex.path(), binary: codex.binary().to_owned() };
        Self::with(origin, Some(scripted), codex.workspace())
    }

    /// A machine that was never paired, with the person's own Codex; threads may be started in the current folder.
    ///
    /// # Errors
    /// When its folder cannot be made.
    pub fn with_own_codex(origin: &str) -> anyhow::Result<Self> {
        Self::with(origin, None, std::env::current_dir()?)
    }

    /// A machine that was never paired, with another program in place of Codex, which needs no home.
    ///
    /// # Errors
    /// When its folder cannot be made.
    pub fn with_stub(origin: &str, binary: PathBuf) -> anyhow::Result<Self> {
        let machine = Self::with(origin, None, PathBuf::new())?;
        let folder = machine.state.path().to_owned();
        Ok(Self { codex: Some(ScriptedCodex { home: folder.join("codex"), binary }), workspace: folder, ..machine })
    }

    fn with(origin: &str, codex: Option<ScriptedCodex>, workspace: PathBuf) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("fx-machine").tempdir().context("make the state folder")?;
        let state = WatchedFolder::new("the machine's state", folder, STATE, SECRET_FILES);
        Ok(Self { state, origin: origin.to_owned(), codex, workspace, otlp_endpoint: None, log_filter: None })
    }

    /// The same machine, with these settings of telemetry.
    #[must_use]
    pub fn telling(self, settings: &Settings) -> Self {
        let Settings { otlp_endpoint, log_filter, .. } = settings.clone();
        Self { otlp_endpoint, log_filter, ..self }
    }

    /// The connector's state folder.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.state.path().join(STATE)
    }

    /// Looks from now on for the machine's own secrets: its key and its credential. Each is in one file, and its owner
    /// alone can read any.
    ///
    /// # Errors
    /// When it was not paired, or a file can be read by others.
    pub fn plant_secrets(&self) -> anyhow::Result<()> {
        for entry in std::fs::read_dir(self.state())? {
            let (path, metadata) = {
                let entry = entry?;
                (entry.path(), entry.metadata()?)
            };
            let mode = metadata.permissions().mode();
            ensure!(!metadata.is_file() || mode & 0o777 == 0o600, "{} has mode {mode:o}", path.display());
        }
        let pem = std::fs::read_to_string(self.state().join(MACHINE_KEY_FILE))?;
        let der: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        let der = STANDARD.decode(der)?;
        // The seed is an octet string of 32 bytes in another.
        let at = der.windows(4).position(|tag| tag == [4, 34, 4, 32]).context("no key in the file")? + 4;
        canary::plant_bytes("machine key", der.get(at..at + 32).context("half a key in the file")?);
        let paired: serde_json::Value = serde_json::from_slice(&std::fs::read(self.state().join(PAIRED_FILE))?)?;
        canary::plant_signed("machine credential", paired["credential"].as_str().context("no credential")?);
        Ok(())
    }

    /// Starts `flydex connect`: pairs, then runs.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn connect(&self) -> anyhow::Result<Connector> {
        self.start(&["connect", "--server", &self.origin, "--port", "0"])
    }

    /// Starts `flydex run`: runs what was paired.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn run(&self) -> anyhow::Result<Connector> {
        self.start(&["run", "--port", "0"])
    }

    /// Runs any other command to its end and returns what it wrote.
    ///
    /// # Errors
    /// When it does not end in time.
    pub async fn command(&self, words: &[&str]) -> anyhow::Result<(bool, Lines)> {
        let mut connector = self.start(words)?;
        let status = connector.process.ended().await?;
        Ok((status.success(), connector.process.lines()))
    }

    /// Starts any other command.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self, words: &[&str]) -> anyhow::Result<Connector> {
        Ok(Connector { process: Process::start("flydex", self.flydex()?.args(words))? })
    }

    /// Starts `flydex connect` with the terminal as its own, for a person to answer.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn connect_at_terminal(&self) -> anyhow::Result<Child> {
        let words = ["connect", "--server", &self.origin, "--port", "0"];
        self.flydex()?.args(words).kill_on_drop(true).spawn().context("start flydex")
    }

    fn flydex(&self) -> anyhow::Result<Command> {
        let mut command = Command::new(process::binary("flydex")?);
        command.env("FLYDEX_HOME", self.state()).current_dir(&self.workspace);
        if let Some(endpoint) = &self.otlp_endpoint {
            command.env("FLYDEX_OTLP_ENDPOINT", endpoint);
        }
        if let Some(filter) = &self.log_filter {
            command.env("FLYDEX_LOG", filter);
        }
        if let Some(codex) = &self.codex {
            command
                .env("FLYDEX_CODEX", &codex.binary)
                .env("CODEX_HOME", &codex.home)
                .env("HOME", self.state.path())
                .env(crate::codex::home::API_KEY_VARIABLE, "scripted");
        }
        Ok(command)
    }

    /// The folder that threads work in.
    #[must_use]
    pub fn workspace(&self) -> &Path {
        &self.workspace
    }
}

impl Connector {
    /// The address that the QR code holds.
    ///
    /// # Errors
    /// When none is drawn in time.
    pub async fn pair_url(&self) -> anyhow::Result<String> {
        let url = self.process.says("pair at ").await?;
        if let Some((_, secret)) = url.rsplit_once('.') {
            canary::plant_token("claim secret", secret);
        }
        Ok(url)
    }

    /// Waits for the desk's question and returns the short code and the question.
    ///
    /// # Errors
    /// When nothing is asked in time.
    pub async fn question(&self) -> anyhow::Result<(String, String)> {
        let code = self.process.says("code ").await?;
        let question = self.process.says("pair with account ").await?;
        Ok((code, question))
    }

    /// Answers the desk's question.
    ///
    /// # Errors
    /// When it no longer reads.
    pub async fn answer(&mut self, yes: bool) -> anyhow::Result<()> {
        self.process.tell(if yes { "y" } else { "n" }).await
    }

    /// The process.
    #[must_use]
    pub const fn process(&self) -> &Process {
        &self.process
    }

    /// The process, to wait for its end.
    #[must_use]
    pub const fn process_mut(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Kills it as a crash would.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub async fn kill(self) -> anyhow::Result<Lines> {
        self.process.kill().await
    }

    /// Stops it as a service manager would.
    ///
    /// # Errors
    /// When it does not end in time.
    pub async fn stop(self) -> anyhow::Result<Lines> {
        Ok(self.process.stop().await?.1)
    }
}
