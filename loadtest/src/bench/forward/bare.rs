//! The floor: tonic alone.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use flydex_domain::limits::NODE_STREAMS;
use flydex_proto::v1::gateway_frame::Kind as ToNode;
use flydex_proto::v1::machine_host_client::MachineHostClient;
use flydex_proto::v1::machine_host_server::{MachineHost, MachineHostServer};
use flydex_proto::v1::node_frame::Kind as FromNode;
use flydex_proto::v1::{self, GatewayFrame, NodeFrame, connector_frame};
use futures_util::{Stream, StreamExt as _};
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

use super::{PATIENCE, Pace, Turn};
use crate::bench::region::{Region, wire};

/// Turns each event of a link round into one for a session.
struct Echo;

#[tonic::async_trait]
impl MachineHost for Echo {
    type ExchangeStream = Pin<Box<dyn Stream<Item = Result<NodeFrame, Status>> + Send>>;

    async fn exchange(
        &self,
        request: Request<Streaming<GatewayFrame>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let answers = request.into_inner().map(|frame| frame.map(turned));
        Ok(Response::new(Box::pin(answers)))
    }
}

fn turned(frame: GatewayFrame) -> NodeFrame {
    let GatewayFrame { account_id, machine_id, kind, .. } = frame;
    let kind = match kind {
        Some(ToNode::LinkMessage(v1::LinkMessage { link_id, frame: Some(frame) })) => match frame.kind {
            Some(connector_frame::Kind::SharedEvent(event)) => Some(FromNode::ToSession(v1::NodeToSession {
                session_id: link_id,
                message: Some(v1::MachineMessage { trace: None, kind: Some(v1::machine_message::Kind::Event(event)) }),
            })),
            Some(_) | None => None,
        },
        Some(_) | None => None,
    };
    NodeFrame { account_id, machine_id, kind }
}

/// Streams to the echo, one on each connection.
pub(super) struct Bare(Vec<Arc<BareStream>>);

struct BareStream {
    frames: mpsc::Sender<GatewayFrame>,
    incoming: Mutex<Streaming<NodeFrame>>,
}

impl Bare {
    pub(super) async fn start(region: &Region) -> anyhow::Result<Self> {
        let node = region.stand_in("bare-1", Routes::new(MachineHostServer::new(Echo))).await?;
        let mut streams = Vec::new();
        for _ in 0..NODE_STREAMS {
            let (frames, outgoing) = mpsc::channel(64);
            let mut client = MachineHostClient::new(region.dial(&node)?);
            let incoming = client.exchange(ReceiverStream::new(outgoing)).await?.into_inner();
            streams.push(Arc::new(BareStream { frames, incoming: Mutex::new(incoming) }));
        }
        Ok(Self(streams))
    }

    /// Frames of a second, with that many under way on each stream.
    pub(super) async fn turn(&self, event_bytes: usize, in_flight: usize, length: Duration) -> anyhow::Result<Pace> {
        let turn = Turn::begin();
        let run = |stream: &Arc<BareStream>| tokio::spawn(stream.clone().turn(turn.clone(), event_bytes, in_flight));
        let tasks: Vec<_> = self.0.iter().map(run).collect();
        let rate = turn.measure(length).await;
        for task in tasks {
            tokio::time::timeout(PATIENCE, task).await.context("a frame was lost")???;
        }
        Ok(rate)
    }
}

impl BareStream {
    async fn turn(self: Arc<Self>, turn: Arc<Turn>, event_bytes: usize, in_flight: usize) -> anyhow::Result<()> {
        let room = Arc::new(Semaphore::new(in_flight));
        let (stream, giving, to_send) = (self.clone(), turn.clone(), room.clone());
        let mut sender = tokio::spawn(async move {
            let (mut sent, body) = (0_u64, Bytes::from(vec![7; event_bytes]));
            while giving.runs() {
                to_send.acquire().await?.forget();
                sent += 1;
                stream.frames.send(frame(sent, body.clone())).await?;
            }
            anyhow::Ok(sent)
        });
        let mut incoming = self.incoming.lock().await;
        let (mut sent, mut taken) = (None, 0_u64);
        while sent.is_none_or(|sent| taken < sent) {
            tokio::select! {
                frame = incoming.message() => frame?.context("the echo ended")?,
                ended = &mut sender, if sent.is_none() => {
                    sent = Some(ended??);
                    continue;
                }
            };
            taken += 1;
            turn.count();
            room.add_permits(1);
        }
        Ok(())
    }
}

/// The same bytes as a frame of a link's event has.
fn frame(seq: u64, body: Bytes) -> GatewayFrame {
    let epoch = Some(v1::Epoch { counter: 1, incarnation: wire(&[3; 16]) });
    let event = connector_frame::Kind::SharedEvent(v1::Event { stream_id: 0, seq, body });
    let frame = v1::ConnectorFrame { epoch, kind: Some(event) };
    GatewayFrame {
        account_id: wire(&[1; 16]),
        machine_id: wire(&[2; 16]),
        deadline_ms: 5_000,
        kind: Some(ToNode::LinkMessage(v1::LinkMessage { link_id: wire(&[4; 16]), frame: Some(frame) })),
    }
}
