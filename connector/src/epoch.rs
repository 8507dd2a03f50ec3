//! What the connector keeps of ownership across its lives: the highest epoch that it attached to, and its count
//! of links (INV-FENCE).
//!
//! The count follows the clock where that is ahead, so that a machine restored from an old copy still outranks
//! the links that it opened before; where it does not, the relay says how far they had counted.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use flydex_domain::epoch::{Attach, Epoch, attach};
use flydex_domain::limits::LINK_COUNTER_JUMP_MAX;
use flydex_domain::time::UnixMillis;
use serde::{Deserialize, Serialize};

use crate::storage::Storage;

/// The fence of this machine. Cheap to clone; calls block on the disk.
#[derive(Clone)]
pub struct Fence(Arc<Mutex<Inner>>);

struct Inner {
    kept: Kept,
    storage: Box<dyn Storage>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    highest: Epoch,
    link_counter: u64,
}

impl Fence {
    /// Reads the fence; a machine that was just paired has none.
    ///
    /// # Errors
    /// When it cannot be read, or is not what was written: then nobody may be believed to be the owner.
    pub fn open(mut storage: Box<dyn Storage>) -> io::Result<Self> {
        let content = storage.load()?;
        let kept = if content.is_empty() {
            Kept { highest: Epoch::ZERO, link_counter: 0 }
        } else {
            serde_json::from_slice(&content)?
        };
        Ok(Self(Arc::new(Mutex::new(Inner { kept, storage }))))
    }

    /// The highest epoch that was attached to.
    #[must_use]
    pub fn highest(&self) -> Epoch {
        self.lock().kept.highest
    }

    /// Decides on an attach; an accepted epoch is durable on return.
    ///
    /// # Errors
    /// When it cannot be made durable; then it is not accepted.
    pub fn attach(&self, asked: Epoch) -> io::Result<Attach> {
        let mut inner = self.lock();
        let ruling = attach(inner.kept.highest, asked);
        match ruling {
            Attach::Accept(epoch) => {
                let kept = Kept { highest: epoch, ..inner.kept };
                inner.keep(kept)?;
            }
            Attach::Continue | Attach::Stale { .. } | Attach::Absurd => {}
        }
        Ok(ruling)
    }

    /// The number of the next link, greater than all before; durable on return.
    ///
    /// # Errors
    /// When it cannot be made durable.
    pub fn next_link(&self, now: UnixMillis) -> io::Result<u64> {
        let mut inner = self.lock();
        let link_counter = (inner.kept.link_counter + 1).max(now.0 / 1000);
        let kept = Kept { link_counter, ..inner.kept };
        inner.keep(kept)?;
        Ok(link_counter)
    }

    /// Notes that a link of this machine has counted this far; the next one counts further. A leap that no honest
    /// history explains is left alone.
    ///
    /// # Errors
    /// When it cannot be made durable.
    pub fn outrank(&self, link_counter: u64) -> io::Result<()> {
        let mut inner = self.lock();
        let ahead = link_counter.saturating_sub(inner.kept.link_counter);
        if ahead == 0 || ahead > LINK_COUNTER_JUMP_MAX {
            return Ok(());
        }
        let kept = Kept { link_counter, ..inner.kept };
        inner.keep(kept)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn keep(&mut self, kept: Kept) -> io::Result<()> {
        let content = serde_json::to_vec(&kept)?;
        self.storage.replace(&content)?;
        self.kept = kept;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use flydex_domain::id::Incarnation;

    use super::*;
    use crate::storage::memory::MemoryStorage;

    fn epoch(counter: u64) -> Epoch {
        Epoch { counter, incarnation: Incarnation::from_bytes([1; 16]) }
    }

    #[test]
    fn the_highest_epoch_survives_a_restart_and_never_sinks() {
        let storage = MemoryStorage::default();
        let fence = Fence::open(Box::new(storage.clone())).unwrap();
        assert_eq!(fence.attach(epoch(7)).unwrap(), Attach::Accept(epoch(7)));
        let fence = Fence::open(Box::new(storage)).unwrap();
        assert_eq!(fence.attach(epoch(6)).unwrap(), Attach::Stale { highest: epoch(7) });
        assert_eq!(fence.attach(epoch(7)).unwrap(), Attach::Continue);
    }

    #[test]
    fn an_epoch_that_cannot_be_kept_is_not_accepted() {
        let storage = MemoryStorage::default();
        let fence = Fence::open(Box::new(storage.clone())).unwrap();
        storage.fill_disk(true);
        assert!(fence.attach(epoch(1)).is_err());
        assert_eq!(fence.highest(), Epoch::ZERO);
    }

    #[test]
    fn links_are_counted_up_also_on_a_restored_machine() {
        let storage = MemoryStorage::default();
        let fence = Fence::open(Box::new(storage.clone())).unwrap();
        let first = fence.next_link(UnixMillis(5_000_000)).unwrap();
        assert!(fence.next_link(UnixMillis(1)).unwrap() > first);
        let restored = Fence::open(Box::new(MemoryStorage::default())).unwrap();
        assert!(restored.next_link(UnixMillis(9_000_000)).unwrap() > first + 1);
    }

    #[test]
    fn a_count_that_was_lost_is_learned_from_the_relay_and_a_leap_is_not() {
        let storage = MemoryStorage::default();
        let fence = Fence::open(Box::new(storage.clone())).unwrap();
        fence.outrank(40).unwrap();
        let fence = Fence::open(Box::new(storage)).unwrap();
        assert_eq!(fence.next_link(UnixMillis(0)).unwrap(), 41);
        fence.outrank(7).unwrap();
        fence.outrank(42 + LINK_COUNTER_JUMP_MAX).unwrap();
        assert_eq!(fence.next_link(UnixMillis(0)).unwrap(), 42);
        let counted_with_a_clock = 1_800_000_000;
        fence.outrank(counted_with_a_clock).unwrap();
        assert_eq!(fence.next_link(UnixMillis(0)).unwrap(), counted_with_a_clock + 1);
    }

    #[test]
    fn a_damaged_fence_is_an_error() {
        assert!(Fence::open(Box::new(MemoryStorage::with(b"{".to_vec()))).is_err());
    }
}
