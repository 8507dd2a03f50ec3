//! Signing in at a real identity provider, with a real browser in between.

use flydex_tests::browser::{Browser, Target};
use flydex_tests::identity_provider::IdentityProvider;
use flydex_tests::phone::Phone;
use flydex_tests::server::{Server, Settings, free_port};

/// A relay that is set up with a provider, and whose owner is linked with a person there.
struct Linked {
    browser: Browser,
    provider: IdentityProvider,
    server: Server,
}

impl Linked {
    async fn start() -> anyhow::Result<Self> {
        let port = free_port()?;
        let provider = IdentityProvider::start(&format!("http://localhost:{port}")).await?;
        // Whatever is logged, the provider's secret is not.
        let (variables, log_filter) = (provider.variables(), Some("trace".to_owned()));
        let settings = Settings { port, variables, log_filter, ..Settings::default() };
        let server = Server::start_with(settings).await?;
        let browser = Browser::start()?;
        let phone = Phone::new(browser.phone().await?);
        phone.sign_in(server.owner_link()).await?;
        phone.page().click("open-account").await?;
        phone.page().click("link-identity").await?;
        provider.sign_in(phone.page(), "mira").await?;
        phone.page().sees("identities").await?;
        Ok(Self { browser, provider, server })
    }

    /// Goes to the provider from a fresh browser, and signs in there.
    async fn sign_in(&self, person: &str) -> anyhow::Result<Phone> {
        let phone = Phone::new(self.browser.phone().await?);
        phone.page().goto(self.server.origin()).await?;
        phone.page().click("identity-sign-in").await?;
        self.provider.sign_in(phone.page(), person).await?;
        Ok(phone)
    }
}

#[tokio::test]
async fn who_is_linked_signs_in_at_a_real_provider_before_and_after_it_changes_its_keys() -> anyhow::Result<()> {
    let mut linked = Linked::start().await?;
    let phone = linked.sign_in("mira").await?;
    phone.page().sees("open-account").await?;
    assert!(!phone.page().url().await?.contains("code="), "the code stayed in the address");
    linked.provider.rotate().await?;
    linked.sign_in("mira").await?.page().sees("open-account").await?;
    // Whom the provider vouches for is somebody, and nobody here.
    let stranger = linked.sign_in("somebody else").await?;
    stranger.page().sees(Target::css("[data-code='2037']")).await
}
