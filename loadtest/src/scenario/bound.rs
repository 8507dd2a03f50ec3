//! What a figure must be.

use serde::Deserialize;

use super::{Error, PHASE_SECONDS_MAX, within};

/// The longest time that can be asked for.
const BOUND_MS_MAX: f64 = PHASE_SECONDS_MAX * 1_000.0;

/// What the times or counts of one kind must be. A time that is bounded must have been measured at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bound {
    /// Half take at most so long, in milliseconds.
    pub p50_ms: Option<f64>,
    /// 99 of 100.
    pub p99_ms: Option<f64>,
    /// All.
    pub max_ms: Option<f64>,
    /// There are at least so many.
    pub least: Option<u64>,
    /// There are at most so many.
    pub most: Option<u64>,
}

impl Bound {
    /// Refuses one that asks for nothing, or for what cannot be.
    ///
    /// # Errors
    /// The field, with its path.
    pub(super) fn check(&self, at: &str) -> Result<(), Error> {
        let times = [("p50_ms", self.p50_ms), ("p99_ms", self.p99_ms), ("max_ms", self.max_ms)];
        for (field, milliseconds) in times {
            if let Some(milliseconds) = milliseconds {
                within(&format!("{at}.{field}"), milliseconds, 0.0, BOUND_MS_MAX)?;
            }
        }
        if *self != Self::default() {
            return Ok(());
        }
        let bounds = "one or more of p50_ms, p99_ms, max_ms, least and most".to_owned();
        Err(Error::OutOfBounds { field: at.to_owned(), bounds, value: "empty".to_owned() })
    }
}
