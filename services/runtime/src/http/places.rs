//! Places that a listener gives away, in TLS handshakes and for connections: one address must not hold them all.
//!
//! Who says nothing holds a place until its time is over. One address has at most half of them; others pass by. Loopback
//! is exempt: a proxy on the same computer speaks for many.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Places of one kind.
pub(super) struct Places {
    all: Arc<Semaphore>,
    /// Of these, for one address (one /64 of IPv6): half, for many may stand behind it.
    address_max: usize,
    /// Those of addresses that have a place or wait for one; so it is bounded by the connections.
    addresses: Mutex<BTreeMap<IpAddr, Address>>,
}

struct Address {
    places: Arc<Semaphore>,
    users: usize,
}

/// One of all places; given back on drop.
pub(super) type Place = OwnedSemaphorePermit;

/// One of an address's places; given back on drop.
pub(super) struct AddressPlace {
    _permit: Option<OwnedSemaphorePermit>,
    _user: Option<User>,
}

/// Somebody from an address, so that it is forgotten with the last.
struct User {
    places: Arc<Places>,
    address: IpAddr,
}

impl Places {
    pub(super) fn new(all: usize) -> Arc<Self> {
        Arc::new(Self { all: Arc::new(Semaphore::new(all)), address_max: all / 2, addresses: Mutex::default() })
    }

    /// Waits for a place among all.
    pub(super) async fn any(&self) -> Option<Place> {
        Arc::clone(&self.all).acquire_owned().await.ok()
    }

    /// Waits for one of the places of that address.
    pub(super) async fn of_address(self: &Arc<Self>, peer: IpAddr) -> Option<AddressPlace> {
        let Some(address) = network_of(peer) else { return Some(AddressPlace { _permit: None, _user: None }) };
        let (user, places) = self.user(address);
        Some(AddressPlace { _permit: Some(places.acquire_owned().await.ok()?), _user: Some(user) })
    }

    /// One of the places of that address, if any is left.
    pub(super) fn of_address_now(self: &Arc<Self>, peer: IpAddr) -> Option<AddressPlace> {
        let Some(address) = network_of(peer) else { return Some(AddressPlace { _permit: None, _user: None }) };
        let (user, places) = self.user(address);
        Some(AddressPlace { _permit: Some(places.try_acquire_owned().ok()?), _user: Some(user) })
    }

    fn user(self: &Arc<Self>, address: IpAddr) -> (User, Arc<Semaphore>) {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = addresses
            .entry(address)
            .or_insert_with(|| Address { places: Arc::new(Semaphore::new(self.address_max)), users: 0 });
        entry.users += 1;
        (User { places: Arc::clone(self), address }, Arc::clone(&entry.places))
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let mut addresses = self.places.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = addresses.get_mut(&self.address) {
            entry.users -= 1;
            if entry.users == 0 {
                addresses.remove(&self.address);
            }
        }
    }
}

/// What places are counted under: an IPv4 address, or the /64 that one subscriber has; nothing for loopback.
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

    const ALL: usize = 256;

    #[test]
    fn one_address_leaves_half_of_the_places_to_others_and_is_forgotten() {
        let places = Places::new(ALL);
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let take = |text| {
            let of_address = places.of_address(address(text)).now_or_never().flatten()?;
            Some((of_address, places.any().now_or_never().flatten()?))
        };
        let held: Vec<_> = std::iter::from_fn(|| take("2001:db8::1")).collect();
        assert_eq!(held.len(), ALL / 2);
        assert!(take("2001:db8::ffff").is_none(), "it is one subscriber");
        assert!(places.of_address_now(address("2001:db8::2")).is_none());
        assert!(places.of_address_now(address("2001:db8:0:1::1")).is_some());
        let others: Vec<_> = std::iter::from_fn(|| take("192.0.2.1")).collect();
        assert_eq!(others.len(), ALL - ALL / 2);
        assert!(take("127.0.0.1").is_none(), "none is left");
        assert!(places.of_address_now(address("127.0.0.1")).is_some(), "a proxy speaks for many");
        drop(held);
        assert!(take("127.0.0.1").is_some() && take("2001:db8::1").is_some());
        drop(others);
        assert!(places.addresses.lock().unwrap().is_empty());
    }
}
