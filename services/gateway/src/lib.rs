//! The edge: terminates WebSockets and QUIC, authenticates, and forwards. It holds sockets and no truth.
//!
//! ```text
//! browser   --ws-->         browser/ws.rs -> browser/session.rs --+
//! connector --ws or quic--> connector/{ws,quic}.rs -> connector/link.rs --+--> node.rs --gRPC--> machines
//! machines  --gRPC--> node.rs -> registry.rs -> outbox.rs -> the socket of a session or link
//! ```
//!
//! **Scope (INV-SCOPE).** A session acts under the account of its ticket, a link under the account of its
//! credential; both are signed by the control plane, and neither names an account in a frame. A machine is reached
//! by (that account, the machine id) and in no other way. The grant does not list machines, so the gateway does not
//! know which exist: an id that does not exist in the account has no link and looks offline. A machine of another
//! account lives under the other account's key, which this session cannot name, so its id looks offline as well:
//! one answer for both. What comes back from a node must name the session's own account, or it is dropped.
//!
//! **Bounds (INV-BOUND).** Towards a peer each connection has one [`outbox`], bounded in bytes per lane; a peer that
//! lets it fill is cut with `slow_consumer`. Towards a node each stream has a queue bounded in bytes; a sender that
//! finds no room for a second is told `overloaded`. In between nothing is queued.
//!
//! **Endings.** Whatever ends a session or link is one `End` frame with an error code, then a close with
//! [`flydex_domain::error::ErrorCode::close_code`], unless the peer is already gone.

mod admission;
mod auth;
mod browser;
mod connector;
mod ending;
mod frame;
mod life;
mod metrics;
mod node;
mod outbox;
mod registry;
mod revoked;
mod sizes;
mod socket;
#[cfg(test)]
mod tests;
mod trace;

use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use flydex_domain::id::NodeId;
use flydex_domain::proof::host_of;
use flydex_domain::revocation::RevocationEntry;
use flydex_domain::time::UnixMillis;
use flydex_domain::token::TokenVerifier;
use flydex_runtime::clock::Clock;
use flydex_runtime::lifecycle::Shutdown;
use flydex_store::directory::Directory;
use tonic::transport::Channel;

use crate::admission::Admission;
pub use crate::connector::quic;
use crate::metrics::Metrics;
use crate::node::NodeClient;
use crate::registry::Registry;
use crate::revoked::Revoked;

/// What a gateway is told about itself.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its name, unique in the region; part of what devices and machines sign.
    pub gateway_id: NodeId,
    /// Its region; tickets of another are refused.
    pub region: String,
    /// The origin of the web app, such as `https://flydex.example`: the only one whose pages may open sessions, and
    /// the source of the host name that link proofs cover.
    pub public_origin: String,
}

/// What every connection of this gateway shares.
pub(crate) struct Gateway {
    pub(crate) config: Config,
    pub(crate) host: String,
    pub(crate) clock: Clock,
    pub(crate) shutdown: Shutdown,
    pub(crate) verifier: Arc<TokenVerifier>,
    pub(crate) directory: Arc<dyn Directory>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) node: NodeClient,
    pub(crate) revoked: Revoked,
    pub(crate) admission: Admission,
    pub(crate) metrics: Arc<Metrics>,
}

impl Gateway {
    pub(crate) fn now(&self) -> UnixMillis {
        UnixMillis(self.clock.unix_millis())
    }
}

/// A running gateway.
#[derive(Clone)]
pub struct Service {
    gateway: Arc<Gateway>,
}

impl Service {
    /// Starts the streams to the node behind `channel`; connections come through [`Service::router`] and
    /// [`Service::serve_quic`].
    #[must_use]
    pub fn new(
        config: Config,
        channel: Channel,
        directory: Arc<dyn Directory>,
        verifier: Arc<TokenVerifier>,
        clock: Clock,
        shutdown: Shutdown,
    ) -> Self {
        let metrics = Arc::new(Metrics::new());
        let registry = Arc::new(Registry::default());
        let node = NodeClient::start(channel, registry.clone(), metrics.clone(), &shutdown);
        let host = host_of(&config.public_origin);
        let gateway = Gateway {
            config,
            host,
            clock,
            shutdown,
            verifier,
            directory,
            registry,
            node,
            revoked: Revoked::default(),
            admission: Admission::new(),
            metrics,
        };
        Self { gateway: Arc::new(gateway) }
    }

    /// `GET /v1/session` for browsers and `GET /v1/link` for connectors, both upgrades to a WebSocket.
    ///
    /// A [`flydex_runtime::tls::ChannelBinding`] among a request's extensions binds the link to its TLS connection.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/v1/session", get(browser::ws::upgrade))
            .route("/v1/link", get(connector::ws::upgrade))
            .with_state(self.gateway.clone())
    }

    /// Accepts links over QUIC until the drain is over. The endpoint's configuration comes from
    /// [`quic::server_config`].
    pub async fn serve_quic(&self, endpoint: quinn::Endpoint) {
        connector::quic::serve(self.gateway.clone(), endpoint).await;
    }

    /// What other parts of the process may ask of the gateway.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle { gateway: self.gateway.clone() }
    }
}

/// A cheap way to reach a running gateway.
#[derive(Clone)]
pub struct Handle {
    gateway: Arc<Gateway>,
}

impl Handle {
    /// Ends the sessions and links that no longer hold, and refuses tokens for them that were signed before the entry.
    pub fn revoke(&self, entry: &RevocationEntry) {
        self.gateway.revoked.add(&entry.revocation, entry.at, self.gateway.now());
        let count = self.gateway.registry.revoke(&entry.revocation);
        tracing::info!(count, "revocation applied");
    }

    /// Waits until every stream to the node is up.
    pub async fn ready(&self) {
        self.gateway.node.ready().await;
    }

    /// Whether every stream to the node is up, for a readiness probe.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.gateway.node.is_ready()
    }
}
