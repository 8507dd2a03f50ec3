//! Reads are remembered in memory only, the newest of them: a repeat within a session is answered once.

use std::collections::{BTreeMap, VecDeque};

use flydex_domain::command::Outcome;
use flydex_domain::gate::{Known, Remembered};
use flydex_domain::id::CommandHash;
use flydex_domain::journal::Key;
use flydex_domain::limits::READ_DEDUP_ENTRIES_MAX;

/// The newest reads and what became of them.
#[derive(Default)]
pub(super) struct Reads {
    entries: BTreeMap<Key, Remembered>,
    order: VecDeque<Key>,
}

impl Reads {
    pub(super) fn get(&self, key: &Key) -> Option<Remembered> {
        self.entries.get(key).copied()
    }

    pub(super) fn begin(&mut self, key: Key, hash: CommandHash) {
        if self.entries.insert(key, Remembered { hash, state: Known::UnderWay }).is_none() {
            self.order.push_back(key);
        }
        if self.order.len() > READ_DEDUP_ENTRIES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.entries.remove(&oldest);
        }
    }

    pub(super) fn settle(&mut self, key: Key, outcome: Outcome) {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.state = Known::Settled(outcome);
        }
    }
}
