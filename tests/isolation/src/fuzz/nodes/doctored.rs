//! A node that is not to be trusted: it stands between the gateway and the real one, and says whatever it is told to. With
//! a fault it does what a check that was forgotten would let happen.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use bytes::Bytes;
use flydex_domain::error::ErrorCode;
use flydex_proto::v1;
use flydex_proto::v1::connector_frame::Kind as FromConnector;
use flydex_proto::v1::gateway_frame::Kind as ToNode;
use flydex_proto::v1::machine_host_client::MachineHostClient;
use flydex_proto::v1::machine_host_server::MachineHost;
use flydex_proto::v1::machine_message::Kind as Said;
use flydex_proto::v1::node_frame::Kind as FromNode;
use futures_util::stream::{self, select};
use futures_util::{Stream, StreamExt as _, future};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio_stream::wrappers::{BroadcastStream, ReceiverStream};
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use crate::tenant::{Tenant, copy};

/// Frames that may wait to be sent on.
const WAITING_MAX: usize = 256;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A machine of another account is told from one that does not exist.
    TellsWhatExists,
    /// The status of a machine is found by its id alone.
    ShowsTheOther,
    /// What a connector says to a session goes to whoever has that id.
    ReachesTheOther,
}

/// An account and its machine, as frames name them.
type Machine = (Bytes, Bytes);
/// Frames of the node's own on a stream, and who is told once they are on their way.
type Words = mpsc::Sender<(Vec<v1::NodeFrame>, oneshot::Sender<()>)>;

/// The node.
#[derive(Clone)]
pub struct Doctored {
    fault: Option<Fault>,
    a: Machine,
    b: Machine,
    marker: String,
    /// Whose a session is.
    sessions: Arc<Mutex<BTreeMap<Bytes, Machine>>>,
    /// The stream on which a machine's session or link was opened last.
    streams: Arc<Mutex<BTreeMap<Machine, Words>>>,
    astray: broadcast::Sender<v1::NodeFrame>,
    inner: Option<Channel>,
}

impl Doctored {
    /// A node between those two.
    #[must_use]
    pub fn new(fault: Option<Fault>, a: &Tenant, b: &Tenant) -> Self {
        let key = |tenant: &Tenant| (copy(tenant.account_id.as_bytes()), copy(tenant.machine_id.as_bytes()));
        let (astray, _) = broadcast::channel(WAITING_MAX);
        let (a, b, marker) = (key(a), key(b), b.marker.clone());
        Self { fault, a, b, marker, sessions: Arc::default(), streams: Arc::default(), astray, inner: None }
    }

    /// The same in front of that node.
    #[must_use]
    pub fn before(mut self, node: Channel) -> Self {
        self.inner = Some(node);
        self
    }

    /// Whether the machines are on different streams: then nothing that is said of B on A's is the node's to say.
    #[must_use]
    pub fn keeps_apart(&self) -> bool {
        let streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        match (streams.get(&self.a), streams.get(&self.b)) {
            (Some(of_a), Some(of_b)) => !of_a.same_channel(of_b),
            _ => false,
        }
    }

    /// Says something on the stream of A's machine, before whatever comes on it later.
    ///
    /// # Errors
    /// When there is no such stream.
    pub async fn say(&self, frames: Vec<v1::NodeFrame>) -> anyhow::Result<()> {
        let words = self.streams.lock().unwrap_or_else(PoisonError::into_inner).get(&self.a).cloned();
        let (done, said) = oneshot::channel();
        let words = words.context("A's machine is on no stream")?;
        words.send((frames, done)).await.ok().context("the stream has ended")?;
        said.await.context("the stream has ended")
    }

    fn on_the_way(&self, frame: &v1::GatewayFrame, words: &Words) {
        if let Some(ToNode::OpenSession(_) | ToNode::OpenLink(_)) = &frame.kind {
            let machine = (frame.account_id.clone(), frame.machine_id.clone());
            self.streams.lock().unwrap_or_else(PoisonError::into_inner).insert(machine, words.clone());
        }
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        match &frame.kind {
            Some(ToNode::OpenSession(open)) => {
                sessions.insert(open.session_id.clone(), (frame.account_id.clone(), frame.machine_id.clone()));
            }
            Some(ToNode::LinkMessage(message)) if self.fault == Some(Fault::ReachesTheOther) => {
                let kind = message.frame.as_ref().and_then(|frame| frame.kind.as_ref());
                let Some(FromConnector::ToSession(to)) = kind else { return };
                let Some((account_id, machine_id)) = sessions.get(&to.session_id).cloned() else { return };
                if account_id != frame.account_id {
                    let to = v1::NodeToSession { session_id: to.session_id.clone(), message: to.message.clone() };
                    let kind = Some(FromNode::ToSession(to));
                    // Nobody may be listening yet.
                    let _ = self.astray.send(v1::NodeFrame { account_id, machine_id, kind });
                }
            }
            _ => {}
        }
    }

    fn on_the_way_back(&self, mut frame: v1::NodeFrame) -> v1::NodeFrame {
        if frame.account_id != self.a.0 || frame.machine_id != self.b.1 {
            return frame;
        }
        let Some(FromNode::ToSession(to)) = &mut frame.kind else { return frame };
        let Some(Said::Status(status)) = to.message.as_mut().and_then(|message| message.kind.as_mut()) else {
            return frame;
        };
        match self.fault {
            Some(Fault::TellsWhatExists) => {
                let code = u32::from(ErrorCode::Forbidden.number());
                let end = v1::EndSession { session_id: to.session_id.clone(), code, retry_after_ms: 0 };
                frame.kind = Some(FromNode::EndSession(end));
            }
            Some(Fault::ShowsTheOther) => status.connector_version.clone_from(&self.marker),
            Some(Fault::ReachesTheOther) | None => {}
        }
        frame
    }
}

#[tonic::async_trait]
impl MachineHost for Doctored {
    type ExchangeStream = Pin<Box<dyn Stream<Item = Result<v1::NodeFrame, Status>> + Send>>;

    async fn exchange(
        &self,
        request: Request<Streaming<v1::GatewayFrame>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let inner = self.inner.clone().ok_or_else(|| Status::unavailable("no node"))?;
        let (forward, backward) = (self.clone(), self.clone());
        let (words, said) = mpsc::channel(WAITING_MAX);
        let frames = request.into_inner().filter_map(|frame| future::ready(frame.ok())).map(move |frame| {
            forward.on_the_way(&frame, &words);
            frame
        });
        let said = ReceiverStream::new(said).flat_map(|(frames, done): (Vec<_>, oneshot::Sender<()>)| {
            let told = stream::once(async move {
                // Who asked may have gone.
                let _ = done.send(());
                None
            });
            stream::iter(frames.into_iter().map(Some)).chain(told)
        });
        let said = said.filter_map(|frame| future::ready(frame.map(Ok)));
        let astray =
            BroadcastStream::new(self.astray.subscribe()).filter_map(|frame| future::ready(frame.ok().map(Ok)));
        let answers = MachineHostClient::new(inner).exchange(frames).await?.into_inner();
        let answers = answers.map(move |frame| frame.map(|frame| backward.on_the_way_back(frame)));
        Ok(Response::new(Box::pin(select(select(answers, astray), said))))
    }
}
