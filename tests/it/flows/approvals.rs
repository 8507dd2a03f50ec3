//! Approvals: asked at the phone, answered there, on another device or at the desk.

use flydex_tests::browser::Target;
use flydex_tests::codex::CodexHome;
use flydex_tests::phone::Answer;
use flydex_tests::world::World;

#[tokio::test]
async fn an_accepted_command_runs_and_its_output_is_seen() -> anyhow::Result<()> {
    let paired = World::paired().await?;
    paired.open_new_thread("run something").await?;
    let phone = &paired.phone;
    phone.send("[[esc echo ran outside]]").await?;
    let command = phone.asked().await?;
    assert!(command.contains("echo ran outside"), "{command}");
    phone.answer(Answer::Accept).await?;
    phone.reads_output("ran outside").await?;
    phone.idle().await?;
    phone.is_clean(paired.origin()).await
}

#[tokio::test]
async fn a_declined_command_does_not_run() -> anyhow::Result<()> {
    let paired = World::paired().await?;
    let outside = CodexHome::outside()?;
    let file = outside.path().join("made");
    paired.open_new_thread("do not run this").await?;
    let phone = &paired.phone;
    phone.send(&format!("[[esc touch {}]] [[say as you wish]]", file.display())).await?;
    phone.asked().await?;
    phone.answer(Answer::Decline).await?;
    phone.reads("as you wish").await?;
    phone.idle().await?;
    assert!(!file.exists());
    Ok(())
}

#[tokio::test]
async fn a_patch_is_shown_with_its_diff_and_written_when_accepted() -> anyhow::Result<()> {
    let paired = World::paired().await?;
    let outside = CodexHome::outside()?;
    let file = outside.path().join("note.txt");
    paired.open_new_thread("write a note").await?;
    let phone = &paired.phone;
    phone.send(&format!("[[patch {}]]", file.display())).await?;
    phone.page().sees(Target::from("approval-changes").with_text("second line")).await?;
    assert!(!file.exists());
    phone.answer(Answer::Accept).await?;
    phone.idle().await?;
    assert_eq!(std::fs::read_to_string(&file)?, "first line\nsecond line\n");
    Ok(())
}

#[tokio::test]
async fn the_first_answer_counts_and_the_other_device_is_told() -> anyhow::Result<()> {
    let paired = World::paired().await?;
    let second = paired.second_phone().await?;
    paired.open_new_thread("who is first").await?;
    second.open_thread("who is first").await?;
    paired.phone.send("[[esc echo only once]]").await?;
    paired.phone.asked().await?;
    second.asked().await?;
    second.answer(Answer::Accept).await?;
    second.reads_output("only once").await?;
    let outcome = paired.phone.page().text("approval-closed").await?;
    assert!(outcome.contains("Accepted"), "{outcome}");
    paired.phone.page().misses("approval-accept").await?;
    Ok(())
}

#[tokio::test]
async fn an_answer_at_the_desk_closes_the_card() -> anyhow::Result<()> {
    let paired = World::paired().await?;
    let thread_id = paired.open_new_thread("answer at the desk").await?;
    let mut desk = paired.world.desk().await?;
    desk.resume_thread(&thread_id).await?;
    paired.phone.send("[[esc echo from the desk]]").await?;
    paired.phone.asked().await?;
    let approval = desk.next_approval().await?;
    desk.decide(&approval, "accept").await?;
    let outcome = paired.phone.page().text("approval-closed").await?;
    assert!(outcome.contains("Answered at the computer"), "{outcome}");
    paired.phone.reads_output("from the desk").await
}
