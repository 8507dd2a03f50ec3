//! A device whose key is gone: a new one takes its place, and whoever finds the old one can do nothing with it.

use anyhow::{Context as _, ensure};
use flydex_domain::command::{CommandKind, Outcome};
use flydex_domain::error::ErrorCode;
use flydex_tests::wait;
use reqwest::Method;

use super::super::stand::{REGION, Stand, is_about};

#[tokio::test]
async fn a_lost_device_is_replaced_and_its_key_is_good_for_nothing() -> anyhow::Result<()> {
    let mut stand = Stand::start().await?;
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
    is_about(&ended, ErrorCode::DeviceRevoked)?;
    wait::until("the machine to forget it", async || {
        let (_, lines) = stand.machine.command(&["devices", "list"]).await.ok()?;
        let tombstone = format!("{lost_id}\tremoved");
        lines.out.iter().any(|line| line.starts_with(&tombstone)).then_some(())
    })
    .await?;
    let refused = stand.relay.account.ticket(&finder.device, REGION).await.err().context("it got a ticket")?;
    ensure!(format!("{refused:#}").contains(ErrorCode::DeviceRevoked.name()), "{refused:#}");
    // Nor does it come back by a fresh code, not even with the desk's help.
    let adding = stand.machine.start(&["devices", "add"])?;
    let redeemed = stand.relay.account.redeem(&adding.pair_url().await?, &finder.device, "the old phone").await;
    let refused = redeemed.err().context("a key with a tombstone was enrolled")?;
    ensure!(format!("{refused:#}").contains(ErrorCode::DeviceRevoked.name()), "{refused:#}");
    adding.stop().await?;

    let mut client = stand.client(&account, replacement).await?;
    client.attach().await?;
    let command = client.sign(CommandKind::StartThread, stand.start_thread("by the new phone"), |_| {});
    ensure!(client.ask(&command).await?.outcome == Outcome::Executed, "the new phone can do nothing");
    Ok(())
}
