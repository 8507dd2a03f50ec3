//! What a machine's state machine wants done.

use std::time::Duration;

use crate::command::CommandKind;
use crate::epoch::Epoch;
use crate::error::ErrorCode;
use crate::id::{Incarnation, LinkId, SessionId};
use crate::machine::message::{MachineMessage, OutcomeKind, OwnerMessage};
use crate::placement::Cause;
use crate::revocation::DeviceCut;
use crate::status::MachineStatus;

/// What must be done.
#[derive(Clone, Debug)]
pub enum Effect {
    /// The session is open here.
    SessionOpened(SessionId),
    /// Send to a session.
    ToSession {
        /// Which session.
        session_id: SessionId,
        /// The message.
        message: MachineMessage,
    },
    /// The session is not open here any more.
    EndSession {
        /// Which session.
        session_id: SessionId,
        /// Why.
        code: ErrorCode,
        /// When to try again; zero gives no advice.
        retry_after: Duration,
    },
    /// The link is accepted.
    LinkOpened(LinkId),
    /// Send to the connector.
    ToLink {
        /// Over which link.
        link_id: LinkId,
        /// The epoch of the frame.
        epoch: Epoch,
        /// The message.
        message: OwnerMessage,
    },
    /// The link must close.
    EndLink {
        /// Which link.
        link_id: LinkId,
        /// Why.
        code: ErrorCode,
        /// When to try again; zero gives no advice.
        retry_after: Duration,
        /// The counter on record, which a superseded link is below; else zero.
        link_counter: u64,
    },
    /// Another node owns the machine: the session or link belongs there.
    NotOwner {
        /// What belongs there.
        subject: Subject,
        /// That node, when it is known.
        owner: Option<Incarnation>,
    },
    /// Ask the directory for an ownership, and answer with [`Input::Acquired`](super::message::Input::Acquired).
    Acquire {
        /// The ownership must be above this.
        floor: Epoch,
        /// The owner from which to take over without waiting.
        replacing: Option<Incarnation>,
        /// Why.
        cause: Cause,
    },
    /// Tell the directory of this ownership as soon as it listens; a later one on record is
    /// [`Input::Overtaken`](super::message::Input::Overtaken).
    Assert,
    /// Ask the directory who owns the machine, and answer with [`Input::Found`](super::message::Input::Found).
    Find,
    /// Put the link on record, and answer with [`Input::LinkPlaced`](super::message::Input::LinkPlaced).
    SetLink {
        /// Which link.
        link_id: LinkId,
        /// Its counter.
        counter: u64,
    },
    /// The machine has removed a revoked device, or lowered its role.
    DeviceRemoved(DeviceCut),
    /// Worth a log line or a count; changes nothing.
    Note(Note),
}

/// Whom a word of the owner is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A session.
    Session(SessionId),
    /// A link.
    Link(LinkId),
}

/// What is counted and logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// A command was forwarded.
    CommandForwarded(CommandKind),
    /// A command was answered by the actor itself.
    CommandFailed(ErrorCode),
    /// A repeat was answered from memory.
    RepeatAnswered,
    /// A receipt was passed on or kept.
    ReceiptSeen(OutcomeKind),
    /// Something was dropped.
    Dropped(Dropped),
    /// A subscription ended.
    StreamEnded(ErrorCode),
    /// The status changed.
    StatusChanged(MachineStatus),
}

/// Why something was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dropped {
    /// A frame of another epoch, or before the attach (INV-FENCE).
    StaleEpoch,
    /// A frame of a link that is not the machine's link.
    UnknownLink,
    /// For a session that is not open here.
    UnknownSession,
    /// For a session of another device than the one it names (INV-KEY).
    ForeignDevice,
    /// For a stream that the session does not watch.
    NotSubscribed,
    /// A receipt for other bytes than the command under that id.
    HashMismatch,
    /// A message that a connector does not send, or that makes no sense now.
    Unexpected,
}

impl Dropped {
    /// Every reason.
    pub const ALL: [Self; 7] = [
        Self::StaleEpoch,
        Self::UnknownLink,
        Self::UnknownSession,
        Self::ForeignDevice,
        Self::NotSubscribed,
        Self::HashMismatch,
        Self::Unexpected,
    ];

    /// The name in metrics and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::StaleEpoch => "stale_epoch",
            Self::UnknownLink => "unknown_link",
            Self::UnknownSession => "unknown_session",
            Self::ForeignDevice => "foreign_device",
            Self::NotSubscribed => "not_subscribed",
            Self::HashMismatch => "hash_mismatch",
            Self::Unexpected => "unexpected",
        }
    }
}
