//! The ground the flows stand on: the real Codex does with the scripted model what the flows take for granted.

use flydex_tests::codex::{CodexHome, Daemon, Desk};
use flydex_tests::model::Model;

struct Ground {
    model: Model,
    home: CodexHome,
    _daemon: Daemon,
    desk: Desk,
    thread_id: String,
}

async fn ground() -> anyhow::Result<Ground> {
    let model = Model::start().await?;
    let home = CodexHome::create(&model)?;
    let daemon = home.start_daemon().await?;
    let mut desk = Desk::connect(daemon.socket()).await?;
    let thread_id = desk.start_thread(&home.workspace()).await?;
    Ok(Ground { model, home, _daemon: daemon, desk, thread_id })
}

#[tokio::test]
async fn a_turn_streams_and_a_gate_holds_it() -> anyhow::Result<()> {
    let mut ground = ground().await?;
    let desk = &mut ground.desk;
    desk.start_turn(&ground.thread_id, "[[stream 3]] [[gate half]] [[stream 2]]").await?;
    ground.model.reached("half").await?;
    desk.next("item/agentMessage/delta", |params| params["delta"] == "tick 2 ").await?;
    ground.model.open("half");
    let message = desk.item_ended("agentMessage").await?;
    assert_eq!(message["text"], "tick 0 tick 1 tick 2 tick 3 tick 4 ");
    assert_eq!(desk.turn_ended(&ground.thread_id).await?["status"], "completed");
    Ok(())
}

#[tokio::test]
async fn an_escalated_command_asks_and_runs_when_accepted() -> anyhow::Result<()> {
    let mut ground = ground().await?;
    let desk = &mut ground.desk;
    desk.start_turn(&ground.thread_id, "[[esc echo approved]] [[stream 1]]").await?;
    let approval = desk.next_approval().await?;
    assert_eq!(approval["method"], "item/commandExecution/requestApproval");
    desk.decide(&approval, "accept").await?;
    let command = desk.item_ended("commandExecution").await?;
    assert_eq!(command["status"], "completed");
    assert_eq!(command["aggregatedOutput"], "approved\n");
    assert_eq!(desk.turn_ended(&ground.thread_id).await?["status"], "completed");
    Ok(())
}

#[tokio::test]
async fn a_patch_outside_the_workspace_asks_and_can_be_declined() -> anyhow::Result<()> {
    let mut ground = ground().await?;
    let outside = CodexHome::outside()?;
    let file = outside.path().join("note.txt");
    let desk = &mut ground.desk;
    desk.start_turn(&ground.thread_id, &format!("[[patch {}]]", file.display())).await?;
    let approval = desk.next_approval().await?;
    assert_eq!(approval["method"], "item/fileChange/requestApproval");
    desk.decide(&approval, "decline").await?;
    assert_eq!(desk.item_ended("fileChange").await?["status"], "declined");
    assert!(!file.exists());
    Ok(())
}

#[tokio::test]
async fn a_patch_inside_the_workspace_is_written_and_changed() -> anyhow::Result<()> {
    let mut ground = ground().await?;
    let desk = &mut ground.desk;
    desk.start_turn(&ground.thread_id, "[[patch note.txt]] [[update note.txt]]").await?;
    assert_eq!(desk.turn_ended(&ground.thread_id).await?["status"], "completed");
    let text = std::fs::read_to_string(ground.home.workspace().join("note.txt"))?;
    assert_eq!(text, "first line\nsecond line, changed\n");
    Ok(())
}

#[tokio::test]
async fn a_failing_model_fails_the_turn() -> anyhow::Result<()> {
    let mut ground = ground().await?;
    let desk = &mut ground.desk;
    for prompt in ["[[http 401]]", "[[drop]]", "[[fail]]"] {
        desk.start_turn(&ground.thread_id, prompt).await?;
        assert_eq!(desk.turn_ended(&ground.thread_id).await?["status"], "failed", "{prompt}");
    }
    Ok(())
}

#[tokio::test]
async fn a_second_client_sees_the_thread_and_its_pending_approval() -> anyhow::Result<()> {
    let mut ground = ground().await?;
    ground.desk.start_turn(&ground.thread_id, "[[esc echo shared]]").await?;
    ground.desk.next_approval().await?;
    let mut second = Desk::connect(&ground.home.socket()).await?;
    second.resume_thread(&ground.thread_id).await?;
    let approval = second.next_approval().await?;
    second.decide(&approval, "accept").await?;
    ground.desk.next("serverRequest/resolved", |_| true).await?;
    assert_eq!(ground.desk.turn_ended(&ground.thread_id).await?["status"], "completed");
    Ok(())
}
