//! One open connection, whatever carries it: an outbox that its writers drain, and what its readers bring.

use bytes::Bytes;
use flydex_domain::error::ErrorCode;
use flydex_proto::codec::decode_body;
use flydex_proto::v1;
use tokio::sync::mpsc;

use crate::outbox::Outbox;
use crate::paired::Transport;

/// An open connection. Its tasks end when the outbox is closed or the peer is gone.
pub(super) struct Wire {
    pub(super) transport: Transport,
    /// The TLS exporter, where there is TLS.
    pub(super) exporter: Option<[u8; 32]>,
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

/// Reads a frame's body as a message of the gateway.
pub(super) fn message(body: Bytes) -> Incoming {
    decode_body(body).map_or_else(|error| Incoming::End(error.code()), Incoming::Message)
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.outbox.close(ErrorCode::GoingAway);
    }
}
