//! The relay: `flydex-server all` on a free port with its own data.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use anyhow::Context as _;
use tokio::process::Command;

use crate::canary::{self, WatchedFolder};
use crate::process::{self, Lines, Process};

/// How connectors may link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Carrier {
    /// By QUIC where UDP passes, else by WebSocket: as it is shipped.
    #[default]
    QuicFirst,
    /// By WebSocket alone.
    WebSocketOnly,
}

/// How a relay and the connectors beside it are set up.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Port of the relay; 0 takes a free one.
    pub port: u16,
    /// Whether the relay speaks https, by a certificate that it makes itself.
    pub https: bool,
    /// How connectors may link.
    pub carrier: Carrier,
    /// Where spans go.
    pub otlp_endpoint: Option<String>,
    /// What is logged, where it is not as shipped.
    pub log_filter: Option<String>,
    /// Further variables of its environment, as `FLYDEX__SECTION__KEY` names a key of the configuration.
    pub variables: Vec<(String, String)>,
}

/// A running relay.
pub struct Server {
    // First: its metrics are read while it runs.
    admin: Admin,
    process: Process,
    data: WatchedFolder,
    origin: String,
    owner_link: String,
    settings: Settings,
}

/// A relay that was stopped; its data and port are kept.
pub struct StoppedServer {
    data: WatchedFolder,
    owner_link: String,
    settings: Settings,
    /// What it wrote while it ran.
    pub lines: Lines,
}

impl Server {
    /// Starts with fresh data on a free port, at plain http on localhost.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(Settings::default()).await
    }

    /// Starts with fresh data and these settings.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start_with(mut settings: Settings) -> anyhow::Result<Self> {
        if settings.https && settings.port == 0 {
            // The origin must be known before the relay has a port.
            settings.port = free_port()?;
        }
        let folder = tempfile::Builder::new().prefix("fx-server").tempdir()?;
        let data = WatchedFolder::new("the relay's data", folder, "", &[]);
        let process = spawn(&data, &settings)?;
        let admin = Admin::of(&process).await?;
        let origin = process.says("listening on ").await?;
        let owner_link = process.says("first sign-in at ").await?;
        if let Some((_, token)) = owner_link.split_once('#') {
            canary::plant_token("sign-in token", token);
        }
        let settings = Settings { port: port_of(&origin)?, ..settings };
        Ok(Self { admin, process, data, origin, owner_link, settings })
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

    /// The folder of its database.
    #[must_use]
    pub fn data(&self) -> &Path {
        self.data.path()
    }

    /// The certificate that it made itself, where it speaks https.
    ///
    /// # Errors
    /// When there is none.
    pub fn certificate(&self) -> anyhow::Result<String> {
        let folder = self.data().join("tls");
        let files = std::fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))?;
        let mut paths = files.filter_map(Result::ok).map(|file| file.path());
        let path = paths.find(|path| path.extension().is_some_and(|end| end == "crt")).context("no certificate")?;
        std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    }

    /// The process, for what it wrote.
    #[must_use]
    pub const fn process(&self) -> &Process {
        &self.process
    }

    /// Stops it as a service manager would.
    ///
    /// # Errors
    /// When it does not end in time.
    pub async fn stop(self) -> anyhow::Result<StoppedServer> {
        let Self { admin, process, data, owner_link, settings, .. } = self;
        drop(admin);
        let (_, lines) = process.stop().await?;
        Ok(StoppedServer { data, owner_link, settings, lines })
    }

    /// Kills it as a crash would.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub async fn kill(self) -> anyhow::Result<StoppedServer> {
        let Self { admin, process, data, owner_link, settings, .. } = self;
        drop(admin);
        let lines = process.kill().await?;
        Ok(StoppedServer { data, owner_link, settings, lines })
    }
}

impl StoppedServer {
    /// Starts it again on the same data and port.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start(self) -> anyhow::Result<Server> {
        let Self { data, owner_link, settings, .. } = self;
        let process = spawn(&data, &settings)?;
        let admin = Admin::of(&process).await?;
        let origin = process.says("listening on ").await?;
        Ok(Server { admin, process, data, origin, owner_link, settings })
    }
}

/// The admin port. When it is dropped, nothing that was planted may be in the metrics.
struct Admin(String);

impl Admin {
    async fn of(process: &Process) -> anyhow::Result<Self> {
        Ok(Self(process.says("admin on http://").await?))
    }

    fn metrics(&self) -> anyhow::Result<String> {
        let mut stream = TcpStream::connect(&self.0).context("connect to the admin port")?;
        write!(stream, "GET /metrics HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.0)?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        // A relay that ended by itself has none any more.
        let metrics = self.metrics().unwrap_or_default();
        canary::report("the relay's metrics", &canary::found_in(metrics.as_bytes()));
    }
}

fn spawn(data: &WatchedFolder, settings: &Settings) -> anyhow::Result<Process> {
    let mut command = Command::new(process::binary("flydex-server")?);
    let listen = format!("127.0.0.1:{}", settings.port);
    command.args(["all", "--listen", &listen, "--admin-listen", "127.0.0.1:0", "--data-dir"]);
    command.arg(data.path()).current_dir(data.path());
    if settings.https {
        command.args(["--public-origin", &format!("https://localhost:{}", settings.port)]);
    }
    command.env("FLYDEX__QUIC", (settings.carrier == Carrier::QuicFirst).to_string());
    if let Some(endpoint) = &settings.otlp_endpoint {
        command.env("FLYDEX__TELEMETRY__OTLP_ENDPOINT", endpoint);
    }
    if let Some(filter) = &settings.log_filter {
        command.env("FLYDEX__TELEMETRY__LOG_FILTER", filter);
    }
    command.envs(settings.variables.iter().cloned());
    Process::start("flydex-server", &mut command)
}

/// A port that nobody had a moment ago.
///
/// # Errors
/// When there is none.
pub fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn port_of(origin: &str) -> anyhow::Result<u16> {
    let (_, port) = origin.rsplit_once(':').with_context(|| format!("no port in {origin}"))?;
    Ok(port.parse()?)
}
