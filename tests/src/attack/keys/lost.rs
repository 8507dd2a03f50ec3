//! A device whose key is gone: a new one takes its place, and whoever finds the old one can do nothing with it.

use crate::wait;
use anyhow::{Context as _, ensure};
use flydex_domain::command::{CommandKind, Outcome};
use flydex_domain::error::ErrorCode;
use flydex_domain::id::DeviceId;
use reqwest::Method;

use super::super::Attack;
use super::super::stand::{Ground, Stand};
use super::super::tally::Tally;
use super::stolen::followed;

/// What is tried.
pub const ATTACKS: &[Attack] = &[
    Attack {
        name: "devices lost meanwhile",
        tries: "a device that was removed while its machine was away, after the machine got a newer credential",
        stopped_by: &["removed at the machine", "device_not_enrolled"],
        run: |ground, tally| Box::pin(lost_meanwhile(ground, tally)),
        regions: 1,
    },
    Attack {
        name: "lost devices",
        tries: "a device's session, key and enrolment after another took its place",
        stopped_by: &["device_revoked"],
        run: |ground, tally| Box::pin(lost(ground, tally)),
        regions: 1,
    },
];

/// Waits until the machine's list says so.
async fn is_forgotten(stand: &Stand, device_id: DeviceId) -> anyhow::Result<()> {
    wait::until("the machine to forget a device", async || {
        let (_, lines) = stand.machine.command(&["devices", "list"]).await.ok()?;
        let tombstone = format!("{device_id}\tremoved");
        lines.out.iter().any(|line| line.starts_with(&tombstone)).then_some(())
    })
    .await
}

async fn lost(ground: Ground, tally: Tally) -> anyhow::Result<()> {
    let mut stand = Stand::on(&ground, &tally).await?;
    let lost = std::mem::take(&mut stand.device);
    let lost_id = lost.device_id();
    let mut finder = stand.client(&stand.relay.account, lost).await?;
    finder.attach().await?;
    // Its storage was cleared: the same person enrols a new key, and takes the old one off.
    let (account, replacement) = stand.second_device("the new phone").await?;
    let (status, answer) = account.call(Method::DELETE, &format!("/api/devices/{lost_id}"), None).await?;
    ensure!(status.is_success(), "{answer}");

    let ended = loop {
        match finder.session.next().await {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    tally.is_about(&ended, ErrorCode::DeviceRevoked)?;
    is_forgotten(&stand, lost_id).await?;
    let refused =
        stand.relay.account.ticket(&finder.device, &stand.relay.regions()[0]).await.err().context("it got a ticket")?;
    ensure!(format!("{refused:#}").contains(ErrorCode::DeviceRevoked.name()), "{refused:#}");
    tally.stopped(ErrorCode::DeviceRevoked.name());
    // Nor does it come back by a fresh code, not even with the desk's help.
    let adding = stand.machine.start(&["devices", "add"])?;
    let redeemed = stand.relay.account.redeem(&adding.pair_url().await?, &finder.device, "the old phone").await;
    let refused = redeemed.err().context("a key with a tombstone was enrolled")?;
    ensure!(format!("{refused:#}").contains(ErrorCode::DeviceRevoked.name()), "{refused:#}");
    tally.stopped(ErrorCode::DeviceRevoked.name());
    adding.stop().await?;

    let mut client = stand.client(&account, replacement).await?;
    client.attach().await?;
    let command = client.sign(CommandKind::StartThread, stand.start_thread("by the new phone"), |_| {});
    ensure!(client.ask(&command).await?.outcome == Outcome::Executed, "the new phone can do nothing");
    Ok(())
}

/// A node tells a machine of cuts that are younger than its credential; here the credential is the younger one.
async fn lost_meanwhile(ground: Ground, tally: Tally) -> anyhow::Result<()> {
    let mut stand = Stand::on(&ground, &tally).await?;
    let (account, lost) = stand.second_device("the lost phone").await?;
    let lost_id = lost.device_id();
    stand.connector.take().context("a connector")?.stop().await?;
    let (status, answer) = account.call(Method::DELETE, &format!("/api/devices/{lost_id}"), None).await?;
    ensure!(status.is_success(), "{answer}");
    let (done, lines) = stand.machine.command(&["keys", "rotate"]).await?;
    ensure!(done, "{lines:?}");
    stand.connector = Some(stand.machine.run()?);
    is_forgotten(&stand, lost_id).await?;
    tally.stopped("removed at the machine");

    // Not even in another device's session.
    stand.paired.machine_key = followed(&stand).await?;
    let mut client = stand.client_when_linked(&stand.device).await?;
    let (header, command) = {
        let owner = std::mem::replace(&mut client.device, lost);
        let signed = client.sign(CommandKind::StartThread, stand.start_thread("by the lost phone"), |_| {});
        client.device = owner;
        signed
    };
    client.is_turned_away(&(header, command), ErrorCode::DeviceNotEnrolled).await
}
