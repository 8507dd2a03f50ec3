//! One process of a cluster, which can be killed, frozen, stopped and started again.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;
use toml::Table;

use crate::process::{self, Process};
use crate::{canary, wait};

/// Time that an admin port has to answer a probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// What a process of a cluster does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Terminates sessions and links.
    Gateway,
    /// Holds machines.
    Node,
    /// The API.
    Control,
    /// The web app.
    Web,
}

impl Kind {
    /// The word for it on the command line.
    #[must_use]
    pub const fn role(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Node => "machines",
            Self::Control => "control",
            Self::Web => "web",
        }
    }

    /// What its last line at the start begins with, before its name.
    const fn says(self) -> &'static str {
        match self {
            Self::Gateway => "gateway ",
            Self::Node => "node ",
            Self::Control | Self::Web => "listening on ",
        }
    }
}

/// One process of a cluster with its configuration.
pub struct Part {
    /// Its name, unique in the cluster.
    pub name: String,
    /// What it does.
    pub kind: Kind,
    folder: PathBuf,
    namespace: Option<String>,
    lives: u32,
    expected: Vec<(&'static str, &'static str)>,
    running: Option<Running>,
}

struct Running {
    process: Process,
    admin: SocketAddr,
    address: SocketAddr,
}

impl Part {
    /// Writes its configuration; it is started by [`Part::start`].
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn new(name: &str, kind: Kind, folder: &Path, config: &Table, namespace: Option<&str>) -> anyhow::Result<Self> {
        fs::write(folder.join(format!("{name}.toml")), toml::to_string_pretty(config)?)?;
        let namespace = namespace.map(ToOwned::to_owned);
        let (name, folder) = (name.to_owned(), folder.to_owned());
        Ok(Self { name, kind, folder, namespace, lives: 0, expected: Vec::new(), running: None })
    }

    /// Starts it, and waits until it is ready.
    ///
    /// # Errors
    /// When it does not come up; the error holds what it wrote.
    pub async fn start(&mut self) -> anyhow::Result<()> {
        self.lives += 1;
        let server = process::binary("flydex-server")?;
        let mut command = match &self.namespace {
            None => Command::new(server),
            Some(namespace) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace]).arg(server);
                command
            }
        };
        command.arg(self.kind.role()).arg("--config").arg(self.folder.join(format!("{}.toml", self.name)));
        let process = Process::start_logging(&self.name, &mut command, &self.log())?;
        for (text, why) in &self.expected {
            process.may_log(text, why);
        }
        let admin = process.says("admin on http://").await?.parse().context("read the admin address")?;
        let said = process.says(self.kind.says()).await?;
        let address = address_in(&said).with_context(|| format!("no address in {said:?}"))?;
        self.running = Some(Running { process, admin, address });
        wait::until(&format!("{} to be ready", self.name), async || self.is_ready().await.then_some(()))
            .await
            .with_context(|| self.story())
    }

    /// Its log may hold lines with this text at WARN or above from now on, in this life and in later ones.
    pub fn may_log(&mut self, text: &'static str, why: &'static str) {
        self.expected.push((text, why));
        if let Some(running) = &self.running {
            running.process.may_log(text, why);
        }
    }

    /// The file that its log goes to.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.folder.join(format!("{}.{}.log", self.name, self.lives))
    }

    /// Where it takes what it is there for.
    ///
    /// # Errors
    /// When it does not run.
    pub fn address(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.running()?.address)
    }

    /// Where its admin port is.
    ///
    /// # Errors
    /// When it does not run.
    pub fn admin(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.running()?.admin)
    }

    /// The process, for what it wrote.
    ///
    /// # Errors
    /// When it does not run.
    pub fn process(&self) -> anyhow::Result<&Process> {
        Ok(&self.running()?.process)
    }

    /// Its metrics, as a scrape gets them.
    ///
    /// # Errors
    /// When it does not run, or does not answer.
    pub async fn metrics(&self) -> anyhow::Result<String> {
        let admin = self.admin()?;
        tokio::task::spawn_blocking(move || get(admin, "/metrics")).await?
    }

    /// Whether it runs, frozen or not.
    #[must_use]
    pub const fn runs(&self) -> bool {
        self.running.is_some()
    }

    /// Ends it as a crash would.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        let Running { process, .. } = self.running.take().with_context(|| format!("{} does not run", self.name))?;
        process.kill().await.map(drop)
    }

    /// Stops it as an orchestrator would, and waits until it has drained.
    ///
    /// # Errors
    /// When it does not end in time.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        let running = self.running.take().with_context(|| format!("{} does not run", self.name))?;
        let admin = running.admin;
        let metrics = tokio::task::spawn_blocking(move || get(admin, "/metrics")).await?.unwrap_or_default();
        canary::report(&format!("the metrics of {}", self.name), &canary::found_in(metrics.as_bytes()));
        let (status, lines) = running.process.stop().await?;
        if !status.success() {
            bail!("{} ended with {status}: {:?}", self.name, lines.err.last());
        }
        Ok(())
    }

    /// Tells it to drain, and does not wait.
    ///
    /// # Errors
    /// When it does not run.
    pub fn drain(&self) -> anyhow::Result<()> {
        Ok(kill_process(pid_of(self.running()?.process.pid())?, Signal::TERM)?)
    }

    /// Freezes it, or lets it go on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn freeze(&self, frozen: bool) -> anyhow::Result<()> {
        signal(self.running()?.process.pid(), frozen)
    }

    /// Whether its admin port says that it is ready.
    pub async fn is_ready(&self) -> bool {
        let Some(admin) = self.running.as_ref().map(|running| running.admin) else { return false };
        is_ready(admin).await
    }

    /// The end of what it wrote.
    #[must_use]
    pub fn story(&self) -> String {
        self.running.as_ref().map_or_else(String::new, |running| running.process.story())
    }

    fn running(&self) -> anyhow::Result<&Running> {
        self.running.as_ref().with_context(|| format!("{} does not run", self.name))
    }
}

/// Freezes a process, or lets it go on.
///
/// # Errors
/// When it does not run.
pub fn signal(pid: Option<u32>, frozen: bool) -> anyhow::Result<()> {
    Ok(kill_process(pid_of(pid)?, if frozen { Signal::STOP } else { Signal::CONT })?)
}

fn pid_of(pid: Option<u32>) -> anyhow::Result<Pid> {
    pid.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw).context("it does not run")
}

/// Whether the process with this admin port says that it is ready.
pub async fn is_ready(admin: SocketAddr) -> bool {
    let asked = tokio::task::spawn_blocking(move || get(admin, "/readyz"));
    matches!(asked.await, Ok(Ok(answer)) if answer.starts_with("HTTP/1.1 200"))
}

/// Asks an admin port.
///
/// # Errors
/// When it does not answer.
pub fn get(admin: SocketAddr, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect_timeout(&admin, PROBE_TIMEOUT)?;
    stream.set_read_timeout(Some(PROBE_TIMEOUT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// The word of a line that is an address.
fn address_in(line: &str) -> Option<SocketAddr> {
    line.split_whitespace().find_map(|word| word.parse().ok())
}
