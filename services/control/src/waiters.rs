//! Long polls on pairings: who waits, who was told what, and who is woken.
//!
//! A poll is answered at once when its pairing has changed since that side was last told, so no change is missed
//! between two polls. Only this process's memory is used: forgetting makes one poll answer early, never wrongly.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flydex_domain::error::ErrorCode;
use flydex_domain::id::LocalConnectId;
use flydex_domain::limits::{LONG_POLLS_MAX, LONG_POLLS_PER_PAIRING_MAX};
use flydex_domain::time::UnixMillis;
use tokio::sync::Notify;

/// The revision that a pairing begins with; `start` tells the connector of it.
pub(crate) const FIRST_REVISION: u64 = 1;

/// Which side of a pairing asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Connector,
    Browser,
}

/// The polls of one process.
#[derive(Default)]
pub(crate) struct Waiters {
    pairings: Mutex<Pairings>,
}

#[derive(Default)]
struct Pairings {
    entries: BTreeMap<LocalConnectId, Entry>,
    polls: usize,
}

struct Entry {
    changed: Arc<Notify>,
    polls: usize,
    told_connector: u64,
    told_browser: u64,
    forget_at: UnixMillis,
}

/// A place among the polls, given back when dropped.
pub(crate) struct Place<'a> {
    waiters: &'a Waiters,
    id: LocalConnectId,
    changed: Arc<Notify>,
}

impl Place<'_> {
    /// What wakes the polls on the pairing.
    pub(crate) fn changed(&self) -> &Notify {
        &self.changed
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut pairings = self.waiters.lock();
        pairings.polls -= 1;
        if let Some(entry) = pairings.entries.get_mut(&self.id) {
            entry.polls -= 1;
        }
    }
}

impl Waiters {
    /// Takes a place among the polls on a pairing that can be forgotten at a time.
    ///
    /// # Errors
    /// `overloaded` when there is none.
    pub(crate) fn place(
        &self,
        id: LocalConnectId,
        forget_at: UnixMillis,
        now: UnixMillis,
    ) -> Result<Place<'_>, ErrorCode> {
        let mut pairings = self.lock();
        if !pairings.entries.contains_key(&id) && pairings.entries.len() >= LONG_POLLS_MAX {
            pairings.forget_ended(now);
        }
        let room = pairings.polls < LONG_POLLS_MAX;
        let known = pairings.entries.len();
        let entry = match pairings.entries.get_mut(&id) {
            Some(entry) if room && entry.polls < LONG_POLLS_PER_PAIRING_MAX => entry,
            None if room && known < LONG_POLLS_MAX => pairings.entries.entry(id).or_insert_with(Entry::new),
            Some(_) | None => return Err(ErrorCode::Overloaded),
        };
        entry.polls += 1;
        entry.forget_at = forget_at;
        let changed = Arc::clone(&entry.changed);
        pairings.polls += 1;
        Ok(Place { waiters: self, id, changed })
    }

    /// Whether a side was told of a revision, or of a later one.
    pub(crate) fn was_told(&self, id: LocalConnectId, side: Side, revision: u64) -> bool {
        let told = |entry: &Entry| match side {
            Side::Connector => entry.told_connector,
            Side::Browser => entry.told_browser,
        };
        revision <= self.lock().entries.get(&id).map_or(FIRST_REVISION, told)
    }

    /// Remembers that a side is told of a revision.
    pub(crate) fn tell(&self, id: LocalConnectId, side: Side, revision: u64) {
        if let Some(entry) = self.lock().entries.get_mut(&id) {
            let told = match side {
                Side::Connector => &mut entry.told_connector,
                Side::Browser => &mut entry.told_browser,
            };
            *told = revision.max(*told);
        }
    }

    /// Wakes every poll on a pairing.
    pub(crate) fn wake(&self, id: LocalConnectId) {
        if let Some(entry) = self.lock().entries.get(&id) {
            entry.changed.notify_waiters();
        }
    }

    /// Forgets the pairings that are over.
    pub(crate) fn forget_ended(&self, now: UnixMillis) {
        self.lock().forget_ended(now);
    }

    fn lock(&self) -> MutexGuard<'_, Pairings> {
        self.pairings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pairings {
    fn forget_ended(&mut self, now: UnixMillis) {
        self.entries.retain(|_, entry| entry.polls > 0 || entry.forget_at > now);
    }
}

impl Entry {
    fn new() -> Self {
        Self {
            changed: Arc::new(Notify::new()),
            polls: 0,
            told_connector: FIRST_REVISION,
            told_browser: FIRST_REVISION,
            forget_at: UnixMillis::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const NOW: UnixMillis = UnixMillis(1_000);
    const LATER: UnixMillis = UnixMillis(2_000);

    fn id(number: usize) -> LocalConnectId {
        LocalConnectId::from_uuid(Uuid::from_u128(number as u128))
    }

    #[test]
    fn one_pairing_cannot_take_the_places_of_the_others() {
        let waiters = Waiters::default();
        let places: Vec<_> =
            (0..LONG_POLLS_PER_PAIRING_MAX).map(|_| waiters.place(id(1), LATER, NOW).expect("a place")).collect();
        assert!(matches!(waiters.place(id(1), LATER, NOW), Err(ErrorCode::Overloaded)));
        let other = waiters.place(id(2), LATER, NOW);
        assert!(other.is_ok());
        drop(places);
        assert!(waiters.place(id(1), LATER, NOW).is_ok());
    }

    #[test]
    fn pairings_that_are_over_make_room_and_waited_ones_stay() {
        let waiters = Waiters::default();
        for number in 0..LONG_POLLS_MAX {
            drop(waiters.place(id(number), LATER, NOW).expect("a place"));
        }
        assert!(matches!(waiters.place(id(LONG_POLLS_MAX), LATER, NOW), Err(ErrorCode::Overloaded)));
        let kept = waiters.place(id(0), LATER, NOW).expect("a place");
        waiters.tell(id(0), Side::Browser, 7);
        assert!(waiters.place(id(LONG_POLLS_MAX), UnixMillis(3_000), LATER).is_ok());
        assert!(waiters.was_told(id(0), Side::Browser, 7));
        assert!(!waiters.was_told(id(0), Side::Connector, 7));
        drop(kept);
        waiters.forget_ended(LATER);
        assert!(!waiters.was_told(id(0), Side::Browser, 7));
    }
}
