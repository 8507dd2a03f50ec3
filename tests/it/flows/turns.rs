//! Turns: started, streamed, steered and stopped from the phone.

use flydex_tests::browser::Target;
use flydex_tests::world::World;

#[tokio::test]
async fn a_turn_streams_to_the_phone_while_it_runs() -> anyhow::Result<()> {
    let paired = World::paired().await?;
    paired.open_new_thread("stream to me").await?;
    let phone = &paired.phone;
    phone.send("[[stream 5]] [[gate half]] [[stream 5]]").await?;
    paired.world.model.reached("half").await?;
    // The second half is not made yet: what is seen now was streamed.
    phone.reads("tick 4").await?;
    assert_eq!(phone.page().count(Target::from("item-agent").with_text("tick 5")).await?, 0);
    paired.world.model.open("half");
    phone.reads("tick 9").await?;
    phone.idle().await?;
    phone.is_clean(paired.origin()).await
}

#[tokio::test]
async fn a_running_turn_is_steered() -> anyhow::Result<()> {
    let paired = World::paired().await?;
    paired.open_new_thread("steer me").await?;
    let phone = &paired.phone;
    phone.send("[[stream 2]] [[gate wait]]").await?;
    paired.world.model.reached("wait").await?;
    phone.reads("tick 1").await?;
    phone.steer("the other way [[say turned around]]").await?;
    // Codex took it: the message says so, or the answer to it is there already.
    let taken = "[data-testid=outbox-state][data-state=executed], [data-testid=item-agent]:has-text('turned around')";
    phone.page().sees(Target::css(taken)).await?;
    paired.world.model.open("wait");
    phone.reads("turned around").await?;
    phone.idle().await
}

#[tokio::test]
async fn a_running_turn_is_stopped() -> anyhow::Result<()> {
    let paired = World::paired().await?;
    let thread_id = paired.open_new_thread("stop me").await?;
    let phone = &paired.phone;
    let mut desk = paired.world.desk().await?;
    desk.resume_thread(&thread_id).await?;
    phone.send("[[stream 2]] [[gate never]]").await?;
    paired.world.model.reached("never").await?;
    phone.reads("tick 1").await?;
    phone.interrupt().await?;
    phone.idle().await?;
    assert_eq!(desk.turn_ended(&thread_id).await?["status"], "interrupted");
    Ok(())
}

#[tokio::test]
async fn what_the_model_weighed_is_shown_before_its_answer() -> anyhow::Result<()> {
    let paired = World::paired().await?;
    paired.open_new_thread("think first").await?;
    let phone = &paired.phone;
    phone.send("[[reason]] [[say thought through]]").await?;
    phone.page().sees(Target::css("main").with_text("Weighing it")).await?;
    phone.reads("thought through").await?;
    phone.idle().await
}

#[tokio::test]
async fn a_thread_is_started_from_the_phone() -> anyhow::Result<()> {
    let paired = World::paired().await?;
    let phone = &paired.phone;
    phone.page().click("new-thread").await?;
    phone.send("begin here [[say begun]]").await?;
    phone.reads("begun").await?;
    phone.is_clean(paired.origin()).await
}
