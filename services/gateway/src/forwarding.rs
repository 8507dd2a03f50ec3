//! The way from this gateway to one node and back, with peers that have no socket: for benches of what lies between.
//!
//! Everything here is what serves real peers: the streams with their queues, and the route of what comes back into a
//! peer's outbox. Nobody is authenticated, so nothing else may use it.

use std::sync::Arc;

use bytes::Bytes;
use flydex_domain::error::ErrorCode;
use flydex_domain::id::{LinkId, SessionId};
use flydex_domain::limits::ACTOR_CALL_TIMEOUT;
use flydex_domain::placement::NodeRecord;
use flydex_domain::scope::{MachineKey, Principal};
use flydex_domain::token::Grant;
use flydex_proto::v1::GatewayHello;
use flydex_proto::v1::gateway_frame::Kind;
use flydex_runtime::lifecycle::Shutdown;
use tokio::sync::watch;

use crate::dial::{Dial, DialError};
use crate::ending::Ending;
use crate::metrics::Metrics;
use crate::node::{Bound, Context, Node};
use crate::outbox::{Framing, Outbox};
use crate::places::Cache;
use crate::registry::{Link, Registered, Registry, Session, SessionIdentity};

/// Streams to one node.
pub struct Way {
    context: Arc<Context>,
    node: Node,
}

/// A link or a session's machine on its way to the node.
pub struct Peer {
    bound: Bound,
    outbox: Arc<Outbox>,
    _registered: Registered,
}

impl Way {
    /// Opens the streams, and keeps them up until the drain is over.
    ///
    /// # Errors
    /// [`DialError`] when the node's record does not lead anywhere.
    pub fn to(
        record: &NodeRecord,
        dial: &dyn Dial,
        hello: GatewayHello,
        shutdown: Shutdown,
    ) -> Result<Self, DialError> {
        let context = Arc::new(Context {
            hello,
            registry: Arc::new(Registry::default()),
            places: Arc::new(Cache::default()),
            metrics: Arc::new(Metrics::new()),
            shutdown,
            changed: watch::Sender::new(()),
        });
        Ok(Self { node: Node::start(record, dial, &context)?, context })
    }

    /// A link; nothing when the node does not answer.
    pub async fn link(&self, machine: MachineKey, link_id: LinkId) -> Option<Peer> {
        let bound = self.node.bound(machine).await?;
        let outbox = Arc::new(Outbox::new(Framing::Message));
        let link = Link::new(link_id, machine, 1, outbox.clone(), Ending::default());
        link.bind(bound.clone());
        Some(Peer { bound, outbox, _registered: self.context.registry.add_link(link) })
    }

    /// A session's machine; nothing when the node does not answer.
    pub async fn session(&self, machine: MachineKey, session_id: SessionId, grant: &Grant) -> Option<Peer> {
        let bound = self.node.bound(machine).await?;
        let Grant { grant_id, account_id, user_id, role, .. } = *grant;
        let device_id = grant.device_key.0.device_id();
        let scope = Principal::Device { account_id, user_id, role, device_id }.scope();
        let outbox = Arc::new(Outbox::new(Framing::Message));
        let identity = SessionIdentity { scope, user_id, device_id, grant_id };
        let session = Session::new(session_id, identity, outbox.clone(), Ending::default());
        session.open(machine.machine_id()).ok()?;
        for (machine_id, opening) in session.take_homeless() {
            session.bind(machine_id, opening, bound.clone());
        }
        Some(Peer { bound, outbox, _registered: self.context.registry.add_session(session) })
    }
}

impl Peer {
    /// Sends a frame to the node, once there is room.
    ///
    /// # Errors
    /// What the sender of the frame would be told.
    pub async fn send(&self, kind: Kind) -> Result<(), ErrorCode> {
        self.bound.send(ACTOR_CALL_TIMEOUT, kind).await.map_err(|error| error.code())
    }

    /// The next frame, as it would be written to the peer's WebSocket; nothing once its connection would end.
    pub async fn next(&self) -> Option<Bytes> {
        self.outbox.next().await
    }
}
