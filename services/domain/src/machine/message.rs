//! What enters a machine's state machine and what it says, as domain values. Content is [`Payload`] throughout.

use std::time::Duration;

use bytes::Bytes;

use crate::command::{Outcome, SignedCommand};
use crate::epoch::Epoch;
use crate::error::ErrorCode;
use crate::id::{BootId, CommandHash, CommandId, DeviceId, Incarnation, LinkId, SessionId};
use crate::placement::{LinkPlacement, OwnerRecord};
use crate::revocation::{DeviceCut, Revocation};
use crate::scope::Role;
use crate::secret::Payload;
use crate::status::MachineStatus;
use crate::stream::{StreamId, Verdict};
use crate::time::UnixMillis;
use crate::token::Grant;

/// W3C trace context, carried and never interpreted here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    /// The trace.
    pub trace_id: [u8; 16],
    /// The span that sent the message.
    pub span_id: [u8; 8],
    /// Bit 0: sampled.
    pub flags: u32,
}

/// What happens to a machine.
#[derive(Clone, Debug)]
pub enum Input {
    /// A gateway opened this machine for a session, with a grant that was verified.
    SessionOpened(OpenSession),
    /// A message of an open session.
    SessionMessage {
        /// Which session.
        session_id: SessionId,
        /// What it says.
        message: DeviceMessage,
        /// Time left for it, when the gateway gave one.
        deadline: Option<Duration>,
    },
    /// The session is gone.
    SessionClosed(SessionId),
    /// A gateway accepted a connector whose credential was verified.
    LinkOpened(OpenLink),
    /// The directory answered [`crate::machine::effect::Effect::Acquire`].
    Acquired(Answer),
    /// The directory holds a later ownership than the one that was asserted.
    Overtaken(OwnerRecord),
    /// The directory answered [`crate::machine::effect::Effect::Find`].
    Found(Option<OwnerRecord>),
    /// The directory answered [`crate::machine::effect::Effect::SetLink`].
    LinkPlaced {
        /// Which link.
        link_id: LinkId,
        /// What became of it.
        placed: LinkPlacement,
    },
    /// A frame of the connector.
    LinkFrame {
        /// Over which link.
        link_id: LinkId,
        /// The frame.
        frame: ConnectorFrame,
    },
    /// The link is gone.
    LinkClosed(LinkId),
    /// Something of the machine's account no longer holds.
    Revoked(Revocation),
    /// Time has passed.
    Tick,
    /// The node will go away: nobody is admitted any more, what is in flight goes on.
    HandOver,
    /// The node goes away: everybody is sent to the successor, or ends where there is none.
    Drain {
        /// The node that is to own the machine.
        successor: Option<Incarnation>,
    },
}

/// What the directory says to a node that wants to own a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It does, under this epoch.
    Owned(Epoch),
    /// Another does.
    Held(Option<Incarnation>),
    /// The directory waits for owners to assert themselves; ask again after this time.
    Settling(Duration),
    /// None: it cannot be reached.
    Unavailable,
    /// It will not say.
    Refused(ErrorCode),
}

/// A session that asks for this machine.
#[derive(Clone, Debug)]
pub struct OpenSession {
    /// Which session.
    pub session_id: SessionId,
    /// Who it is; verified by the caller.
    pub grant: Grant,
    /// The owner on record that does not answer the gateway.
    pub replacing: Option<Incarnation>,
}

/// How a connector is linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A WebSocket over TCP.
    WebSocket,
    /// QUIC.
    Quic,
}

/// What is known of a link when it opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenLink {
    /// Which link.
    pub link_id: LinkId,
    /// Grows with every link of the connector; the greatest wins.
    pub link_counter: u64,
    /// The life of the connector.
    pub boot_id: BootId,
    /// How it is linked.
    pub transport: Transport,
    /// The connector's version, for people.
    pub connector_version: String,
    /// Whether its proof covered the TLS exporter.
    pub channel_bound: bool,
    /// The end of the credential that opened it, and so of the link.
    pub holds_until: UnixMillis,
    /// Devices that were revoked, or lost rights, while this machine was away and that it has not yet cut.
    pub revoked_devices: Vec<DeviceCut>,
    /// The owner on record that does not answer the gateway.
    pub replacing: Option<Incarnation>,
}

/// A message of a session.
#[derive(Clone, Debug)]
pub struct DeviceMessage {
    /// The trace it belongs to.
    pub trace: Option<Trace>,
    /// What it says.
    pub kind: DeviceMessageKind,
}

/// What a session says.
#[derive(Clone, Debug)]
pub enum DeviceMessageKind {
    /// A signed request.
    Command(Box<SignedCommand>),
    /// Bytes of event bodies consumed since the last credit.
    EventCredit(u32),
    /// Bytes of one bulk answer consumed since the last credit.
    BulkCredit {
        /// The command that it answers.
        command_id: CommandId,
        /// How many bytes.
        bytes: u32,
    },
    /// A heartbeat for the connector.
    Probe {
        /// Comes back in the reply.
        nonce: u64,
    },
}

/// A frame of the connector.
#[derive(Clone, Debug)]
pub struct ConnectorFrame {
    /// The epoch under which it was sent; absent before the attach.
    pub epoch: Option<Epoch>,
    /// What it says.
    pub message: ConnectorMessage,
}

/// What a connector says to the owner of its machine.
#[derive(Clone, Debug)]
pub enum ConnectorMessage {
    /// It durably holds this epoch and accepts its frames.
    Attached {
        /// The epoch.
        highest: Epoch,
    },
    /// It has attached to a greater epoch.
    Stale {
        /// That epoch.
        highest: Epoch,
    },
    /// What it knows of itself.
    Report(MachineReport),
    /// For one session.
    ToSession {
        /// Which session.
        session_id: SessionId,
        /// The message.
        message: MachineMessage,
    },
    /// The session was admitted to a stream.
    Subscribed {
        /// Which session.
        session_id: SessionId,
        /// The device that signed for it.
        device_id: DeviceId,
        /// From where on.
        verdict: StreamVerdict,
    },
    /// The session no longer gets a stream.
    Unsubscribed {
        /// Which session.
        session_id: SessionId,
        /// Which stream, and why.
        end: StreamEnd,
    },
    /// For every session subscribed to its stream.
    SharedEvent(Event),
    /// A revoked device was removed from the machine's list, or may do less now.
    DeviceRemoved(DeviceCut),
}

/// What the connector knows of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineReport {
    /// One of the states from `link_up` on.
    pub status: MachineStatus,
    /// Codex's version, or empty.
    pub codex_version: String,
    /// Codex is newer than FlyDex knows.
    pub read_only: bool,
    /// Remote control is paused at the desk.
    pub paused: bool,
}

/// A message of a machine for one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineMessage {
    /// The trace it belongs to.
    pub trace: Option<Trace>,
    /// What it says.
    pub kind: MachineMessageKind,
}

/// What a machine says to one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MachineMessageKind {
    /// What every session may know.
    Status(StatusNotice),
    /// Advice on the way to a receipt.
    Progress {
        /// Which command.
        command_id: CommandId,
        /// How far it is.
        stage: Stage,
    },
    /// The machine's final word on a command.
    Receipt(SignedReceipt),
    /// The answer to an attach or a watch.
    Verdict(StreamVerdict),
    /// One event of a stream.
    Event(Event),
    /// A piece of a bulk answer.
    Chunk {
        /// The command that it answers.
        command_id: CommandId,
        /// Where the piece begins.
        offset: u32,
        /// The piece.
        bytes: Payload,
    },
    /// The answer to a heartbeat.
    ProbeReply {
        /// The nonce of the heartbeat.
        nonce: u64,
        /// The machine's clock.
        machine_time: UnixMillis,
    },
    /// A failure on the way, not the machine's word.
    Failure(Failure),
    /// The session no longer gets a stream.
    StreamEnd(StreamEnd),
}

/// A failure on the way: never final for an effect that may have been delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Why.
    pub code: ErrorCode,
    /// The command it is about.
    pub command_id: Option<CommandId>,
    /// When to ask again; zero gives no advice.
    pub retry_after: Duration,
}

/// The status of a machine as its sessions see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusNotice {
    /// The state.
    pub status: MachineStatus,
    /// The life of the connector; absent until it has attached.
    pub boot_id: Option<BootId>,
    /// When the state began, by the node's clock.
    pub since: UnixMillis,
    /// How the connector is linked; absent while it is not.
    pub transport: Option<Transport>,
    /// The connector's version, or empty.
    pub connector_version: String,
    /// Codex's version, or empty.
    pub codex_version: String,
    /// Codex is newer than FlyDex knows.
    pub read_only: bool,
    /// Remote control is paused at the desk.
    pub paused: bool,
    /// The link's proof covered the TLS exporter.
    pub channel_bound: bool,
}

/// How far a command without a receipt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// The actor has forwarded it.
    Accepted,
    /// The connector verified and journalled it.
    Delivered,
}

/// A receipt as it travels, and the facts in it that the relay acts on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedReceipt {
    /// The signed bytes.
    pub receipt: Payload,
    /// The machine's signature over them.
    pub signature: Bytes,
    /// What was read out of the bytes.
    pub facts: ReceiptFacts,
}

/// What the relay reads in a receipt; the result stays closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiptFacts {
    /// Whose command.
    pub device_id: DeviceId,
    /// Which command.
    pub command_id: CommandId,
    /// What exactly was asked.
    pub command_hash: CommandHash,
    /// What became of it.
    pub outcome: OutcomeKind,
    /// Whether the answer follows in pieces.
    pub bulk: bool,
}

/// An [`Outcome`] without its code, which a newer machine may know and this relay not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OutcomeKind {
    /// It was done.
    Executed,
    /// It was not and will not be done.
    Refused,
    /// It may or may not have been done; one proof may follow.
    Unknown,
}

impl From<Outcome> for OutcomeKind {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Executed => Self::Executed,
            Outcome::Refused(_) => Self::Refused,
            Outcome::Unknown => Self::Unknown,
        }
    }
}

/// The answer to an attach or a watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamVerdict {
    /// The attach or watch.
    pub command_id: CommandId,
    /// The stream.
    pub stream_id: StreamId,
    /// The life of the connector that numbers it.
    pub boot_id: BootId,
    /// From where on.
    pub verdict: Verdict,
}

/// One event of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The stream.
    pub stream_id: StreamId,
    /// Its number; the first is 1.
    pub seq: u64,
    /// Its content.
    pub body: Payload,
}

/// The end of a session's subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamEnd {
    /// The stream.
    pub stream_id: StreamId,
    /// The last event that was sent.
    pub last_seq: u64,
    /// Why.
    pub code: ErrorCode,
}

/// What the owner says to its connector.
#[derive(Clone, Debug)]
pub enum OwnerMessage {
    /// Asks to own the machine.
    Attach,
    /// A message of a session.
    FromSession {
        /// Which session.
        session_id: SessionId,
        /// Its device, by the grant.
        device_id: DeviceId,
        /// The account's word on its user.
        role: Role,
        /// The message.
        message: DeviceMessage,
    },
    /// A session is gone.
    SessionGone(SessionId),
    /// A device was revoked, or may do less.
    RemoveDevice(DeviceCut),
}
