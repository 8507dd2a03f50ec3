//! A machine's own key: changed while it runs, copied to another computer, restored from a backup.

use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use flydex_domain::command::{CommandKind, Outcome};
use flydex_domain::error::ErrorCode;
use flydex_domain::key::PublicKey;
use flydex_domain::rotation::{self, KeyRotation};
use flydex_loadtest::account::PairedMachine;
use flydex_tests::wait;
use reqwest::Method;
use serde_json::Value;

use super::super::stand::Stand;

/// The machine as its account lists it.
async fn listed(stand: &Stand) -> anyhow::Result<Value> {
    let (_, list) = stand.relay.account.call(Method::GET, "/api/machines", None).await?;
    let machines = list["machines"].as_array().context("a list")?;
    let id = stand.paired.machine_id.to_string();
    machines.iter().find(|machine| machine["machine_id"] == id.as_str()).cloned().context("the machine is not listed")
}

/// What a device that knows the machine by its first key finds.
async fn followed(stand: &Stand) -> anyhow::Result<PublicKey> {
    let statements: Vec<KeyRotation> = serde_json::from_value(listed(stand).await?["key_rotations"].clone())?;
    let of = (stand.paired.account_id, stand.paired.machine_id);
    Ok(rotation::newest(stand.paired.machine_key, of, &statements)?)
}

/// Copies a folder of state, as a backup or a thief does; sockets and locks are not copied.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// Opens the machine by the key that a device has followed to, and lets it do something there.
async fn acts(stand: &mut Stand, text: &str) -> anyhow::Result<()> {
    let machine_key = followed(stand).await?;
    stand.paired = PairedMachine { machine_key, ..stand.paired.clone() };
    let mut client = stand.client_when_linked(&stand.device).await?;
    let command = client.sign(CommandKind::StartThread, stand.start_thread(text), |_| {});
    ensure!(client.ask(&command).await?.outcome == Outcome::Executed, "{text} was not done");
    Ok(())
}

#[tokio::test]
async fn a_machine_that_changes_its_key_keeps_its_devices_and_only_its_own_word_leads_there() -> anyhow::Result<()> {
    let mut stand = Stand::start().await?;
    acts(&mut stand, "by the first key").await?;
    let first = stand.paired.machine_key;
    for text in ["by the second key", "by the third key"] {
        let (done, lines) = stand.machine.command(&["keys", "rotate"]).await?;
        ensure!(done, "{lines:?}");
        let before = stand.paired.machine_key;
        acts(&mut stand, text).await?;
        ensure!(stand.paired.machine_key != before, "the key is the same");
    }
    // A relay that knows no statement, or makes one up, is believed nothing.
    let statements: Vec<KeyRotation> = serde_json::from_value(listed(&stand).await?["key_rotations"].clone())?;
    let of = (stand.paired.account_id, stand.paired.machine_id);
    let mut swapped = statements.clone();
    swapped[0].new_key = statements[1].new_key;
    ensure!(rotation::newest(first, of, &swapped).is_err(), "a forged statement was followed");
    // The old link goes, the new one is there, after a restart too.
    stand.connector.take().context("a connector")?.stop().await?;
    stand.connector = Some(stand.machine.run()?);
    acts(&mut stand, "after a restart").await
}

#[tokio::test]
async fn a_change_that_was_begun_and_cut_off_is_ended_at_the_next_start() -> anyhow::Result<()> {
    let mut stand = Stand::start().await?;
    acts(&mut stand, "by the first key").await?;
    let first = stand.paired.machine_key;
    let connector = stand.connector.take().context("a connector")?;
    connector.process().may_log("machine credential not renewed", "control is away");
    connector.process().may_log("audit records not uploaded", "control is away");
    stand.relay = stand
        .relay
        .away(async || {
            let (done, lines) = stand.machine.command(&["keys", "rotate"]).await?;
            ensure!(!done, "{lines:?}");
            ensure!(stand.machine.state().join("key-rotation.json").exists(), "the next key was not kept");
            connector.kill().await.map(drop)
        })
        .await?;
    stand.connector = Some(stand.machine.run()?);
    wait::until("the change to be over", async || {
        let over = !stand.machine.state().join("key-rotation.json").exists();
        (over && followed(&stand).await.ok()? != first).then_some(())
    })
    .await?;
    acts(&mut stand, "by the second key").await
}

#[tokio::test]
async fn a_copy_of_a_machines_disk_changes_no_key_and_is_found_out() -> anyhow::Result<()> {
    let mut stand = Stand::start().await?;
    stand.relay.server.process().may_log("machine key used twice", "it is");
    acts(&mut stand, "before the copy").await?;
    let saved = tempfile::tempdir()?;
    copy(&stand.machine.state(), saved.path())?;
    let (done, _) = stand.machine.command(&["keys", "rotate"]).await?;
    ensure!(done, "the key was not changed");
    acts(&mut stand, "the real machine").await?;
    ensure!(listed(&stand).await?["quarantined"] == false, "an honest change quarantines nobody");

    // The copy does what a connector does sooner or later: it asks control for its next credential.
    stand
        .connector
        .as_ref()
        .context("a connector")?
        .process()
        .may_log("machine credential not renewed", "it is locked out");
    let clone = stand.copied(saved.path())?;
    let (done, lines) = clone.command(&["keys", "rotate"]).await?;
    ensure!(!done, "a copied key was changed");
    ensure!(lines.err.iter().any(|line| line.contains("[machine_key_cloned]")), "{lines:?}");
    ensure!(lines.err.iter().any(|line| line.contains("flydex unpair")), "the desk is not told what to do: {lines:?}");
    ensure!(listed(&stand).await?["quarantined"] == true, "the account is not told");
    let (_, audit) = stand.relay.account.call(Method::GET, "/api/audit?limit=1", None).await?;
    ensure!(audit["records"][0]["kind"] == "machine_key_cloned", "{audit}");
    Ok(())
}

#[tokio::test]
async fn a_machine_restored_from_a_backup_is_told_so_at_its_desk() -> anyhow::Result<()> {
    let mut stand = Stand::start().await?;
    stand.relay.server.process().may_log("machine key used twice", "it is");
    let saved = tempfile::tempdir()?;
    copy(&stand.machine.state(), saved.path())?;
    for _ in 0..2 {
        let (done, lines) = stand.machine.command(&["keys", "rotate"]).await?;
        ensure!(done, "{lines:?}");
    }
    stand.connector.take().context("a connector")?.stop().await?;
    copy(saved.path(), &stand.machine.state())?;
    let (done, lines) = stand.machine.command(&["keys", "rotate"]).await?;
    if done {
        bail!("a disk of the past was taken for the machine");
    }
    let code = ErrorCode::MachineKeyCloned.name();
    ensure!(lines.err.iter().any(|line| line.contains(code)), "{lines:?}");
    // Once it is paired anew it is another machine, with a key of its own.
    let (done, _) = stand.machine.command(&["unpair"]).await?;
    ensure!(done, "it cannot be unpaired");
    let device = std::mem::take(&mut stand.device);
    let (connector, paired) = stand.paired_anew(&device).await?;
    ensure!(paired.machine_id != stand.paired.machine_id, "the same machine");
    (stand.connector, stand.paired, stand.device) = (Some(connector), paired, device);
    acts(&mut stand, "after it was paired anew").await
}
