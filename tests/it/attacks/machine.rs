//! A machine that is not as it should be: without Codex, with its port taken, with a damaged journal.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use flydex_domain::command::{CommandKind, Outcome};
use flydex_domain::error::ErrorCode;
use flydex_domain::journal::HEADER;
use flydex_loadtest::device::Device;
use flydex_tests::connector::Machine;
use flydex_tests::wait;
use reqwest::Method;

use super::stand::{Client, Relay, Stand};

/// Bytes from the beginning of a journal's record into what it says: past its length and its check sum.
const INTO_A_RECORD: usize = 12;

#[tokio::test]
async fn without_codex_and_with_its_port_taken_a_machine_pairs_and_says_both() -> anyhow::Result<()> {
    let relay = Relay::start().await?;
    let nowhere = PathBuf::from("/nowhere/codex");
    let machine = Machine::with_stub(relay.server.origin(), nowhere)?;
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let port = taken.local_addr()?.port().to_string();
    let mut connector = machine.start(&["connect", "--server", relay.server.origin(), "--port", &port])?;
    let device = Device::new();
    let pairing = relay.account.redeem(&connector.pair_url().await?, &device, "phone").await?;
    connector.question().await?;
    connector.answer(true).await?;

    let path = format!("/api/local-connect/{}?wait_ms=10000&after=awaiting_browser_finalize", pairing.local_connect_id);
    let told = wait::until("the pairing to end", || async {
        let (_, told) = relay.account.call(Method::GET, &path, None).await.ok()?;
        (told["status"] != "awaiting_browser_finalize").then_some(told)
    });
    let told = told.await?;
    assert_eq!((told["status"].as_str(), told["code"].as_str()), (Some("failed"), Some("codex_not_found")), "{told}");
    connector.process().may_log("codex did not start", "there is none");
    connector.process().must_log("codex is not available error.code=\"codex_not_found\"", "there is none");
    let said = connector.process().lines().out;
    ensure!(said.iter().any(|line| line.contains("[local_port_taken]; going on in the terminal")), "{said:?}");
    let (_, doctor) = machine.command(&["doctor"]).await?;
    ensure!(doctor.out.iter().any(|line| line.contains("codex")), "{doctor:?}");
    Ok(())
}

#[tokio::test]
async fn a_damaged_journal_is_kept_aside_and_repeats_nothing() -> anyhow::Result<()> {
    let mut stand = Stand::start().await?;
    let device = std::mem::take(&mut stand.device);
    let mut client = stand.client(&stand.relay.account, device).await?;
    client.attach().await?;
    let begun = client.sign(CommandKind::StartThread, stand.start_thread("begin once"), |_| {});
    assert_eq!(client.ask(&begun).await?.outcome, Outcome::Executed);
    stand.model.request(|request| request.prompt.contains("begin once")).await?;
    let Client { session, device, .. } = client;
    drop(session);

    stand.connector.take().context("a connector")?.stop().await?;
    // The relay would still answer from its memory.
    stand.relay = stand.relay.restarted().await?;
    let journal = stand.machine.state().join("journal");
    let mut bytes = fs::read(&journal)?;
    *bytes.get_mut(HEADER.len() + INTO_A_RECORD).context("an empty journal")? ^= 0x55;
    fs::write(&journal, &bytes)?;
    let connector = stand.machine.run()?;
    connector.process().must_log("the command journal is damaged", "the test damaged it");

    let mut client = stand.client(&stand.relay.account, device).await?;
    client.attach().await?;
    // What is no longer known is not guessed at.
    assert_eq!(client.ask(&begun).await?.outcome, Outcome::Unknown);
    let after = client.sign(CommandKind::StartThread, stand.start_thread("begin after"), |_| {});
    assert_eq!(client.ask(&after).await?.outcome, Outcome::Executed);
    stand.model.request(|request| request.prompt.contains("begin after")).await?;
    assert_eq!(stand.effects("begin once"), 1);
    ensure!(fs::read(stand.machine.state().join("journal.damaged"))? == bytes, "the damaged journal is not kept");
    let stale =
        client.sign(CommandKind::StartThread, stand.start_thread("again"), |it| it.command_id = after.0.command_id);
    client.is_turned_away(&stale, ErrorCode::CommandIdReused).await
}
