//! Nodes that a test scripts: each shows what arrives and says what it is told to.

use std::sync::Arc;

use bytes::Bytes;
use flydex_domain::id::{Incarnation, NodeId};
use flydex_domain::placement::{NodeRecord, NodeState};
use flydex_proto::v1::gateway_frame::Kind as ToNode;
use flydex_proto::v1::machine_host_server::{MachineHost, MachineHostServer};
use flydex_proto::v1::node_frame::Kind as FromNode;
use flydex_proto::v1::{self, GatewayFrame, NodeFrame};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

use super::world::REGION;

type ToGateway = mpsc::Sender<Result<NodeFrame, Status>>;

/// The node's side of every stream.
pub(super) struct Host {
    pub(super) incarnation: Incarnation,
    pub(super) way: Way,
    arrived: mpsc::Receiver<Arrived>,
}

/// How a node is reached, and how it fails.
#[derive(Clone)]
pub(super) struct Way {
    pipes: mpsc::Sender<Result<DuplexStream, std::io::Error>>,
    frozen: Arc<watch::Sender<bool>>,
    killed: CancellationToken,
    hello: Arc<watch::Sender<Option<v1::NodeHello>>>,
    streams: Arc<watch::Sender<usize>>,
}

/// One frame of the gateway and the way to answer on its stream.
pub(super) struct Arrived {
    pub(super) frame: GatewayFrame,
    answers: ToGateway,
}

struct Script {
    arrived: mpsc::Sender<Arrived>,
    hello: Arc<watch::Sender<Option<v1::NodeHello>>>,
    streams: Arc<watch::Sender<usize>>,
}

/// The life of the node of that number.
pub(crate) fn life(tag: u8) -> Incarnation {
    Incarnation::from_bytes([tag; 16])
}

/// What the node of that number says of itself in its lease.
pub(crate) fn record(tag: u8) -> NodeRecord {
    NodeRecord {
        incarnation: life(tag),
        node_id: NodeId::try_from(format!("node-{tag}")).unwrap(),
        address: "http://node".to_owned(),
        state: NodeState::Active,
        machines: 0,
    }
}

/// A node, joined in memory. Streams that break can be opened again.
pub(super) fn host(tag: u8) -> Host {
    let (arrived, receiver) = mpsc::channel(64);
    let (pipes, incoming) = mpsc::channel(8);
    let hello =
        v1::NodeHello { incarnation: wire(life(tag)), node_id: format!("node-{tag}"), region: REGION.to_owned() };
    let hello = Arc::new(watch::Sender::new(Some(hello)));
    let streams: Arc<watch::Sender<usize>> = Arc::default();
    let serve = Server::builder()
        .add_service(MachineHostServer::new(Script { arrived, hello: hello.clone(), streams: streams.clone() }))
        .serve_with_incoming(ReceiverStream::new(incoming));
    tokio::spawn(serve);
    let way = Way { pipes, frozen: Arc::default(), killed: CancellationToken::new(), hello, streams };
    Host { incarnation: life(tag), way, arrived: receiver }
}

/// An incarnation as frames carry it.
pub(super) fn wire(node: Incarnation) -> Bytes {
    Bytes::copy_from_slice(node.as_bytes())
}

impl Way {
    /// A channel as the gateway would dial it.
    pub(super) fn channel(&self) -> Channel {
        let way = self.clone();
        let connector = tower::service_fn(move |_: http::Uri| {
            let way = way.clone();
            async move {
                if way.killed.is_cancelled() {
                    return Err(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
                }
                let (ours, near) = tokio::io::duplex(64 * 1024);
                let (far, theirs) = tokio::io::duplex(64 * 1024);
                way.pipes.send(Ok(theirs)).await.map_err(|_| std::io::ErrorKind::ConnectionRefused)?;
                let ((near_read, near_write), (far_read, far_write)) = (tokio::io::split(near), tokio::io::split(far));
                tokio::spawn(way.clone().carry(near_read, far_write));
                tokio::spawn(way.carry(far_read, near_write));
                Ok::<_, std::io::Error>(TokioIo::new(ours))
            }
        });
        crate::tuned(Endpoint::from_static("http://node")).connect_with_connector_lazy(connector)
    }

    async fn carry(self, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
        let mut frozen = self.frozen.subscribe();
        let carry = async {
            let mut buffer = vec![0; 16 * 1024];
            loop {
                let Ok(read @ 1..) = from.read(&mut buffer).await else { return };
                let _ = frozen.wait_for(|frozen| !frozen).await;
                if to.write_all(&buffer[..read]).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = carry => {}
            () = self.killed.cancelled() => {}
        }
    }

    /// Nothing that is on its way arrives any more, and nothing breaks.
    pub(super) fn freeze(&self) {
        self.frozen.send_replace(true);
    }

    /// What is on its way arrives now.
    pub(super) fn thaw(&self) {
        self.frozen.send_replace(false);
    }

    /// Every connection breaks, and none is taken any more.
    pub(super) fn kill(&self) {
        self.killed.cancel();
    }

    /// Waits until the gateway has ended every stream.
    pub(super) async fn let_go(&self) {
        let _ = self.streams.subscribe().wait_for(|streams| *streams == 0).await;
    }

    /// What it says first on streams from now on; nothing: another frame.
    pub(super) fn greets_with(&self, hello: Option<v1::NodeHello>) {
        self.hello.send_replace(hello);
    }
}

#[tonic::async_trait]
impl MachineHost for Script {
    type ExchangeStream = ReceiverStream<Result<NodeFrame, Status>>;

    async fn exchange(
        &self,
        request: Request<Streaming<GatewayFrame>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let mut frames = request.into_inner();
        let (answers, receiver) = mpsc::channel(64);
        let arrived = self.arrived.clone();
        let first =
            self.hello.borrow().clone().map_or(FromNode::SessionOpened(v1::SessionOpened::default()), FromNode::Hello);
        let _ = answers.send(Ok(NodeFrame { kind: Some(first), ..NodeFrame::default() })).await;
        let streams = self.streams.clone();
        streams.send_modify(|streams| *streams += 1);
        tokio::spawn(async move {
            let hello = frames.message().await.ok().flatten().and_then(|frame| frame.kind);
            assert!(matches!(hello, Some(ToNode::Hello(_)) | None), "a gateway greets first");
            while let Ok(Some(frame)) = frames.message().await {
                if arrived.send(Arrived { frame, answers: answers.clone() }).await.is_err() {
                    break;
                }
            }
            streams.send_modify(|streams| *streams -= 1);
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

impl Host {
    /// The next frame of the gateway.
    pub(super) async fn next(&mut self) -> Arrived {
        self.arrived.recv().await.expect("the gateway keeps its streams")
    }

    /// Whether nothing has arrived that was not taken.
    pub(super) fn is_idle(&mut self) -> bool {
        self.arrived.try_recv().is_err()
    }

    /// The next frame, which opens a session; its id.
    pub(super) async fn session_opened(&mut self) -> (Arrived, v1::OpenSession) {
        let arrived = self.next().await;
        let Some(ToNode::OpenSession(open)) = arrived.frame.kind.clone() else { panic!("a session is opened first") };
        (arrived, open)
    }

    /// The next frame, which opens a link.
    pub(super) async fn link_opened(&mut self) -> (Arrived, v1::OpenLink) {
        let arrived = self.next().await;
        let Some(ToNode::OpenLink(open)) = arrived.frame.kind.clone() else { panic!("a link is opened first") };
        (arrived, open)
    }
}

impl Arrived {
    /// Answers about the same machine.
    pub(super) async fn answer(&self, kind: FromNode) {
        self.answer_as(self.frame.account_id.clone(), self.frame.machine_id.clone(), kind).await;
    }

    /// Answers about any machine.
    pub(super) async fn answer_as(&self, account_id: Bytes, machine_id: Bytes, kind: FromNode) {
        let frame = NodeFrame { account_id, machine_id, kind: Some(kind) };
        self.answers.send(Ok(frame)).await.expect("the gateway keeps its streams");
    }

    /// Breaks the stream that the frame came on.
    pub(super) async fn break_stream(&self) {
        let _ = self.answers.send(Err(Status::unavailable("broken by the test"))).await;
    }
}

/// What the node sends to a session.
pub(super) fn to_session(session_id: &Bytes, kind: v1::machine_message::Kind) -> FromNode {
    FromNode::ToSession(v1::NodeToSession {
        session_id: session_id.clone(),
        message: Some(v1::MachineMessage { trace: None, kind: Some(kind) }),
    })
}
