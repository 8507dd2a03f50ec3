//! Threads over the real Codex: listing, starting, streaming, steering, reading and renaming.

#![expect(clippy::wildcard_enum_match_arm, reason = "a test waits for one kind and passes the others over")]

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use flydex_agent_proto::v1::{self, agent_event, command_body, command_result, item};
use flydex_connector::codex::{CodexEvent, Refused, ThreadId};
use flydex_domain::error::ErrorCode;

use crate::codex_client::{Client, command_id, stage, stage_with};

fn refused<T>(outcome: Result<T, Refused>) -> anyhow::Result<Refused> {
    match outcome {
        Ok(_) => bail!("it was not refused"),
        Err(refused) => Ok(refused),
    }
}

async fn execute(client: &Client, body: command_body::Kind) -> anyhow::Result<Option<command_result::Kind>> {
    let outcome = client.handle.execute(command_id(), body).await;
    Ok(outcome.map_err(|refused| anyhow::anyhow!("{refused:?}"))?.kind)
}

async fn start_thread(client: &Client, directory: &str, text: &str) -> anyhow::Result<v1::ThreadStarted> {
    let body = v1::StartThread { directory: directory.to_owned(), text: text.to_owned(), model: String::new() };
    match execute(client, command_body::Kind::StartThread(body)).await? {
        Some(command_result::Kind::ThreadStarted(started)) => Ok(started),
        _ => bail!("not a started thread"),
    }
}

async fn history(client: &Client, thread_id: &str, cursor: &str) -> anyhow::Result<v1::HistoryPage> {
    let body = v1::ReadThread { thread_id: thread_id.to_owned(), cursor: cursor.to_owned(), max_bytes: 0 };
    match execute(client, command_body::Kind::ReadThread(body)).await? {
        Some(command_result::Kind::HistoryPage(page)) => Ok(page),
        _ => bail!("not a page"),
    }
}

fn texts(turn: &v1::Turn) -> Vec<String> {
    turn.items
        .iter()
        .filter_map(|item| match item.kind.as_ref()? {
            item::Kind::UserMessage(message) => Some(format!("user: {}", message.text)),
            item::Kind::AgentMessage(message) => Some(format!("agent: {}", message.text)),
            _ => None,
        })
        .collect()
}

#[tokio::test]
async fn a_thread_starts_streams_and_is_listed_and_read() -> anyhow::Result<()> {
    let mut stage = stage().await?;
    let client = &mut stage.client;
    let directory = stage.home.workspace().display().to_string();
    let started = start_thread(client, &directory, "[[stream 3]] [[gate half]] [[stream 2]]").await?;
    stage.model.reached("half").await?;
    let snapshot = client.watched(&started.thread_id).await?;
    let page = snapshot.page.context("a page")?;
    assert!(!snapshot.partial && snapshot.writable);
    assert_eq!(snapshot.effective_policy, "approvals: on-request, sandbox: workspaceWrite");
    let running = page.turns.last().context("a turn")?;
    assert_eq!(running.id, started.turn_id);
    let mut text = match running.items.last().and_then(|item| item.kind.as_ref()) {
        Some(item::Kind::AgentMessage(message)) => message.text.clone(),
        _ => String::new(),
    };
    stage.model.open("half");
    let whole = client
        .thread_event("the message's end", |kind| match kind {
            agent_event::Kind::ItemDelta(delta) => {
                text.push_str(&delta.text);
                None
            }
            agent_event::Kind::ItemCompleted(event) => match event.item?.kind? {
                item::Kind::AgentMessage(message) => Some(message.text),
                _ => None,
            },
            _ => None,
        })
        .await?;
    assert_eq!(whole, "tick 0 tick 1 tick 2 tick 3 tick 4 ");
    assert_eq!(text, whole, "the snapshot and the deltas after it are the whole text");
    assert!(client.turn_ended().await?.state() == v1::TurnState::Completed);

    let listed = execute(client, command_body::Kind::ListThreads(v1::ListThreads::default())).await?;
    let Some(command_result::Kind::ThreadPage(listed)) = listed else { bail!("not a list") };
    let row = listed.threads.iter().find(|row| row.id == started.thread_id).context("the thread is listed")?;
    assert_eq!(row.cwd, directory);
    let page = history(client, &started.thread_id, "").await?;
    let told = texts(page.turns.last().context("a turn")?);
    assert_eq!(told, ["user: [[stream 3]] [[gate half]] [[stream 2]]".to_owned(), format!("agent: {whole}")]);
    Ok(())
}

#[tokio::test]
async fn many_small_pieces_become_few_events() -> anyhow::Result<()> {
    let mut stage = stage().await?;
    let client = &mut stage.client;
    let thread_id = stage.desk.start_thread(&stage.home.workspace()).await?;
    stage.desk.start_turn(&thread_id, "[[stream 1]]").await?;
    stage.desk.turn_ended(&thread_id).await?;
    client.watched(&thread_id).await?;
    stage.desk.start_turn(&thread_id, "[[stream 400]]").await?;
    let mut deltas: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    client
        .thread_event("the turn's end", |kind| match kind {
            agent_event::Kind::ItemDelta(delta) => {
                let (events, bytes) = deltas.entry(delta.item_id).or_default();
                *events += 1;
                *bytes += delta.text.len();
                None
            }
            agent_event::Kind::TurnEnded(_) => Some(()),
            _ => None,
        })
        .await?;
    let (events, bytes) = deltas.values().next().copied().context("deltas")?;
    assert!(events < 100 && bytes > 2000, "{events} events with {bytes} bytes");
    Ok(())
}

#[tokio::test]
async fn a_running_turn_is_steered_or_interrupted_but_not_started_again() -> anyhow::Result<()> {
    let mut stage = stage().await?;
    let client = &mut stage.client;
    let directory = stage.home.workspace().display().to_string();
    let started = start_thread(client, &directory, "[[stream 1]] [[gate hold]] [[stream 1]]").await?;
    let thread_id = started.thread_id.clone();
    client.watched(&thread_id).await?;
    stage.model.reached("hold").await?;

    let again = refused(client.start_turn(&thread_id, "another").await)?;
    assert_eq!(again.code(), ErrorCode::TurnRunning);
    assert_eq!(again.refusal.map(|refusal| refusal.running_turn_id), Some(started.turn_id.clone()));

    let steer = |expected: &str| {
        command_body::Kind::Steer(v1::Steer {
            thread_id: thread_id.clone(),
            expected_turn_id: expected.to_owned(),
            text: "more".to_owned(),
        })
    };
    let wrong = refused(client.handle.execute(command_id(), steer("nope")).await)?;
    assert_eq!(wrong.code(), ErrorCode::TurnMismatch);
    assert_eq!(wrong.refusal.map(|refusal| refusal.running_turn_id), Some(started.turn_id.clone()));
    let Some(command_result::Kind::TurnAccepted(joined)) = execute(client, steer(&started.turn_id)).await? else {
        bail!("not accepted")
    };
    assert!(joined.joined && joined.turn_id == started.turn_id);

    let body = v1::Interrupt { thread_id: thread_id.clone(), turn_id: started.turn_id.clone() };
    execute(client, command_body::Kind::Interrupt(body.clone())).await?;
    assert!(client.turn_ended().await?.state() == v1::TurnState::Interrupted);
    let idle = refused(client.handle.execute(command_id(), command_body::Kind::Interrupt(body)).await)?;
    assert_eq!(idle.code(), ErrorCode::TurnNotRunning);
    Ok(())
}

#[tokio::test]
async fn a_prompts_client_id_is_found_again() -> anyhow::Result<()> {
    let mut stage = stage().await?;
    let client = &mut stage.client;
    let directory = stage.home.workspace().display().to_string();
    let started = start_thread(client, &directory, "[[stream 1]]").await?;
    client.watched(&started.thread_id).await?;
    let sent = command_id();
    let thread_id: ThreadId = started.thread_id.parse()?;
    // The first turn may still run; a second prompt waits for its end.
    stage.desk.resume_thread(&started.thread_id).await?;
    wait_idle(client, &started.thread_id).await?;
    let body =
        v1::StartTurn { thread_id: started.thread_id.clone(), text: "[[stream 1]]".to_owned(), ..Default::default() };
    let result = client.handle.execute(sent, command_body::Kind::StartTurn(body)).await;
    let result = result.map_err(|refused| anyhow::anyhow!("{refused:?}"))?;
    let Some(command_result::Kind::TurnAccepted(accepted)) = result.kind else { bail!("not accepted") };
    client.turn_ended().await?;
    let found =
        client.handle.find_client_id(&thread_id, sent).await.map_err(|refused| anyhow::anyhow!("{refused:?}"))?;
    assert_eq!(found.map(|turn_id| turn_id.to_string()), Some(accepted.turn_id));
    let other = client.handle.find_client_id(&thread_id, command_id()).await;
    assert_eq!(other.map_err(|refused| anyhow::anyhow!("{refused:?}"))?, None);
    Ok(())
}

/// Waits until no turn runs, by watching again until the snapshot says so.
async fn wait_idle(client: &mut Client, thread_id: &str) -> anyhow::Result<()> {
    loop {
        let snapshot = client.watched(thread_id).await?;
        let running =
            snapshot.page.is_some_and(|page| page.turns.iter().any(|turn| turn.state() == v1::TurnState::Running));
        if !running {
            return Ok(());
        }
        client.turn_ended().await?;
    }
}

#[tokio::test]
async fn a_thread_is_renamed_archived_and_restored_and_everyone_hears_it() -> anyhow::Result<()> {
    let mut stage = stage().await?;
    let client = &mut stage.client;
    let directory = stage.home.workspace().display().to_string();
    let thread_id = start_thread(client, &directory, "[[stream 1]]").await?.thread_id;
    client.watched(&thread_id).await?;
    wait_idle(client, &thread_id).await?;
    let rename = v1::RenameThread { thread_id: thread_id.clone(), name: "A better name".to_owned() };
    execute(client, command_body::Kind::RenameThread(rename)).await?;
    let name = client
        .event("the new name", |event| match event {
            CodexEvent::Machine(event) => match event.kind? {
                agent_event::Kind::ThreadChanged(thread) if !thread.name.is_empty() => Some(thread.name),
                _ => None,
            },
            _ => None,
        })
        .await?;
    assert_eq!(name, "A better name");
    let archive = v1::ArchiveThread { thread_id: thread_id.clone() };
    execute(client, command_body::Kind::ArchiveThread(archive)).await?;
    client
        .event("the thread to go", |event| match event {
            CodexEvent::Machine(event) => match event.kind? {
                agent_event::Kind::ThreadRemoved(removed) => Some(removed.archived && removed.thread_id == thread_id),
                _ => None,
            },
            _ => None,
        })
        .await?;
    let restore = v1::UnarchiveThread { thread_id: thread_id.clone() };
    execute(client, command_body::Kind::UnarchiveThread(restore)).await?;
    Ok(())
}

#[tokio::test]
async fn a_long_history_comes_in_bounded_pages_that_join() -> anyhow::Result<()> {
    let mut stage = stage().await?;
    let client = &mut stage.client;
    let thread_id = stage.desk.start_thread(&stage.home.workspace()).await?;
    for number in 0..12 {
        stage.desk.start_turn(&thread_id, &format!("turn {number} [[big 60000]]")).await?;
        stage.desk.turn_ended(&thread_id).await?;
    }
    let snapshot = client.watched(&thread_id).await?;
    let mut page = snapshot.page.context("a page")?;
    let mut prompts = Vec::new();
    let mut pages = 0;
    loop {
        pages += 1;
        let told: Vec<String> = page.turns.iter().flat_map(texts).filter(|text| text.starts_with("user: ")).collect();
        prompts.splice(0..0, told);
        if page.older_cursor.is_empty() {
            break;
        }
        page = history(client, &thread_id, &page.older_cursor).await?;
    }
    let expected: Vec<String> = (0..12).map(|number| format!("user: turn {number} [[big 60000]]")).collect();
    assert_eq!(prompts, expected);
    assert!(pages >= 3, "{pages} pages");
    let foreign = v1::ReadThread { thread_id, cursor: "999999".to_owned(), max_bytes: 0 };
    let outcome = client.handle.execute(command_id(), command_body::Kind::ReadThread(foreign)).await;
    assert_eq!(refused(outcome)?.code(), ErrorCode::CursorExpired);
    Ok(())
}

#[tokio::test]
async fn a_folder_off_the_list_an_unknown_thread_and_an_unguarded_one_are_refused() -> anyhow::Result<()> {
    let mut stage = stage().await?;
    let client = &mut stage.client;
    let body = v1::StartThread { directory: "/".to_owned(), text: "hi".to_owned(), model: String::new() };
    let outcome = client.handle.execute(command_id(), command_body::Kind::StartThread(body)).await;
    assert_eq!(refused(outcome)?.code(), ErrorCode::DirectoryNotAllowed);
    for unknown in ["00000000-0000-7000-8000-000000000000", "../../etc/passwd"] {
        assert_eq!(refused(client.start_turn(unknown, "hi").await)?.code(), ErrorCode::ThreadNotFound);
    }
    let params =
        serde_json::json!({"cwd": stage.home.workspace(), "approvalPolicy": "never", "sandbox": "danger-full-access"});
    let answer = stage.desk.request("thread/start", params).await?;
    let thread_id = answer["thread"]["id"].as_str().context("an id")?.to_owned();
    stage.desk.start_turn(&thread_id, "[[stream 1]]").await?;
    stage.desk.turn_ended(&thread_id).await?;
    let snapshot = client.watched(&thread_id).await?;
    assert!(!snapshot.writable);
    assert_eq!(snapshot.not_writable_code, u32::from(ErrorCode::ThreadPolicyRefused.number()));
    assert_eq!(refused(client.start_turn(&thread_id, "hi").await)?.code(), ErrorCode::ThreadPolicyRefused);
    Ok(())
}

#[tokio::test]
async fn the_desk_may_allow_unguarded_threads() -> anyhow::Result<()> {
    let mut stage = stage_with(|config| config.allow_unguarded = true).await?;
    let params =
        serde_json::json!({"cwd": stage.home.workspace(), "approvalPolicy": "never", "sandbox": "danger-full-access"});
    let answer = stage.desk.request("thread/start", params).await?;
    let thread_id = answer["thread"]["id"].as_str().context("an id")?.to_owned();
    stage.desk.start_turn(&thread_id, "[[stream 1]]").await?;
    stage.desk.turn_ended(&thread_id).await?;
    assert!(stage.client.start_turn(&thread_id, "[[stream 1]]").await.is_ok());
    Ok(())
}

#[tokio::test]
async fn models_are_listed() -> anyhow::Result<()> {
    let stage = stage().await?;
    let listed = execute(&stage.client, command_body::Kind::ListModels(v1::ListModels {})).await?;
    let Some(command_result::Kind::ModelList(list)) = listed else { bail!("not a list") };
    let model = list.models.first().context("a model")?;
    assert_eq!(model.display_name, "FlyDex scripted");
    assert_eq!(model.efforts, ["medium"]);
    Ok(())
}

#[tokio::test]
async fn a_policy_that_was_loosened_at_the_desk_is_noticed_before_the_next_prompt() -> anyhow::Result<()> {
    let mut stage = stage().await?;
    let thread_id = stage.desk.start_thread(&stage.home.workspace()).await?;
    stage.desk.start_turn(&thread_id, "[[stream 1]]").await?;
    stage.desk.turn_ended(&thread_id).await?;
    assert!(stage.client.watched(&thread_id).await?.writable);
    let params = serde_json::json!({
        "threadId": thread_id, "input": [{"type": "text", "text": "[[stream 1]]", "text_elements": []}],
        "approvalPolicy": "never", "sandboxPolicy": {"type": "dangerFullAccess"},
    });
    stage.desk.request("turn/start", params).await?;
    stage.desk.turn_ended(&thread_id).await?;
    let refused = refused(stage.client.start_turn(&thread_id, "hi").await)?;
    assert_eq!(refused.code(), ErrorCode::ThreadPolicyRefused);
    Ok(())
}

#[tokio::test]
async fn a_review_is_a_turn() -> anyhow::Result<()> {
    let mut stage = stage().await?;
    let thread_id = stage.desk.start_thread(&stage.home.workspace()).await?;
    stage.desk.start_turn(&thread_id, "[[stream 1]]").await?;
    stage.desk.turn_ended(&thread_id).await?;
    stage.client.watched(&thread_id).await?;
    let target = Some(v1::review::Target::UncommittedChanges(true));
    let body = command_body::Kind::Review(v1::Review { thread_id, target });
    let Some(command_result::Kind::TurnAccepted(accepted)) = execute(&stage.client, body).await? else {
        bail!("not accepted")
    };
    assert!(!accepted.turn_id.is_empty());
    stage.client.turn_ended().await?;
    Ok(())
}

#[tokio::test]
async fn who_joins_in_the_middle_of_a_message_is_told_so_and_gets_it_whole_at_its_end() -> anyhow::Result<()> {
    let mut stage = stage().await?;
    let thread_id = stage.desk.start_thread(&stage.home.workspace()).await?;
    stage.desk.start_turn(&thread_id, "[[stream 3]] [[gate half]] [[stream 2]]").await?;
    stage.model.reached("half").await?;
    stage.desk.next("item/agentMessage/delta", |params| params["delta"] == "tick 2 ").await?;
    let mut later = Client::start(crate::codex_client::config(&stage.home));
    later.ready().await?;
    let snapshot = later.watched(&thread_id).await?;
    assert!(snapshot.partial);
    stage.model.open("half");
    let item = later.item_completed(|kind| matches!(kind, item::Kind::AgentMessage(_))).await?;
    let Some(item::Kind::AgentMessage(message)) = item.kind else { bail!("a message") };
    assert_eq!(message.text, "tick 0 tick 1 tick 2 tick 3 tick 4 ");
    Ok(())
}
