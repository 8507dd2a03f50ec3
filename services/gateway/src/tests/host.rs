//! A node that a test scripts: it shows what arrives and says what it is told to.

use bytes::Bytes;
use flydex_proto::v1::gateway_frame::Kind as ToNode;
use flydex_proto::v1::machine_host_server::{MachineHost, MachineHostServer};
use flydex_proto::v1::node_frame::Kind as FromNode;
use flydex_proto::v1::{self, GatewayFrame, NodeFrame};
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

type ToGateway = mpsc::Sender<Result<NodeFrame, Status>>;

/// The node's side of every stream.
pub(super) struct Host {
    arrived: mpsc::Receiver<Arrived>,
}

/// One frame of the gateway and the way to answer on its stream.
pub(super) struct Arrived {
    pub(super) frame: GatewayFrame,
    answers: ToGateway,
}

struct Script {
    arrived: mpsc::Sender<Arrived>,
}

/// A node and the channel to it, joined in memory. Streams that break can be opened again.
pub(super) fn host() -> (Host, Channel) {
    let (arrived, receiver) = mpsc::channel(64);
    let (pipes, incoming) = mpsc::channel(8);
    let serve = Server::builder()
        .add_service(MachineHostServer::new(Script { arrived }))
        .serve_with_incoming(ReceiverStream::new(incoming));
    tokio::spawn(serve);
    let connector = tower::service_fn(move |_: http::Uri| {
        let pipes = pipes.clone();
        async move {
            let (ours, theirs) = tokio::io::duplex(64 * 1024);
            pipes.send(Ok::<_, std::io::Error>(theirs)).await.map_err(|_| std::io::ErrorKind::ConnectionRefused)?;
            Ok::<_, std::io::Error>(TokioIo::new(ours))
        }
    });
    (Host { arrived: receiver }, Endpoint::from_static("http://node").connect_with_connector_lazy(connector))
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
        tokio::spawn(async move {
            while let Ok(Some(frame)) = frames.message().await {
                if arrived.send(Arrived { frame, answers: answers.clone() }).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

impl Host {
    /// The next frame of the gateway.
    pub(super) async fn next(&mut self) -> Arrived {
        self.arrived.recv().await.expect("the gateway keeps its streams")
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
