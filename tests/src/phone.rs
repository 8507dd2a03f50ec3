//! What a person does on a phone: sign in, pair, read, write, answer.

use anyhow::{Context as _, bail};

use crate::browser::{Page, Target};

/// A page of the web app in a profile of its own.
pub struct Phone {
    page: Page,
}

/// What the phone can answer to an approval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Let it happen.
    Accept,
    /// Do not, and let the turn go on.
    Decline,
}

impl Phone {
    /// The app in that page.
    #[must_use]
    pub const fn new(page: Page) -> Self {
        Self { page }
    }

    /// The page, for what has no word here.
    #[must_use]
    pub const fn page(&self) -> &Page {
        &self.page
    }

    /// Opens a sign-in link and says yes to it.
    ///
    /// # Errors
    /// When the app does not take it.
    pub async fn sign_in(&self, link: &str) -> anyhow::Result<()> {
        self.page.goto(link).await?;
        self.page.click("sign-in").await?;
        self.page.sees("open-account").await.context("sign in")
    }

    /// Asks, signed in as owner, for a link that signs another browser in.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn sign_in_link(&self) -> anyhow::Result<String> {
        let script = "fetch('/api/sign-in-links', {method: 'POST', headers: {'content-type': 'application/json'}, \
                      body: '{}'}).then(async (answer) => answer.ok ? (await answer.json()).url : answer.status)";
        let answer = self.page.evaluate(script).await?;
        Ok(answer.as_str().with_context(|| format!("no link but {answer}"))?.to_owned())
    }

    /// Opens the address of a pairing code and returns the six digits that are shown.
    ///
    /// # Errors
    /// When no digits come.
    pub async fn scan(&self, pair_url: &str) -> anyhow::Result<String> {
        // A new address with the same path would only change the fragment: leave first.
        self.page.goto("about:blank").await?;
        self.page.goto(pair_url).await?;
        self.page.text("pair-code").await
    }

    /// Waits until the pairing is done, and opens the machine's threads.
    ///
    /// # Errors
    /// When it is not in time.
    pub async fn open_paired(&self) -> anyhow::Result<()> {
        self.page.sees(Target::state("pair-status", "done")).await?;
        self.page.click("pair-open").await?;
        self.live().await
    }

    /// Waits until the machine that is open is live.
    ///
    /// # Errors
    /// When it is not in time.
    pub async fn live(&self) -> anyhow::Result<()> {
        self.shows_connection("live").await
    }

    /// Waits until the open page shows that state of the connection.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn shows_connection(&self, state: &str) -> anyhow::Result<()> {
        self.page.sees(Target::state("connection-state", state).shown()).await
    }

    /// Opens the thread whose row has this text.
    ///
    /// # Errors
    /// When there is none in time.
    pub async fn open_thread(&self, title: &str) -> anyhow::Result<()> {
        self.page.click(Target::from("thread-row").with_text(title)).await?;
        self.page.sees("composer-text").await
    }

    /// Starts a turn in the thread that is open.
    ///
    /// # Errors
    /// When the composer does not take it.
    pub async fn send(&self, text: &str) -> anyhow::Result<()> {
        self.page.fill("composer-text", text).await?;
        self.page.click("composer-send").await
    }

    /// Steers the turn that runs.
    ///
    /// # Errors
    /// When the composer does not take it.
    pub async fn steer(&self, text: &str) -> anyhow::Result<()> {
        self.page.fill("composer-text", text).await?;
        self.page.click("composer-steer").await
    }

    /// Stops the turn that runs.
    ///
    /// # Errors
    /// When none runs.
    pub async fn interrupt(&self) -> anyhow::Result<()> {
        self.page.click("composer-interrupt").await
    }

    /// Waits until no turn runs: the composer starts one again.
    ///
    /// # Errors
    /// When one still runs.
    pub async fn idle(&self) -> anyhow::Result<()> {
        self.page.sees("composer-send").await
    }

    /// Waits for an answer of the model that holds this text.
    ///
    /// # Errors
    /// When none comes in time.
    pub async fn reads(&self, text: &str) -> anyhow::Result<()> {
        self.page.sees(Target::from("item-agent").with_text(text)).await
    }

    /// Waits for the output of a command that holds this text.
    ///
    /// # Errors
    /// When none comes in time.
    pub async fn reads_output(&self, text: &str) -> anyhow::Result<()> {
        self.page.sees(Target::from("item-output").with_text(text)).await
    }

    /// Waits for an approval and returns its command.
    ///
    /// # Errors
    /// When none comes in time.
    pub async fn asked(&self) -> anyhow::Result<String> {
        self.page.text("approval-command").await
    }

    /// Presses a button of the approval.
    ///
    /// # Errors
    /// When there is none.
    pub async fn answer(&self, answer: Answer) -> anyhow::Result<()> {
        let button = match answer {
            Answer::Accept => "approval-accept",
            Answer::Decline => "approval-decline",
        };
        self.page.click(button).await
    }

    /// Waits until it is said what became of the approval, and returns that.
    ///
    /// # Errors
    /// When nothing is said in time.
    pub async fn outcome(&self) -> anyhow::Result<String> {
        self.page.text("approval-outcome").await
    }

    /// Fails when a script threw, the content policy was hit, or something was asked for beyond `origin`.
    ///
    /// # Errors
    /// With what went wrong.
    pub async fn is_clean(&self, origin: &str) -> anyhow::Result<()> {
        // Chromium reports requests that failed while the relay was away as errors too.
        let expected = |problem: &String| problem.contains("Failed to load resource") || problem.contains("WebSocket");
        let problems: Vec<_> = self.page.problems().await?.into_iter().filter(|it| !expected(it)).collect();
        let allowed =
            |url: &String| url.starts_with(origin) || ["about:", "data:", "blob:"].iter().any(|it| url.starts_with(it));
        let foreign: Vec<_> = self.page.requests().await?.into_iter().filter(|url| !allowed(url)).collect();
        if problems.is_empty() && foreign.is_empty() {
            return Ok(());
        }
        bail!("the page had problems: {problems:?}, and asked for {foreign:?}")
    }
}
