//! Frames: a lane and a body, on WebSocket messages and on QUIC streams.
//!
//! On a WebSocket one binary message is one frame: the lane byte, then the protobuf body. On QUIC each lane is
//! a stream whose first byte is the lane; a frame there is a big-endian `u32` length, then the body. Sizes are
//! checked before anything is allocated for a frame.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use flydex_domain::error::ErrorCode;
use flydex_domain::limits;
use prost::Message;

use crate::lanes::OnLane;

/// The WebSocket subprotocol, the QUIC ALPN and the newest version spoken.
pub const SUBPROTOCOL: &str = "flydex.v1";
/// The newest version of the hello that is spoken.
pub const VERSION: u32 = 1;
/// The oldest version of the hello that is spoken.
pub const VERSION_MIN: u32 = 1;
/// The version that both sides speak, the newest first; none when they have none in common.
#[must_use]
pub fn negotiate(newest: u32, oldest: u32) -> Option<u32> {
    let version = newest.min(VERSION);
    (version >= oldest.max(VERSION_MIN)).then_some(version)
}

/// Bytes before the body of a frame on a QUIC stream.
pub const LENGTH_PREFIX_BYTES: usize = 4;

/// The four lanes of a connection, in the order in which they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Lane {
    /// Hellos, pings, status.
    Control = 0,
    /// Commands, receipts, credits.
    Commands = 1,
    /// Events of streams, their verdicts and ends.
    Events = 2,
    /// Pages and snapshots in 16 KiB pieces.
    Bulk = 3,
}

impl Lane {
    /// Every lane, most urgent first.
    pub const ALL: [Self; 4] = [Self::Control, Self::Commands, Self::Events, Self::Bulk];

    /// The byte that names the lane.
    #[must_use]
    pub const fn byte(self) -> u8 {
        self as u8
    }

    /// The longest body of a frame on this lane, in bytes.
    #[must_use]
    pub const fn body_bytes_max(self) -> usize {
        match self {
            Self::Control => limits::CONTROL_FRAME_BYTES_MAX,
            Self::Commands => limits::COMMAND_FRAME_BYTES_MAX,
            Self::Events => limits::EVENT_FRAME_BYTES_MAX,
            Self::Bulk => limits::BULK_FRAME_BYTES_MAX,
        }
    }
}

impl TryFrom<u8> for Lane {
    type Error = FrameError;

    fn try_from(byte: u8) -> Result<Self, FrameError> {
        Self::ALL.into_iter().find(|lane| lane.byte() == byte).ok_or(FrameError::UnknownLane(byte))
    }
}

/// Why bytes are not a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// No bytes, or fewer than the body's fields need.
    #[error("frame is truncated or malformed")]
    Truncated,
    /// Longer than its lane allows.
    #[error("frame of {bytes} bytes is over its lane's limit")]
    TooLarge {
        /// The announced or actual size.
        bytes: usize,
    },
    /// A lane byte that this version does not know.
    #[error("unknown lane {0}")]
    UnknownLane(u8),
    /// A message of a kind that travels on another lane.
    #[error("the message does not belong on the {0:?} lane")]
    WrongLane(Lane),
}

impl FrameError {
    /// The code that the peer is told.
    #[must_use]
    pub const fn code(self) -> ErrorCode {
        match self {
            Self::Truncated => ErrorCode::FrameTruncated,
            Self::TooLarge { .. } => ErrorCode::FrameTooLarge,
            Self::UnknownLane(_) | Self::WrongLane(_) => ErrorCode::UnexpectedFrame,
        }
    }
}

/// Writes a message as one WebSocket frame.
///
/// # Errors
/// [`FrameError::TooLarge`] when the message is over its lane's limit.
pub fn encode_message(lane: Lane, message: &impl Message) -> Result<Bytes, FrameError> {
    let length = checked_length(lane, message)?;
    let mut buffer = BytesMut::with_capacity(1 + length);
    buffer.put_u8(lane.byte());
    message.encode_raw(&mut buffer);
    Ok(buffer.freeze())
}

/// Writes a message as one frame of a QUIC stream.
///
/// # Errors
/// [`FrameError::TooLarge`] when the message is over its lane's limit.
pub fn encode_stream(lane: Lane, message: &impl Message) -> Result<Bytes, FrameError> {
    let length = checked_length(lane, message)?;
    let prefix = u32::try_from(length).map_err(|_| FrameError::TooLarge { bytes: length })?;
    let mut buffer = BytesMut::with_capacity(LENGTH_PREFIX_BYTES + length);
    buffer.put_u32(prefix);
    message.encode_raw(&mut buffer);
    Ok(buffer.freeze())
}

fn checked_length(lane: Lane, message: &impl Message) -> Result<usize, FrameError> {
    let bytes = message.encoded_len();
    if bytes > lane.body_bytes_max() { Err(FrameError::TooLarge { bytes }) } else { Ok(bytes) }
}

/// Splits a WebSocket message into its lane and body.
///
/// # Errors
/// Each [`FrameError`].
pub fn split_message(mut bytes: Bytes) -> Result<(Lane, Bytes), FrameError> {
    let Some(byte) = bytes.first().copied() else {
        return Err(FrameError::Truncated);
    };
    let lane = Lane::try_from(byte)?;
    bytes.advance(1);
    if bytes.len() > lane.body_bytes_max() {
        return Err(FrameError::TooLarge { bytes: bytes.len() });
    }
    Ok((lane, bytes))
}

/// Checks the length that a QUIC stream announces for its next frame.
///
/// # Errors
/// [`FrameError::TooLarge`] when it is over the lane's limit.
pub fn stream_length(lane: Lane, prefix: [u8; LENGTH_PREFIX_BYTES]) -> Result<usize, FrameError> {
    let bytes = usize::try_from(u32::from_be_bytes(prefix)).unwrap_or(usize::MAX);
    if bytes > lane.body_bytes_max() { Err(FrameError::TooLarge { bytes }) } else { Ok(bytes) }
}

/// Reads the message in a frame's body.
///
/// # Errors
/// [`FrameError::Truncated`] when the body is not such a message.
pub fn decode_body<M: Message + Default>(body: Bytes) -> Result<M, FrameError> {
    M::decode(body).map_err(|_| FrameError::Truncated)
}

/// Reads the message in the body of a frame that came on a lane. A kind that this version does not know may be on any.
///
/// # Errors
/// [`FrameError::Truncated`], or [`FrameError::WrongLane`] when messages of its kind travel on another lane.
pub fn decode_on<M: Message + Default + OnLane>(lane: Lane, body: Bytes) -> Result<M, FrameError> {
    let message: M = decode_body(body)?;
    let fits = message.lane_of_kind().is_none_or(|of_kind| of_kind == lane);
    if fits { Ok(message) } else { Err(FrameError::WrongLane(lane)) }
}

#[cfg(test)]
mod tests;
