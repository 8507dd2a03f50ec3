//! The only place where a clock is read; everything else is given the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Wall-clock and monotonic time: the system's, or one that a test moves by hand.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Manual { started: Instant, unix_millis: u64, advanced_millis: Arc<AtomicU64> },
}

impl Clock {
    /// The system's clock.
    #[must_use]
    pub const fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands at `unix_millis` until [`Clock::advance`] moves it.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "a monotonic instant cannot be made from nothing")]
    pub fn manual(unix_millis: u64) -> Self {
        Self(Source::Manual { started: Instant::now(), unix_millis, advanced_millis: Arc::default() })
    }

    /// Moves a manual clock forward; the system's clock moves by itself.
    pub fn advance(&self, by: Duration) {
        match &self.0 {
            Source::System => {}
            Source::Manual { advanced_millis, .. } => {
                advanced_millis.fetch_add(millis(by), Ordering::SeqCst);
            }
        }
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is where the clock is read")]
    pub fn unix_millis(&self) -> u64 {
        match &self.0 {
            Source::System => millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()),
            Source::Manual { unix_millis, advanced_millis, .. } => unix_millis + advanced_millis.load(Ordering::SeqCst),
        }
    }

    /// Monotonic time, for intervals and deadlines.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is where the clock is read")]
    pub fn instant(&self) -> Instant {
        match &self.0 {
            Source::System => Instant::now(),
            Source::Manual { started, advanced_millis, .. } => {
                *started + Duration::from_millis(advanced_millis.load(Ordering::SeqCst))
            }
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
