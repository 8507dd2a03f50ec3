//! What attempts were stopped by, counted while an attack goes on.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::ensure;
use flydex_domain::error::ErrorCode;

/// How often each check stopped an attempt. Cheap to clone; clones count together.
#[derive(Clone, Debug, Default)]
pub struct Tally(Arc<Mutex<BTreeMap<String, u32>>>);

impl Tally {
    /// An attempt was stopped by this.
    pub fn stopped(&self, by: &str) {
        *self.lock().entry(by.to_owned()).or_default() += 1;
    }

    /// An attempt was stopped with that code, and no other.
    ///
    /// # Errors
    /// When the error is another one.
    pub fn is_about(&self, error: &anyhow::Error, code: ErrorCode) -> anyhow::Result<()> {
        let text = format!("{error:#}");
        ensure!(text.ends_with(&format!(" {}", code.name())), "{} expected: {text}", code.name());
        self.stopped(code.name());
        Ok(())
    }

    /// How many attempts were stopped.
    #[must_use]
    pub fn tried(&self) -> u32 {
        self.lock().values().sum()
    }

    /// What stopped them.
    #[must_use]
    pub fn by(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
