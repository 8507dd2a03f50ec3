//! What waits to be written on one link: encoded frames in their lanes.
//!
//! The core pushes and never waits; the link's writers take. A full lane closes the outbox, which ends the link
//! with `slow_consumer`: sessions come back with their cursors (INV-BOUND, INV-ORDER).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use flydex_domain::error::ErrorCode;
use flydex_domain::limits::BULK_CHUNK_BYTES_MAX;
use flydex_proto::codec::{Lane, encode_message, encode_stream};
use flydex_proto::lanes::{Lanes, OnLane as _, queue_bytes_max};
use flydex_proto::v1;
use tokio::sync::{Notify, futures::OwnedNotified};

/// How frames are framed on the transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// A lane byte in front: one WebSocket message.
    Message,
    /// A length in front: a lane's own QUIC stream.
    Stream,
}

/// The outgoing queue of one link. Cheap to clone.
#[derive(Clone)]
pub struct Outbox(Arc<Shared>);

struct Shared {
    framing: Framing,
    state: Mutex<State>,
    pushed: Notify,
    bulk_taken: Arc<Notify>,
}

#[derive(Default)]
struct State {
    lanes: Lanes,
    closed: Option<ErrorCode>,
}

/// The outbox is closed; its link ends or has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the link has ended")]
pub struct Closed;

impl Outbox {
    /// An empty outbox.
    #[must_use]
    pub fn new(framing: Framing) -> Self {
        let (state, pushed, bulk_taken) = (Mutex::default(), Notify::new(), Arc::new(Notify::new()));
        Self(Arc::new(Shared { framing, state, pushed, bulk_taken }))
    }

    /// Queues a message on its lane. A frame that no lane can carry is dropped; a full lane closes the outbox.
    ///
    /// # Errors
    /// [`Closed`] when the outbox is or was just closed.
    pub fn send(&self, message: &v1::LinkUp) -> Result<(), Closed> {
        let lane = message.lane();
        let encoded = match self.0.framing {
            Framing::Message => encode_message(lane, message),
            Framing::Stream => encode_stream(lane, message),
        };
        let Ok(frame) = encoded else {
            tracing::error!(lane = ?lane, "a frame is over its lane's limit");
            return Ok(());
        };
        let mut state = self.lock();
        if state.closed.is_some() {
            return Err(Closed);
        }
        if state.lanes.push(lane, frame).is_err() {
            tracing::warn!(lane = ?lane, "the link is too slow");
            state.closed = Some(ErrorCode::SlowConsumer);
            state.lanes.clear();
        }
        let closed = state.closed.is_some();
        drop(state);
        self.0.pushed.notify_waiters();
        if closed { Err(Closed) } else { Ok(()) }
    }

    /// Queues a frame for the machine's owner.
    ///
    /// # Errors
    /// Like [`Outbox::send`].
    pub fn send_frame(&self, frame: v1::ConnectorFrame) -> Result<(), Closed> {
        self.send(&v1::LinkUp { kind: Some(v1::link_up::Kind::Frame(frame)) })
    }

    /// Whether a bulk frame fits and bulk does not pile up.
    #[must_use]
    pub fn has_bulk_room(&self) -> bool {
        let state = self.lock();
        let half = queue_bytes_max(Lane::Bulk) / 2;
        state.closed.is_none() && state.lanes.queued_bytes(Lane::Bulk) + BULK_CHUNK_BYTES_MAX <= half
    }

    /// Completes when a bulk frame has been taken since this was called.
    pub fn bulk_taken(&self) -> OwnedNotified {
        self.0.bulk_taken.clone().notified_owned()
    }

    /// Drops what waits for an owner that another has replaced; the link's own signs of life stay.
    pub fn drop_owners_frames(&self) {
        let mut state = self.lock();
        for lane in [Lane::Commands, Lane::Events, Lane::Bulk] {
            while state.lanes.pop_from(lane).is_some() {}
        }
        drop(state);
        self.0.bulk_taken.notify_waiters();
    }

    /// Closes the outbox; what waits is dropped. The first reason stays.
    pub fn close(&self, code: ErrorCode) {
        let mut state = self.lock();
        state.closed.get_or_insert(code);
        state.lanes.clear();
        drop(state);
        self.0.pushed.notify_waiters();
    }

    /// Waits until everything was taken, or the outbox is closed.
    pub async fn drained(&self) {
        loop {
            let taken = self.bulk_taken();
            {
                let state = self.lock();
                if state.closed.is_some() || state.lanes.is_empty() {
                    return;
                }
            }
            taken.await;
        }
    }

    /// Why it was closed.
    #[must_use]
    pub fn closed(&self) -> Option<ErrorCode> {
        self.lock().closed
    }

    /// The next frame of all lanes, by urgency; `Err` once closed.
    ///
    /// # Errors
    /// The code it was closed with.
    pub async fn next(&self) -> Result<Bytes, ErrorCode> {
        self.take(|lanes| lanes.pop().map(|(_, frame)| frame)).await
    }

    /// The next frame of one lane.
    ///
    /// # Errors
    /// The code it was closed with.
    pub async fn next_from(&self, lane: Lane) -> Result<Bytes, ErrorCode> {
        self.take(|lanes| lanes.pop_from(lane)).await
    }

    async fn take(&self, mut pop: impl FnMut(&mut Lanes) -> Option<Bytes>) -> Result<Bytes, ErrorCode> {
        loop {
            let pushed = self.0.pushed.notified();
            tokio::pin!(pushed);
            // Registered before looking, so that a push in between is not missed.
            pushed.as_mut().enable();
            {
                let mut state = self.lock();
                if let Some(code) = state.closed {
                    return Err(code);
                }
                if let Some(frame) = pop(&mut state.lanes) {
                    drop(state);
                    self.0.bulk_taken.notify_waiters();
                    return Ok(frame);
                }
            }
            pushed.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use flydex_proto::codec::{decode_body, split_message};

    use super::*;

    fn event(bytes: usize) -> v1::ConnectorFrame {
        let event = v1::Event { stream_id: 1, seq: 1, body: Bytes::from(vec![0; bytes]) };
        v1::ConnectorFrame { epoch: None, kind: Some(v1::connector_frame::Kind::SharedEvent(event)) }
    }

    fn ping() -> v1::LinkUp {
        v1::LinkUp { kind: Some(v1::link_up::Kind::Ping(v1::Ping { nonce: 1 })) }
    }

    #[tokio::test]
    async fn control_overtakes_events() {
        let outbox = Outbox::new(Framing::Message);
        outbox.send_frame(event(10)).unwrap();
        outbox.send(&ping()).unwrap();
        let (lane, body) = split_message(outbox.next().await.unwrap()).unwrap();
        assert_eq!(lane, Lane::Control);
        assert!(decode_body::<v1::LinkUp>(body).is_ok());
        let (lane, _) = split_message(outbox.next().await.unwrap()).unwrap();
        assert_eq!(lane, Lane::Events);
    }

    #[tokio::test]
    async fn a_waiting_writer_is_woken_by_a_push_and_by_the_end() {
        let outbox = Outbox::new(Framing::Message);
        let writer = outbox.clone();
        let task = tokio::spawn(async move { (writer.next().await.is_ok(), writer.next().await) });
        outbox.send(&ping()).unwrap();
        outbox.drained().await;
        outbox.close(ErrorCode::GoingAway);
        outbox.close(ErrorCode::Internal);
        assert_eq!(task.await.unwrap(), (true, Err(ErrorCode::GoingAway)));
        assert_eq!(outbox.send(&ping()), Err(Closed));
    }

    #[tokio::test]
    async fn a_full_lane_ends_the_link() {
        let outbox = Outbox::new(Framing::Stream);
        while outbox.send_frame(event(100_000)).is_ok() {}
        assert_eq!(outbox.closed(), Some(ErrorCode::SlowConsumer));
        assert_eq!(outbox.next_from(Lane::Events).await, Err(ErrorCode::SlowConsumer));
    }
}
