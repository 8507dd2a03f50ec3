//! What waits to be written to one peer: the lanes of `proto`, shared between those who send and the one who writes.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use flydex_domain::error::ErrorCode;
use flydex_proto::codec::{self, FrameError, Lane};
use flydex_proto::lanes::{Full, Lanes, OnLane};
use prost::Message;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// How frames are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// WebSocket: one message with its lane byte; all lanes share one pipe.
    Message,
    /// QUIC: a length and a body; every lane has its own pipe.
    Stream,
}

/// Why a message was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SendError {
    /// The peer reads too slowly.
    #[error("queue a frame")]
    Full(#[from] Full),
    /// Whoever made the message broke the limit of its lane.
    #[error("encode a frame")]
    Frame(#[from] FrameError),
}

impl SendError {
    /// What the connection ends with.
    pub(crate) const fn code(self) -> ErrorCode {
        match self {
            Self::Full(_) => ErrorCode::SlowConsumer,
            Self::Frame(_) => ErrorCode::Internal,
        }
    }
}

/// The frames on their way to one peer.
pub(crate) struct Outbox {
    framing: Framing,
    state: Mutex<State>,
    /// One bell for each pipe; each has one writer.
    bells: [Notify; Lane::ALL.len()],
    finished: CancellationToken,
}

#[derive(Default)]
struct State {
    lanes: Lanes,
    close_code: Option<u16>,
}

impl Outbox {
    pub(crate) fn new(framing: Framing) -> Self {
        Self { framing, state: Mutex::default(), bells: Default::default(), finished: CancellationToken::new() }
    }

    /// Queues a message on its lane; once finished, drops it.
    ///
    /// # Errors
    /// Each [`SendError`]; the caller ends the connection with its code.
    pub(crate) fn send(&self, message: &(impl Message + OnLane)) -> Result<(), SendError> {
        let lane = message.lane();
        let frame = self.encode(lane, message)?;
        let mut state = self.state();
        if state.close_code.is_some() {
            return Ok(());
        }
        state.lanes.push(lane, frame)?;
        drop(state);
        self.bell(lane).notify_one();
        Ok(())
    }

    /// Drops what waits, queues a last message if there is one, and lets the writers end after it.
    pub(crate) fn finish(&self, last: Option<&(impl Message + OnLane)>, close_code: u16) {
        let mut state = self.state();
        if state.close_code.is_some() {
            return;
        }
        state.close_code = Some(close_code);
        state.lanes.clear();
        if let Some(last) = last
            && let Ok(frame) = self.encode(last.lane(), last)
        {
            // Empty lanes have room for any frame of legal size.
            let _ = state.lanes.push(last.lane(), frame);
        }
        drop(state);
        self.finished.cancel();
        for bell in &self.bells {
            bell.notify_one();
        }
    }

    /// Waits until no further message is taken.
    pub(crate) async fn finished(&self) {
        self.finished.cancelled().await;
    }

    /// The close code, once finished.
    pub(crate) fn close_code(&self) -> Option<u16> {
        self.state().close_code
    }

    /// The frame to write next over all lanes; nothing when the last one was taken. For one writer.
    pub(crate) async fn next(&self) -> Option<Bytes> {
        self.take(Lane::Control, |lanes| lanes.pop().map(|(_, frame)| frame)).await
    }

    /// The frame to write next, if one waits.
    pub(crate) fn try_next(&self) -> Option<Bytes> {
        self.state().lanes.pop().map(|(_, frame)| frame)
    }

    /// The frame to write next on one lane; nothing when the last one was taken. For one writer for each lane.
    pub(crate) async fn next_from(&self, lane: Lane) -> Option<Bytes> {
        self.take(lane, |lanes| lanes.pop_from(lane)).await
    }

    async fn take(&self, lane: Lane, pop: impl Fn(&mut Lanes) -> Option<Bytes>) -> Option<Bytes> {
        loop {
            {
                let mut state = self.state();
                if let Some(frame) = pop(&mut state.lanes) {
                    return Some(frame);
                }
                if state.close_code.is_some() {
                    return None;
                }
            }
            self.bell(lane).notified().await;
        }
    }

    fn bell(&self, lane: Lane) -> &Notify {
        match self.framing {
            Framing::Message => &self.bells[0],
            Framing::Stream => &self.bells[usize::from(lane.byte())],
        }
    }

    fn encode(&self, lane: Lane, message: &impl Message) -> Result<Bytes, FrameError> {
        match self.framing {
            Framing::Message => codec::encode_message(lane, message),
            Framing::Stream => codec::encode_stream(lane, message),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
