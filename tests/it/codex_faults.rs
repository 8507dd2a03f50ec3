//! The connector beside a Codex that is missing, private, killed, or busy elsewhere.

#![expect(clippy::wildcard_enum_match_arm, reason = "a test waits for one kind and passes the others over")]

use anyhow::Context as _;
use flydex_agent_proto::v1::{self, agent_event, command_body, command_result};
use flydex_connector::codex::{AnswerOutcome, CodexEvent, CodexStatus, Resolution};
use flydex_domain::command::Decision;
use flydex_domain::error::ErrorCode;
use flydex_tests::codex::CodexHome;
use flydex_tests::model::Model;

use crate::codex_client::{Client, command_id, config, stage, wrapper};

#[tokio::test]
async fn without_codex_the_status_says_so() -> anyhow::Result<()> {
    let model = Model::start().await?;
    let home = CodexHome::create(&model)?;
    let mut config = config(&home);
    config.program = Some(home.workspace().join("no-such-program"));
    let mut client = Client::start(config);
    let code = client
        .event("a status", |event| match event {
            CodexEvent::Status(CodexStatus::Unavailable(code)) => Some(code),
            _ => None,
        })
        .await?;
    assert_eq!(code, ErrorCode::CodexNotFound);
    let outcome = client.handle.execute(command_id(), command_body::Kind::ListModels(v1::ListModels {})).await;
    assert_eq!(outcome.err().map(|refused| refused.code()), Some(ErrorCode::CodexNotFound));
    client.stop().await
}

#[tokio::test]
async fn without_a_daemon_an_app_server_of_our_own_is_started_and_ends_with_us() -> anyhow::Result<()> {
    let model = Model::start().await?;
    let home = CodexHome::create(&model)?;
    let mut config = config(&home);
    config.program = Some(wrapper(&home)?);
    let mut client = Client::start(config);
    let (version, _) = client.ready().await?;
    assert_eq!(version, "0.169.0");
    let directory = home.workspace().display().to_string();
    let body = v1::StartThread { directory, text: "[[stream 2]]".to_owned(), model: String::new() };
    let result = client.handle.execute(command_id(), command_body::Kind::StartThread(body)).await;
    let result = result.map_err(|refused| anyhow::anyhow!("{refused:?}"))?;
    let Some(command_result::Kind::ThreadStarted(started)) = result.kind else { anyhow::bail!("not started") };
    client.watched(&started.thread_id).await?;
    client.stop().await
}

#[tokio::test]
async fn a_killed_codex_loses_its_approvals_and_another_life_has_another_generation() -> anyhow::Result<()> {
    let mut stage = stage().await?;
    let thread_id = stage.desk.start_thread(&stage.home.workspace()).await?;
    stage.desk.start_turn(&thread_id, "[[esc echo lost]]").await?;
    let asked = stage.client.approval().await?;
    stage.client.watched(&thread_id).await?;
    stage.daemon.take().context("a daemon")?.kill().await?;
    assert_eq!(stage.client.resolution(&asked.key).await?, Resolution::CodexLost);
    stage
        .client
        .event("the thread to be lost", |event| match event {
            CodexEvent::ThreadLost { thread_id: lost } => Some(lost.to_string() == thread_id),
            _ => None,
        })
        .await?;
    stage.daemon = Some(stage.home.start_daemon().await?);
    let (_, generation) = stage.client.ready().await?;
    assert_ne!(generation, asked.key.generation);
    assert_eq!(stage.client.handle.answer_approval(&asked.key, Decision::Accept).await, AnswerOutcome::Gone);
    let snapshot = stage.client.watched(&thread_id).await?;
    let turn = snapshot.page.and_then(|page| page.turns.into_iter().next_back()).context("a turn")?;
    assert!(turn.state() == v1::TurnState::Interrupted);
    Ok(())
}

#[tokio::test]
async fn a_thread_that_is_open_elsewhere_can_be_read_only() -> anyhow::Result<()> {
    let model = Model::start().await?;
    let home = CodexHome::create(&model)?;
    let mut config = config(&home);
    config.program = Some(wrapper(&home)?);
    let mut owner = Client::start(config.clone());
    owner.ready().await?;
    let directory = home.workspace().display().to_string();
    let body = v1::StartThread { directory, text: "[[stream 2]]".to_owned(), model: String::new() };
    let result = owner.handle.execute(command_id(), command_body::Kind::StartThread(body)).await;
    let result = result.map_err(|refused| anyhow::anyhow!("{refused:?}"))?;
    let Some(command_result::Kind::ThreadStarted(started)) = result.kind else { anyhow::bail!("not started") };
    owner.watched(&started.thread_id).await?;
    let mut other = Client::start(config);
    other.ready().await?;
    let snapshot = other.watched(&started.thread_id).await?;
    assert!(!snapshot.writable);
    assert_eq!(snapshot.not_writable_code, u32::from(ErrorCode::ThreadOpenElsewhere.number()));
    assert!(snapshot.thread.is_some_and(|thread| thread.state() == v1::ThreadState::OpenElsewhere));
    let refused = other.start_turn(&started.thread_id, "hi").await.err().context("refused")?;
    assert_eq!(refused.code(), ErrorCode::ThreadOpenElsewhere);
    Ok(())
}

#[tokio::test]
async fn a_failing_model_ends_the_turn_in_our_words() -> anyhow::Result<()> {
    let mut stage = stage().await?;
    let thread_id = stage.desk.start_thread(&stage.home.workspace()).await?;
    stage.desk.start_turn(&thread_id, "[[stream 1]]").await?;
    stage.desk.turn_ended(&thread_id).await?;
    stage.client.watched(&thread_id).await?;
    assert!(stage.client.start_turn(&thread_id, "[[http 401]]").await.is_ok());
    let mut problem = 0;
    let ended = stage
        .client
        .thread_event("the turn's end", |kind| match kind {
            agent_event::Kind::Problem(told) => {
                problem = told.code;
                None
            }
            agent_event::Kind::TurnEnded(ended) => Some(ended),
            _ => None,
        })
        .await?;
    assert!(ended.state() == v1::TurnState::Failed);
    assert!(!ended.error.is_empty() && !ended.error.contains("127.0.0.1"), "{}", ended.error);
    assert_ne!(problem, 0);
    Ok(())
}

/// A program that says it is another version of Codex, and nothing else.
fn impostor(home: &CodexHome, version: &str) -> anyhow::Result<std::path::PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let path = home.workspace().join("other-codex");
    let answer = format!(r#"{{"id":1,"result":{{"userAgent":"flydex_connector/{version} (Test)"}}}}"#);
    let text =
        format!("#!/bin/sh\nwhile read -r line; do case \"$line\" in *initialize\\\"*) echo '{answer}';; esac; done\n");
    std::fs::write(&path, text)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

#[tokio::test]
async fn a_codex_that_is_too_old_is_not_used_and_one_that_is_too_new_is_read_only() -> anyhow::Result<()> {
    let model = Model::start().await?;
    let home = CodexHome::create(&model)?;
    let mut old = config(&home);
    old.program = Some(impostor(&home, "0.100.0")?);
    let mut client = Client::start(old.clone());
    let code = client
        .event("a status", |event| match event {
            CodexEvent::Status(CodexStatus::Unavailable(code)) => Some(code),
            _ => None,
        })
        .await?;
    assert_eq!(code, ErrorCode::CodexTooOld);
    client.stop().await?;

    old.program = Some(impostor(&home, "0.999.1")?);
    let mut client = Client::start(old);
    let read_only = client
        .event("a status", |event| match event {
            CodexEvent::Status(CodexStatus::Ready { read_only, .. }) => Some(read_only),
            _ => None,
        })
        .await?;
    assert!(read_only);
    let thread_id = "00000000-0000-7000-8000-000000000000";
    let refused = client.start_turn(thread_id, "hi").await.err().context("refused")?;
    assert_eq!(refused.code(), ErrorCode::CodexTooNew);
    client.stop().await
}

#[tokio::test]
async fn a_daemon_that_comes_later_is_joined_once_nothing_runs() -> anyhow::Result<()> {
    let model = Model::start().await?;
    let home = CodexHome::create(&model)?;
    let mut config = config(&home);
    config.program = Some(wrapper(&home)?);
    let mut client = Client::start(config);
    let (_, own) = client.ready().await?;
    let _daemon = home.start_daemon().await?;
    let (_, shared) = client.ready().await?;
    assert_ne!(own, shared);
    client.stop().await
}
