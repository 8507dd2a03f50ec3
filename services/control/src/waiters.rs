//! Long polls on pairings: who waits, who was told what, and who is woken.
//!
//! A poll is answered at once when its pairing has changed since that side was last told, so no change is missed
//! between two polls. Only this process's memory is used: forgetting makes one poll answer early, never wrongly.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flydex_domain::error::ErrorCode;
use flydex_domain::id::LocalConnectId;
use flydex_domain::limits::LONG_POLLS_MAX;
use flydex_domain::time::UnixMillis;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// The revision that a pairing begins with; `start` tells the connector of it.
pub(crate) const FIRST_REVISION: u64 = 1;

/// Which side of a pairing asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Connector,
    Browser,
}

/// The polls of one process.
pub(crate) struct Waiters {
    entries: Mutex<BTreeMap<LocalConnectId, Entry>>,
    polls: Arc<Semaphore>,
}

struct Entry {
    changed: Arc<Notify>,
    told_connector: u64,
    told_browser: u64,
    forget_at: UnixMillis,
}

impl Waiters {
    pub(crate) fn new() -> Self {
        Self { entries: Mutex::default(), polls: Arc::new(Semaphore::new(LONG_POLLS_MAX)) }
    }

    /// Takes a place among the polls; it is given back when dropped.
    ///
    /// # Errors
    /// `overloaded` when there is none.
    pub(crate) fn place(&self) -> Result<OwnedSemaphorePermit, ErrorCode> {
        Arc::clone(&self.polls).try_acquire_owned().map_err(|_| ErrorCode::Overloaded)
    }

    /// What wakes the polls on a pairing.
    ///
    /// # Errors
    /// `overloaded` when too many pairings are polled.
    pub(crate) fn changes(
        &self,
        id: LocalConnectId,
        forget_at: UnixMillis,
        now: UnixMillis,
    ) -> Result<Arc<Notify>, ErrorCode> {
        let mut entries = self.lock();
        if !entries.contains_key(&id) && entries.len() >= LONG_POLLS_MAX {
            entries.retain(|_, entry| entry.forget_at > now);
            if entries.len() >= LONG_POLLS_MAX {
                return Err(ErrorCode::Overloaded);
            }
        }
        let entry = entries.entry(id).or_insert_with(|| Entry {
            changed: Arc::new(Notify::new()),
            told_connector: FIRST_REVISION,
            told_browser: FIRST_REVISION,
            forget_at,
        });
        entry.forget_at = forget_at;
        Ok(Arc::clone(&entry.changed))
    }

    /// Whether a side was told of a revision, or of a later one.
    pub(crate) fn was_told(&self, id: LocalConnectId, side: Side, revision: u64) -> bool {
        let told = |entry: &Entry| match side {
            Side::Connector => entry.told_connector,
            Side::Browser => entry.told_browser,
        };
        revision <= self.lock().get(&id).map_or(FIRST_REVISION, told)
    }

    /// Remembers that a side is told of a revision.
    pub(crate) fn tell(&self, id: LocalConnectId, side: Side, revision: u64) {
        if let Some(entry) = self.lock().get_mut(&id) {
            let told = match side {
                Side::Connector => &mut entry.told_connector,
                Side::Browser => &mut entry.told_browser,
            };
            *told = revision.max(*told);
        }
    }

    /// Wakes every poll on a pairing.
    pub(crate) fn wake(&self, id: LocalConnectId) {
        if let Some(entry) = self.lock().get(&id) {
            entry.changed.notify_waiters();
        }
    }

    /// Forgets the pairings that are over.
    pub(crate) fn forget_ended(&self, now: UnixMillis) {
        self.lock().retain(|_, entry| entry.forget_at > now);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<LocalConnectId, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
