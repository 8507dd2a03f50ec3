//! How many peers a gateway takes on at once, and how fast one may open machines.
//!
//! A permit is held for as long as what it admits lives.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use flydex_domain::error::ErrorCode;
use flydex_domain::limits::{
    ADDRESS_HANDSHAKES_MAX, GATEWAY_HANDSHAKES_MAX, GATEWAY_LINKS_MAX, GATEWAY_SESSIONS_MAX, QUIC_RETRY_HANDSHAKES,
    SESSION_OPEN_REFILL, SESSION_OPENS_BURST,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::load::{Class, Load};

/// The places of one gateway.
pub(crate) struct Admission {
    handshakes: Arc<Semaphore>,
    addresses: Addresses,
    sessions: Arc<Semaphore>,
    links: Arc<Semaphore>,
    load: Arc<Load>,
}

/// Handshakes under way by network address. An address without any is not in it, so it is bounded by the handshakes.
type Addresses = Arc<Mutex<BTreeMap<IpAddr, usize>>>;

/// One place; given back on drop.
pub(crate) struct Permit(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

/// One place in a handshake; given back on drop.
pub(crate) struct Handshake {
    address: Option<IpAddr>,
    addresses: Addresses,
    _permit: Permit,
}

impl Admission {
    pub(crate) fn new(load: Arc<Load>) -> Self {
        Self {
            handshakes: Arc::new(Semaphore::new(GATEWAY_HANDSHAKES_MAX)),
            addresses: Addresses::default(),
            sessions: Arc::new(Semaphore::new(GATEWAY_SESSIONS_MAX)),
            links: Arc::new(Semaphore::new(GATEWAY_LINKS_MAX)),
            load,
        }
    }

    /// A place in the handshake of a session or link that comes from `address`, where that is known.
    pub(crate) fn handshake(&self, address: Option<IpAddr>) -> Result<Handshake, ErrorCode> {
        if self.load.sheds(Class::Newcomer) {
            return Err(ErrorCode::Overloaded);
        }
        let permit = take(&self.handshakes)?;
        let address = address.and_then(place);
        if let Some(address) = address {
            let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
            let count = addresses.entry(address).or_default();
            if *count >= ADDRESS_HANDSHAKES_MAX {
                return Err(ErrorCode::RateLimited);
            }
            *count += 1;
        }
        Ok(Handshake { address, addresses: self.addresses.clone(), _permit: permit })
    }

    /// Whether so many places in handshakes are taken that a peer must prove its address before it gets one.
    pub(crate) fn handshakes_are_scarce(&self) -> bool {
        GATEWAY_HANDSHAKES_MAX - self.handshakes.available_permits() > QUIC_RETRY_HANDSHAKES
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

impl Drop for Handshake {
    fn drop(&mut self) {
        let Some(address) = self.address else { return };
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = addresses.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                addresses.remove(&address);
            }
        }
    }
}

/// What handshakes are counted under: an IPv4 address, or the /64 that one subscriber has; nothing for loopback.
fn place(address: IpAddr) -> Option<IpAddr> {
    let address = address.to_canonical();
    if address.is_loopback() {
        return None;
    }
    Some(match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
    })
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
    use flydex_domain::limits::SHED_NEWCOMERS_AFTER;

    use super::*;

    #[test]
    fn a_place_is_refused_when_all_are_taken_and_free_again_after_drop() {
        let admission = Admission::new(Arc::default());
        let permits: Vec<_> = (0..GATEWAY_HANDSHAKES_MAX).map(|_| admission.handshake(None).ok()).collect();
        assert!(permits.iter().all(Option::is_some));
        assert_eq!(admission.handshake(None).err(), Some(ErrorCode::Overloaded));
        assert!(admission.session().is_ok());
        assert!(admission.handshakes_are_scarce());
        drop(permits);
        assert!(!admission.handshakes_are_scarce());
        assert!(admission.handshake(None).is_ok());
    }

    #[test]
    fn a_gateway_that_is_late_takes_no_newcomers() {
        let load = Arc::new(Load::default());
        let admission = Admission::new(load.clone());
        load.set(SHED_NEWCOMERS_AFTER);
        assert_eq!(admission.handshake(None).err(), Some(ErrorCode::Overloaded));
        load.set(std::time::Duration::ZERO);
        assert!(admission.handshake(None).is_ok());
    }

    #[test]
    fn one_address_cannot_take_all_places_and_its_count_is_forgotten() {
        let admission = Admission::new(Arc::default());
        for (one, neighbour, stranger) in [
            ("192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2"),
            ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", "2001:db8:0:2::1"),
        ] {
            let [one, neighbour, stranger] = [one, neighbour, stranger].map(|text| text.parse::<IpAddr>().ok());
            let taken: Vec<_> = std::iter::from_fn(|| admission.handshake(one).ok()).collect();
            assert_eq!(taken.len(), ADDRESS_HANDSHAKES_MAX);
            assert_eq!(admission.handshake(neighbour).err(), Some(ErrorCode::RateLimited));
            assert!(admission.handshake(stranger).is_ok());
            drop(taken);
            assert!(admission.handshake(neighbour).is_ok());
            assert!(admission.addresses.lock().unwrap().is_empty());
        }
        let loopback = "127.0.0.1".parse().ok();
        let taken: Vec<_> = std::iter::from_fn(|| admission.handshake(loopback).ok()).collect();
        assert_eq!(taken.len(), GATEWAY_HANDSHAKES_MAX);
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
