//! What the roles of a cluster have in common: who they are, where Redis and control are, and how they live.

mod life;
mod reach;
pub(crate) mod secret;

use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize};

pub use self::life::Life;
pub(crate) use self::reach::{control, directory, member};
pub use self::secret::Secret;

/// A key of the configuration whose value cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct BadField {
    field: &'static str,
    problem: String,
}

impl BadField {
    /// The key, and what is wrong with its value.
    pub fn new(field: &'static str, problem: impl ToString) -> Self {
        Self { field, problem: problem.to_string() }
    }
}

/// Where Redis is.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct RedisConfig {
    /// `redis://[user:password@]host:port[/database]`, or `rediss://` for TLS. With sentinels its host and port do not
    /// count, but the rest does. This or `url_file` is needed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<Secret>,
    /// A file that holds the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url_file: Option<PathBuf>,
    /// Addresses of sentinels, `redis://host:port`, or one text with commas. Default none: Redis is alone.
    #[serde(deserialize_with = "list")]
    pub sentinels: Vec<String>,
    /// What the sentinels call the master. Needed with sentinels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub master: Option<String>,
}

/// Reads a list, or one text with commas, which is what an environment variable can hold.
pub(crate) fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        List(Vec<String>),
        Text(String),
    }
    Ok(match Either::deserialize(deserializer)? {
        Either::List(list) => list,
        Either::Text(text) => {
            text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
        }
    })
}
