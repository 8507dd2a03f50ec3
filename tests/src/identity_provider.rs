//! A real identity provider (`oidc-provider` from npm), for signing in at one.

use std::io::Write as _;
use std::path::Path;

use anyhow::bail;
use tempfile::NamedTempFile;
use tokio::process::Command;
use uuid::Uuid;

use crate::browser::{Page, Target};
use crate::canary;
use crate::process::Process;

/// A running provider, and how a relay is set up with it.
pub struct IdentityProvider {
    process: Process,
    issuer: String,
    secret: NamedTempFile,
}

impl IdentityProvider {
    /// Starts one that sends browsers back to that origin.
    ///
    /// # Errors
    /// When Node or the provider's packages are missing.
    pub async fn start(origin: &str) -> anyhow::Result<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("oidc");
        if !folder.join("node_modules/oidc-provider").is_dir() {
            bail!("the identity provider is not installed: run `npm ci --prefix tests/oidc`");
        }
        let words = Uuid::new_v4().simple().to_string();
        canary::plant("client secret", &words);
        let mut secret = NamedTempFile::new()?;
        writeln!(secret, "{words}")?;
        let mut command = Command::new("node");
        command.args(["provider.mjs", &format!("{origin}/sign-in/identity"), &words]).current_dir(folder);
        let process = Process::start_foreign("the identity provider", &mut command)?;
        let issuer = process.says("issuer ").await?;
        Ok(Self { process, issuer, secret })
    }

    /// The relay's settings for it.
    #[must_use]
    pub fn variables(&self) -> Vec<(String, String)> {
        let secret = self.secret.path().to_string_lossy().into_owned();
        [
            ("NAME", "Example".to_owned()),
            ("ISSUER", self.issuer.clone()),
            ("CLIENT_ID", "flydex".to_owned()),
            ("CLIENT_SECRET_FILE", secret),
        ]
        .map(|(key, value)| (format!("FLYDEX__IDENTITY_PROVIDER__{key}"), value))
        .to_vec()
    }

    /// Makes it sign with another key from now on.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn rotate(&mut self) -> anyhow::Result<()> {
        self.process.tell("rotate").await?;
        self.process.says("rotated").await.map(drop)
    }

    /// Signs in at its page as that person, and says yes to what this server asks for.
    ///
    /// # Errors
    /// When the page is not the provider's.
    pub async fn sign_in(&self, page: &Page, person: &str) -> anyhow::Result<()> {
        page.fill(Target::css("input[name=login]"), person).await?;
        page.fill(Target::css("input[name=password]"), "any").await?;
        page.click(Target::css("button[type=submit]")).await?;
        // The second page asks for consent; it has no field for a name.
        page.misses(Target::css("input[name=login]")).await?;
        page.click(Target::css("button[type=submit]")).await
    }
}
