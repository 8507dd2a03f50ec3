//! A machine that leaves its account for another: the old account keeps trying, and gets nothing.

use anyhow::{Context as _, ensure};
use flydex_domain::command::CommandKind;
use flydex_domain::error::ErrorCode;
use flydex_domain::id::MachineId;
use flydex_loadtest::device::Device;
use flydex_loadtest::session::Session;
use flydex_proto::v1::session_down;
use reqwest::Method;

use super::super::Attack;
use super::super::hello::opening;
use super::super::office::Stopwatch;
use super::super::stand::{Client, Ground, Stand, pair};
use super::super::tally::Tally;

/// What is tried.
pub const ATTACKS: &[Attack] = &[Attack {
    name: "machines that moved away",
    tries: "the old account's session, commands, list and copy of the machine's key",
    stopped_by: &["cut within 2 s", "machine_revoked", "machine_offline"],
    run: |ground, tally| Box::pin(moved(ground, tally)),
    regions: 1,
}];

/// Waits until the relay closes the machine in the session, and for what reason.
async fn closed(client: &mut Client) -> anyhow::Result<ErrorCode> {
    loop {
        if let session_down::Kind::MachineClosed(closed) = client.session.next().await? {
            return ErrorCode::from_number(closed.code).context("an unknown code");
        }
    }
}

async fn is_closed(session: &mut Session, ids: [MachineId; 2], tally: &Tally) -> anyhow::Result<()> {
    for machine_id in ids {
        let code = opening(session, machine_id).await?;
        ensure!([ErrorCode::MachineRevoked, ErrorCode::MachineOffline].contains(&code), "{}", code.name());
        tally.stopped(code.name());
    }
    Ok(())
}

async fn moved(ground: Ground, tally: Tally) -> anyhow::Result<()> {
    let mut stand = Stand::on(&ground, &tally).await?;
    let device = std::mem::take(&mut stand.device);
    let mut client = stand.client(&stand.relay.account, device).await?;
    client.attach().await?;
    let late = client.sign(CommandKind::StartThread, stand.start_thread("by the old account"), |_| {});
    let saved = tempfile::tempdir()?;
    for name in ["paired.json", "machine-key.pem"] {
        std::fs::copy(stand.machine.state().join(name), saved.path().join(name))?;
    }

    let (done, lines) = stand.machine.command(&["unpair"]).await?;
    ensure!(done, "{lines:?}");
    let stopwatch = Stopwatch::start();
    let code = closed(&mut client).await?;
    ensure!(code == ErrorCode::MachineRevoked, "the session was told {}", code.name());
    stopwatch.within("a machine that left, for its account", &tally)?;
    stand.connector.take().context("a connector")?.process_mut().ended().await?;
    let (_, list) = stand.relay.account.call(Method::GET, "/api/machines", None).await?;
    ensure!(list["machines"].as_array().is_some_and(Vec::is_empty), "{list}");

    let other = stand.relay.another_account().await?;
    let new_device = Device::new();
    let mut connector = stand.machine.connect()?;
    let moved = pair(&other, &new_device, "their phone", &mut connector).await?;
    ensure!(moved.machine_id != stand.paired.machine_id && moved.machine_key != stand.paired.machine_key, "the same");
    stand.connector = Some(connector);

    // By its own sessions, of before and new: the machine as it was, and as it is now, and a command that was signed
    // before.
    let ids = [stand.paired.machine_id, moved.machine_id];
    is_closed(&mut client.session, ids, &tally).await?;
    client.session = stand.relay.session(&stand.relay.account, &client.device).await?;
    is_closed(&mut client.session, ids, &tally).await?;
    client.is_turned_away(&late, ErrorCode::MachineOffline).await?;
    // By the machine's own old credential and key, as a copy of the disk has them.
    let (done, lines) = stand.copied(saved.path())?.command(&["keys", "rotate"]).await?;
    let code = ErrorCode::MachineRevoked.name();
    ensure!(!done && lines.err.iter().any(|line| line.contains(code)), "{lines:?}");
    tally.stopped(code);
    ensure!(stand.effects("by the old account") == 0, "the machine obeyed its old account");

    // The new account has it all the while.
    let session = stand.relay.session(&other, &new_device).await?;
    let mut theirs = stand.client_of(session, &moved, new_device).await?;
    theirs.attach().await.map(drop)
}
