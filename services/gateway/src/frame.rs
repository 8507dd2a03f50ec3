//! Where frames come from, whatever carries them, and how long a peer may be silent.

use std::future::Future;

use bytes::Bytes;
use flydex_domain::error::ErrorCode;
use flydex_domain::limits::PEER_SILENCE_MAX;
use flydex_proto::codec;
use prost::Message;
use tokio::time::Instant;

use crate::ending::End;

/// What a peer sent.
pub(crate) enum Inbound {
    /// The body of a frame within the limit of its lane.
    Frame(Bytes),
    /// A sign of life of the transport itself.
    Alive,
}

/// A source of frames.
pub(crate) trait FrameReader: Send {
    /// The next sign of the peer, or how the connection ends. Safe to cancel.
    fn next(&mut self) -> impl Future<Output = Result<Inbound, End>> + Send;
}

/// Waits for the next message of a kind and skips the transport's own signs of life.
pub(crate) async fn receive<M: Message + Default>(reader: &mut impl FrameReader) -> Result<M, End> {
    loop {
        match reader.next().await? {
            Inbound::Alive => {}
            Inbound::Frame(body) => return decode(body),
        }
    }
}

/// Reads a message out of a frame's body.
pub(crate) fn decode<M: Message + Default>(body: Bytes) -> Result<M, End> {
    codec::decode_body(body).map_err(|error| error.code().into())
}

/// When a peer was last heard.
pub(crate) struct Liveness {
    heard: Instant,
}

impl Liveness {
    pub(crate) fn new() -> Self {
        Self { heard: Instant::now() }
    }

    pub(crate) fn heard(&mut self) {
        self.heard = Instant::now();
    }

    /// Ends after [`PEER_SILENCE_MAX`] of silence.
    pub(crate) async fn silence(&self) -> End {
        tokio::time::sleep_until(self.heard + PEER_SILENCE_MAX).await;
        ErrorCode::PeerTimeout.into()
    }
}
