//! Pairing: both screens show the same digits, and nothing happens without the desk's yes.

use flydex_tests::browser::Target;
use flydex_tests::world::{World, digits};

#[tokio::test]
async fn a_phone_pairs_when_the_desk_says_yes() -> anyhow::Result<()> {
    let paired = World::paired().await?;
    paired.phone.page().sees("new-thread").await?;
    let (_, listed) = paired.world.machine.command(&["devices", "list"]).await?;
    assert_eq!(listed.out.iter().filter(|line| line.contains("\towner\t")).count(), 1, "{listed:?}");
    paired.phone.is_clean(paired.origin()).await
}

#[tokio::test]
async fn a_no_at_the_desk_ends_the_pairing_on_both_sides() -> anyhow::Result<()> {
    let world = World::start().await?;
    let phone = world.phone().await?;
    phone.sign_in(world.server.owner_link()).await?;
    let mut connector = world.machine.connect()?;
    let shown = phone.scan(&connector.pair_url().await?).await?;
    let (code, question) = connector.question().await?;
    assert_eq!(digits(&shown), digits(&code));
    assert!(question.contains("home") && question.contains("owner"), "{question}");
    connector.answer(false).await?;
    phone.page().sees(Target::state("pair-status", "failed")).await?;
    assert!(!connector.process_mut().ended().await?.success());
    let (_, listed) = world.machine.command(&["devices", "list"]).await?;
    assert!(listed.out.iter().all(|line| !line.contains("owner")), "{listed:?}");
    Ok(())
}

#[tokio::test]
async fn a_code_works_once() -> anyhow::Result<()> {
    let world = World::start().await?;
    let phone = world.phone().await?;
    phone.sign_in(world.server.owner_link()).await?;
    let other = world.phone().await?;
    other.sign_in(&phone.sign_in_link().await?).await?;
    let connector = world.machine.connect()?;
    let url = connector.pair_url().await?;
    phone.scan(&url).await?;
    other.page().goto(&url).await?;
    other.page().sees(Target::state("pair-status", "failed")).await
}

#[tokio::test]
async fn a_browser_that_is_signed_in_but_not_paired_sees_no_content() -> anyhow::Result<()> {
    let paired = World::paired().await?;
    paired.world.thread("a private matter [[say ready]]").await?;
    let other = paired.world.phone().await?;
    other.sign_in(&paired.phone.sign_in_link().await?).await?;
    other.page().click("machine-card").await?;
    other.shows_connection("not_paired").await?;
    assert_eq!(other.page().count("thread-row").await?, 0);
    let text = other.page().text(Target::css("body")).await?;
    assert!(!text.contains("private"), "{text}");
    Ok(())
}
