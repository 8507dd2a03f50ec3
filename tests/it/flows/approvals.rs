//! Approvals: asked at the phone, answered there, on another device or at the desk.

use flydex_tests::browser::Target;
use flydex_tests::codex::CodexHome;
use flydex_tests::model::Model;
use flydex_tests::phone::Answer;
use flydex_tests::world::{Paired, World};

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

#[tokio::test]
async fn a_yes_of_high_risk_acts_with_the_passkey_that_was_set_up_after_the_desks_yes() -> anyhow::Result<()> {
    let world = World::start().await?;
    world.allow_workspace().await?;
    let phone = world.phone().await?;
    let page = phone.page();
    page.authenticator().await?;
    phone.sign_in(world.server.owner_link()).await?;
    let mut connector = world.machine.connect()?;
    phone.scan(&connector.pair_url().await?).await?;
    connector.question().await?;
    connector.answer(true).await?;
    page.sees(Target::state("pair-status", "done")).await?;
    page.click("set-up-machine-passkey").await?;
    page.sees(Target::state("machine-passkey", "known")).await?;
    assert_eq!(page.accessibility_violations().await?, Vec::<String>::new());
    phone.open_paired().await?;
    let (set, lines) = world.machine.command(&["settings", "set", "passkey_for_high_risk", "on"]).await?;
    assert!(set, "{lines:?}");
    let paired = Paired { phone, connector, world };
    let second = paired.second_phone().await?;

    paired.open_new_thread("the network please").await?;
    second.open_thread("the network please").await?;
    let (phone, model) = (&paired.phone, &paired.world.model);
    phone.send("[[network]] [[say it is granted]]").await?;
    // Whose passkey the computer does not know can only decline.
    assert!(second.page().text("approval-no-passkey").await?.contains("knows none of this browser"));
    let disabled = "document.querySelector('[data-testid=approval-accept]').disabled";
    assert_eq!(second.page().evaluate(disabled).await?, true);
    // What its person does not confirm is not sent.
    phone.page().verifies_person(false).await?;
    phone.answer(Answer::Accept).await?;
    assert!(phone.page().text("approval-failure").await?.contains("nothing was sent"));
    let granted = |model: &Model| model.requests().iter().any(|request| !request.outputs.is_empty());
    assert!(!granted(model));
    phone.page().verifies_person(true).await?;
    phone.answer(Answer::Accept).await?;
    phone.reads("it is granted").await?;
    assert!(granted(model));
    phone.idle().await?;
    phone.is_clean(paired.origin()).await
}
