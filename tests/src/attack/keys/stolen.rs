//! A machine's own key: changed while it runs, copied to another computer, restored from a backup.

use std::path::Path;

use crate::wait;
use anyhow::{Context as _, bail, ensure};
use flydex_domain::command::{CommandKind, Outcome};
use flydex_domain::error::ErrorCode;
use flydex_domain::key::PublicKey;
use flydex_domain::rotation::{self, KeyRotation};
use flydex_loadtest::account::PairedMachine;
use flydex_proto::v1::{self, machine_message, session_down};
use reqwest::Method;
use serde_json::Value;

use super::super::Attack;
use super::super::office::Stopwatch;
use super::super::stand::{Ground, Stand};
use super::super::tally::Tally;

/// What is tried.
pub const ATTACKS: &[Attack] = &[
    Attack {
        name: "made-up key changes",
        tries: "a statement of a machine's next key that it did not sign",
        stopped_by: &["not believed"],
        run: |ground, tally| Box::pin(changed(ground, tally)),
        regions: 1,
    },
    Attack {
        name: "copied machines",
        tries: "a copy of a machine's disk that wants the next key",
        stopped_by: &["machine_key_cloned", "cut within 2 s"],
        run: |ground, tally| Box::pin(copied(ground, tally)),
        regions: 1,
    },
    Attack {
        name: "restored machines",
        tries: "a machine with a disk of the past",
        stopped_by: &["machine_key_cloned"],
        run: |ground, tally| Box::pin(restored(ground, tally)),
        regions: 1,
    },
];

/// The machine as its account lists it.
async fn listed(stand: &Stand) -> anyhow::Result<Value> {
    let (_, list) = stand.relay.account.call(Method::GET, "/api/machines", None).await?;
    let machines = list["machines"].as_array().context("a list")?;
    let id = stand.paired.machine_id.to_string();
    machines.iter().find(|machine| machine["machine_id"] == id.as_str()).cloned().context("the machine is not listed")
}

/// What a device that knows the machine by its first key finds.
pub(super) async fn followed(stand: &Stand) -> anyhow::Result<PublicKey> {
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
    // A link by an older key ends once a newer one was used; what was on its way then is said again.
    let stand: &Stand = stand;
    wait::until(text, async || {
        let mut client = stand.client_when_linked(&stand.device).await.ok()?;
        let command = client.sign(CommandKind::StartThread, stand.start_thread(text), |_| {});
        (client.ask(&command).await.ok()?.outcome == Outcome::Executed).then_some(())
    })
    .await
}

async fn changed(ground: Ground, tally: Tally) -> anyhow::Result<()> {
    let mut stand = Stand::on(&ground, &tally).await?;
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
    tally.stopped("not believed");
    // The old link goes, the new one is there, after a restart too.
    stand.connector.take().context("a connector")?.stop().await?;
    stand.connector = Some(stand.machine.run()?);
    acts(&mut stand, "after a restart").await
}

/// A change of key that was begun and cut off is ended at the next start. It is no attack, and needs a relay of its own.
///
/// # Errors
/// When it is not.
pub async fn cut_off() -> anyhow::Result<()> {
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

async fn copied(ground: Ground, tally: Tally) -> anyhow::Result<()> {
    let mut stand = Stand::on(&ground, &tally).await?;
    stand.relay.may_log("machine key used twice", "it is");
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
    let mut watcher = stand.client_when_linked(&stand.device).await?;
    let clone = stand.copied(saved.path())?;
    let (done, lines) = clone.command(&["keys", "rotate"]).await?;
    let stopwatch = Stopwatch::start();
    ensure!(!done, "a copied key was changed");
    ensure!(lines.err.iter().any(|line| line.contains("[machine_key_cloned]")), "{lines:?}");
    tally.stopped("machine_key_cloned");
    ensure!(lines.err.iter().any(|line| line.contains("flydex unpair")), "the desk is not told what to do: {lines:?}");
    ensure!(listed(&stand).await?["quarantined"] == true, "the account is not told");
    let (_, audit) = stand.relay.account.call(Method::GET, "/api/audit?limit=1", None).await?;
    ensure!(audit["records"][0]["kind"] == "machine_key_cloned", "{audit}");
    // Nobody can tell the two apart, so the link of the real one ends, too.
    while !is_offline(&watcher.session.next().await?) {}
    stopwatch.within("the link of a machine that was copied", &tally)?;
    Ok(())
}

fn is_offline(kind: &session_down::Kind) -> bool {
    let session_down::Kind::FromMachine(from) = kind else { return false };
    let Some(machine_message::Kind::Status(status)) = from.message.as_ref().and_then(|message| message.kind.as_ref())
    else {
        return false;
    };
    status.state == i32::from(v1::MachineState::Offline)
}

async fn restored(ground: Ground, tally: Tally) -> anyhow::Result<()> {
    let mut stand = Stand::on(&ground, &tally).await?;
    stand.relay.may_log("machine key used twice", "it is");
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
    tally.stopped(code);
    // Once it is paired anew it is another machine, with a key of its own.
    let (done, _) = stand.machine.command(&["unpair"]).await?;
    ensure!(done, "it cannot be unpaired");
    let device = std::mem::take(&mut stand.device);
    let (connector, paired) = stand.paired_anew(&device).await?;
    ensure!(paired.machine_id != stand.paired.machine_id, "the same machine");
    (stand.connector, stand.paired, stand.device) = (Some(connector), paired, device);
    acts(&mut stand, "after it was paired anew").await
}
