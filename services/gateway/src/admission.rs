//! How many peers a gateway takes on at once, and how fast one may open machines.
//!
//! A permit is held for as long as what it admits lives.

use std::sync::Arc;
use std::time::Instant;

use flydex_domain::error::ErrorCode;
use flydex_domain::limits::{
    GATEWAY_HANDSHAKES_MAX, GATEWAY_LINKS_MAX, GATEWAY_SESSIONS_MAX, SESSION_OPEN_REFILL, SESSION_OPENS_BURST,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The places of one gateway.
pub(crate) struct Admission {
    handshakes: Arc<Semaphore>,
    sessions: Arc<Semaphore>,
    links: Arc<Semaphore>,
}

/// One place; given back on drop.
pub(crate) struct Permit(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

impl Admission {
    pub(crate) fn new() -> Self {
        Self {
            handshakes: Arc::new(Semaphore::new(GATEWAY_HANDSHAKES_MAX)),
            sessions: Arc::new(Semaphore::new(GATEWAY_SESSIONS_MAX)),
            links: Arc::new(Semaphore::new(GATEWAY_LINKS_MAX)),
        }
    }

    /// A place in the handshake of a session or link.
    pub(crate) fn handshake(&self) -> Result<Permit, ErrorCode> {
        take(&self.handshakes)
    }

    /// Whether half of the places in handshakes are taken.
    pub(crate) fn handshakes_are_scarce(&self) -> bool {
        self.handshakes.available_permits() < GATEWAY_HANDSHAKES_MAX / 2
    }

    /// A place among the sessions.
    pub(crate) fn session(&self) -> Result<Permit, ErrorCode> {
        take(&self.sessions)
    }

    /// A place among the links.
    pub(crate) fn link(&self) -> Result<Permit, ErrorCode> {
        take(&self.links)
    }
}

/// How many machines a session may open right now.
pub(crate) struct OpenBucket {
    left: u32,
    refilled_at: Instant,
}

impl OpenBucket {
    /// A full bucket.
    pub(crate) fn new(now: Instant) -> Self {
        Self { left: SESSION_OPENS_BURST, refilled_at: now }
    }

    /// Takes one open out.
    ///
    /// # Errors
    /// [`ErrorCode::RateLimited`] when none is left.
    pub(crate) fn take(&mut self, now: Instant) -> Result<(), ErrorCode> {
        let due = now.saturating_duration_since(self.refilled_at).as_millis() / SESSION_OPEN_REFILL.as_millis();
        let due = u32::try_from(due).unwrap_or(u32::MAX);
        self.left = self.left.saturating_add(due).min(SESSION_OPENS_BURST);
        self.refilled_at += SESSION_OPEN_REFILL * due;
        self.left = self.left.checked_sub(1).ok_or(ErrorCode::RateLimited)?;
        Ok(())
    }
}

fn take(places: &Arc<Semaphore>) -> Result<Permit, ErrorCode> {
    places.clone().try_acquire_owned().map(Permit).map_err(|_| ErrorCode::Overloaded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_refused_when_all_are_taken_and_free_again_after_drop() {
        let admission = Admission::new();
        let permits: Vec<_> = (0..GATEWAY_HANDSHAKES_MAX).map(|_| admission.handshake().ok()).collect();
        assert!(permits.iter().all(Option::is_some));
        assert_eq!(admission.handshake().err(), Some(ErrorCode::Overloaded));
        assert!(admission.session().is_ok());
        assert!(admission.handshakes_are_scarce());
        drop(permits);
        assert!(!admission.handshakes_are_scarce());
        assert!(admission.handshake().is_ok());
    }

    #[test]
    fn opens_run_out_and_come_back_one_by_one() {
        let start = flydex_runtime::clock::Clock::manual(0).instant();
        let mut bucket = OpenBucket::new(start);
        for _ in 0..SESSION_OPENS_BURST {
            assert_eq!(bucket.take(start), Ok(()));
        }
        assert_eq!(bucket.take(start), Err(ErrorCode::RateLimited));
        let later = start + SESSION_OPEN_REFILL;
        assert_eq!(bucket.take(later), Ok(()));
        assert_eq!(bucket.take(later), Err(ErrorCode::RateLimited));
        let much_later = start + SESSION_OPEN_REFILL * 10 * SESSION_OPENS_BURST;
        let taken = (0..).take_while(|_| bucket.take(much_later).is_ok()).count();
        assert_eq!(taken, SESSION_OPENS_BURST as usize);
    }
}
