//! The way to the machines: a few long-lived streams to the node, and back from them to sessions and links.
//!
//! Every machine is hashed onto one of [`limits::NODE_STREAMS`] streams, so its frames keep their order. A stream
//! that breaks is opened again with a growing wait; meanwhile and for what was on it the answer is `moving`, since
//! the node has forgotten the sessions and links of a stream that ended. Nothing is sent twice.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use flydex_domain::error::ErrorCode;
use flydex_domain::id::{AccountId, LinkId, MachineId, SessionId};
use flydex_domain::limits;
use flydex_domain::scope::MachineKey;
use flydex_proto::v1;
use flydex_proto::v1::gateway_frame::Kind as ToNode;
use flydex_proto::v1::machine_host_client::MachineHostClient;
use flydex_proto::v1::node_frame::Kind as FromNode;
use flydex_runtime::lifecycle::Shutdown;
use prost::Message as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::ending::Refusal;
use crate::metrics::{Dropped, Metrics};
use crate::registry::{Registry, Session};

/// Sends frames to the node. Cheap to clone.
#[derive(Clone)]
pub(crate) struct NodeClient {
    streams: Arc<[watch::Receiver<Option<Sender>>]>,
    hard: CancellationToken,
}

/// Why a frame did not go to the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NodeError {
    /// No stream is up.
    #[error("reach the node")]
    Down,
    /// No room in time.
    #[error("wait for room on the way to the node")]
    Full,
}

impl NodeError {
    /// What the sender of the frame is told.
    pub(crate) const fn code(self) -> ErrorCode {
        match self {
            Self::Down => ErrorCode::Moving,
            Self::Full => ErrorCode::Overloaded,
        }
    }
}

/// The sending half of one stream: bounded in messages by the channel and in bytes by permits.
#[derive(Clone)]
struct Sender {
    frames: mpsc::Sender<Queued>,
    bytes: Arc<Semaphore>,
}

struct Queued {
    frame: v1::GatewayFrame,
    _bytes: OwnedSemaphorePermit,
}

/// One stream's task.
struct Stream {
    index: usize,
    channel: Channel,
    registry: Arc<Registry>,
    metrics: Arc<Metrics>,
    up: watch::Sender<Option<Sender>>,
}

// === impl NodeClient ===

impl NodeClient {
    /// Opens the streams and keeps them open until the drain is over.
    pub(crate) fn start(channel: Channel, registry: Arc<Registry>, metrics: Arc<Metrics>, shutdown: &Shutdown) -> Self {
        let streams = (0..limits::NODE_STREAMS).map(|index| {
            let (up, receiver) = watch::channel(None);
            let stream =
                Stream { index, channel: channel.clone(), registry: registry.clone(), metrics: metrics.clone(), up };
            shutdown.spawn(stream.run(shutdown.clone()));
            receiver
        });
        Self { streams: streams.collect(), hard: shutdown.hard() }
    }

    /// Sends a frame about a machine; waits at most [`limits::NODE_SEND_TIMEOUT`] for room.
    ///
    /// # Errors
    /// Each [`NodeError`]; the frame was not sent.
    pub(crate) async fn send(&self, machine: MachineKey, deadline: Duration, kind: ToNode) -> Result<(), NodeError> {
        let sender = self.sender(machine).ok_or(NodeError::Down)?;
        let sending = sender.send(frame(machine, deadline, kind));
        tokio::time::timeout(limits::NODE_SEND_TIMEOUT, sending).await.unwrap_or(Err(NodeError::Full))
    }

    /// Sends that a session or link has ended, however long there is no room: a node that is not told keeps it.
    /// Whoever waits holds its own place meanwhile. A stream that ends has ended it as well.
    pub(crate) async fn send_ending(&self, machine: MachineKey, kind: ToNode) {
        let Some(sender) = self.sender(machine) else { return };
        tokio::select! {
            _ = sender.send(frame(machine, Duration::ZERO, kind)) => {}
            () = self.hard.cancelled() => {}
        }
    }

    fn sender(&self, machine: MachineKey) -> Option<Sender> {
        self.streams[stream_of(machine)].borrow().clone()
    }

    /// Waits until every stream is up.
    pub(crate) async fn ready(&self) {
        for stream in self.streams.iter() {
            // The task that would fail the wait ends only with the process.
            let _ = stream.clone().wait_for(Option::is_some).await;
        }
    }

    /// Whether every stream is up.
    pub(crate) fn is_ready(&self) -> bool {
        self.streams.iter().all(|stream| stream.borrow().is_some())
    }
}

impl Sender {
    async fn send(&self, frame: v1::GatewayFrame) -> Result<(), NodeError> {
        let bytes = frame.encoded_len() + limits::QUEUED_FRAME_OVERHEAD_BYTES;
        let bytes = u32::try_from(bytes).map_err(|_| NodeError::Full)?;
        let permit = self.bytes.clone().acquire_many_owned(bytes).await.map_err(|_| NodeError::Down)?;
        self.frames.send(Queued { frame, _bytes: permit }).await.map_err(|_| NodeError::Down)
    }
}

fn frame(machine: MachineKey, deadline: Duration, kind: ToNode) -> v1::GatewayFrame {
    v1::GatewayFrame {
        account_id: bytes::Bytes::copy_from_slice(machine.account_id().as_bytes()),
        machine_id: bytes::Bytes::copy_from_slice(machine.machine_id().as_bytes()),
        deadline_ms: u32::try_from(deadline.as_millis()).unwrap_or(u32::MAX),
        kind: Some(kind),
    }
}

/// The stream that carries a machine.
fn stream_of(machine: MachineKey) -> usize {
    let mut hasher = DefaultHasher::new();
    machine.account_id().as_bytes().hash(&mut hasher);
    machine.machine_id().as_bytes().hash(&mut hasher);
    usize::try_from(hasher.finish() % limits::NODE_STREAMS as u64).unwrap_or(0)
}

// === impl Stream ===

impl Stream {
    async fn run(self, shutdown: Shutdown) {
        let (soft, hard) = (shutdown.soft(), shutdown.hard());
        let registry = self.registry.clone();
        let drained = async {
            soft.cancelled().await;
            registry.emptied().await;
        };
        tokio::select! {
            () = hard.cancelled() => {}
            () = drained => {}
            () = self.keep_open() => {}
        }
    }

    async fn keep_open(&self) {
        let mut wait = limits::NODE_REOPEN_WAIT_MIN;
        loop {
            if self.exchange().await {
                wait = limits::NODE_REOPEN_WAIT_MIN;
            }
            tokio::time::sleep(wait.mul_f64(rand::random_range(0.5..1.0))).await;
            wait = (wait * 2).min(limits::NODE_REOPEN_WAIT_MAX);
        }
    }

    /// Opens the stream and serves it to its end. Whether it ever was up.
    async fn exchange(&self) -> bool {
        let (frames, receiver) = mpsc::channel(limits::NODE_STREAM_SEND_MESSAGES_MAX);
        let outgoing = ReceiverStream::new(receiver).map(|queued: Queued| queued.frame);
        let mut client = MachineHostClient::new(self.channel.clone());
        let mut incoming = match client.exchange(outgoing).await {
            Ok(response) => response.into_inner(),
            Err(status) => {
                tracing::debug!(error = %status.code(), "stream to the node not opened");
                return false;
            }
        };
        let bytes = Arc::new(Semaphore::new(limits::NODE_STREAM_SEND_BYTES_MAX));
        self.up.send_replace(Some(Sender { frames, bytes }));
        self.metrics.node_stream_up(true);
        loop {
            match incoming.message().await {
                Ok(Some(frame)) => self.route(frame),
                Ok(None) => break,
                Err(status) => {
                    tracing::warn!(error = %status.code(), "stream to the node broke");
                    break;
                }
            }
        }
        self.up.send_replace(None);
        self.metrics.node_stream_up(false);
        self.registry.node_lost(|machine| stream_of(machine) == self.index);
        true
    }

    /// Passes one frame of the node on. It never waits: a peer without room is cut off, not waited for.
    fn route(&self, frame: v1::NodeFrame) {
        let machine_id = MachineId::try_from(frame.machine_id.as_ref());
        let account_id = AccountId::try_from(frame.account_id.as_ref());
        let (Ok(account_id), Ok(machine_id), Some(kind)) = (account_id, machine_id, frame.kind) else {
            self.metrics.dropped(Dropped::Malformed);
            return;
        };
        match kind {
            FromNode::SessionOpened(_) | FromNode::LinkOpened(_) | FromNode::Hello(_) => {}
            FromNode::ToSession(to) => {
                if let Some(session) = self.session(account_id, machine_id, &to.session_id) {
                    session.send(v1::session_down::Kind::FromMachine(v1::FromMachine {
                        machine_id: frame.machine_id,
                        message: to.message,
                    }));
                }
            }
            FromNode::EndSession(end) => {
                if let Some(session) = self.session(account_id, machine_id, &end.session_id) {
                    session.close_with(machine_id, refusal(end.code, end.retry_after_ms));
                }
            }
            FromNode::ToLink(to) => {
                if let (Some(link), Some(frame)) = (self.link(account_id, machine_id, &to.link_id), to.frame) {
                    link.send(v1::link_down::Kind::Frame(frame));
                }
            }
            FromNode::EndLink(end) => {
                if let Some(link) = self.link(account_id, machine_id, &end.link_id) {
                    link.ending.begin(crate::ending::End::Refused(refusal(end.code, end.retry_after_ms)));
                }
            }
            FromNode::NotOwner(not_owner) => self.not_owner(account_id, machine_id, &not_owner.subject_id),
        }
    }

    fn not_owner(&self, account_id: AccountId, machine_id: MachineId, subject_id: &[u8]) {
        if let Some(session) = self.session(account_id, machine_id, subject_id) {
            session.close_with(machine_id, ErrorCode::Moving.into());
        } else if let Some(link) = self.link(account_id, machine_id, subject_id) {
            link.ending.begin(ErrorCode::Moving);
        }
    }

    /// The session that a frame is for, if it is of that account and has that machine open (INV-SCOPE).
    fn session(&self, account_id: AccountId, machine_id: MachineId, session_id: &[u8]) -> Option<Arc<Session>> {
        let session_id = SessionId::try_from(session_id).ok()?;
        let session = self.registry.session(account_id, session_id).filter(|session| session.is_open(machine_id));
        if session.is_none() {
            self.metrics.dropped(Dropped::NoSession);
        }
        session
    }

    fn link(&self, account_id: AccountId, machine_id: MachineId, link_id: &[u8]) -> Option<Arc<crate::registry::Link>> {
        let link_id = LinkId::try_from(link_id).ok()?;
        let link = self.registry.link(account_id, machine_id, link_id);
        if link.is_none() {
            self.metrics.dropped(Dropped::NoLink);
        }
        link
    }
}

fn refusal(code: u32, retry_after_ms: u32) -> Refusal {
    match ErrorCode::from_number(code) {
        Some(code) => Refusal { code, retry_after_ms },
        None => ErrorCode::Internal.into(),
    }
}
