//! Where frames come from, whatever carries them.

use std::future::Future;

use bytes::Bytes;
use flydex_proto::codec::{self, Lane};
use flydex_proto::lanes::OnLane;
use prost::Message;

use crate::ending::End;

/// What a peer sent.
pub(crate) enum Inbound {
    /// The body of a frame within the limit of its lane.
    Frame(Lane, Bytes),
    /// A sign of life of the transport itself.
    Alive,
}

/// A source of frames.
pub(crate) trait FrameReader: Send {
    /// The next sign of the peer, or how the connection ends. Safe to cancel.
    fn next(&mut self) -> impl Future<Output = Result<Inbound, End>> + Send;
}

/// Waits for the next message of a kind and skips the transport's own signs of life.
pub(crate) async fn receive<M: Message + Default + OnLane>(reader: &mut impl FrameReader) -> Result<M, End> {
    loop {
        match reader.next().await? {
            Inbound::Alive => {}
            Inbound::Frame(lane, body) => return decode(lane, body),
        }
    }
}

/// Reads a message out of a frame's body; it must be of a kind that travels on that lane.
pub(crate) fn decode<M: Message + Default + OnLane>(lane: Lane, body: Bytes) -> Result<M, End> {
    codec::decode_on(lane, body).map_err(|error| error.code().into())
}
