//! The demo as a person has it: up to the pairing, and back to a computer on which nothing of it runs.

use std::path::Path;

use anyhow::{Context as _, ensure};
use flydex_loadtest::account::Account;
use flydex_loadtest::device::Device;
use flydex_tests::codex::CodexHome;
use flydex_tests::model::Model;
use flydex_tests::process::{self, Process};
use flydex_tests::wait;
use rustix::process::{Pid, Signal, kill_process, kill_process_group, test_kill_process_group};
use tokio::process::Command;

#[tokio::test]
async fn the_demo_leads_to_a_pairing_and_ctrl_c_ends_all_of_it() -> anyhow::Result<()> {
    let demo = Demo::start(&[], |_| {})?;
    demo.process.says("Codex is the pinned one; the model is scripted.").await?;
    demo.pairs_and_ends(|group| kill_process_group(group, Signal::INT)).await
}

#[tokio::test]
async fn the_demo_with_ones_own_codex_uses_that_and_ends_when_it_is_told_to() -> anyhow::Result<()> {
    let model = Model::start().await?;
    let home = CodexHome::create(&model)?;
    let own = home.workspace().join("codex");
    std::os::unix::fs::symlink(home.binary(), &own)?;
    let demo = Demo::start(&["--own-codex"], |command| {
        let folder = own.parent().unwrap_or(Path::new("/"));
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", folder.display())).env("CODEX_HOME", home.path());
        command.env_remove("FLYDEX_CODEX");
    })?;
    demo.process.says("Codex is your own, with your own threads and model.").await?;
    demo.pairs_and_ends(|group| kill_process(group, Signal::TERM)).await
}

/// A demo in a process group of its own, as a terminal has it.
struct Demo {
    process: Process,
    group: Pid,
}

impl Drop for Demo {
    fn drop(&mut self) {
        // What a failed test leaves behind.
        let _ = kill_process_group(self.group, Signal::KILL);
    }
}

impl Demo {
    fn start(words: &[&str], change: impl FnOnce(&mut Command)) -> anyhow::Result<Self> {
        let mut command = Command::new(process::binary("flydex-demo")?);
        command.args(words).process_group(0);
        change(&mut command);
        let process = Process::start_foreign("flydex-demo", &mut command)?;
        let group = process.pid().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw).context("no id")?;
        Ok(Self { process, group })
    }

    async fn pairs_and_ends(mut self, end: impl FnOnce(Pid) -> rustix::io::Result<()>) -> anyhow::Result<()> {
        flydex_runtime::tls::install_provider();
        let account = Account::sign_in(&self.process.says("1. Sign in:").await?).await?;
        let url = self.process.says("pair at ").await?;
        let pairing = account.redeem(&url, &Device::new(), "phone").await?;
        self.process.says("pair with account ").await?;
        self.process.tell("y").await?;
        // It comes when Codex answers.
        account.paired(&pairing).await.with_context(|| self.process.story())?;

        end(self.group)?;
        ensure!(self.process.ended().await?.success(), "{}", self.process.story());
        self.process.says("everything has ended").await?;
        let gone = || async { test_kill_process_group(self.group).is_err().then_some(()) };
        wait::until("every process of the demo to be gone", gone).await
    }
}
