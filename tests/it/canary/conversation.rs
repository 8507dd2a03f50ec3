//! What a person does with a machine, in words that stand nowhere else.

use flydex_tests::browser::Target;
use flydex_tests::canary::mark;
use flydex_tests::codex::CodexHome;
use flydex_tests::phone::Answer;

use super::stage::Stage;

/// Threads from the desk and from the phone, an approval that is given and one that is not, a turn that is steered, one
/// that is stopped and one that fails.
pub(super) async fn held(stage: &Stage) -> anyhow::Result<()> {
    let (title, ready) = (mark("title"), mark("answer"));
    let mut desk = stage.desk().await?;
    let thread_id = desk.start_thread(&stage.codex.workspace()).await?;
    desk.start_turn(&thread_id, &format!("{title} [[say {ready}]]")).await?;
    desk.turn_ended(&thread_id).await?;
    stage.phone.open_thread(&title).await?;
    stage.phone.reads(&ready).await?;

    approvals(stage).await?;
    steered_and_stopped(stage).await?;
    stage.phone.send(&format!("{} [[patch {}]] [[say {}]]", mark("prompt"), mark("patch"), mark("answer"))).await?;
    stage.phone.idle().await?;
    stage.phone.send(&format!("{} [[fail]]", mark("prompt"))).await?;
    stage.phone.idle().await
}

async fn approvals(stage: &Stage) -> anyhow::Result<()> {
    let outside = CodexHome::outside()?;
    let (output, file) = (mark("output"), outside.path().join(mark("file")));
    stage.phone.send(&format!("{} [[esc echo {output} | tee {}]]", mark("prompt"), file.display())).await?;
    stage.phone.asked().await?;
    stage.phone.answer(Answer::Accept).await?;
    stage.phone.reads_output(&output).await?;
    stage.phone.idle().await?;
    stage.phone.send(&format!("{} [[esc echo {} | tee {}]]", mark("prompt"), mark("output"), file.display())).await?;
    stage.phone.asked().await?;
    stage.phone.answer(Answer::Decline).await?;
    stage.phone.idle().await
}

async fn steered_and_stopped(stage: &Stage) -> anyhow::Result<()> {
    let turned = mark("answer");
    stage.phone.send(&format!("{} [[stream 2]] [[gate steer]]", mark("prompt"))).await?;
    stage.model.reached("steer").await?;
    stage.phone.steer(&format!("{} [[say {turned}]]", mark("steer"))).await?;
    // Codex took it: the message says so, or the answer to it is there already.
    let taken =
        format!("[data-testid=outbox-state][data-state=executed], [data-testid=item-agent]:has-text('{turned}')");
    stage.phone.page().sees(Target::css(&taken)).await?;
    stage.model.open("steer");
    stage.phone.reads(&turned).await?;
    stage.phone.idle().await?;
    stage.phone.send(&format!("{} [[stream 2]] [[gate never]]", mark("prompt"))).await?;
    stage.model.reached("never").await?;
    stage.phone.interrupt().await?;
    stage.phone.idle().await
}
