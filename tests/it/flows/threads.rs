//! Reading: the list of threads and the history of one.

use flydex_tests::browser::Target;
use flydex_tests::phone::Phone;
use flydex_tests::world::World;

#[tokio::test]
async fn threads_of_the_desk_are_listed_and_their_history_is_read() -> anyhow::Result<()> {
    let paired = World::paired().await?;
    paired.world.thread("the first of two [[markdown]]").await?;
    paired.world.thread("the second of two [[shell echo from the desk]]").await?;
    let phone = &paired.phone;
    phone.page().sees(Target::from("thread-row").with_text("the first of two")).await?;
    phone.open_thread("the second of two").await?;
    phone.page().sees(Target::from("item-user").with_text("the second of two").shown()).await?;
    phone.reads_output("from the desk").await?;
    phone.is_clean(paired.origin()).await
}

#[tokio::test]
async fn markdown_is_drawn_without_raw_html_or_bad_links() -> anyhow::Result<()> {
    let paired = World::paired().await?;
    paired.world.thread("show me [[markdown]]").await?;
    let phone = &paired.phone;
    phone.open_thread("show me").await?;
    phone.reads("A plan in three parts").await?;
    phone.reads("alert('this must be shown as text')").await?;
    assert_eq!(phone.page().count(Target::css("[data-testid=item-agent] script")).await?, 0);
    assert_eq!(phone.page().count(Target::css("a[href^='javascript:']")).await?, 0);
    phone.is_clean(paired.origin()).await
}

#[tokio::test]
async fn one_tab_of_a_phone_holds_the_session_and_the_one_that_is_left_goes_on() -> anyhow::Result<()> {
    let paired = World::paired().await?;
    paired.open_new_thread("seen twice").await?;
    let first = &paired.phone;
    let second = Phone::new(first.page().tab().await?);
    second.page().goto(&first.page().url().await?).await?;
    second.page().sees(Target::css("body").with_text("open in another tab")).await?;
    first.send("[[stream 3]] [[gate both]] [[stream 3]]").await?;
    paired.world.model.reached("both").await?;
    first.reads("tick 2").await?;
    // The tab that holds the session goes away in the middle.
    first.page().goto("about:blank").await?;
    paired.world.model.open("both");
    second.reads("tick 5").await?;
    second.idle().await?;
    second.send("one is left [[say still here]]").await?;
    second.reads("still here").await?;
    second.is_clean(paired.origin()).await
}

#[tokio::test]
async fn the_views_are_usable_with_a_screen_reader() -> anyhow::Result<()> {
    let paired = World::paired().await?;
    let phone = &paired.phone;
    paired.world.thread("a thread to look at [[markdown]]").await?;
    phone.page().sees(Target::from("thread-row").with_text("a thread to look at")).await?;
    assert_eq!(phone.page().accessibility_violations().await?, Vec::<String>::new(), "the list");
    phone.open_thread("a thread to look at").await?;
    phone.reads("A plan in three parts").await?;
    assert_eq!(phone.page().accessibility_violations().await?, Vec::<String>::new(), "the thread");
    phone.send("[[esc echo hello]]").await?;
    phone.asked().await?;
    assert_eq!(phone.page().accessibility_violations().await?, Vec::<String>::new(), "the approval");
    Ok(())
}
