//! Which frame is written next on a connection. Pure: no socket, no clock. [`OnLane`] says which lane a message is on.
//!
//! [`Lanes`] holds the encoded frames of one connection until the socket can take them. The order is strict:
//! control, then commands, events and bulk, so that a ping never waits behind a page.
//!
//! **Bounds (INV-BOUND).** Each lane has its own share of [`limits::CONNECTION_QUEUE_BYTES_MAX`], so a full event
//! lane never costs a receipt its place. Every frame is charged [`limits::QUEUED_FRAME_OVERHEAD_BYTES`] on top of its
//! bytes, which bounds the memory of many tiny frames too. A refused frame is not taken at all.
//!
//! **No starvation.** Strict order alone lets a machine that streams without end starve a page. So each lane but
//! control counts the bytes that overtook its oldest frame; past [`limits::LANE_OVERTAKEN_BYTES_MAX`] that frame goes
//! next, still after control. Control needs no such rule and is exempt from it: its frames are small and paced by
//! heartbeats, and nothing may ever delay a heartbeat by more than the one frame that is being written. The rule
//! costs a command at most one frame of events and one of bulk for every 128 KiB.

use std::collections::VecDeque;

use bytes::Bytes;
use flydex_domain::limits;

use crate::codec::Lane;

mod on_lane;

pub use on_lane::OnLane;

/// The frames that wait for one connection.
#[derive(Default)]
pub struct Lanes {
    queues: [Queue; Lane::ALL.len()],
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<Bytes>,
    bytes: usize,
    overtaken_bytes: usize,
}

/// The lane has no room; the frame was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {lane:?} lane is full")]
pub struct Full {
    /// Which lane.
    pub lane: Lane,
}

impl Lanes {
    /// Empty lanes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Queues an encoded frame behind the others of its lane.
    ///
    /// # Errors
    /// [`Full`] when the lane's share has no room for it.
    pub fn push(&mut self, lane: Lane, frame: Bytes) -> Result<(), Full> {
        let queue = self.queue_mut(lane);
        let bytes = queue.bytes + charge(&frame);
        if bytes > queue_bytes_max(lane) {
            return Err(Full { lane });
        }
        queue.bytes = bytes;
        queue.frames.push_back(frame);
        Ok(())
    }

    /// Takes the frame that is written next.
    pub fn pop(&mut self) -> Option<(Lane, Bytes)> {
        let lane = self.next_lane()?;
        let frame = self.pop_from(lane)?;
        if lane != Lane::Control {
            self.count_overtaken(lane, frame.len());
        }
        Some((lane, frame))
    }

    /// Takes the oldest frame of one lane, for transports on which lanes do not share a pipe.
    pub fn pop_from(&mut self, lane: Lane) -> Option<Bytes> {
        let queue = self.queue_mut(lane);
        let frame = queue.frames.pop_front()?;
        queue.bytes -= charge(&frame);
        queue.overtaken_bytes = 0;
        Some(frame)
    }

    /// Whether no frame waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queues.iter().all(|queue| queue.frames.is_empty())
    }

    /// What the frames of a lane are charged, in bytes.
    #[must_use]
    pub fn queued_bytes(&self, lane: Lane) -> usize {
        self.queues[usize::from(lane.byte())].bytes
    }

    /// Forgets every frame, when the connection ends.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    fn next_lane(&self) -> Option<Lane> {
        let waiting = |lane: &Lane| !self.queues[usize::from(lane.byte())].frames.is_empty();
        if waiting(&Lane::Control) {
            return Some(Lane::Control);
        }
        let overdue = |lane: &Lane| {
            waiting(lane) && self.queues[usize::from(lane.byte())].overtaken_bytes >= limits::LANE_OVERTAKEN_BYTES_MAX
        };
        Lane::ALL.into_iter().rev().find(overdue).or_else(|| Lane::ALL.into_iter().find(waiting))
    }

    fn count_overtaken(&mut self, by: Lane, bytes: usize) {
        for lane in Lane::ALL.into_iter().filter(|lane| *lane > by) {
            let queue = self.queue_mut(lane);
            if !queue.frames.is_empty() {
                queue.overtaken_bytes = queue.overtaken_bytes.saturating_add(bytes);
            }
        }
    }

    fn queue_mut(&mut self, lane: Lane) -> &mut Queue {
        &mut self.queues[usize::from(lane.byte())]
    }
}

/// The share of a connection's queue that a lane has, in bytes.
#[must_use]
pub const fn queue_bytes_max(lane: Lane) -> usize {
    match lane {
        Lane::Control => limits::CONTROL_QUEUE_BYTES_MAX,
        Lane::Commands => limits::COMMAND_QUEUE_BYTES_MAX,
        Lane::Events => limits::EVENT_QUEUE_BYTES_MAX,
        Lane::Bulk => limits::BULK_QUEUE_BYTES_MAX,
    }
}

const _: () = assert!(
    limits::CONTROL_QUEUE_BYTES_MAX
        + limits::COMMAND_QUEUE_BYTES_MAX
        + limits::EVENT_QUEUE_BYTES_MAX
        + limits::BULK_QUEUE_BYTES_MAX
        == limits::CONNECTION_QUEUE_BYTES_MAX,
    "the lanes' shares are the whole queue"
);

fn charge(frame: &Bytes) -> usize {
    frame.len() + limits::QUEUED_FRAME_OVERHEAD_BYTES
}

#[cfg(test)]
mod tests;
