//! What waits to be sent on one stream to a node: bounded in bytes, and fair between accounts.
//!
//! An account has at most its share of the room, so that one which sends more than the node takes fills its own share
//! and nobody else's. Accounts are sent by turns of [`limits::NODE_STREAM_TURN_BYTES`], each in its own order, so a
//! frame waits for one turn of every other account and not for all that they have queued.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flydex_domain::id::AccountId;
use flydex_domain::limits;
use flydex_proto::v1;
use futures_util::stream::{self, Stream};
use prost::Message as _;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// The queue of one stream.
pub(crate) struct Queue {
    room: Arc<Semaphore>,
    shares: Mutex<Shares>,
    lines: Mutex<Lines>,
    bell: Notify,
}

/// The room of each account; those of accounts that use none are forgotten now and then.
struct Shares {
    by_account: BTreeMap<AccountId, Arc<Semaphore>>,
    tidy_at: usize,
}

/// The frames of each account, and whose turn it is: every account with frames is in line once.
#[derive(Default)]
struct Lines {
    by_account: BTreeMap<AccountId, Line>,
    turns: VecDeque<AccountId>,
}

#[derive(Default)]
struct Line {
    frames: VecDeque<Queued>,
    /// Bytes that it may still send in this turn.
    left: usize,
}

struct Queued {
    frame: v1::GatewayFrame,
    room: Room,
}

/// Room for one frame; given back on drop.
pub(crate) struct Room {
    account_id: AccountId,
    bytes: usize,
    _permits: [OwnedSemaphorePermit; 2],
}

/// A frame is larger than any room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLarge;

/// Accounts after which shares are looked through for the first time.
const TIDY_AT_MIN: usize = 1024;

impl Queue {
    /// An empty queue.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            room: Arc::new(Semaphore::new(limits::NODE_STREAM_SEND_BYTES_MAX)),
            shares: Mutex::new(Shares { by_account: BTreeMap::new(), tidy_at: TIDY_AT_MIN }),
            lines: Mutex::default(),
            bell: Notify::new(),
        })
    }

    /// Waits for room for a frame of an account. Safe to cancel.
    ///
    /// # Errors
    /// [`TooLarge`], at once.
    pub(crate) async fn room(&self, account_id: AccountId, frame: &v1::GatewayFrame) -> Result<Room, TooLarge> {
        let (bytes, permits) = cost(frame)?;
        // Nobody closes the semaphores.
        let share = self.share(account_id).acquire_many_owned(permits).await.map_err(|_| TooLarge)?;
        let room = self.room.clone().acquire_many_owned(permits).await.map_err(|_| TooLarge)?;
        Ok(Room { account_id, bytes, _permits: [share, room] })
    }

    /// The room if there is some at once. Whoever waits for room goes first.
    ///
    /// # Errors
    /// [`TooLarge`].
    pub(crate) fn room_now(&self, account_id: AccountId, frame: &v1::GatewayFrame) -> Result<Option<Room>, TooLarge> {
        let (bytes, permits) = cost(frame)?;
        let Ok(share) = self.share(account_id).try_acquire_many_owned(permits) else { return Ok(None) };
        let Ok(room) = self.room.clone().try_acquire_many_owned(permits) else { return Ok(None) };
        Ok(Some(Room { account_id, bytes, _permits: [share, room] }))
    }

    /// Queues a frame in its room.
    pub(crate) fn push(&self, frame: v1::GatewayFrame, room: Room) {
        let mut lines = self.lines();
        let Lines { by_account, turns } = &mut *lines;
        let account_id = room.account_id;
        let line = by_account.entry(account_id).or_insert_with(|| {
            turns.push_back(account_id);
            Line { frames: VecDeque::new(), left: limits::NODE_STREAM_TURN_BYTES }
        });
        line.frames.push_back(Queued { frame, room });
        drop(lines);
        self.bell.notify_one();
    }

    /// The frames as they are to be sent, until it is over; for one reader.
    pub(crate) fn frames(self: Arc<Self>, over: CancellationToken) -> impl Stream<Item = v1::GatewayFrame> + Send {
        stream::unfold((self, over), |(queue, over)| async {
            loop {
                if over.is_cancelled() {
                    return None;
                }
                if let Some(frame) = queue.pop() {
                    return Some((frame, (queue, over)));
                }
                tokio::select! {
                    () = over.cancelled() => {}
                    () = queue.bell.notified() => {}
                }
            }
        })
    }

    fn pop(&self) -> Option<v1::GatewayFrame> {
        let mut lines = self.lines();
        let Lines { by_account, turns } = &mut *lines;
        loop {
            let account_id = *turns.front()?;
            let line = by_account.get_mut(&account_id)?;
            let bytes = line.frames.front()?.room.bytes;
            if line.left < bytes {
                line.left += limits::NODE_STREAM_TURN_BYTES;
                turns.rotate_left(1);
                continue;
            }
            line.left -= bytes;
            let queued = line.frames.pop_front()?;
            if line.frames.is_empty() {
                by_account.remove(&account_id);
                turns.pop_front();
            }
            return Some(queued.frame);
        }
    }

    fn share(&self, account_id: AccountId) -> Arc<Semaphore> {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        let Shares { by_account, tidy_at } = &mut *shares;
        if by_account.len() >= *tidy_at {
            by_account.retain(|_, share| Arc::strong_count(share) > 1);
            *tidy_at = TIDY_AT_MIN.max(by_account.len() * 2);
        }
        let new = || Arc::new(Semaphore::new(limits::NODE_STREAM_ACCOUNT_BYTES_MAX));
        by_account.entry(account_id).or_insert_with(new).clone()
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a frame takes of the room, in bytes and in permits.
fn cost(frame: &v1::GatewayFrame) -> Result<(usize, u32), TooLarge> {
    let bytes = frame.encoded_len() + limits::QUEUED_FRAME_OVERHEAD_BYTES;
    if bytes > limits::NODE_STREAM_ACCOUNT_BYTES_MAX {
        return Err(TooLarge);
    }
    Ok((bytes, u32::try_from(bytes).map_err(|_| TooLarge)?))
}

#[cfg(test)]
mod tests;
