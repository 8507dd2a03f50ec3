//! Signing in with a passkey, by a recovery code, and the fresh proof that a pairing wants.

use flydex_tests::world::{World, digits};

#[tokio::test]
async fn a_passkey_signs_in_and_is_asked_for_before_a_pairing() -> anyhow::Result<()> {
    let world = World::start().await?;
    let phone = world.phone().await?;
    let page = phone.page();
    page.authenticator().await?;
    phone.sign_in(world.server.owner_link()).await?;

    // After the first sign-in by a link the app offers to add a passkey.
    page.click("offer-passkey").await?;
    page.sees("remove-passkey").await?;
    page.click("make-recovery-codes").await?;
    let codes = page.text("recovery-codes").await?;
    assert_eq!(page.accessibility_violations().await?, Vec::<String>::new());
    page.click("codes-kept").await?;
    let link = phone.sign_in_link().await?;

    page.click("sign-out").await?;
    page.sees("passkey-sign-in").await?;
    assert_eq!(page.accessibility_violations().await?, Vec::<String>::new());
    page.click("passkey-sign-in").await?;
    page.sees("open-account").await?;

    // A link is no assertion of the passkey, so the pairing asks for one.
    phone.sign_in(&link).await?;
    let mut connector = world.machine.connect()?;
    let url = connector.pair_url().await?;
    page.goto(&url).await?;
    page.click("confirm-presence").await?;
    let shown = page.text("pair-code").await?;
    let (code, _) = connector.question().await?;
    assert_eq!(digits(&shown), digits(&code));
    connector.answer(true).await?;
    phone.open_paired().await?;

    // Who has lost the passkey gets in by a code of the ten, once.
    let code = codes.lines().map(str::trim).find(|line| line.len() == 29).expect("a recovery code").to_owned();
    let other = world.phone().await?;
    other.page().goto(world.server.origin()).await?;
    other.page().click("show-recovery").await?;
    other.page().fill("recovery-code", &code).await?;
    other.page().click("use-recovery-code").await?;
    other.page().sees("open-account").await?;
    phone.is_clean(world.server.origin()).await
}
