//! A node that is wrong on purpose: it stands between the gateway and the real one, and does what a check that was
//! forgotten would let happen.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use flydex_domain::error::ErrorCode;
use flydex_proto::v1;
use flydex_proto::v1::connector_frame::Kind as FromConnector;
use flydex_proto::v1::gateway_frame::Kind as ToNode;
use flydex_proto::v1::machine_host_client::MachineHostClient;
use flydex_proto::v1::machine_host_server::MachineHost;
use flydex_proto::v1::machine_message::Kind as Said;
use flydex_proto::v1::node_frame::Kind as FromNode;
use futures_util::Stream;
use tokio::sync::broadcast;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::BroadcastStream;
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

/// The node.
#[derive(Clone)]
pub struct Doctored {
    fault: Fault,
    a: (Bytes, Bytes),
    b: (Bytes, Bytes),
    marker: String,
    /// Whose a session is.
    sessions: Arc<Mutex<BTreeMap<Bytes, (Bytes, Bytes)>>>,
    astray: broadcast::Sender<v1::NodeFrame>,
    inner: Option<Channel>,
}

impl Doctored {
    /// A node with that fault between those two.
    #[must_use]
    pub fn new(fault: Fault, a: &Tenant, b: &Tenant) -> Self {
        let key = |tenant: &Tenant| (copy(tenant.account_id.as_bytes()), copy(tenant.machine_id.as_bytes()));
        let (astray, _) = broadcast::channel(WAITING_MAX);
        let (a, b, marker) = (key(a), key(b), b.marker.clone());
        Self { fault, a, b, marker, sessions: Arc::default(), astray, inner: None }
    }

    /// The same in front of that node.
    #[must_use]
    pub fn before(mut self, node: Channel) -> Self {
        self.inner = Some(node);
        self
    }

    fn on_the_way(&self, frame: &v1::GatewayFrame) {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        match &frame.kind {
            Some(ToNode::OpenSession(open)) => {
                sessions.insert(open.session_id.clone(), (frame.account_id.clone(), frame.machine_id.clone()));
            }
            Some(ToNode::LinkMessage(message)) if self.fault == Fault::ReachesTheOther => {
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
            Fault::TellsWhatExists => {
                let code = u32::from(ErrorCode::Forbidden.number());
                let end = v1::EndSession { session_id: to.session_id.clone(), code, retry_after_ms: 0 };
                frame.kind = Some(FromNode::EndSession(end));
            }
            Fault::ShowsTheOther => status.connector_version.clone_from(&self.marker),
            Fault::ReachesTheOther => {}
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
        let frames = request.into_inner().map_while(Result::ok).map(move |frame| {
            forward.on_the_way(&frame);
            frame
        });
        let astray = BroadcastStream::new(self.astray.subscribe()).filter_map(Result::ok).map(Ok);
        let answers = MachineHostClient::new(inner).exchange(frames).await?.into_inner();
        let answers = answers.map(move |frame| frame.map(|frame| backward.on_the_way_back(frame)));
        Ok(Response::new(Box::pin(answers.merge(astray))))
    }
}
