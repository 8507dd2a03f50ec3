//! Content and secrets stay where they belong, also when everything that there is to log is logged.

use std::path::Path;

use anyhow::{Context as _, ensure};
use flydex_agent_proto::v1 as agent;
use flydex_agent_proto::v1::command_body::Kind as Body;
use flydex_agent_proto::v1::command_result::Kind as ResultKind;
use flydex_domain::command::{CommandKind, Outcome};
use flydex_tests::canary::mark;
use flydex_tests::codex::CodexHome;
use flydex_tests::otlp::Sink;
use flydex_tests::server::Settings;
use reqwest::Method;
use serde_json::json;

use super::stand::{Client, Relay, Stand, result, watch};
use flydex_tests::attack::approvals::{accept, answer, asked, digest_of, word};

/// Each part of FlyDex is asked, well and badly, with words that stand nowhere else. What it logs, exports and keeps is
/// searched when the stand is dropped.
#[tokio::test]
async fn with_everything_logged_no_content_and_no_secret_is_told_or_kept() -> anyhow::Result<()> {
    let sink = Sink::start()?;
    let log_filter = Some("trace".to_owned());
    let settings = Settings { otlp_endpoint: Some(sink.endpoint()), log_filter, ..Settings::default() };
    let mut stand = Stand::start_with(settings).await?;
    let device = std::mem::take(&mut stand.device);
    let mut client = stand.client(&stand.relay.account, device).await?;
    client.attach().await?;

    let outside = CodexHome::outside()?;
    let thread_id = one_approved_command(&stand, &mut client, outside.path()).await?;
    everything_is_read(&mut client, &thread_id).await?;
    it_is_asked_badly(&stand, &mut client).await?;
    the_relay_is_asked_badly(&stand.relay).await?;

    // Each process sends the rest of its spans when it ends.
    let Stand { connector, relay, machine, .. } = stand;
    let connector = connector.context("a connector")?;
    ensure!(connector.process().lines().err.iter().any(|line| line.contains(" INFO ")), "the connector logs nothing");
    ensure!(relay.server.process().lines().err.iter().any(|line| line.contains(" INFO ")), "the relay logs nothing");
    connector.stop().await?;
    let stopped = relay.server.stop().await?;
    let services: Vec<_> = sink.spans().into_iter().map(|exported| exported.service).collect();
    ensure!(["flydex", "flydex-server"].iter().all(|name| services.iter().any(|one| one == name)), "{services:?}");
    ensure!(machine.state().join("journal").exists(), "no state to search");
    drop((stopped, machine));
    Ok(())
}

/// A thread whose prompt, answer, name, command, output and patch are marked; its id.
async fn one_approved_command(stand: &Stand, client: &mut Client, outside: &Path) -> anyhow::Result<String> {
    let file = outside.join(mark("file"));
    let prompt = format!(
        "{} [[say {}]] [[esc echo {} | tee {}]]",
        mark("prompt"),
        mark("answer"),
        mark("output"),
        file.display()
    );
    let begin = client.sign(CommandKind::StartThread, stand.start_thread(&prompt), |_| {});
    let ResultKind::ThreadStarted(started) = result(&client.ask(&begin).await?)? else { anyhow::bail!("no thread") };
    let shown = asked(client).await?;
    let signed = answer(client, accept(&shown)?, digest_of(&shown)?);
    ensure!(word(client, &signed).await?.outcome == Outcome::Executed, "the answer was not taken");
    stand.model.request(|request| !request.outputs.is_empty()).await?;
    let name = agent::RenameThread { thread_id: started.thread_id.clone(), name: mark("name") };
    let rename = client.sign(CommandKind::RenameThread, Body::RenameThread(name), |_| {});
    ensure!(client.ask(&rename).await?.outcome == Outcome::Executed, "not renamed");
    Ok(started.thread_id)
}

async fn everything_is_read(client: &mut Client, thread_id: &str) -> anyhow::Result<()> {
    let thread_id = thread_id.to_owned();
    let list = agent::ListThreads { cursor: String::new(), limit: 10, archived: false, search: mark("search") };
    let read = agent::ReadThread { thread_id: thread_id.clone(), cursor: String::new(), max_bytes: 64 * 1024 };
    for (kind, content) in [
        (CommandKind::WatchThread, watch(&thread_id)),
        (CommandKind::ListThreads, Body::ListThreads(list)),
        (CommandKind::ReadThread, Body::ReadThread(read)),
    ] {
        let signed = client.sign(kind, content, |_| {});
        ensure!(client.ask(&signed).await?.outcome == Outcome::Executed, "{}", kind.name());
    }
    Ok(())
}

/// What the machine refuses, it does not repeat.
async fn it_is_asked_badly(stand: &Stand, client: &mut Client) -> anyhow::Result<()> {
    let directory = format!("/nowhere/{}", mark("directory"));
    let elsewhere = agent::StartThread { directory, text: mark("prompt"), model: String::new() };
    let unknown = agent::StartTurn { thread_id: mark("thread"), text: mark("prompt"), ..agent::StartTurn::default() };
    for (kind, content) in
        [(CommandKind::StartThread, Body::StartThread(elsewhere)), (CommandKind::StartTurn, Body::StartTurn(unknown))]
    {
        let signed = client.sign(kind, content, |_| {});
        ensure!(client.ask(&signed).await?.outcome != Outcome::Executed, "{}", kind.name());
    }
    let fails =
        client.sign(CommandKind::StartThread, stand.start_thread(&format!("{} [[fail]]", mark("prompt"))), |_| {});
    ensure!(client.ask(&fails).await?.outcome == Outcome::Executed, "not begun");
    let ended = |event| matches!(event, agent::agent_event::Kind::ThreadChanged(_)).then_some(());
    client.event(ended).await
}

/// What the relay refuses, it does not repeat.
async fn the_relay_is_asked_badly(relay: &Relay) -> anyhow::Result<()> {
    let token = json!({ "token": mark("token") });
    for (path, body) in [
        ("/api/sign-in", token.clone()),
        ("/api/tickets", json!({ "device_key": mark("key"), "region": mark("region") })),
        (&format!("/api/{}?{}", mark("path"), mark("query")), token),
    ] {
        let (status, _) = relay.account.call(Method::POST, path, Some(body)).await?;
        ensure!(status.is_client_error(), "{path} was answered {status}");
    }
    let garbage = mark("garbage");
    let mut session = flydex_loadtest::session::Session::connect(&relay.session_url(), relay.server.origin()).await?;
    session.send_text(&garbage).await?;
    ensure!(session.next().await.is_err(), "garbage was taken");
    Ok(())
}
