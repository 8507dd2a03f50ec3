//! A real PostgreSQL as a process of its own, without a log on disk. Nothing is left behind.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use tokio::process::Command;

use crate::process::Process;
use crate::{canary, redis, wait};

mod way;

pub use self::way::Way;

/// Where Debian puts each version's programs; `PATH` is looked through first.
const DEBIAN: &str = "/usr/lib/postgresql";
/// The user that root runs it as: PostgreSQL refuses to run as root.
const USER: &str = "postgres";
/// The role that owns everything in it.
const ROLE: &str = "flydex";
/// What makes it fast, though not safe from a loss of power, and lets every test have connections of its own.
const SETTINGS: [&str; 5] =
    ["listen_addresses=127.0.0.1", "fsync=off", "full_page_writes=off", "shared_buffers=64MB", "max_connections=400"];

/// One PostgreSQL on loopback, with a folder of its own.
pub struct Postgres {
    port: u16,
    folder: tempfile::TempDir,
    programs: PathBuf,
    /// It takes any; programs are given this one, which they must keep to themselves.
    password: String,
    process: Option<Process>,
}

impl Postgres {
    /// Starts an empty one.
    ///
    /// # Errors
    /// When it is not installed or does not start.
    pub async fn start() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let (port, password) = (redis::free_port().await?, canary::mark("password"));
        let mut postgres = Self { port, folder, programs: programs()?, password, process: None };
        if let Some((user, group)) = other_user()? {
            std::os::unix::fs::chown(postgres.folder.path(), Some(user), Some(group))?;
        }
        std::fs::set_permissions(postgres.folder.path(), Permissions::from_mode(0o700))?;
        postgres.make().await?;
        postgres.run().await?;
        Ok(postgres)
    }

    /// Where it is: its maintenance database, with a role that may do everything.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_at(self.port)
    }

    fn url_at(&self, port: u16) -> String {
        format!("postgres://{ROLE}:{}@127.0.0.1:{port}/postgres", self.password)
    }

    /// Its first process, to be stopped and continued.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().and_then(Process::pid)
    }

    /// A way to it that can fall silent, and the address at the end of that way.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn way(&self) -> anyhow::Result<(Way, String)> {
        let way = Way::to(self.port).await?;
        let url = self.url_at(way.port());
        Ok((way, url))
    }

    /// Stops every process of it where it stands: its connections stay and nothing answers.
    ///
    /// # Errors
    /// When it does not run.
    pub fn freeze(&self) -> anyhow::Result<()> {
        // The first process first, so that it starts no more of them.
        self.signal(Signal::STOP)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn thaw(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let first = self.pid().context("the PostgreSQL does not run")?;
        let first = Pid::from_raw(first.try_into()?).context("a process has a number")?;
        kill_process(first, signal)?;
        for child in children_of(first)? {
            // One that has ended meanwhile does not answer either.
            let _ = kill_process(child, signal);
        }
        Ok(())
    }

    /// Ends it as a crash would, with every connection; what was committed stays.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn crash(&mut self) -> anyhow::Result<()> {
        let mut process = self.process.take().context("the PostgreSQL does not run")?;
        let pid = process.pid().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        // It ends its children at once and without a word, and leaves nothing that keeps it from starting again.
        kill_process(pid.context("the PostgreSQL has ended")?, Signal::QUIT)?;
        process.ended().await.map(drop)
    }

    /// Starts it again with what was committed.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn run(&mut self) -> anyhow::Result<()> {
        let mut command = self.program("postgres")?;
        command.arg("-D").arg(self.data()).arg("-k").arg(self.folder.path()).args(["-p", &self.port.to_string()]);
        for setting in SETTINGS {
            command.args(["-c", setting]);
        }
        self.process = Some(Process::start_foreign("postgres", &mut command)?);
        wait::until("PostgreSQL to answer", async || {
            let mut ready = self.program("pg_isready").ok()?;
            ready.args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()]);
            ready.status().await.ok()?.success().then_some(())
        })
        .await
    }

    /// Everything in it, as text: every table, row and definition, by PostgreSQL's own catalogue.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn everything(&self) -> anyhow::Result<Vec<u8>> {
        let mut command = self.program("pg_dump")?;
        command.args(["--inserts", "-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", ROLE, "postgres"]);
        let output = command.output().await.context("run pg_dump")?;
        ensure!(output.status.success(), "pg_dump: {}", String::from_utf8_lossy(&output.stderr));
        Ok(output.stdout)
    }

    /// Carries statements out and returns what they give, a line for each row.
    ///
    /// # Errors
    /// When one is refused.
    pub async fn execute(&self, statements: &str) -> anyhow::Result<String> {
        let mut command = self.program("psql")?;
        command.args(["-qAt", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", ROLE]);
        let output = command.args(["-c", statements, "postgres"]).output().await.context("run psql")?;
        ensure!(output.status.success(), "psql: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The folder of its files: what it holds, what it held, and its log of changes.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    async fn make(&self) -> anyhow::Result<()> {
        let mut command = self.program("initdb")?;
        command.arg("-D").arg(self.data()).args(["-U", ROLE, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]);
        let output = command.output().await.context("run initdb")?;
        ensure!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// One of its programs, as the user that may run it and in a folder that this user may read.
    fn program(&self, name: &str) -> anyhow::Result<Command> {
        let mut command = Command::new(self.programs.join(name));
        command.current_dir(self.folder.path());
        if let Some((user, group)) = other_user()? {
            command.uid(user).gid(group);
        }
        Ok(command)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Its children see that it is gone and end; the folder goes right after.
        self.process = None;
    }
}

/// The processes that a process has started and that still run.
fn children_of(parent: Pid) -> anyhow::Result<Vec<Pid>> {
    let line = format!("PPid:\t{}", parent.as_raw_nonzero());
    let is_child = |folder: &Path| {
        // One that ends while it is looked at is none.
        std::fs::read_to_string(folder.join("status")).is_ok_and(|status| status.lines().any(|other| other == line))
    };
    let folders = std::fs::read_dir("/proc").context("list the processes")?.flatten().map(|entry| entry.path());
    let children = folders.filter(|folder| is_child(folder));
    Ok(children.filter_map(|folder| Pid::from_raw(folder.file_name()?.to_str()?.parse().ok()?)).collect())
}

/// The folder of its programs: the first in `PATH`, else Debian's newest.
fn programs() -> anyhow::Result<PathBuf> {
    let has_all = |folder: &Path| ["initdb", "postgres", "pg_isready"].iter().all(|name| folder.join(name).is_file());
    let in_path =
        std::env::var_os("PATH").into_iter().flat_map(|path| std::env::split_paths(&path).collect::<Vec<_>>());
    let mut debian: Vec<PathBuf> =
        std::fs::read_dir(DEBIAN).into_iter().flatten().flatten().map(|version| version.path().join("bin")).collect();
    debian.sort();
    in_path
        .chain(debian.into_iter().rev())
        .find(|folder| has_all(folder))
        .context("PostgreSQL is not installed: `apt-get install postgresql`")
}

/// The user and group to run it as where this is root.
fn other_user() -> anyhow::Result<Option<(u32, u32)>> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    let users = std::fs::read_to_string("/etc/passwd").context("read the list of users")?;
    let line = users.lines().find_map(|line| line.strip_prefix(&format!("{USER}:")));
    let mut fields = line.with_context(|| format!("there is no user {USER} to run PostgreSQL as"))?.split(':');
    fields.next();
    let mut number = || fields.next()?.parse::<u32>().ok();
    Ok(Some((number().context("a user's number")?, number().context("a group's number")?)))
}
