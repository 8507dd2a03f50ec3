//! A process of ours, watched line by line.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use anyhow::{Context as _, bail};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::watch;

use crate::wait;

/// Names the folder of the binaries; without it the one that the tests were built into.
const BINARIES_VARIABLE: &str = "FLYDEX_BINARIES";

/// A running process and everything that it has written. Killed when dropped.
pub struct Process {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: watch::Receiver<Lines>,
}

/// What a process has written.
#[derive(Clone, Debug, Default)]
pub struct Lines {
    /// Its standard output, line by line.
    pub out: Vec<String>,
    /// Its standard error, line by line.
    pub err: Vec<String>,
    ended: u8,
}

impl Process {
    /// Starts it with all three streams under our hands.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(name: &str, command: &mut Command) -> anyhow::Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("start {name}"))?;
        let stdin = child.stdin.take();
        let lines = watch::Sender::new(Lines::default());
        let receiver = lines.subscribe();
        if let Some(pipe) = child.stdout.take() {
            tokio::spawn(collect(pipe, lines.clone(), |lines| &mut lines.out));
        }
        if let Some(pipe) = child.stderr.take() {
            tokio::spawn(collect(pipe, lines, |lines| &mut lines.err));
        }
        Ok(Self { name: name.to_owned(), child, stdin, lines: receiver })
    }

    /// Waits for a line of its standard output that starts so, and returns the rest of that line.
    ///
    /// # Errors
    /// When it ends or time is over first; the error holds what it wrote instead.
    pub async fn says(&self, start: &str) -> anyhow::Result<String> {
        self.says_from(0, start).await
    }

    /// The same among the lines after the first `skipped`.
    ///
    /// # Errors
    /// As [`Process::says`].
    pub async fn says_from(&self, skipped: usize, start: &str) -> anyhow::Result<String> {
        let find = |lines: &Lines| {
            let rest = lines.out.iter().skip(skipped).find_map(|line| line.trim().strip_prefix(start));
            rest.map(|rest| rest.trim().to_owned())
        };
        let mut lines = self.lines.clone();
        let waited = lines.wait_for(|lines| find(lines).is_some() || lines.ended == 2);
        let found = wait::within(&format!("{} to say {start:?}", self.name), waited)
            .await
            .map(|lines| find(&lines?.clone()).context("it ended"));
        found.and_then(|found| found).with_context(|| self.story())
    }

    /// How many lines of standard output there are.
    #[must_use]
    pub fn said(&self) -> usize {
        self.lines.borrow().out.len()
    }

    /// Writes a line to its standard input.
    ///
    /// # Errors
    /// When it no longer reads.
    pub async fn tell(&mut self, line: &str) -> anyhow::Result<()> {
        let stdin = self.stdin.as_mut().context("standard input is closed")?;
        stdin.write_all(format!("{line}\n").as_bytes()).await?;
        stdin.flush().await.with_context(|| format!("write to {}", self.name))
    }

    /// Everything that it has written.
    #[must_use]
    pub fn lines(&self) -> Lines {
        self.lines.borrow().clone()
    }

    /// The end of what it has written, for the message of a failure.
    #[must_use]
    pub fn story(&self) -> String {
        let lines = self.lines.borrow();
        let tail = |lines: &[String]| lines[lines.len().saturating_sub(40)..].join("\n  ");
        format!("{} wrote:\n  {}\nand on standard error:\n  {}", self.name, tail(&lines.out), tail(&lines.err))
    }

    /// Its process id, unless it has ended.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Ends it as a crash would.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub async fn kill(mut self) -> anyhow::Result<Lines> {
        self.child.kill().await.with_context(|| format!("kill {}", self.name))?;
        Ok(self.lines())
    }

    /// Asks it to end (SIGTERM) and waits for that.
    ///
    /// # Errors
    /// When it does not end in time.
    pub async fn stop(mut self) -> anyhow::Result<(ExitStatus, Lines)> {
        if let Some(pid) =
            self.child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw)
        {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        }
        self.stdin = None;
        let status = wait::within(&format!("{} to end", self.name), self.child.wait()).await??;
        let mut lines = self.lines.clone();
        // Both pipes close with the process, unless a child of it still holds them: then what is there must do.
        let _ = wait::within("the rest of its output", lines.wait_for(|lines| lines.ended == 2)).await;
        Ok((status, self.lines()))
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn ended(&mut self) -> anyhow::Result<ExitStatus> {
        Ok(wait::within(&format!("{} to end", self.name), self.child.wait()).await??)
    }
}

async fn collect(
    pipe: impl AsyncRead + Unpin,
    lines: watch::Sender<Lines>,
    select: fn(&mut Lines) -> &mut Vec<String>,
) {
    let mut reader = BufReader::new(pipe).lines();
    while let Ok(Some(line)) = reader.next_line().await {
        lines.send_modify(|lines| select(lines).push(line));
    }
    lines.send_modify(|lines| lines.ended += 1);
}

/// The path of one of our binaries, as built beside the tests.
///
/// # Errors
/// When it was not built.
pub fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let path = binaries()?.join(name);
    if !path.is_file() {
        bail!("{} is not built: run `cargo xtask test`", path.display());
    }
    Ok(path)
}

fn binaries() -> anyhow::Result<PathBuf> {
    if let Some(folder) = std::env::var_os(BINARIES_VARIABLE) {
        return Ok(PathBuf::from(folder));
    }
    let me = std::env::current_exe()?;
    let folder = me.parent().context("the test binary lies in no folder")?;
    // Test binaries lie in target/<profile>/deps, the others beside that folder.
    let folder = if folder.file_name() == Some(OsStr::new("deps")) { folder.parent() } else { Some(folder) };
    Ok(folder.unwrap_or(Path::new(".")).to_owned())
}
