//! Breaks: each part goes away at a bad moment, and what is shown afterwards is true.

use flydex_tests::browser::Target;
use flydex_tests::phone::Answer;
use flydex_tests::world::{Paired, World};

#[tokio::test]
async fn a_phone_that_was_away_catches_up_in_the_middle_of_a_stream() -> anyhow::Result<()> {
    let paired = World::paired().await?;
    paired.open_new_thread("keep going").await?;
    let phone = &paired.phone;
    phone.send("[[stream 3]] [[gate away]] [[stream 3]] [[gate back]] [[stream 3]]").await?;
    paired.world.model.reached("away").await?;
    phone.reads("tick 2").await?;
    phone.page().offline(true).await?;
    phone.shows_connection("relay_unreachable").await?;
    paired.world.model.open("away");
    paired.world.model.reached("back").await?;
    phone.page().offline(false).await?;
    phone.reads("tick 5").await?;
    paired.world.model.open("back");
    phone.reads("tick 0 tick 1 tick 2 tick 3 tick 4 tick 5 tick 6 tick 7 tick 8").await?;
    phone.idle().await
}

#[tokio::test]
async fn a_page_that_is_loaded_again_shows_the_running_turn() -> anyhow::Result<()> {
    let paired = World::paired().await?;
    paired.open_new_thread("load me again").await?;
    let phone = &paired.phone;
    phone.send("[[stream 3]] [[gate again]] [[stream 3]]").await?;
    paired.world.model.reached("again").await?;
    phone.reads("tick 2").await?;
    phone.page().reload().await?;
    phone.reads("tick 2").await?;
    paired.world.model.open("again");
    phone.reads("tick 5").await?;
    phone.idle().await
}

#[tokio::test]
async fn the_relay_restarts_in_the_middle_of_a_stream() -> anyhow::Result<()> {
    let Paired { world, connector, phone } = World::paired().await?;
    let thread_id = world.thread("outlive the relay [[say ready]]").await?;
    phone.open_thread("outlive the relay").await?;
    phone.send("[[stream 3]] [[gate restart]] [[stream 3]]").await?;
    world.model.reached("restart").await?;
    phone.reads("tick 2").await?;
    let stopped = world.server.kill().await?;
    phone.shows_connection("relay_unreachable").await?;
    world.model.open("restart");
    let _server = stopped.start().await?;
    phone.live().await?;
    phone.reads("tick 5").await?;
    phone.idle().await?;
    drop((connector, thread_id));
    Ok(())
}

#[tokio::test]
async fn a_pending_approval_outlives_the_connector() -> anyhow::Result<()> {
    let Paired { world, connector, phone } = World::paired().await?;
    world.thread("still waiting [[say ready]]").await?;
    phone.open_thread("still waiting").await?;
    phone.send("[[esc echo after the restart]]").await?;
    phone.asked().await?;
    connector.kill().await?;
    phone.shows_connection("machine_offline").await?;
    let connector = world.machine.run()?;
    phone.live().await?;
    phone.asked().await?;
    phone.answer(Answer::Accept).await?;
    phone.reads_output("after the restart").await?;
    drop(connector);
    Ok(())
}

#[tokio::test]
async fn codex_killed_in_the_middle_of_a_turn_is_said_and_comes_back() -> anyhow::Result<()> {
    let Paired { world, connector, phone } = World::paired().await?;
    world.thread("a short life [[say ready]]").await?;
    phone.open_thread("a short life").await?;
    phone.send("[[stream 2]] [[esc echo never]]").await?;
    phone.asked().await?;
    connector.process().must_log("codex is not available", "it was killed");
    world.daemon.kill().await?;
    // The question died with Codex, and the connector starts or finds another one.
    phone.page().misses("approval-accept").await?;
    phone.live().await?;
    phone.idle().await?;
    phone.send("once more [[say still here]]").await?;
    phone.reads("still here").await?;
    drop(connector);
    Ok(())
}

#[tokio::test]
async fn a_machine_that_is_off_is_shown_as_offline_and_comes_back() -> anyhow::Result<()> {
    let Paired { world, connector, phone } = World::paired().await?;
    connector.stop().await?;
    phone.shows_connection("machine_offline").await?;
    phone.page().goto(&format!("{}/", world.server.origin())).await?;
    phone.page().sees(Target::state("machine-status", "machine_offline")).await?;
    let connector = world.machine.run()?;
    phone.page().sees(Target::state("machine-status", "live")).await?;
    drop(connector);
    Ok(())
}
