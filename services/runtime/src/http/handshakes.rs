//! Places in TLS handshakes: they cost CPU, and one address must not hold them all.
//!
//! Who says nothing holds a place until its time is over. One address has at most half of them and waits for its own;
//! others pass by. Loopback is exempt: a proxy on the same computer speaks for many.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// TLS handshakes under way at once: they cost CPU, and a flood must not starve the rest.
pub(super) const HANDSHAKES_MAX: usize = 256;
/// Of these, from one address (one /64 of IPv6): half, for many may stand behind it.
const ADDRESS_HANDSHAKES_MAX: usize = HANDSHAKES_MAX / 2;

/// The places of one listener.
pub(super) struct Handshakes {
    all: Arc<Semaphore>,
    /// Those of addresses that have a handshake under way or wait for one; so it is bounded by the connections.
    addresses: Mutex<BTreeMap<IpAddr, Address>>,
}

struct Address {
    places: Arc<Semaphore>,
    users: usize,
}

/// One place; given back on drop.
pub(super) struct Place {
    _of_address: Option<OwnedSemaphorePermit>,
    _of_all: OwnedSemaphorePermit,
    _user: Option<User>,
}

/// Somebody from an address, so that it is forgotten with the last.
struct User {
    handshakes: Arc<Handshakes>,
    address: IpAddr,
}

impl Handshakes {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { all: Arc::new(Semaphore::new(HANDSHAKES_MAX)), addresses: Mutex::default() })
    }

    /// Waits for a place for somebody from that address.
    pub(super) async fn place(self: &Arc<Self>, peer: IpAddr) -> Option<Place> {
        let (user, of_address) = match network_of(peer) {
            Some(address) => {
                let (user, places) = self.user(address);
                (Some(user), Some(places.acquire_owned().await.ok()?))
            }
            None => (None, None),
        };
        let of_all = Arc::clone(&self.all).acquire_owned().await.ok()?;
        Some(Place { _of_address: of_address, _of_all: of_all, _user: user })
    }

    fn user(self: &Arc<Self>, address: IpAddr) -> (User, Arc<Semaphore>) {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = addresses
            .entry(address)
            .or_insert_with(|| Address { places: Arc::new(Semaphore::new(ADDRESS_HANDSHAKES_MAX)), users: 0 });
        entry.users += 1;
        (User { handshakes: Arc::clone(self), address }, Arc::clone(&entry.places))
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let mut addresses = self.handshakes.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = addresses.get_mut(&self.address) {
            entry.users -= 1;
            if entry.users == 0 {
                addresses.remove(&self.address);
            }
        }
    }
}

/// What handshakes are counted under: an IPv4 address, or the /64 that one subscriber has; nothing for loopback.
fn network_of(address: IpAddr) -> Option<IpAddr> {
    let address = address.to_canonical();
    if address.is_loopback() {
        return None;
    }
    Some(match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
    })
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn one_address_leaves_half_of_the_places_to_others_and_is_forgotten() {
        let handshakes = Handshakes::new();
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let take = |text| handshakes.place(address(text)).now_or_never().flatten();
        let held: Vec<_> = std::iter::from_fn(|| take("2001:db8::1")).collect();
        assert_eq!(held.len(), ADDRESS_HANDSHAKES_MAX);
        assert!(take("2001:db8::ffff").is_none(), "it is one subscriber");
        let others: Vec<_> = std::iter::from_fn(|| take("192.0.2.1")).collect();
        assert_eq!(others.len(), HANDSHAKES_MAX - ADDRESS_HANDSHAKES_MAX);
        assert!(take("127.0.0.1").is_none(), "none is left");
        drop(held);
        assert!(take("127.0.0.1").is_some() && take("2001:db8::1").is_some());
        drop(others);
        assert!(handshakes.addresses.lock().unwrap().is_empty());
    }
}
