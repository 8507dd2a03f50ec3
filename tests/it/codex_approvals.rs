//! Approvals over the real Codex: asked, answered from afar, answered at the desk, withdrawn.

#![expect(clippy::wildcard_enum_match_arm, reason = "a test waits for one kind and passes the others over")]

use flydex_agent_proto::v1::{self, item};
use flydex_connector::codex::{AnswerOutcome, RequestKey, Resolution};
use flydex_domain::approval::ApprovalKind;
use flydex_domain::command::Decision;
use flydex_domain::id::Generation;
use flydex_tests::codex::CodexHome;

use crate::codex_client::{Stage, stage, stage_with};

/// A thread with one turn behind it, so that it can be watched, and watched.
async fn watched_thread(stage: &mut Stage) -> anyhow::Result<String> {
    let thread_id = stage.desk.start_thread(&stage.home.workspace()).await?;
    stage.desk.start_turn(&thread_id, "[[stream 1]]").await?;
    stage.desk.turn_ended(&thread_id).await?;
    stage.client.watched(&thread_id).await?;
    Ok(thread_id)
}

fn is_command(kind: &item::Kind) -> bool {
    matches!(kind, item::Kind::CommandExecution(_))
}

#[tokio::test]
async fn an_accepted_command_runs_and_the_answer_is_confirmed() -> anyhow::Result<()> {
    let mut stage = stage().await?;
    let thread_id = watched_thread(&mut stage).await?;
    assert!(stage.client.start_turn(&thread_id, "[[esc echo approved]]").await.is_ok());
    let asked = stage.client.approval().await?;
    assert_eq!(asked.action.kind, ApprovalKind::Command);
    assert!(asked.action.command.contains("echo approved") && !asked.desk_only);
    assert_eq!(asked.thread_id.to_string(), thread_id);
    let outcome = stage.client.handle.answer_approval(&asked.key, Decision::Accept).await;
    assert_eq!(outcome, AnswerOutcome::Confirmed);
    let item = stage.client.item_completed(is_command).await?;
    let Some(item::Kind::CommandExecution(command)) = item.kind else { anyhow::bail!("a command") };
    assert_eq!((command.output.as_str(), command.exit_code, command.has_exit_code), ("approved\n", 0, true));
    assert_eq!(stage.client.handle.answer_approval(&asked.key, Decision::Accept).await, AnswerOutcome::Gone);
    Ok(())
}

#[tokio::test]
async fn a_silent_command_is_confirmed_while_it_still_runs() -> anyhow::Result<()> {
    let mut stage = stage().await?;
    let thread_id = watched_thread(&mut stage).await?;
    let flag = stage.home.workspace().join("go");
    let wait = format!("[[esc while [ ! -e {} ]; do sleep 0.1; done]]", flag.display());
    assert!(stage.client.start_turn(&thread_id, &wait).await.is_ok());
    let asked = stage.client.approval().await?;
    let outcome = stage.client.handle.answer_approval(&asked.key, Decision::Accept).await;
    assert_eq!(outcome, AnswerOutcome::Confirmed);
    std::fs::write(&flag, "")?;
    stage.client.turn_ended().await?;
    Ok(())
}

#[tokio::test]
async fn a_declined_command_does_not_run_and_a_cancelled_one_ends_the_turn() -> anyhow::Result<()> {
    let mut stage = stage().await?;
    let thread_id = watched_thread(&mut stage).await?;
    for (decision, state) in
        [(Decision::Decline, v1::TurnState::Completed), (Decision::Cancel, v1::TurnState::Interrupted)]
    {
        let file = stage.home.workspace().join(decision.name());
        assert!(stage.client.start_turn(&thread_id, &format!("[[esc touch {}]]", file.display())).await.is_ok());
        let asked = stage.client.approval().await?;
        let outcome = stage.client.handle.answer_approval(&asked.key, decision).await;
        assert_eq!(outcome, AnswerOutcome::Confirmed, "{}", decision.name());
        assert!(stage.client.turn_ended().await?.state() == state, "{}", decision.name());
        assert!(!file.exists());
    }
    Ok(())
}

#[tokio::test]
async fn a_file_change_comes_with_its_diff_and_is_written_when_accepted() -> anyhow::Result<()> {
    let mut stage = stage().await?;
    let outside = CodexHome::outside()?;
    let file = outside.path().join("note.txt");
    let thread_id = watched_thread(&mut stage).await?;
    assert!(stage.client.start_turn(&thread_id, &format!("[[patch {}]]", file.display())).await.is_ok());
    let asked = stage.client.approval().await?;
    assert_eq!(asked.action.kind, ApprovalKind::FileChange);
    let change = &asked.action.changes[0];
    assert_eq!((change.path.as_str(), change.kind.as_str()), (file.to_str().unwrap_or_default(), "add"));
    assert!(change.diff.contains("first line") && !asked.desk_only);
    let outcome = stage.client.handle.answer_approval(&asked.key, Decision::Accept).await;
    assert_eq!(outcome, AnswerOutcome::Confirmed);
    assert!(file.exists());
    Ok(())
}

#[tokio::test]
async fn an_approval_of_a_thread_that_nobody_watches_is_told_with_its_diff() -> anyhow::Result<()> {
    let mut stage = stage().await?;
    let outside = CodexHome::outside()?;
    let file = outside.path().join("note.txt");
    let thread_id = stage.desk.start_thread(&stage.home.workspace()).await?;
    stage.desk.start_turn(&thread_id, &format!("[[patch {}]]", file.display())).await?;
    let asked = stage.client.approval().await?;
    assert_eq!(asked.action.kind, ApprovalKind::FileChange);
    assert!(!asked.desk_only && asked.action.changes[0].diff.contains("first line"));
    Ok(())
}

#[tokio::test]
async fn a_pending_approval_is_found_by_a_connector_that_comes_later() -> anyhow::Result<()> {
    let mut stage = stage().await?;
    let thread_id = stage.desk.start_thread(&stage.home.workspace()).await?;
    stage.desk.start_turn(&thread_id, "[[esc echo late]]").await?;
    let first = stage.client.approval().await?;
    let config = crate::codex_client::config(&stage.home);
    stage.client.stop().await?;
    let mut later = crate::codex_client::Client::start(config);
    let again = later.approval().await?;
    assert_eq!(again.key, first.key, "the same Codex, the same request");
    assert_eq!(later.handle.answer_approval(&again.key, Decision::Accept).await, AnswerOutcome::Confirmed);
    Ok(())
}

#[tokio::test]
async fn an_answer_at_the_desk_closes_the_approval_here() -> anyhow::Result<()> {
    let mut stage = stage().await?;
    let thread_id = watched_thread(&mut stage).await?;
    assert!(stage.client.start_turn(&thread_id, "[[esc echo desk]]").await.is_ok());
    let asked = stage.client.approval().await?;
    let at_desk = stage.desk.next_approval().await?;
    stage.desk.decide(&at_desk, "accept").await?;
    assert_eq!(stage.client.resolution(&asked.key).await?, Resolution::AtDesk);
    let late = stage.client.handle.answer_approval(&asked.key, Decision::Decline).await;
    assert_eq!(late, AnswerOutcome::Gone);
    Ok(())
}

#[tokio::test]
async fn an_interrupted_turn_withdraws_its_approval() -> anyhow::Result<()> {
    let mut stage = stage().await?;
    let thread_id = watched_thread(&mut stage).await?;
    let turn = stage.client.start_turn(&thread_id, "[[esc echo never]]").await;
    let turn_id = turn.map_err(|refused| anyhow::anyhow!("{refused:?}"))?.turn_id;
    let asked = stage.client.approval().await?;
    stage.desk.request("turn/interrupt", serde_json::json!({"threadId": thread_id, "turnId": turn_id})).await?;
    assert_eq!(stage.client.resolution(&asked.key).await?, Resolution::Withdrawn);
    Ok(())
}

#[tokio::test]
async fn watching_again_does_not_repeat_an_approval() -> anyhow::Result<()> {
    let mut stage = stage().await?;
    let thread_id = watched_thread(&mut stage).await?;
    assert!(stage.client.start_turn(&thread_id, "[[esc echo once]]").await.is_ok());
    let asked = stage.client.approval().await?;
    stage.client.watched(&thread_id).await?;
    stage.client.watched(&thread_id).await?;
    let outcome = stage.client.handle.answer_approval(&asked.key, Decision::Decline).await;
    assert_eq!(outcome, AnswerOutcome::Confirmed);
    let mut asked_again = false;
    stage
        .client
        .event("the turn's end", |event| match event {
            flydex_connector::codex::CodexEvent::ApprovalAsked(_) => {
                asked_again = true;
                None
            }
            flydex_connector::codex::CodexEvent::Thread { event, .. } => match event.kind? {
                v1::agent_event::Kind::TurnEnded(_) => Some(()),
                _ => None,
            },
            _ => None,
        })
        .await?;
    assert!(!asked_again);
    Ok(())
}

#[tokio::test]
async fn acceptance_for_the_session_needs_the_desks_leave() -> anyhow::Result<()> {
    let mut stage = stage().await?;
    let thread_id = watched_thread(&mut stage).await?;
    assert!(stage.client.start_turn(&thread_id, "[[esc echo no]]").await.is_ok());
    let asked = stage.client.approval().await?;
    let outcome = stage.client.handle.answer_approval(&asked.key, Decision::AcceptForSession).await;
    assert_eq!(outcome, AnswerOutcome::Gone);
    let stale = RequestKey { generation: Generation::from_bytes([0; 32]), request_id: asked.key.request_id.clone() };
    assert_eq!(stage.client.handle.answer_approval(&stale, Decision::Accept).await, AnswerOutcome::Gone);

    let mut stage = stage_with(|config| config.session_acceptance = true).await?;
    let thread_id = watched_thread(&mut stage).await?;
    assert!(stage.client.start_turn(&thread_id, "[[esc echo yes]]").await.is_ok());
    let asked = stage.client.approval().await?;
    assert!(asked.session_scope_possible);
    let outcome = stage.client.handle.answer_approval(&asked.key, Decision::AcceptForSession).await;
    assert_eq!(outcome, AnswerOutcome::Confirmed);
    Ok(())
}

#[tokio::test]
async fn two_approvals_at_once_are_answered_in_any_order() -> anyhow::Result<()> {
    let mut stage = stage().await?;
    let thread_id = watched_thread(&mut stage).await?;
    assert!(stage.client.start_turn(&thread_id, "[[par echo both]]").await.is_ok());
    let first = stage.client.approval().await?;
    let second = stage.client.approval().await?;
    assert_ne!(first.key, second.key);
    let decline = stage.client.handle.answer_approval(&second.key, Decision::Decline).await;
    let accept = stage.client.handle.answer_approval(&first.key, Decision::Accept).await;
    assert_eq!((decline, accept), (AnswerOutcome::Confirmed, AnswerOutcome::Confirmed));
    assert!(stage.client.turn_ended().await?.state() == v1::TurnState::Completed);
    Ok(())
}
