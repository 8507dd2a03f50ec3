//! A real Chromium: pages that are opened, clicked and read like a person would.
//!
//! A Node process (`tests/browser/driver.mjs`) holds the browser by playwright-core; this side tells it what to do.
//! The flows stay in Rust, where the model, the desk and the processes are.

mod target;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::sync::Mutex;

pub use self::target::{Target, TestId};
use crate::process::Process;

/// Names a Chromium to use instead of the system's.
const CHROMIUM_VARIABLE: &str = "FLYDEX_CHROMIUM";

/// A running browser. Ends when dropped.
pub struct Browser {
    driver: Arc<Mutex<Driver>>,
}

struct Driver {
    process: Process,
    next_id: u64,
    read: usize,
}

/// One page in a profile of its own; [`Page::tab`] opens another in the same profile.
pub struct Page {
    driver: Arc<Mutex<Driver>>,
    handle: u64,
}

/// How a page is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Dark on light.
    Light,
    /// Light on dark.
    Dark,
}

/// An answer over HTTP, as it came.
#[derive(Clone, Debug)]
pub struct Answer {
    /// What was asked.
    pub method: String,
    /// The path that was asked for, without the query.
    pub path: String,
    /// Every header, an empty line, and the body.
    pub text: String,
}

impl Browser {
    /// Starts Chromium.
    ///
    /// # Errors
    /// When Node, the driver's packages or Chromium are missing.
    pub fn start() -> anyhow::Result<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("browser");
        if !folder.join("node_modules/playwright-core").is_dir() {
            bail!("the browser driver is not installed: run `npm ci --prefix tests/browser`");
        }
        let mut command = Command::new("node");
        command.arg("driver.mjs").env(CHROMIUM_VARIABLE, find_chromium()?).current_dir(folder);
        let process = Process::start_foreign("the browser driver", &mut command)?;
        Ok(Self { driver: Arc::new(Mutex::new(Driver { process, next_id: 0, read: 0 })) })
    }

    /// Opens a page of phone size in a fresh profile.
    ///
    /// # Errors
    /// When Chromium does not answer.
    pub async fn phone(&self) -> anyhow::Result<Page> {
        self.open(Scheme::Light, 390, 844).await
    }

    /// Opens a page of that size in a fresh profile.
    ///
    /// # Errors
    /// When Chromium does not answer.
    pub async fn open(&self, scheme: Scheme, width: u32, height: u32) -> anyhow::Result<Page> {
        let scheme = match scheme {
            Scheme::Light => "light",
            Scheme::Dark => "dark",
        };
        let words = json!({"operation": "open", "scheme": scheme, "width": width, "height": height});
        let handle = call(&self.driver, words).await?.as_u64().context("no handle of a page")?;
        Ok(Page { driver: Arc::clone(&self.driver), handle })
    }
}

impl Page {
    /// Opens another tab of the same profile.
    ///
    /// # Errors
    /// When Chromium does not answer.
    pub async fn tab(&self) -> anyhow::Result<Self> {
        let handle = call(&self.driver, json!({"operation": "tab", "of": self.handle})).await?;
        Ok(Self { driver: Arc::clone(&self.driver), handle: handle.as_u64().context("no handle of a tab")? })
    }

    /// Goes to an address.
    ///
    /// # Errors
    /// When it does not load.
    pub async fn goto(&self, url: &str) -> anyhow::Result<()> {
        self.call("goto", json!({"url": url})).await.map(drop)
    }

    /// Loads the page again.
    ///
    /// # Errors
    /// When it does not load.
    pub async fn reload(&self) -> anyhow::Result<()> {
        self.call("reload", json!({})).await.map(drop)
    }

    /// The address that it shows.
    ///
    /// # Errors
    /// When Chromium does not answer.
    pub async fn url(&self) -> anyhow::Result<String> {
        text(&self.call("url", json!({})).await?)
    }

    /// Clicks, once the element can be clicked.
    ///
    /// # Errors
    /// When it cannot be in time.
    pub async fn click(&self, target: impl Into<Target>) -> anyhow::Result<()> {
        self.call("click", json!({"target": target.into().json()})).await.map(drop)
    }

    /// Types into an empty field.
    ///
    /// # Errors
    /// When there is no such field in time.
    pub async fn fill(&self, target: impl Into<Target>, value: &str) -> anyhow::Result<()> {
        self.call("fill", json!({"target": target.into().json(), "value": value})).await.map(drop)
    }

    /// Waits until the element can be seen.
    ///
    /// # Errors
    /// When it is not in time; the error holds what the page shows.
    pub async fn sees(&self, target: impl Into<Target>) -> anyhow::Result<()> {
        self.call("visible", json!({"target": target.into().json()})).await.map(drop)
    }

    /// Waits until there is no such element.
    ///
    /// # Errors
    /// When there still is one; the error holds what the page shows.
    pub async fn misses(&self, target: impl Into<Target>) -> anyhow::Result<()> {
        self.call("gone", json!({"target": target.into().json()})).await.map(drop)
    }

    /// How many such elements there are now.
    ///
    /// # Errors
    /// When Chromium does not answer.
    pub async fn count(&self, target: impl Into<Target>) -> anyhow::Result<u64> {
        self.call("count", json!({"target": target.into().json()})).await?.as_u64().context("no number")
    }

    /// The text of the first such element, once there is one.
    ///
    /// # Errors
    /// When there is none in time.
    pub async fn text(&self, target: impl Into<Target>) -> anyhow::Result<String> {
        text(&self.call("text", json!({"target": target.into().json()})).await?)
    }

    /// The texts of all such elements now.
    ///
    /// # Errors
    /// When Chromium does not answer.
    pub async fn texts(&self, target: impl Into<Target>) -> anyhow::Result<Vec<String>> {
        let texts = self.call("texts", json!({"target": target.into().json()})).await?;
        texts.as_array().context("no texts")?.iter().map(text).collect()
    }

    /// Runs a script in the page and returns its value.
    ///
    /// # Errors
    /// When it throws.
    pub async fn evaluate(&self, script: &str) -> anyhow::Result<Value> {
        self.call("evaluate", json!({"script": script})).await
    }

    /// Cuts the whole profile off the network, or joins it again.
    ///
    /// # Errors
    /// When Chromium does not answer.
    pub async fn offline(&self, value: bool) -> anyhow::Result<()> {
        self.call("offline", json!({"value": value})).await.map(drop)
    }

    /// Gives the page an authenticator in software, for passkeys; its person is there and says yes.
    ///
    /// # Errors
    /// When Chromium does not answer.
    pub async fn authenticator(&self) -> anyhow::Result<()> {
        self.call("authenticator", json!({})).await.map(drop)
    }

    /// Whether the authenticator takes its person to be the right one from now on.
    ///
    /// # Errors
    /// When the page has no authenticator.
    pub async fn verifies_person(&self, value: bool) -> anyhow::Result<()> {
        self.call("verified", json!({"value": value})).await.map(drop)
    }

    /// Writes a picture of the page.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub async fn screenshot(&self, path: &Path) -> anyhow::Result<()> {
        // The driver has a working folder of its own.
        self.call("screenshot", json!({"path": std::path::absolute(path)?})).await.map(drop)
    }

    /// What axe finds against WCAG 2 A and AA.
    ///
    /// # Errors
    /// When Chromium does not answer.
    pub async fn accessibility_violations(&self) -> anyhow::Result<Vec<String>> {
        let found = self.call("axe", json!({})).await?;
        found.as_array().context("no list")?.iter().map(text).collect()
    }

    /// What the page wrote to its console as an error: scripts that threw, a content policy that was hit.
    ///
    /// # Errors
    /// When Chromium does not answer.
    pub async fn problems(&self) -> anyhow::Result<Vec<String>> {
        let problems = self.call("problems", json!({})).await?;
        problems.as_array().context("no list")?.iter().map(text).collect()
    }

    /// Every address that the page asked for.
    ///
    /// # Errors
    /// When Chromium does not answer.
    pub async fn requests(&self) -> anyhow::Result<Vec<String>> {
        let requests = self.call("requests", json!({})).await?;
        requests.as_array().context("no list")?.iter().map(text).collect()
    }

    /// Every answer of the API that this tab got.
    ///
    /// # Errors
    /// When Chromium does not answer.
    pub async fn answers(&self) -> anyhow::Result<Vec<Answer>> {
        let answers = self.call("answers", json!({})).await?;
        let answers = answers.as_array().context("no list")?.iter();
        answers
            .map(|one| {
                Ok(Answer { method: text(&one["method"])?, path: text(&one["path"])?, text: text(&one["text"])? })
            })
            .collect()
    }

    /// The value of a cookie of this profile, which scripts may be kept from.
    ///
    /// # Errors
    /// When there is none of that name.
    pub async fn cookie(&self, name: &str) -> anyhow::Result<String> {
        let cookies = self.call("cookies", json!({})).await?;
        let cookie = cookies.as_array().context("no list")?.iter().find(|cookie| cookie["name"] == name);
        text(&cookie.with_context(|| format!("no cookie {name}"))?["value"])
    }

    /// Every address that the tab can go back to, with its fragment.
    ///
    /// # Errors
    /// When Chromium does not answer.
    pub async fn history(&self) -> anyhow::Result<Vec<String>> {
        let history = self.call("history", json!({})).await?;
        history.as_array().context("no list")?.iter().map(text).collect()
    }

    /// Closes the profile with all its tabs.
    ///
    /// # Errors
    /// When Chromium does not answer.
    pub async fn close(self) -> anyhow::Result<()> {
        self.call("close", json!({})).await.map(drop)
    }

    async fn call(&self, operation: &str, mut words: Value) -> anyhow::Result<Value> {
        words["operation"] = json!(operation);
        words["page"] = json!(self.handle);
        call(&self.driver, words).await
    }
}

async fn call(driver: &Mutex<Driver>, mut words: Value) -> anyhow::Result<Value> {
    let mut driver = driver.lock().await;
    let what = words.to_string();
    let id = driver.next_id;
    driver.next_id += 1;
    words["id"] = json!(id);
    driver.process.tell(&words.to_string()).await?;
    let answer =
        driver.process.says_from(driver.read, &format!("{{\"id\":{id},")).await.with_context(|| what.clone())?;
    driver.read += 1;
    let answer: Value = serde_json::from_str(&format!("{{{answer}")).context("read the driver's answer")?;
    match answer["error"].as_str() {
        None => Ok(answer["value"].clone()),
        Some(error) => bail!("{what}: {error}"),
    }
}

fn text(value: &Value) -> anyhow::Result<String> {
    Ok(value.as_str().context("no text")?.to_owned())
}

fn find_chromium() -> anyhow::Result<PathBuf> {
    if let Some(named) = std::env::var_os(CHROMIUM_VARIABLE) {
        return Ok(PathBuf::from(named));
    }
    let names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
    let folders = std::env::var_os("PATH").context("no PATH")?;
    std::env::split_paths(&folders)
        .flat_map(|folder| names.map(|name| folder.join(name)))
        .find(|candidate| candidate.is_file())
        .with_context(|| format!("no Chromium: `apt-get install chromium`, or name one by {CHROMIUM_VARIABLE}"))
}
