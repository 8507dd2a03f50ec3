//! One open connection, whatever carries it: an outbox that its writers drain, and what its readers bring.

use std::time::Duration;

use bytes::Bytes;
use flydex_domain::error::ErrorCode;
use flydex_proto::codec::{Lane, decode_on};
use flydex_proto::v1;
use tokio::sync::mpsc;

use crate::outbox::Outbox;
use crate::paired::{Channel, Transport};

/// An open connection. Its tasks end when the outbox is closed or the peer is gone.
pub(super) struct Wire {
    pub(super) transport: Transport,
    /// The TLS exporter that the proof covers; absent where there is no TLS, or where it ends on the way.
    pub(super) exporter: Option<[u8; 32]>,
    /// How long one round trip of its handshake took.
    pub(super) handshake: Duration,
    pub(super) outbox: Outbox,
    pub(super) incoming: mpsc::Receiver<Incoming>,
}

/// What a reader brings.
#[expect(clippy::large_enum_variant, reason = "moved once, from the reader to the link")]
pub(super) enum Incoming {
    /// A message.
    Message(v1::LinkDown),
    /// A sign of life of the transport itself.
    Alive,
    /// The connection has ended.
    End(ErrorCode),
}

impl Incoming {
    /// Why the connection has ended, if this says so.
    pub(super) const fn end(&self) -> Option<ErrorCode> {
        match self {
            Self::End(code) => Some(*code),
            Self::Message(_) | Self::Alive => None,
        }
    }
}

/// Reads a frame's body as a message of the gateway, of a kind that travels on that lane.
pub(super) fn message(lane: Lane, body: Bytes) -> Incoming {
    decode_on(lane, body).map_or_else(|error| Incoming::End(error.code()), Incoming::Message)
}

impl Wire {
    pub(super) const fn channel(&self) -> Channel {
        Channel { transport: self.transport, bound: self.exporter.is_some() }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.outbox.close(ErrorCode::GoingAway);
    }
}
