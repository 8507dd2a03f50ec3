//! The role `rotate-token-key`: makes the next key that control signs with, and ends.

use std::time::Duration;

use anyhow::Context as _;
use flydex_domain::limits::{TOKEN_KEY_TOLD_BEFORE, TOKEN_KEY_TOLD_BEFORE_MIN};
use flydex_domain::time::UnixMillis;
use flydex_domain::token::schedule::Change;
use flydex_runtime::clock::Clock;
use serde::{Deserialize, Serialize};

use crate::migrate::DatabaseConfig;

/// What it needs of the file of control, whose other keys it leaves alone.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct TokenKeyConfig {
    /// The database. Needed.
    pub database: DatabaseConfig,
}

/// The change that was asked for. Nobody refuses a token of a key that was told long enough before.
#[must_use]
pub fn change(signs_in_seconds: Option<u64>, compromised: bool) -> Change {
    let lead = signs_in_seconds.map_or(TOKEN_KEY_TOLD_BEFORE, Duration::from_secs);
    Change { lead: lead.clamp(TOKEN_KEY_TOLD_BEFORE_MIN, TOKEN_KEY_TOLD_BEFORE), compromised }
}

/// Makes the key and says when it signs.
///
/// # Errors
/// [`BadField`](crate::cluster::BadField) for a value that cannot be used; a database that does not answer.
pub async fn run(config: TokenKeyConfig, change: Change, say: impl Fn(&str)) -> anyhow::Result<()> {
    let store = config.database.open().await?;
    let now = UnixMillis(Clock::system().unix_millis());
    let key_id = flydex_control::rotate_token_key(&store, change, now).await.context("keep the key")?;
    store.close().await;
    let seconds = change.lead.as_secs();
    say(&format!("key {key_id} is told to every process and signs in {seconds} s"));
    Ok(())
}
