//! One node, as this gateway sees it: a few long-lived streams, each on a connection of its own.
//!
//! Every machine is hashed onto one of [`limits::NODE_STREAMS`] streams, so its frames keep their order. A stream is up
//! from the node's hello on; a node of another life or region is not the one that was looked for, and its stream ends. A
//! stream that breaks is opened again with a growing wait, but the node has forgotten the sessions and links of the one
//! that ended: whoever was bound to it is told, and nothing is sent twice.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flydex_domain::error::ErrorCode;
use flydex_domain::id::Incarnation;
use flydex_domain::limits;
use flydex_domain::placement::NodeRecord;
use flydex_domain::scope::MachineKey;
use flydex_proto::v1;
use flydex_proto::v1::gateway_frame::Kind as ToNode;
use flydex_proto::v1::machine_host_client::MachineHostClient;
use flydex_proto::v1::node_frame::Kind as FromNode;
use flydex_runtime::lifecycle::Shutdown;
use tokio::sync::watch;
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use tonic::transport::Channel;

use crate::dial::{Dial, DialError};
use crate::ending::Refusal;
use crate::metrics::{Lost, Metrics};
use crate::places::Cache;
use crate::queue::{Queue, Room, TooLarge};
use crate::registry::Registry;
use crate::route::route;

/// What every stream of this gateway shares.
pub(crate) struct Context {
    pub(crate) hello: v1::GatewayHello,
    pub(crate) registry: Arc<Registry>,
    pub(crate) places: Arc<Cache>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) shutdown: Shutdown,
    /// Rung when a stream comes up or goes down.
    pub(crate) changed: watch::Sender<()>,
}

/// A node that this gateway keeps streams to.
pub(crate) struct Node {
    incarnation: Incarnation,
    streams: Box<[watch::Receiver<State>]>,
    let_go: CancellationToken,
    /// Held by everything that is bound to the node.
    carried: Arc<()>,
}

/// The state of one stream.
#[derive(Clone)]
enum State {
    /// Not tried to its end yet: whether the node answers is not known.
    Opening,
    Up(Stream),
    /// Broken, or not to be opened; it is tried again.
    Lost,
}

/// One life of one stream, to send on.
#[derive(Clone)]
pub(crate) struct Stream {
    queue: Arc<Queue>,
    over: CancellationToken,
}

/// A session's machine or a link on its stream to the node that it was opened at. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Bound(Arc<Binding>);

struct Binding {
    node: Incarnation,
    machine: MachineKey,
    /// The machine's names as every frame carries them.
    account_id: Bytes,
    machine_id: Bytes,
    stream: Stream,
    _carried: Arc<()>,
}

/// A frame for which there is room.
pub(crate) struct Ready {
    queue: Arc<Queue>,
    room: Room,
    frame: v1::GatewayFrame,
}

/// Why a frame did not go to the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NodeError {
    /// The stream is over.
    #[error("reach the node")]
    Down,
    /// No room in time.
    #[error("wait for room on the way to the node")]
    Full,
}

impl NodeError {
    /// What the sender of the frame is told.
    pub(crate) fn refusal(self) -> Refusal {
        match self {
            Self::Down => Refusal::moving(),
            Self::Full => ErrorCode::Overloaded.into(),
        }
    }

    /// Its code.
    pub(crate) const fn code(self) -> ErrorCode {
        match self {
            Self::Down => ErrorCode::Moving,
            Self::Full => ErrorCode::Overloaded,
        }
    }
}

// === impl Node ===

impl Node {
    /// Opens the streams and keeps them open until the drain is over or the node is let go.
    ///
    /// # Errors
    /// [`DialError`] when its record does not lead anywhere.
    pub(crate) fn start(record: &NodeRecord, dial: &dyn Dial, context: &Arc<Context>) -> Result<Self, DialError> {
        let channels: Result<Vec<Channel>, DialError> = (0..limits::NODE_STREAMS).map(|_| dial.dial(record)).collect();
        let let_go = CancellationToken::new();
        let streams = channels?.into_iter().map(|channel| {
            let (state, receiver) = watch::channel(State::Opening);
            let (context, incarnation) = (context.clone(), record.incarnation);
            let shutdown = context.shutdown.clone();
            shutdown.spawn(Keeper { incarnation, channel, context, state }.run(let_go.clone()));
            receiver
        });
        let streams = streams.collect();
        Ok(Self { incarnation: record.incarnation, streams, let_go, carried: Arc::default() })
    }

    /// The machine's stream, once it is known whether the node answers; nothing when it does not.
    pub(crate) async fn bound(&self, machine: MachineKey) -> Option<Bound> {
        let mut state = self.stream(machine).clone();
        let known = state.wait_for(|state| !matches!(state, State::Opening));
        // A stream that stays unknown hangs somewhere on the way: as good as none.
        let known = tokio::time::timeout(limits::NODE_SEND_TIMEOUT, known).await.ok()?.ok()?;
        let State::Up(stream) = &*known else { return None };
        Some(Bound(Arc::new(Binding {
            node: self.incarnation,
            machine,
            account_id: Bytes::copy_from_slice(machine.account_id().as_bytes()),
            machine_id: Bytes::copy_from_slice(machine.machine_id().as_bytes()),
            stream: stream.clone(),
            _carried: self.carried.clone(),
        })))
    }

    /// Whether the node is known not to answer for that machine.
    pub(crate) fn is_lost(&self, machine: MachineKey) -> bool {
        matches!(*self.stream(machine).borrow(), State::Lost)
    }

    /// Whether every stream is up.
    pub(crate) fn is_up(&self) -> bool {
        self.streams.iter().all(|stream| matches!(*stream.borrow(), State::Up(_)))
    }

    /// Whether anything is bound to it.
    pub(crate) fn carries(&self) -> bool {
        Arc::strong_count(&self.carried) > 1
    }

    /// Ends its streams.
    pub(crate) fn let_go(&self) {
        self.let_go.cancel();
    }

    fn stream(&self, machine: MachineKey) -> &watch::Receiver<State> {
        &self.streams[stream_of(machine)]
    }
}

/// The stream that carries a machine.
fn stream_of(machine: MachineKey) -> usize {
    let mut hasher = DefaultHasher::new();
    machine.account_id().as_bytes().hash(&mut hasher);
    machine.machine_id().as_bytes().hash(&mut hasher);
    usize::try_from(hasher.finish() % limits::NODE_STREAMS as u64).unwrap_or(0)
}

// === impl Bound ===

impl Bound {
    /// The life of the node.
    pub(crate) fn node(&self) -> Incarnation {
        self.0.node
    }

    /// Whether both are the same life of the same stream.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.is_on(&other.0.stream)
    }

    /// Whether it is bound to exactly that life of that stream.
    pub(crate) fn is_on(&self, stream: &Stream) -> bool {
        Arc::ptr_eq(&self.0.stream.queue, &stream.queue)
    }

    /// Whether the stream has ended. Whoever binds and then finds it so is not told of the end, or just was.
    pub(crate) fn is_over(&self) -> bool {
        self.0.stream.over.is_cancelled()
    }

    /// Waits at most [`limits::NODE_SEND_TIMEOUT`] for room for a frame about the machine.
    ///
    /// # Errors
    /// Each [`NodeError`].
    pub(crate) async fn room(&self, deadline: Duration, kind: ToNode) -> Result<Ready, NodeError> {
        let Binding { stream, machine, .. } = &*self.0;
        let frame = self.frame(deadline, kind);
        // Nearly always there is room, and neither a timer nor a wait for the stream's end is needed.
        let room = match stream.room_now(*machine, &frame)? {
            Some(room) => room,
            None => {
                let room = stream.room(*machine, &frame);
                tokio::time::timeout(limits::NODE_SEND_TIMEOUT, room).await.unwrap_or(Err(NodeError::Full))?
            }
        };
        Ok(Ready { queue: stream.queue.clone(), room, frame })
    }

    /// Sends a frame about the machine; waits at most [`limits::NODE_SEND_TIMEOUT`] for room.
    ///
    /// # Errors
    /// Each [`NodeError`]; the frame was not sent.
    pub(crate) async fn send(&self, deadline: Duration, kind: ToNode) -> Result<(), NodeError> {
        self.room(deadline, kind).await.map(Ready::send)
    }

    /// Sends that a session or link has ended, however long there is no room: a node that is not told keeps it.
    /// Whoever waits holds its own place meanwhile. A stream that ends has ended it as well.
    pub(crate) async fn send_ending(&self, kind: ToNode) {
        let Binding { stream, machine, .. } = &*self.0;
        let frame = self.frame(Duration::ZERO, kind);
        if let Ok(room) = stream.room(*machine, &frame).await {
            stream.queue.push(frame, room);
        }
    }

    fn frame(&self, deadline: Duration, kind: ToNode) -> v1::GatewayFrame {
        v1::GatewayFrame {
            account_id: self.0.account_id.clone(),
            machine_id: self.0.machine_id.clone(),
            deadline_ms: u32::try_from(deadline.as_millis()).unwrap_or(u32::MAX),
            kind: Some(kind),
        }
    }
}

impl Stream {
    async fn room(&self, machine: MachineKey, frame: &v1::GatewayFrame) -> Result<Room, NodeError> {
        tokio::select! {
            biased;
            () = self.over.cancelled() => Err(NodeError::Down),
            room = self.queue.room(machine.account_id(), frame) => room.map_err(|TooLarge| NodeError::Full),
        }
    }

    /// The room if there is some without waiting.
    fn room_now(&self, machine: MachineKey, frame: &v1::GatewayFrame) -> Result<Option<Room>, NodeError> {
        if self.over.is_cancelled() {
            return Err(NodeError::Down);
        }
        self.queue.room_now(machine.account_id(), frame).map_err(|TooLarge| NodeError::Full)
    }
}

impl Ready {
    /// Sends the frame at once.
    pub(crate) fn send(self) {
        self.queue.push(self.frame, self.room);
    }
}

// === Keeping a stream ===

/// One stream's task.
struct Keeper {
    incarnation: Incarnation,
    channel: Channel,
    context: Arc<Context>,
    state: watch::Sender<State>,
}

impl Keeper {
    async fn run(self, let_go: CancellationToken) {
        let (soft, hard) = (self.context.shutdown.soft(), self.context.shutdown.hard());
        let drained = async {
            soft.cancelled().await;
            self.context.registry.emptied().await;
        };
        tokio::select! {
            () = hard.cancelled() => {}
            () = drained => {}
            () = let_go.cancelled() => {}
            () = self.keep_open() => {}
        }
        // Whoever is still bound ends with the process.
        if let State::Up(stream) = self.state.send_replace(State::Lost) {
            stream.over.cancel();
            self.context.metrics.node_stream_up(false);
        }
    }

    async fn keep_open(&self) {
        let mut wait = limits::NODE_REOPEN_WAIT_MIN;
        loop {
            let lost = match self.open().await {
                Ok((stream, incoming)) => {
                    wait = limits::NODE_REOPEN_WAIT_MIN;
                    self.state.send_replace(State::Up(stream.clone()));
                    self.context.metrics.node_stream_up(true);
                    self.context.changed.send_replace(());
                    let lost = self.read(&stream, incoming).await;
                    self.state.send_replace(State::Lost);
                    stream.over.cancel();
                    self.context.metrics.node_stream_up(false);
                    self.context.registry.stream_lost(&stream);
                    lost
                }
                Err(lost) => {
                    self.state.send_replace(State::Lost);
                    lost
                }
            };
            self.context.metrics.node_stream_lost(lost);
            self.context.changed.send_replace(());
            tokio::time::sleep(wait.mul_f64(rand::random_range(0.5..1.0))).await;
            wait = (wait * 2).min(limits::NODE_REOPEN_WAIT_MAX);
        }
    }

    /// Opens the stream up to the node's hello.
    async fn open(&self) -> Result<(Stream, Streaming<v1::NodeFrame>), Lost> {
        let queue = Queue::new();
        // The stream lasts for as long as there is something to come on it, so it is ended however this one ends.
        let over = CancellationToken::new();
        let ended = over.clone().drop_guard();
        let hello =
            v1::GatewayFrame { kind: Some(ToNode::Hello(self.context.hello.clone())), ..v1::GatewayFrame::default() };
        let outgoing = tokio_stream::once(hello).chain(queue.clone().frames(over.clone()));
        let mut client = MachineHostClient::new(self.channel.clone());
        let opened = tokio::time::timeout(limits::NODE_CONNECT_TIMEOUT, async {
            let mut incoming = client.exchange(outgoing).await?.into_inner();
            let first = incoming.message().await?;
            Ok::<_, tonic::Status>((incoming, first))
        });
        let (incoming, first) = match opened.await {
            Ok(Ok(opened)) => opened,
            Ok(Err(status)) => {
                tracing::debug!(error = %status.code(), "stream to a node not opened");
                return Err(Lost::NotReached);
            }
            Err(_) => return Err(Lost::NotReached),
        };
        if let Err(lost) = self.check(first) {
            tracing::warn!(reason = lost.name(), "a node is not the one that was looked for");
            return Err(lost);
        }
        ended.disarm();
        Ok((Stream { queue, over }, incoming))
    }

    /// Whether the first frame is the hello of the node that was looked for.
    fn check(&self, first: Option<v1::NodeFrame>) -> Result<(), Lost> {
        let Some(FromNode::Hello(hello)) = first.and_then(|frame| frame.kind) else { return Err(Lost::NoHello) };
        if Incarnation::try_from(hello.incarnation.as_ref()) != Ok(self.incarnation) {
            return Err(Lost::OtherLife);
        }
        if hello.region == self.context.hello.region { Ok(()) } else { Err(Lost::OtherRegion) }
    }

    /// Passes the node's frames on until the stream ends.
    async fn read(&self, stream: &Stream, mut incoming: Streaming<v1::NodeFrame>) -> Lost {
        loop {
            match incoming.message().await {
                Ok(Some(frame)) => route(&self.context, stream, frame),
                Ok(None) => return Lost::Ended,
                Err(status) => {
                    tracing::warn!(error = %status.code(), "stream to a node broke");
                    return Lost::Broke;
                }
            }
        }
    }
}
