//! A machine that leaves its account for another: the old account keeps trying, and gets nothing.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use flydex_domain::command::CommandKind;
use flydex_domain::encoding::sha256;
use flydex_domain::error::ErrorCode;
use flydex_domain::id::{AccountId, UserId};
use flydex_domain::limits::SIGN_IN_LINK_LIFETIME;
use flydex_domain::scope::Role;
use flydex_loadtest::account::{Account, PairedMachine, encode};
use flydex_loadtest::device::Device;
use flydex_proto::v1::{machine_message, session_down};
use flydex_runtime::clock::Clock;
use flydex_store::sql::{self, Sql, User};
use reqwest::Method;
use uuid::Uuid;

use super::super::stand::{Client, Stand, is_about, now, pair, sign_in};

/// Time within which a machine is lost to its account.
const LOST_WITHIN: Duration = Duration::from_secs(2);

/// The owner of another account at the same relay.
async fn stranger(stand: &Stand) -> anyhow::Result<Account> {
    let store = Sql::open_sqlite(&stand.relay.server.data().join("flydex.sqlite")).await?;
    let account_id = AccountId::from_uuid(Uuid::new_v4());
    let user = User { account_id, user_id: UserId::from_uuid(Uuid::new_v4()), role: Role::Owner };
    let token = sha256(Uuid::new_v4().as_bytes());
    let mut tx = store.write().await?;
    tx.create_account(&sql::Account { account_id, name: "Other".to_owned() }, now()).await?;
    tx.create_user(&user, now()).await?;
    let ends = now().plus(SIGN_IN_LINK_LIFETIME);
    tx.create_link(user.principal().scope(), &user, &sha256(&token), now(), ends).await?;
    tx.commit().await?;
    store.close().await;
    sign_in(&format!("{}/sign-in#{}", stand.relay.server.origin(), encode(&token)), None).await
}

/// Waits until the relay closes the machine in the session, for that reason.
async fn closed(client: &mut Client) -> anyhow::Result<ErrorCode> {
    loop {
        if let session_down::Kind::MachineClosed(closed) = client.session.next().await? {
            return ErrorCode::from_number(closed.code).context("an unknown code");
        }
    }
}

#[tokio::test]
async fn the_old_account_loses_a_machine_that_moves_at_once_and_keeps_trying_in_vain() -> anyhow::Result<()> {
    let mut stand = Stand::start().await?;
    let device = std::mem::take(&mut stand.device);
    let mut client = stand.client(&stand.relay.account, device).await?;
    client.attach().await?;
    let late = client.sign(CommandKind::StartThread, stand.start_thread("by the old account"), |_| {});
    let old_credential = std::fs::read(stand.machine.state().join("paired.json"))?;
    let old_key = std::fs::read(stand.machine.state().join("machine-key.pem"))?;

    let (done, lines) = stand.machine.command(&["unpair"]).await?;
    ensure!(done, "{lines:?}");
    let since: Instant = Clock::system().instant();
    ensure!(closed(&mut client).await? == ErrorCode::MachineRevoked, "the session is told something else");
    ensure!(Clock::system().instant().saturating_duration_since(since) < LOST_WITHIN, "the account lost it too late");
    stand.connector.take().context("a connector")?.process_mut().ended().await?;
    let (_, list) = stand.relay.account.call(Method::GET, "/api/machines", None).await?;
    ensure!(list["machines"].as_array().is_some_and(Vec::is_empty), "{list}");

    let other = stranger(&stand).await?;
    let new_device = Device::new();
    let mut connector = stand.machine.connect()?;
    let moved = pair(&other, &new_device, "their phone", &mut connector).await?;
    ensure!(moved.machine_id != stand.paired.machine_id && moved.machine_key != stand.paired.machine_key, "the same");
    stand.connector = Some(connector);

    // By its own session: the machine as it was, and as it is now.
    refused(client.session.open_machine(&stand.paired).await.err(), &[ErrorCode::MachineRevoked, ErrorCode::NotFound])?;
    let as_ours = PairedMachine { account_id: stand.paired.account_id, ..moved.clone() };
    let opened = client.session.open_machine(&as_ours);
    let never = tokio::time::timeout(LOST_WITHIN, opened).await;
    ensure!(!matches!(never, Ok(Ok(_))), "another account's machine was opened");
    // By a command that was signed before, sent once more.
    let again = stand.relay.session(&stand.relay.account, &client.device).await?;
    client.session = again;
    client.session.send_command(&client.opened, late.1).await?;
    nothing_from_a_machine(&mut client).await?;
    ensure!(stand.effects("by the old account") == 0, "the machine obeyed its old account");
    // By the machine's own old credential and key, as a copy of the disk has them.
    let saved = tempfile::tempdir()?;
    for (name, content) in [("paired.json", &old_credential), ("machine-key.pem", &old_key)] {
        std::fs::write(saved.path().join(name), content)?;
    }
    let copy = stand.copied(saved.path())?;
    let (done, lines) = copy.command(&["keys", "rotate"]).await?;
    ensure!(!done && lines.err.iter().any(|line| line.contains("machine_revoked")), "{lines:?}");
    // The new account has it all the while.
    let session = stand.relay.session(&other, &new_device).await?;
    let mut theirs = Client::opened(session, &moved, new_device).await?;
    theirs.attach().await?;
    Ok(())
}

fn refused(error: Option<anyhow::Error>, codes: &[ErrorCode]) -> anyhow::Result<()> {
    let error = error.context("it was opened")?;
    if codes.iter().any(|code| is_about(&error, *code).is_ok()) { Ok(()) } else { bail!("{error:#}") }
}

/// Whatever the relay answers, no machine says a word.
async fn nothing_from_a_machine(client: &mut Client) -> anyhow::Result<()> {
    let said = async {
        loop {
            match client.session.next().await {
                Ok(session_down::Kind::FromMachine(from)) => {
                    let kind = from.message.and_then(|message| message.kind);
                    if matches!(kind, Some(machine_message::Kind::Receipt(_))) {
                        return true;
                    }
                }
                Ok(_) => {}
                Err(_) => return false,
            }
        }
    };
    ensure!(!tokio::time::timeout(LOST_WITHIN, said).await.unwrap_or(false), "a receipt came");
    Ok(())
}
