//! Numbered streams of events: positions, cursors, the rings that keep the newest events, and the verdict on a
//! resume (INV-ORDER, INV-BOUND).

use std::collections::{BTreeMap, VecDeque};

use crate::id::BootId;
use crate::limits::{RING_BYTES_MAX, RING_EVENT_OVERHEAD_BYTES, RINGS_TOTAL_BYTES_MAX};
use crate::secret::Payload;

/// A stream of one connector boot: the machine stream, or one watched thread. Opaque to the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u32);

impl StreamId {
    /// Status and approvals of the machine itself.
    pub const MACHINE: Self = Self(0);
}

/// A place in a stream: everything up to and including `seq` has been seen. Sequence numbers start at 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// Which stream.
    pub stream_id: StreamId,
    /// Which life of the connector numbered it.
    pub boot_id: BootId,
    /// The last number seen; 0 before the first.
    pub seq: u64,
}

/// What a session that resumes is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Nothing was missed: the events after this number follow.
    Resumed {
        /// The cursor that was asked for.
        from: u64,
    },
    /// Something was missed: a snapshot as of this number replaces what the session has.
    Gap {
        /// The number up to which the snapshot holds.
        as_of: u64,
    },
}

// === Rings ===

/// The newest events of one stream, within [`RING_BYTES_MAX`].
#[derive(Debug, Default)]
pub struct Ring {
    events: VecDeque<Payload>,
    bytes: usize,
    last_seq: u64,
}

impl Ring {
    /// The number of the newest event; 0 before the first.
    #[must_use]
    pub const fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// The number of the oldest event that is kept; one past the newest when none is.
    #[must_use]
    pub fn first_kept(&self) -> u64 {
        self.last_seq + 1 - self.events.len() as u64
    }

    fn push(&mut self, body: Payload) -> u64 {
        self.last_seq += 1;
        self.bytes += cost(&body);
        self.events.push_back(body);
        while self.bytes > RING_BYTES_MAX {
            self.drop_oldest();
        }
        self.last_seq
    }

    fn drop_oldest(&mut self) {
        if let Some(body) = self.events.pop_front() {
            self.bytes -= cost(&body);
        }
    }

    fn verdict(&self, seq: u64) -> Verdict {
        if seq > self.last_seq || seq + 1 < self.first_kept() {
            Verdict::Gap { as_of: self.last_seq }
        } else {
            Verdict::Resumed { from: seq }
        }
    }
}

/// The rings of one connector boot, within [`RINGS_TOTAL_BYTES_MAX`] together. Stream ids are never reused.
#[derive(Debug)]
pub struct Rings {
    boot_id: BootId,
    rings: BTreeMap<StreamId, Ring>,
    bytes: usize,
    next_stream: u32,
}

impl Rings {
    /// Rings of a boot, with an empty machine stream.
    #[must_use]
    pub fn new(boot_id: BootId) -> Self {
        Self { boot_id, rings: BTreeMap::from([(StreamId::MACHINE, Ring::default())]), bytes: 0, next_stream: 1 }
    }

    /// Opens another stream.
    pub fn open(&mut self) -> StreamId {
        let stream_id = StreamId(self.next_stream);
        self.next_stream += 1;
        self.rings.insert(stream_id, Ring::default());
        stream_id
    }

    /// Forgets a stream. The machine stream stays.
    pub fn close(&mut self, stream_id: StreamId) {
        if stream_id == StreamId::MACHINE {
            return;
        }
        if let Some(ring) = self.rings.remove(&stream_id) {
            self.bytes -= ring.bytes;
        }
    }

    /// Numbers an event and keeps it as long as there is room. `None` when the stream is not open.
    pub fn push(&mut self, stream_id: StreamId, body: Payload) -> Option<u64> {
        let ring = self.rings.get_mut(&stream_id)?;
        self.bytes -= ring.bytes;
        let seq = ring.push(body);
        self.bytes += ring.bytes;
        while self.bytes > RINGS_TOTAL_BYTES_MAX {
            let Some(fullest) = self.rings.values_mut().max_by_key(|ring| ring.bytes) else { break };
            self.bytes -= fullest.bytes;
            fullest.drop_oldest();
            self.bytes += fullest.bytes;
        }
        Some(seq)
    }

    /// Where a stream stands. `None` when it is not open.
    #[must_use]
    pub fn position(&self, stream_id: StreamId) -> Option<Position> {
        let ring = self.rings.get(&stream_id)?;
        Some(Position { stream_id, boot_id: self.boot_id, seq: ring.last_seq })
    }

    /// What a session with a cursor is told on a stream. `None` when the stream is not open.
    #[must_use]
    pub fn verdict(&self, stream_id: StreamId, cursor: Option<Position>) -> Option<Verdict> {
        let ring = self.rings.get(&stream_id)?;
        let Some(cursor) = cursor.filter(|cursor| cursor.boot_id == self.boot_id && cursor.stream_id == stream_id)
        else {
            return Some(Verdict::Gap { as_of: ring.last_seq });
        };
        Some(ring.verdict(cursor.seq))
    }

    /// The events after `seq`, in order. Only for a `seq` that [`Rings::verdict`] resumed from.
    pub fn after(&self, stream_id: StreamId, seq: u64) -> impl Iterator<Item = (u64, &Payload)> {
        let (first, events) = match self.rings.get(&stream_id) {
            Some(ring) => (ring.first_kept(), Some(&ring.events)),
            None => (0, None),
        };
        let numbered = events.into_iter().flatten().enumerate().map(move |(index, body)| (first + index as u64, body));
        numbered.filter(move |(number, _)| *number > seq)
    }

    /// Bytes that all rings hold.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }
}

fn cost(body: &Payload) -> usize {
    body.len() + RING_EVENT_OVERHEAD_BYTES
}

#[cfg(test)]
mod tests;
