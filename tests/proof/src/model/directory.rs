//! The directory of the model: one record, the one before it, and whether it answers.

use flydex_domain::epoch::Epoch;
use flydex_domain::id::Incarnation;
use flydex_domain::placement::{Acquisition, OwnerRecord, Reassertion, acquire, reassert};

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Directory {
    record: Option<Record>,
    before: Option<Record>,
    pub(super) away: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Record {
    holder: Option<Incarnation>,
    epoch: Epoch,
}

impl Record {
    fn stored(self) -> OwnerRecord {
        OwnerRecord { holder: self.holder, epoch: self.epoch, link: None }
    }
}

impl Directory {
    /// None: another holds the machine, and the asker was not sent to replace it.
    pub(super) fn acquire(&mut self, asker: Incarnation, floor: Epoch, replaces: bool) -> Option<Epoch> {
        let record = self.record.map(Record::stored);
        let replacing = record.as_ref().and_then(|record| record.holder).filter(|_| replaces);
        match acquire(record.as_ref(), asker, floor, replacing, true) {
            Acquisition::Owned(epoch) => {
                self.write(Record { holder: Some(asker), epoch });
                Some(epoch)
            }
            Acquisition::Held(_) => None,
        }
    }

    /// Whether the owner stays the owner.
    pub(super) fn reassert(&mut self, holder: Incarnation, epoch: Epoch) -> bool {
        match reassert(self.record.map(Record::stored).as_ref(), epoch, true) {
            Reassertion::Kept => {
                self.write(Record { holder: Some(holder), epoch });
                true
            }
            Reassertion::Lost(_) => false,
        }
    }

    pub(super) fn release(&mut self, holder: Incarnation) {
        if let Some(record) = self.record.filter(|record| record.holder == Some(holder)) {
            self.write(Record { holder: None, ..record });
        }
    }

    pub(super) fn forget(&mut self) {
        (self.record, self.before) = (None, None);
    }

    /// Nothing will be rolled back any more.
    pub(super) fn forget_what_was_before(&mut self) {
        self.before = None;
    }

    pub(super) fn roll_back(&mut self) {
        self.record = self.before;
    }

    fn write(&mut self, record: Record) {
        if self.record != Some(record) {
            self.before = self.record.replace(record);
        }
    }
}
