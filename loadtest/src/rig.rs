//! The relay and a connector as processes from the same build, paired with a device of ours.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::account::{Account, PairedMachine};
use crate::device::Device;

/// Time that a process has to say what is waited for.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// The region of a relay with every role in one process.
const REGION: &str = "local";

/// A relay, a connector with the stub behind it, and a device that is paired. Everything ends when it is dropped.
pub struct Rig {
    /// The signed-in account.
    pub account: Account,
    /// The paired device.
    pub device: Device,
    /// The machine.
    pub machine: PairedMachine,
    /// Address of sessions.
    pub session_url: String,
    /// Name of the region.
    pub region: &'static str,
    _server: Speaker,
    _connector: Speaker,
}

impl Rig {
    /// Starts both processes in `folder` and pairs.
    ///
    /// # Errors
    /// When a binary is missing, does not come up or refuses.
    pub async fn start(folder: &Path) -> anyhow::Result<Self> {
        let mut server = Command::new(sibling("flydex-server")?);
        server.args(["all", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--data-dir"]).arg(folder);
        let mut server = Speaker::start(server)?;
        let origin = server.says("listening on ").await?;
        let link = server.says("first sign-in at ").await?;
        let account = Account::sign_in(&link).await?;
        let device = Device::new();

        let mut connector = Command::new(sibling("flydex")?);
        connector
            .args(["connect", "--port", "0", "--server", &origin])
            .env("FLYDEX_HOME", folder.join("connector"))
            .env("CODEX_HOME", folder.join("codex"))
            .env("FLYDEX_CODEX", std::env::current_exe().context("find this program")?);
        let mut connector = Speaker::start(connector)?;
        let pairing_url = connector.says("pair at ").await?;
        let pairing = account.redeem(&pairing_url, &device, "bench").await?;
        connector.says("code ").await?;
        connector.tell("y").await?;
        let machine = account.paired(&pairing).await?;
        let session_url = format!("{}/v1/session", origin.replacen("http", "ws", 1));
        let (_server, _connector) = (server, connector);
        Ok(Self { account, device, machine, session_url, region: REGION, _server, _connector })
    }
}

fn sibling(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    if !path.exists() {
        bail!("{} is missing: build the workspace in the same profile", path.display());
    }
    Ok(path)
}

struct Speaker {
    _child: Child,
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Speaker {
    fn start(mut command: Command) -> anyhow::Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true);
        let mut child = command.spawn().context("start a process")?;
        let input = child.stdin.take().context("the process has no input")?;
        let lines = BufReader::new(child.stdout.take().context("the process has no output")?).lines();
        Ok(Self { _child: child, input, lines })
    }

    /// The rest of the first line that begins with `prefix`.
    async fn says(&mut self, prefix: &str) -> anyhow::Result<String> {
        let wait = async {
            while let Some(line) = self.lines.next_line().await? {
                if let Some(rest) = line.trim_start().strip_prefix(prefix) {
                    return Ok(rest.trim().to_owned());
                }
            }
            bail!("the process ended before it said {prefix:?}")
        };
        tokio::time::timeout(START_TIMEOUT, wait).await.with_context(|| format!("nothing said {prefix:?}"))?
    }

    async fn tell(&mut self, line: &str) -> anyhow::Result<()> {
        self.input.write_all(format!("{line}\n").as_bytes()).await?;
        Ok(self.input.flush().await?)
    }
}
