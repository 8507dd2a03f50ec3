//! How peers are sent away when the gateway drains: spread over time, so that the others can take them.
//!
//! What the others can take is not known here; what this one took is. Arrivals are counted, and the most that came
//! within [`ACCEPT_RATE_WINDOW`] is the measure: after a roll everybody came at once, so it is near to what is possible.

use std::ops::RangeInclusive;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use flydex_domain::limits::{ACCEPT_RATE_MIN, ACCEPT_RATE_WINDOW, DRAIN_RATE_DIVISOR, REGION_DRAIN_SPREAD_MIN};

/// The part of a drain in which links leave, before any session does.
const LINKS_FIRST_PART: u32 = 8;

/// Counts who was welcomed.
pub(crate) struct Arrivals {
    window: Mutex<Window>,
}

struct Window {
    since: Instant,
    count: u32,
    most: u32,
}

impl Arrivals {
    pub(crate) fn new(now: Instant) -> Self {
        Self { window: Mutex::new(Window { since: now, count: 0, most: 0 }) }
    }

    /// Counts one.
    pub(crate) fn count(&self, now: Instant) {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(window.since) >= ACCEPT_RATE_WINDOW {
            window.since = now;
            window.count = 0;
        }
        window.count = window.count.saturating_add(1);
        window.most = window.most.max(window.count);
    }

    /// The most that came within one window.
    pub(crate) fn most(&self) -> u32 {
        self.window.lock().unwrap_or_else(PoisonError::into_inner).most
    }
}

/// The time over which `peers` are sent away by a gateway that once welcomed `most` in a window and gives them
/// `drain_for`: half of that at most, so that the last one has time to arrive elsewhere.
pub(crate) fn spread(peers: usize, most: u32, drain_for: Duration) -> Duration {
    let per_window = most.max(ACCEPT_RATE_MIN) / DRAIN_RATE_DIVISOR;
    let peers = u32::try_from(peers).unwrap_or(u32::MAX);
    (ACCEPT_RATE_WINDOW.saturating_mul(peers) / per_window).min(drain_for / 2)
}

/// When a link, or a session, leaves within the spread: links first, for a session that arrives elsewhere finds its machine
/// there already, and a link that moves while all sessions do waits behind them.
pub(crate) fn leaving(spread: Duration, is_link: bool) -> RangeInclusive<Duration> {
    let links = spread / LINKS_FIRST_PART;
    if is_link { Duration::ZERO..=links } else { links..=spread }
}

/// The same for a region: others are farther away, and a machine that comes back to look is not sent away at once.
pub(crate) fn region_spread(peers: usize, most: u32, drain_for: Duration) -> Duration {
    spread(peers, most, drain_for).max(REGION_DRAIN_SPREAD_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAIN_FOR: Duration = Duration::from_secs(20);

    #[test]
    fn the_most_arrivals_of_one_window_are_remembered() {
        let start = flydex_runtime::clock::Clock::manual(0).instant();
        let arrivals = Arrivals::new(start);
        for _ in 0..500 {
            arrivals.count(start + ACCEPT_RATE_WINDOW / 2);
        }
        arrivals.count(start + ACCEPT_RATE_WINDOW);
        arrivals.count(start + ACCEPT_RATE_WINDOW * 9);
        assert_eq!(arrivals.most(), 500);
    }

    #[test]
    fn few_peers_leave_at_once_and_many_as_fast_as_they_came() {
        assert_eq!(spread(0, 0, DRAIN_FOR), Duration::ZERO);
        assert_eq!(spread(15, 0, DRAIN_FOR), Duration::from_millis(100));
        assert_eq!(spread(750, 0, DRAIN_FOR), Duration::from_secs(5), "a third of 2,000 at the least rate");
        assert_eq!(spread(700, 1_000, DRAIN_FOR), Duration::from_millis(1_400));
        assert_eq!(spread(50_000, 1_000, DRAIN_FOR), DRAIN_FOR / 2, "it ends before their time is up");
        assert_eq!(spread(usize::MAX, 0, DRAIN_FOR), DRAIN_FOR / 2);
    }

    #[test]
    fn links_leave_before_the_first_session_does() {
        let spread = Duration::from_secs(8);
        assert_eq!(leaving(spread, true), Duration::ZERO..=Duration::from_secs(1));
        assert_eq!(leaving(spread, false), Duration::from_secs(1)..=spread);
        assert_eq!(leaving(Duration::ZERO, false), Duration::ZERO..=Duration::ZERO);
    }
}
