//! The only place where a clock is read; everything else is given the time.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

/// How long [`Clock::until`] sleeps at most before it looks again: the wall clock may be set meanwhile.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// Wall-clock and monotonic time: the system's, or one that a test moves by hand.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Manual { started: Instant, unix_millis: u64, advanced_millis: Arc<watch::Sender<u64>> },
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
        Self(Source::Manual { started: Instant::now(), unix_millis, advanced_millis: Arc::new(watch::Sender::new(0)) })
    }

    /// Moves a manual clock forward; the system's clock moves by itself.
    pub fn advance(&self, by: Duration) {
        match &self.0 {
            Source::System => {}
            Source::Manual { advanced_millis, .. } => {
                advanced_millis.send_modify(|advanced| *advanced += millis(by));
            }
        }
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is where the clock is read")]
    pub fn unix_millis(&self) -> u64 {
        match &self.0 {
            Source::System => millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()),
            Source::Manual { unix_millis, advanced_millis, .. } => unix_millis + *advanced_millis.borrow(),
        }
    }

    /// Monotonic time, for intervals and deadlines.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is where the clock is read")]
    pub fn instant(&self) -> Instant {
        match &self.0 {
            Source::System => Instant::now(),
            Source::Manual { started, advanced_millis, .. } => {
                *started + Duration::from_millis(*advanced_millis.borrow())
            }
        }
    }

    /// Waits until the wall clock has reached `at_unix_millis`.
    pub async fn until(&self, at_unix_millis: u64) {
        match &self.0 {
            Source::System => loop {
                let left = Duration::from_millis(at_unix_millis.saturating_sub(self.unix_millis()));
                if left.is_zero() {
                    return;
                }
                tokio::time::sleep(left.min(LOOK_INTERVAL)).await;
            },
            Source::Manual { unix_millis, advanced_millis, .. } => {
                let reached = |advanced: &u64| unix_millis + advanced >= at_unix_millis;
                // The sender lives as long as this clock, so the wait cannot fail.
                let _ = advanced_millis.subscribe().wait_for(reached).await;
            }
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_wait_ends_when_the_clock_is_moved_past_it_and_no_sooner() {
        let clock = Clock::manual(1_000);
        let mut wait = Box::pin(clock.until(3_000));
        clock.advance(Duration::from_millis(1_999));
        assert!(futures_util::poll!(wait.as_mut()).is_pending());
        clock.advance(Duration::from_millis(1));
        wait.await;
        clock.until(2_999).await;
    }

    #[tokio::test]
    async fn the_systems_clock_waits_for_its_own_time() {
        let clock = Clock::system();
        let at = clock.unix_millis() + 5;
        clock.until(at).await;
        assert!(clock.unix_millis() >= at);
    }
}
