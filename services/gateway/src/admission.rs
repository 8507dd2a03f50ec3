//! How many peers a gateway takes on at once. A permit is held for as long as what it admits lives.

use std::sync::Arc;

use flydex_domain::error::ErrorCode;
use flydex_domain::limits::{GATEWAY_HANDSHAKES_MAX, GATEWAY_LINKS_MAX, GATEWAY_SESSIONS_MAX};
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

    /// A place among the sessions.
    pub(crate) fn session(&self) -> Result<Permit, ErrorCode> {
        take(&self.sessions)
    }

    /// A place among the links.
    pub(crate) fn link(&self) -> Result<Permit, ErrorCode> {
        take(&self.links)
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
        drop(permits);
        assert!(admission.handshake().is_ok());
    }
}
