//! A process of ours, watched line by line.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, bail};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::watch;

use crate::log::{self, Expected};
use crate::{canary, wait};

/// Names the folder of the binaries; without it the one that the tests were built into.
const BINARIES_VARIABLE: &str = "FLYDEX_BINARIES";

/// A running process and everything that it has written. Killed when dropped.
pub struct Process {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    out: watch::Receiver<Out>,
    /// Its standard error: a file, so that the last words of a process that is dropped are not lost in a pipe.
    err: File,
    /// What its log may hold; `None` for a program that is not ours.
    expected: Option<Mutex<Vec<Expected>>>,
}

/// What a process has written.
#[derive(Clone, Debug, Default)]
pub struct Lines {
    /// Its standard output, line by line.
    pub out: Vec<String>,
    /// Its standard error, line by line.
    pub err: Vec<String>,
}

#[derive(Default)]
struct Out {
    lines: Vec<String>,
    has_ended: bool,
}

impl Process {
    /// Starts one of FlyDex's own programs, whose log is judged when it is dropped.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(name: &str, command: &mut Command) -> anyhow::Result<Self> {
        let mut process = Self::start_foreign(name, command)?;
        process.expected = Some(Mutex::default());
        Ok(process)
    }

    /// Starts another program with all three streams under our hands.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_foreign(name: &str, command: &mut Command) -> anyhow::Result<Self> {
        Self::start_writing(name, command, tempfile::tempfile().context("make a file for standard error")?)
    }

    /// Starts one of FlyDex's own programs, as [`Process::start`] does, with its log in a file that people can read.
    ///
    /// # Errors
    /// When the file cannot be written, or the program not be started.
    pub fn start_logging(name: &str, command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let err = File::options().read(true).write(true).create(true).truncate(true).open(log);
        let err = err.with_context(|| format!("write to {}", log.display()))?;
        let mut process = Self::start_writing(name, command, err)?;
        process.expected = Some(Mutex::default());
        Ok(process)
    }

    fn start_writing(name: &str, command: &mut Command, err: File) -> anyhow::Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(err.try_clone()?).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("start {name}"))?;
        let stdin = child.stdin.take();
        let lines = watch::Sender::new(Out::default());
        let out = lines.subscribe();
        if let Some(pipe) = child.stdout.take() {
            tokio::spawn(collect(pipe, lines));
        }
        Ok(Self { name: name.to_owned(), child, stdin, out, err, expected: None })
    }

    /// Its log must hold a line with this text at WARN or above, for that reason.
    pub fn must_log(&self, text: &'static str, why: &'static str) {
        self.expect(Expected { text, why, must_come: true });
    }

    /// Its log may hold lines with this text at WARN or above, for that reason.
    pub fn may_log(&self, text: &'static str, why: &'static str) {
        self.expect(Expected { text, why, must_come: false });
    }

    fn expect(&self, line: Expected) {
        if let Some(expected) = &self.expected {
            expected.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
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
        let find = |out: &Out| {
            let rest = out.lines.iter().skip(skipped).find_map(|line| line.trim().strip_prefix(start));
            rest.map(|rest| rest.trim().to_owned())
        };
        let mut out = self.out.clone();
        let waited = out.wait_for(|out| find(out).is_some() || out.has_ended);
        let found = wait::within(&format!("{} to say {start:?}", self.name), waited)
            .await
            .map(|out| find(&*out?).context("it ended"));
        found.and_then(|found| found).with_context(|| self.story())
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
        Lines { out: self.out.borrow().lines.clone(), err: self.log() }
    }

    fn log(&self) -> Vec<String> {
        let mut bytes = vec![0; self.err.metadata().map_or(0, |file| file.len()) as usize];
        let read = self.err.read_at(&mut bytes, 0).unwrap_or(0);
        String::from_utf8_lossy(&bytes[..read]).lines().map(ToOwned::to_owned).collect()
    }

    /// The end of what it has written, for the message of a failure.
    #[must_use]
    pub fn story(&self) -> String {
        let lines = self.lines();
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
        self.all_is_read().await;
        Ok((status, self.lines()))
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn ended(&mut self) -> anyhow::Result<ExitStatus> {
        let status = wait::within(&format!("{} to end", self.name), self.child.wait()).await??;
        self.all_is_read().await;
        Ok(status)
    }

    async fn all_is_read(&self) {
        let mut out = self.out.clone();
        // The pipe closes with the process, unless a child of it still holds it: then what is there must do.
        let _ = wait::within("the rest of its output", out.wait_for(|out| out.has_ended)).await;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let Some(expected) = &self.expected else { return };
        // First, or it might speak of what the test takes away after it. One that has ended is not there to kill.
        let _ = self.child.start_kill();
        let expected = expected.lock().unwrap_or_else(PoisonError::into_inner);
        canary::report(&format!("the log of {}", self.name), &log::problems(&self.log(), &expected));
    }
}

async fn collect(pipe: ChildStdout, out: watch::Sender<Out>) {
    let mut reader = BufReader::new(pipe).lines();
    while let Ok(Some(line)) = reader.next_line().await {
        out.send_modify(|out| out.lines.push(line));
    }
    out.send_modify(|out| out.has_ended = true);
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
