//! The connector: `flydex` with its own state, beside the Codex of the test.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::codex::CodexHome;
use crate::process::{self, Lines, Process};

/// Where a connector keeps its state and which Codex it works with.
pub struct Machine {
    state: TempDir,
    origin: String,
    /// The test's Codex; none for the person's own.
    codex: Option<ScriptedCodex>,
    workspace: PathBuf,
    otlp_endpoint: Option<String>,
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
        let state = tempfile::Builder::new().prefix("fx-machine").tempdir().context("make the state folder")?;
        let scripted = ScriptedCodex { home: codex.path(), binary: codex.binary().to_owned() };
        let (origin, workspace) = (origin.to_owned(), codex.workspace());
        Ok(Self { state, origin, codex: Some(scripted), workspace, otlp_endpoint: None })
    }

    /// A machine that was never paired, with the person's own Codex; threads may be started in the current folder.
    ///
    /// # Errors
    /// When its folder cannot be made.
    pub fn with_own_codex(origin: &str) -> anyhow::Result<Self> {
        let state = tempfile::Builder::new().prefix("fx-machine").tempdir().context("make the state folder")?;
        let (origin, workspace) = (origin.to_owned(), std::env::current_dir()?);
        Ok(Self { state, origin, codex: None, workspace, otlp_endpoint: None })
    }

    /// A machine that was never paired, with another program in place of Codex: for benches alone.
    ///
    /// # Errors
    /// When its folder cannot be made.
    pub fn with_stub(origin: &str, binary: PathBuf) -> anyhow::Result<Self> {
        let state = tempfile::Builder::new().prefix("fx-machine").tempdir().context("make the state folder")?;
        let scripted = ScriptedCodex { home: state.path().join("codex"), binary };
        let (origin, workspace) = (origin.to_owned(), state.path().to_owned());
        Ok(Self { state, origin, codex: Some(scripted), workspace, otlp_endpoint: None })
    }

    /// The same machine, with its spans exported to an OTLP endpoint.
    #[must_use]
    pub fn traced(self, endpoint: String) -> Self {
        Self { otlp_endpoint: Some(endpoint), ..self }
    }

    /// The connector's state folder.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.state.path().join("flydex")
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
        self.process.says("pair at ").await
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
