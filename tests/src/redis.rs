//! A real Redis as a process of its own: alone, or a master and a replica under a sentinel. Nothing is left behind.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio_util::task::AbortOnDropHandle;

use crate::process::Process;
use crate::wait;

/// Where Debian puts it; `PATH` is looked through as well.
const SERVER: &str = "redis-server";
/// What the sentinel calls the master.
pub const MASTER_NAME: &str = "flydex";

/// One Redis on loopback, with a folder of its own.
pub struct Redis {
    port: u16,
    folder: tempfile::TempDir,
    arguments: Vec<String>,
    process: Option<Process>,
}

impl Redis {
    /// Starts an empty one that saves nothing by itself.
    ///
    /// # Errors
    /// When it is not installed or does not start.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(&[]).await
    }

    /// The same with further arguments.
    ///
    /// # Errors
    /// As [`Redis::start`].
    pub async fn start_with(arguments: &[&str]) -> anyhow::Result<Self> {
        let mut redis = Self {
            port: free_port().await?,
            folder: tempfile::tempdir()?,
            arguments: arguments.iter().map(ToString::to_string).collect(),
            process: None,
        };
        redis.run().await?;
        Ok(redis)
    }

    /// Starts another with what `saved` has saved.
    ///
    /// # Errors
    /// As [`Redis::start`].
    pub async fn start_from(saved: &Self, arguments: &[&str]) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        std::fs::copy(saved.saved(), folder.path().join("dump.rdb")).context("copy what was saved")?;
        let arguments = arguments.iter().map(ToString::to_string).collect();
        let mut redis = Self { port: free_port().await?, folder, arguments, process: None };
        redis.run().await?;
        Ok(redis)
    }

    /// Waits until this replica has all that the master has.
    ///
    /// # Errors
    /// When it does not come in time.
    pub async fn in_step_with(&self, master: &Self) -> anyhow::Result<()> {
        let offset = async |redis: &Self| {
            let replication = redis.ask(&["INFO", "replication"]).await.ok()?;
            let line = replication.lines().find_map(|line| line.strip_prefix("master_repl_offset:"))?;
            Some(line.trim().to_owned())
        };
        wait::until("the replica to be in step", async || {
            let (mine, theirs) = (offset(self).await?, offset(master).await?);
            (mine == theirs).then_some(())
        })
        .await
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Its port on loopback.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Its process, to be stopped and continued.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().and_then(Process::pid)
    }

    /// Ends it as a crash would; what was not saved is lost.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.process.take().context("the Redis does not run")?.kill().await.map(drop)
    }

    /// Starts it again with what was saved.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn run(&mut self) -> anyhow::Result<()> {
        let mut command = Command::new(SERVER);
        command.args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        command.arg("--dir").arg(self.folder.path()).args(["--enable-debug-command", "yes"]).args(&self.arguments);
        self.process = Some(Process::start("redis", &mut command)?);
        answers(self.port).await
    }

    /// Starts it again with nothing.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn run_empty(&mut self) -> anyhow::Result<()> {
        let saved = self.saved();
        if saved.exists() {
            std::fs::remove_file(saved)?;
        }
        self.run().await
    }

    /// Saves what it holds, so that it goes back to here when it is killed and run again.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn save(&self) -> anyhow::Result<()> {
        self.ask(&["SAVE"]).await.map(drop)
    }

    /// Sends one command and returns the answer as it came.
    ///
    /// # Errors
    /// When it answers with an error or not at all.
    pub async fn ask(&self, words: &[&str]) -> anyhow::Result<String> {
        let answer = ask(self.port, words).await?;
        ensure!(!answer.starts_with('-'), "redis answered {answer:?} to {words:?}");
        Ok(answer)
    }

    /// Everything that it holds, as it would lie on a disk: keys, values, scripts.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn everything(&self) -> anyhow::Result<Vec<u8>> {
        // What is packed cannot be searched.
        self.ask(&["CONFIG", "SET", "rdbcompression", "no"]).await?;
        let before = std::fs::read(self.saved()).ok();
        self.save().await?;
        let everything = std::fs::read(self.saved()).context("read what was saved")?;
        match before {
            Some(before) => std::fs::write(self.saved(), before)?,
            None => std::fs::remove_file(self.saved())?,
        }
        Ok(everything)
    }

    /// Listens to every command from now on.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn monitor(&self) -> anyhow::Result<Monitor> {
        let mut socket = TcpStream::connect(("127.0.0.1", self.port)).await?;
        socket.write_all(b"MONITOR\r\n").await?;
        let heard = Arc::new(Mutex::new(Vec::new()));
        let hears = Arc::clone(&heard);
        let task = tokio::spawn(async move {
            let mut piece = vec![0; 64 * 1024];
            while let Ok(read @ 1..) = socket.read(&mut piece).await {
                hears.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&piece[..read]);
            }
        });
        let monitor = Monitor { heard, _task: AbortOnDropHandle::new(task) };
        wait::until("redis to let us listen", async || monitor.heard().starts_with(b"+OK").then_some(())).await?;
        Ok(monitor)
    }

    fn saved(&self) -> PathBuf {
        self.folder.path().join("dump.rdb")
    }
}

/// Hears every command that a Redis is given.
pub struct Monitor {
    heard: Arc<Mutex<Vec<u8>>>,
    _task: AbortOnDropHandle<()>,
}

impl Monitor {
    /// What it has heard so far.
    #[must_use]
    pub fn heard(&self) -> Vec<u8> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A master and a replica that a sentinel watches.
pub struct Sentinel {
    /// The first master.
    pub master: Redis,
    /// The first replica.
    pub replica: Redis,
    port: u16,
    _folder: tempfile::TempDir,
    _process: Process,
}

impl Sentinel {
    /// Starts all three and waits until the replica is known and in step.
    ///
    /// # Errors
    /// When Redis is not installed or does not start.
    pub async fn start() -> anyhow::Result<Self> {
        let master = Redis::start().await?;
        let replica = Redis::start_with(&["--replicaof", "127.0.0.1", &master.port.to_string()]).await?;
        let (port, folder) = (free_port().await?, tempfile::tempdir()?);
        let settings = folder.path().join("sentinel.conf");
        write_settings(&settings, port, master.port)?;
        let mut command = Command::new(SERVER);
        command.arg(&settings).arg("--sentinel");
        let process = Process::start("sentinel", &mut command)?;
        answers(port).await?;
        wait::until("the sentinel to know the replica", async || {
            let replicas = ask(port, &["SENTINEL", "replicas", MASTER_NAME]).await.ok()?;
            (replicas.contains("master-link-status") && replicas.contains("\r\nok\r\n")).then_some(())
        })
        .await?;
        Ok(Self { master, replica, port, _folder: folder, _process: process })
    }

    /// The sentinel's address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

fn write_settings(path: &Path, port: u16, master_port: u16) -> anyhow::Result<()> {
    let lines = [
        format!("port {port}"),
        "bind 127.0.0.1".to_owned(),
        format!("sentinel monitor {MASTER_NAME} 127.0.0.1 {master_port} 1"),
        format!("sentinel down-after-milliseconds {MASTER_NAME} 500"),
        format!("sentinel failover-timeout {MASTER_NAME} 2000"),
    ];
    std::fs::write(path, lines.join("\n") + "\n").context("write the sentinel's settings")
}

/// Ports that the system gives to nobody by itself, so that none is taken as the near end of some connection meanwhile.
const PORTS: std::ops::Range<u16> = 15_000..32_000;

/// A port that nobody had a moment ago.
pub(crate) async fn free_port() -> anyhow::Result<u16> {
    for _ in PORTS {
        let [a, b, ..] = uuid::Uuid::new_v4().into_bytes();
        let port = PORTS.start + u16::from_be_bytes([a, b]) % (PORTS.end - PORTS.start);
        if TcpListener::bind(("127.0.0.1", port)).await.is_ok() {
            return Ok(port);
        }
    }
    bail!("every port of {PORTS:?} is taken")
}

async fn answers(port: u16) -> anyhow::Result<()> {
    wait::until("redis to answer", async || ask(port, &["PING"]).await.ok()).await.map(drop)
}

async fn ask(port: u16, words: &[&str]) -> anyhow::Result<String> {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).await?;
    let mut request = format!("*{}\r\n", words.len());
    for word in words {
        request += &format!("${}\r\n{word}\r\n", word.len());
    }
    socket.write_all(request.as_bytes()).await?;
    // It answers what it has read, and then closes; a sentinel knows no QUIT.
    socket.shutdown().await?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await?;
    Ok(answer)
}
