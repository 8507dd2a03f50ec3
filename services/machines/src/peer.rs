//! One stream of a gateway, as the actors see it: a bounded way out, and the sessions and links it carries.
//!
//! Actors never wait for a gateway. Frames wait in a queue bounded in bytes and in number; a gateway that lets
//! it run full is stuck, and its stream ends with everything on it (INV-BOUND). A slow *session* is not its
//! gateway's concern here: its event credit ends its streams long before.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use flydex_domain::error::ErrorCode;
use flydex_domain::id::{AccountId, Incarnation, LinkId, MachineId, NodeId, SessionId};
use flydex_domain::limits::{
    GATEWAY_LINKS_MAX, GATEWAY_SESSIONS_MAX, NODE_REPLY_QUEUE_BYTES_MAX, NODE_REPLY_QUEUE_FRAMES_MAX,
};
use flydex_domain::machine::effect::Subject;
use flydex_domain::scope::MachineKey;
use flydex_proto::v1::node_frame::Kind;
use flydex_proto::v1::{self, NodeFrame};
use futures_util::Stream;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::convert::{copy, millis};

/// A frame and the bytes that it holds of the queue's bound.
struct Queued {
    frame: NodeFrame,
    bytes: usize,
}

/// One stream of a gateway.
pub(crate) struct Peer {
    number: u64,
    queue: mpsc::Sender<Queued>,
    /// Bytes that are queued.
    bytes: Arc<AtomicUsize>,
    bytes_max: usize,
    members: Mutex<Members>,
    gateway_id: OnceLock<NodeId>,
    /// Nothing more is taken in; what is queued still goes out.
    finish: CancellationToken,
}

/// What a stream carries, by the ids that its frames name; the machine's key was formed when it was let in.
#[derive(Debug, Default)]
pub(crate) struct Members {
    pub(crate) sessions: BTreeMap<Named<SessionId>, MachineKey>,
    pub(crate) links: BTreeMap<Named<LinkId>, MachineKey>,
}

/// A session or link of a machine, as a frame names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Named<Id> {
    pub(crate) account_id: AccountId,
    pub(crate) machine_id: MachineId,
    pub(crate) id: Id,
}

impl<Id> Named<Id> {
    const fn of(key: MachineKey, id: Id) -> Self {
        Self { account_id: key.account_id(), machine_id: key.machine_id(), id }
    }
}

/// The reading end of a peer's queue.
pub(crate) struct Outgoing {
    queue: mpsc::Receiver<Queued>,
    bytes: Arc<AtomicUsize>,
    finish: CancellationToken,
    _gone: DropGuard,
}

impl Peer {
    /// A stream with nothing on it, and the frames that leave over it.
    pub(crate) fn open(number: u64) -> (Arc<Self>, Outgoing) {
        Self::with_bounds(number, NODE_REPLY_QUEUE_FRAMES_MAX, NODE_REPLY_QUEUE_BYTES_MAX)
    }

    pub(crate) fn with_bounds(number: u64, frames_max: usize, bytes_max: usize) -> (Arc<Self>, Outgoing) {
        let (queue, outgoing) = mpsc::channel(frames_max);
        let bytes = Arc::new(AtomicUsize::new(0));
        let finish = CancellationToken::new();
        let peer = Self {
            number,
            queue,
            bytes: Arc::clone(&bytes),
            bytes_max,
            members: Mutex::default(),
            gateway_id: OnceLock::new(),
            finish: finish.clone(),
        };
        let outgoing = Outgoing { queue: outgoing, bytes, finish: finish.clone(), _gone: finish.drop_guard() };
        (Arc::new(peer), outgoing)
    }

    /// Tells this stream from every other of this process.
    pub(crate) const fn number(&self) -> u64 {
        self.number
    }

    /// Notes which gateway this is. The first word stays.
    pub(crate) fn greeted_by(&self, gateway_id: NodeId) {
        self.gateway_id.get_or_init(|| gateway_id);
    }

    /// Which gateway this is, once it has said so.
    pub(crate) fn gateway_id(&self) -> Option<&NodeId> {
        self.gateway_id.get()
    }

    /// Ends the stream once everything that is queued has left.
    pub(crate) fn finish(&self) {
        self.finish.cancel();
    }

    /// Completes when the stream is to end, or the gateway has gone.
    pub(crate) async fn finished(&self) {
        self.finish.cancelled().await;
    }

    /// Queues one frame of a machine. A full queue ends the stream.
    pub(crate) fn send(&self, key: MachineKey, kind: Kind) {
        self.send_raw(copy(key.account_id().as_bytes()), copy(key.machine_id().as_bytes()), kind);
    }

    /// Queues one frame under names that are encoded already: the machine's, or those that a refused frame came with.
    pub(crate) fn send_raw(&self, account_id: bytes::Bytes, machine_id: bytes::Bytes, kind: Kind) {
        let frame = NodeFrame { account_id, machine_id, kind: Some(kind) };
        let bytes = frame.encoded_len();
        // Those of a frame that is not taken stay counted: then the stream has ended.
        let before = self.bytes.fetch_add(bytes, Ordering::AcqRel);
        let sent = before + bytes <= self.bytes_max && self.queue.try_send(Queued { frame, bytes }).is_ok();
        if !sent && !self.finish.is_cancelled() {
            let gateway_id = self.gateway_id().map(tracing::field::display);
            tracing::warn!("gateway.id" = gateway_id, limit = "node_reply_queue", "gateway stream is stuck");
            self.finish.cancel();
        }
    }

    /// Says that a session is not open here any more.
    pub(crate) fn end_session(&self, key: MachineKey, session_id: SessionId, code: ErrorCode, retry_after: Duration) {
        self.members().sessions.remove(&Named::of(key, session_id));
        self.send(key, Kind::EndSession(end_session(session_id, code, retry_after)));
    }

    /// Says that a link must close.
    pub(crate) fn end_link(
        &self,
        key: MachineKey,
        link_id: LinkId,
        code: ErrorCode,
        retry_after: Duration,
        link_counter: u64,
    ) {
        self.members().links.remove(&Named::of(key, link_id));
        let end = v1::EndLink { link_counter, ..end_link(link_id, code, retry_after) };
        self.send(key, Kind::EndLink(end));
    }

    /// Says that a session or link belongs to another node.
    pub(crate) fn not_owner(&self, key: MachineKey, subject: Subject, owner: Option<Incarnation>) {
        let subject_id = match subject {
            Subject::Session(session_id) => {
                self.remove_session(key, session_id);
                copy(session_id.as_bytes())
            }
            Subject::Link(link_id) => {
                self.remove_link(key, link_id);
                copy(link_id.as_bytes())
            }
        };
        let owner = owner.map(|owner| copy(owner.as_bytes())).unwrap_or_default();
        self.send(key, Kind::NotOwner(v1::NotOwner { owner, subject_id }));
    }

    /// Takes a session on; false when the stream carries as many as it may.
    pub(crate) fn add_session(&self, key: MachineKey, session_id: SessionId) -> bool {
        let mut members = self.members();
        members.sessions.len() < GATEWAY_SESSIONS_MAX && {
            members.sessions.insert(Named::of(key, session_id), key);
            true
        }
    }

    /// Takes a link on; false when the stream carries as many as it may.
    pub(crate) fn add_link(&self, key: MachineKey, link_id: LinkId) -> bool {
        let mut members = self.members();
        members.links.len() < GATEWAY_LINKS_MAX && {
            members.links.insert(Named::of(key, link_id), key);
            true
        }
    }

    /// The machine of a session that the stream carries.
    pub(crate) fn session(&self, named: &Named<SessionId>) -> Option<MachineKey> {
        self.members().sessions.get(named).copied()
    }

    /// The machine of a link that the stream carries.
    pub(crate) fn link(&self, named: &Named<LinkId>) -> Option<MachineKey> {
        self.members().links.get(named).copied()
    }

    /// Lets a session go without a word; true when it was there.
    pub(crate) fn remove_session(&self, key: MachineKey, session_id: SessionId) -> bool {
        self.members().sessions.remove(&Named::of(key, session_id)).is_some()
    }

    /// Lets a link go without a word; true when it was there.
    pub(crate) fn remove_link(&self, key: MachineKey, link_id: LinkId) -> bool {
        self.members().links.remove(&Named::of(key, link_id)).is_some()
    }

    /// Lets everything go: the gateway is gone.
    pub(crate) fn take_members(&self) -> Members {
        std::mem::take(&mut *self.members())
    }

    /// Ends everything of one machine: its actor is gone.
    pub(crate) fn machine_lost(&self, key: MachineKey, code: ErrorCode, retry_after: Duration) {
        let (sessions, links) = {
            let members = self.members();
            let sessions = members.sessions.iter().filter(|(_, of)| **of == key).map(|(named, _)| named.id);
            let links = members.links.iter().filter(|(_, of)| **of == key).map(|(named, _)| named.id);
            (sessions.collect::<Vec<_>>(), links.collect::<Vec<_>>())
        };
        for session_id in sessions {
            self.end_session(key, session_id, code, retry_after);
        }
        for link_id in links {
            self.end_link(key, link_id, code, retry_after, 0);
        }
    }

    /// Ends whatever is left, then the stream: the node goes away.
    pub(crate) fn end_all(&self) {
        let Members { sessions, links } = self.take_members();
        for (named, key) in sessions {
            self.end_session(key, named.id, ErrorCode::GoingAway, Duration::ZERO);
        }
        for (named, key) in links {
            self.end_link(key, named.id, ErrorCode::GoingAway, Duration::ZERO, 0);
        }
        self.finish();
    }

    fn members(&self) -> MutexGuard<'_, Members> {
        // Every change under the lock is one set operation, so a poisoned lock holds whole sets.
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outgoing {
    /// The frames, until the stream is finished and its queue empty.
    pub(crate) fn into_stream(self) -> impl Stream<Item = Result<NodeFrame, tonic::Status>> + Send {
        futures_util::stream::unfold(self, |mut outgoing| async {
            loop {
                // Under load something waits nearly always, and the end need not be waited for.
                if let Ok(queued) = outgoing.queue.try_recv() {
                    return Some((outgoing.taken(queued), outgoing));
                }
                let closed = outgoing.queue.is_closed();
                tokio::select! {
                    // What is queued goes first; the end matters only once.
                    biased;
                    queued = outgoing.queue.recv() => return queued.map(|queued| (outgoing.taken(queued), outgoing)),
                    () = outgoing.finish.cancelled(), if !closed => outgoing.queue.close(),
                }
            }
        })
    }

    fn taken(&self, Queued { frame, bytes }: Queued) -> Result<NodeFrame, tonic::Status> {
        self.bytes.fetch_sub(bytes, Ordering::AcqRel);
        Ok(frame)
    }
}

/// The wire's word that a session is not open any more.
pub(crate) fn end_session(session_id: SessionId, code: ErrorCode, retry_after: Duration) -> v1::EndSession {
    v1::EndSession {
        session_id: copy(session_id.as_bytes()),
        code: code.number().into(),
        retry_after_ms: millis(retry_after),
    }
}

/// The wire's word that a link must close.
pub(crate) fn end_link(link_id: LinkId, code: ErrorCode, retry_after: Duration) -> v1::EndLink {
    v1::EndLink {
        link_id: copy(link_id.as_bytes()),
        code: code.number().into(),
        retry_after_ms: millis(retry_after),
        link_counter: 0,
    }
}

#[cfg(test)]
mod tests;
