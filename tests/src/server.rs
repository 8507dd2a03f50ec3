//! The relay: `flydex-server all` on a free port with its own data.

use std::path::Path;

use anyhow::Context as _;
use tempfile::TempDir;
use tokio::process::Command;

use crate::process::{self, Lines, Process};

/// How connectors may link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// By QUIC where UDP passes, else by WebSocket: as it is shipped.
    QuicFirst,
    /// By WebSocket alone.
    WebSocketOnly,
}

/// A running relay.
pub struct Server {
    process: Process,
    data: TempDir,
    origin: String,
    owner_link: String,
    port: u16,
    carrier: Carrier,
}

/// A relay that was stopped; its data and port are kept.
pub struct StoppedServer {
    data: TempDir,
    owner_link: String,
    port: u16,
    carrier: Carrier,
    /// What it wrote while it ran.
    pub lines: Lines,
}

impl Server {
    /// Starts with fresh data on a free port, at plain http on localhost.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_over(Carrier::QuicFirst).await
    }

    /// Starts as [`Server::start`], with links by that carrier.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start_over(carrier: Carrier) -> anyhow::Result<Self> {
        Self::start_with(0, carrier).await
    }

    /// Starts with fresh data on that port.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start_at(port: u16) -> anyhow::Result<Self> {
        Self::start_with(port, Carrier::QuicFirst).await
    }

    /// Starts as [`Server::start`], with its spans exported to an OTLP endpoint.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start_traced(endpoint: &str) -> anyhow::Result<Self> {
        Self::start_in(0, Carrier::QuicFirst, Some(endpoint)).await
    }

    async fn start_with(port: u16, carrier: Carrier) -> anyhow::Result<Self> {
        Self::start_in(port, carrier, None).await
    }

    async fn start_in(port: u16, carrier: Carrier, otlp_endpoint: Option<&str>) -> anyhow::Result<Self> {
        let data = tempfile::Builder::new().prefix("fx-server").tempdir()?;
        let process = spawn(data.path(), port, carrier, otlp_endpoint)?;
        let origin = process.says("listening on ").await?;
        let owner_link = process.says("first sign-in at ").await?;
        let port = port_of(&origin)?;
        Ok(Self { process, data, origin, owner_link, port, carrier })
    }

    /// The origin that browsers and connectors use.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The one-time link of the first sign-in.
    #[must_use]
    pub fn owner_link(&self) -> &str {
        &self.owner_link
    }

    /// The process, for what it wrote.
    #[must_use]
    pub const fn process(&self) -> &Process {
        &self.process
    }

    /// The folder of its database.
    #[must_use]
    pub fn data(&self) -> &Path {
        self.data.path()
    }

    /// Stops it as a service manager would.
    ///
    /// # Errors
    /// When it does not end in time.
    pub async fn stop(self) -> anyhow::Result<StoppedServer> {
        let (_, lines) = self.process.stop().await?;
        Ok(StoppedServer {
            data: self.data,
            owner_link: self.owner_link,
            port: self.port,
            carrier: self.carrier,
            lines,
        })
    }

    /// Kills it as a crash would.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub async fn kill(self) -> anyhow::Result<StoppedServer> {
        let lines = self.process.kill().await?;
        Ok(StoppedServer {
            data: self.data,
            owner_link: self.owner_link,
            port: self.port,
            carrier: self.carrier,
            lines,
        })
    }
}

impl StoppedServer {
    /// Starts it again on the same data and port.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start(self) -> anyhow::Result<Server> {
        let process = spawn(self.data.path(), self.port, self.carrier, None)?;
        let origin = process.says("listening on ").await?;
        Ok(Server {
            process,
            data: self.data,
            origin,
            owner_link: self.owner_link,
            port: self.port,
            carrier: self.carrier,
        })
    }
}

fn spawn(data: &Path, port: u16, carrier: Carrier, otlp_endpoint: Option<&str>) -> anyhow::Result<Process> {
    let mut command = Command::new(process::binary("flydex-server")?);
    command.args(["all", "--listen", &format!("127.0.0.1:{port}"), "--admin-listen", "127.0.0.1:0", "--data-dir"]);
    command.arg(data).current_dir(data).env("FLYDEX__QUIC", (carrier == Carrier::QuicFirst).to_string());
    if let Some(endpoint) = otlp_endpoint {
        command.env("FLYDEX__TELEMETRY__OTLP_ENDPOINT", endpoint);
    }
    Process::start("flydex-server", &mut command)
}

fn port_of(origin: &str) -> anyhow::Result<u16> {
    let (_, port) = origin.rsplit_once(':').with_context(|| format!("no port in {origin}"))?;
    Ok(port.parse()?)
}
