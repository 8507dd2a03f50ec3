//! The edge: terminates WebSockets and QUIC, authenticates, and forwards. It holds sockets and no truth.
//!
//! ```text
//! browser   --ws-->         browser/ws.rs -> browser/session.rs --+
//! connector --ws or quic--> connector/{ws,quic}.rs -> connector/link.rs --+--> node.rs --gRPC--> machines
//! machines  --gRPC--> node.rs -> route.rs -> registry.rs -> outbox.rs -> the socket of a session or link
//! directory --members.rs--> pool.rs --dial.rs--> a node.rs for each node
//! ```
//!
//! **Placing.** To open a machine, `placing.rs` asks `places.rs` for its node, binds the session or link to one life of
//! one stream to it, and sends the open there; everything else about it goes the same way, and only what comes the same
//! way back is heard. A node that does not own the machine names the owner, and the open goes there. When the stream
//! ends, links are placed again over the same socket, and machines are closed in their sessions with `moving`.
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
mod dial;
mod drain;
mod ending;
#[doc(hidden)]
pub mod forwarding;
mod frame;
mod life;
mod load;
mod members;
mod metrics;
mod node;
mod outbox;
mod places;
mod placing;
mod pool;
mod queue;
mod registry;
mod revoked;
mod route;
mod seeds;
mod sizes;
mod socket;
#[cfg(test)]
mod tests;
mod trace;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use flydex_domain::id::NodeId;
use flydex_domain::limits;
use flydex_domain::proof::host_of;
use flydex_domain::revocation::RevocationEntry;
use flydex_domain::time::UnixMillis;
use flydex_domain::token::TokenVerifier;
use flydex_proto::v1;
use flydex_runtime::clock::Clock;
use flydex_runtime::lifecycle::Shutdown;
use flydex_store::directory::Directory;
use tokio::sync::{Semaphore, watch};

use crate::admission::Admission;
pub use crate::connector::quic;
pub use crate::dial::{Dial, DialError, tuned};
use crate::drain::Arrivals;
use crate::load::Load;
use crate::metrics::Metrics;
use crate::node::Context;
use crate::places::{Cache, Places};
use crate::pool::Pool;
use crate::registry::Registry;
use crate::revoked::Revoked;
pub use crate::seeds::Seeds;

/// What a gateway is told about itself.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its name, unique in the region; part of what devices and machines sign.
    pub gateway_id: NodeId,
    /// Its region; tickets of another are refused.
    pub region: String,
    /// The origin of the web app, such as `https://flydex.example`: the only one whose pages may open sessions, and
    /// what session proofs cover.
    pub public_origin: String,
    /// Where peers reach it, such as `wss://eu.flydex.example`; link proofs cover the host name in it.
    pub public_url: String,
    /// How long a drain waits for peers to go elsewhere. They are told.
    pub drain_for: Duration,
}

/// How nodes are reached.
pub struct Ways {
    /// A node that is known.
    pub dial: Arc<dyn Dial>,
    /// Nodes that the directory would name if it answered; without them, only those that it has named.
    pub seeds: Option<Arc<dyn Seeds>>,
}

impl Ways {
    /// Nodes that the directory names, and no others.
    pub fn to(dial: impl Dial) -> Self {
        Self { dial: Arc::new(dial), seeds: None }
    }
}

/// What every connection of this gateway shares.
pub(crate) struct Gateway {
    pub(crate) config: Config,
    /// The host name that connectors dial.
    pub(crate) host: String,
    pub(crate) clock: Clock,
    pub(crate) shutdown: Shutdown,
    pub(crate) verifier: Arc<TokenVerifier>,
    pub(crate) directory: Arc<dyn Directory>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) places: Arc<Places>,
    /// Places for links that are placed again.
    pub(crate) replacings: Semaphore,
    pub(crate) revoked: Revoked,
    pub(crate) admission: Admission,
    pub(crate) arrivals: Arrivals,
    pub(crate) load: Arc<Load>,
    drain_spread: OnceLock<Duration>,
    /// While the region drains, the time over which its links are sent to others.
    pub(crate) region_drain: watch::Sender<Option<Duration>>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Gateway {
    pub(crate) fn now(&self) -> UnixMillis {
        UnixMillis(self.clock.unix_millis())
    }

    /// The time over which everybody is sent away, from those who are here when it is asked for first.
    pub(crate) fn drain_spread(&self) -> Duration {
        *self.drain_spread.get_or_init(|| {
            let spread = drain::spread(self.registry.live(), self.arrivals.most(), self.config.drain_for);
            tracing::info!(count = self.registry.live(), duration_ms = life::millis(spread), "sending everybody away");
            spread
        })
    }
}

/// A running gateway.
#[derive(Clone)]
pub struct Service {
    gateway: Arc<Gateway>,
}

impl Service {
    /// Follows the nodes that `directory` names and keeps streams to them, reached by `ways`; connections come through
    /// [`Service::router`] and [`Service::serve_quic`].
    #[must_use]
    pub fn new(
        config: Config,
        ways: Ways,
        directory: Arc<dyn Directory>,
        verifier: Arc<TokenVerifier>,
        clock: Clock,
        shutdown: Shutdown,
    ) -> Self {
        let metrics = Arc::new(Metrics::new());
        let registry = Arc::new(Registry::default());
        let cache = Arc::new(Cache::default());
        let context = Arc::new(Context {
            hello: v1::GatewayHello {
                gateway_id: config.gateway_id.as_str().to_owned(),
                region: config.region.clone(),
            },
            registry: registry.clone(),
            places: cache.clone(),
            metrics: metrics.clone(),
            shutdown: shutdown.clone(),
            changed: watch::Sender::new(()),
        });
        let pool = Pool::start(directory.clone(), ways.dial, ways.seeds, context);
        let places = Places::new(cache, pool.clone(), directory.clone(), metrics.clone());
        let host = host_of(&config.public_url);
        let load = Arc::new(Load::default());
        shutdown.spawn(load.clone().measure(shutdown.clone(), metrics.clone()));
        let gateway = Gateway {
            config,
            host,
            shutdown,
            verifier,
            directory,
            registry,
            pool,
            places,
            replacings: Semaphore::new(limits::LINK_REPLACINGS_MAX),
            revoked: Revoked::default(),
            admission: Admission::new(load.clone()),
            load,
            arrivals: Arrivals::new(clock.instant()),
            drain_spread: OnceLock::new(),
            region_drain: watch::Sender::default(),
            metrics,
            clock,
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

    /// Sends the links that there are, and those that come, to other regions, or does so no more. Who has no other
    /// region is served as before.
    pub fn drain_region(&self, drains: bool) {
        let Gateway { registry, arrivals, config, region_drain, .. } = &*self.gateway;
        let spread = drain::region_spread(registry.live(), arrivals.most(), config.drain_for);
        let changed = region_drain.send_if_modified(|drain| {
            let changed = drain.is_some() != drains;
            *drain = drain.filter(|_| drains).or(drains.then_some(spread));
            changed
        });
        let region = config.region.as_str();
        match (changed, drains) {
            (true, true) => tracing::info!(region, duration_ms = life::millis(spread), "the region drains"),
            (true, false) => tracing::info!(region, "the region takes machines again"),
            (false, _) => {}
        }
    }

    /// Waits until a node is reached on every stream.
    pub async fn ready(&self) {
        self.gateway.pool.ready(1).await;
    }

    /// Waits until that many nodes are reached on every stream.
    pub async fn nodes_ready(&self, nodes: usize) {
        self.gateway.pool.ready(nodes).await;
    }

    /// Whether a node is reached on every stream, for a readiness probe: one that is lost is no reason to send peers
    /// to another gateway.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.gateway.pool.is_ready()
    }
}
