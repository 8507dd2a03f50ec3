//! Numbered streams of events: positions, cursors and the verdict on a resume (INV-ORDER).

use crate::id::BootId;

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
