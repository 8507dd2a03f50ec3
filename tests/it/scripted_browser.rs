//! The other ground of the flows: Chromium does what the driver is told, and says what the page did wrong.

use flydex_tests::browser::{Browser, Target};

const PAGE: &str = "data:text/html,<main><p data-testid=machine-card>one</p><p data-testid=machine-card>two</p>\
<input data-testid=composer-text><button data-testid=composer-send \
onclick=\"document.querySelector('output').textContent=document.querySelector('input').value;console.error('oops')\">\
</button><output data-testid=item-agent></output></main>";

#[tokio::test]
async fn a_page_is_filled_clicked_and_read() -> anyhow::Result<()> {
    let browser = Browser::start()?;
    let phone = browser.phone().await?;
    phone.goto(PAGE).await?;
    assert_eq!(phone.texts("machine-card").await?, ["one", "two"]);
    assert_eq!(phone.text(Target::from("machine-card").with_text("tw")).await?, "two");
    phone.fill("composer-text", "hello").await?;
    phone.click("composer-send").await?;
    phone.sees(Target::from("item-agent").with_text("hello")).await?;
    assert_eq!(phone.problems().await?, ["oops"]);
    phone.close().await
}
