//! The role `gateway`: terminates sessions and links, and forwards to the nodes that Redis names, or DNS while Redis is
//! away.

mod nodes;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use flydex_domain::placement::NodeRecord;
use flydex_domain::token::TokenVerifier;
use flydex_gateway::{Seeds, Ways};
use flydex_runtime::client::{TrustedProxies, located};
use flydex_runtime::clock::Clock;
use flydex_runtime::http::{self, trace::traced};
use flydex_runtime::mutual::{MutualConfig, MutualTls, Role};
use flydex_runtime::origin::PublicOrigin;
use flydex_runtime::telemetry::TelemetryConfig;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use crate::cluster::{self, BadField, Life, RedisConfig};
use crate::config::TlsFiles;
use crate::control::{identity, public_tls};
use crate::follow::{Follower, News};
use crate::gateway::nodes::{Names, Nodes};
use crate::machines::default_admin_listen;
use crate::{quic, web};

/// The condition of readiness that nodes are reached.
const NODES: &str = "nodes";

/// A gateway. Its name and region are those of its certificate.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayConfig {
    /// Address and port of WebSockets (TCP) and QUIC (UDP). Default `127.0.0.1:48200`; port 0 takes a free one.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// The origin of the web app, as control has it: only its pages may open sessions. Needed.
    pub public_origin: String,
    /// `wss://host[:port]` at which browsers and connectors reach this gateway, as control lists its region: connectors
    /// prove themselves for this host and no other. Default: the public origin's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_url: Option<String>,
    /// Address of `/livez`, `/readyz` and `/metrics`. Default `127.0.0.1:0`, a free port that is printed.
    #[serde(default = "default_admin_listen")]
    pub admin_listen: SocketAddr,
    /// Internal addresses of control processes, `host:port`, or one text with commas. At least one is needed.
    #[serde(deserialize_with = "cluster::list")]
    pub control: Vec<String>,
    /// Whether connectors may use QUIC beside WebSocket; it needs the certificate. Default false.
    #[serde(default)]
    pub quic: bool,
    /// Address ranges of proxies in front that are believed about whom they speak for. Default none.
    #[serde(default)]
    pub trusted_proxies: TrustedProxies,
    /// Seconds that sessions and links have to go to other gateways on a stop; it ends when all have gone. Default 20.
    #[serde(default = "default_drain_seconds")]
    pub drain_seconds: u64,
    /// Certificate for a `wss` address; needed for one unless `tls_in_front`.
    #[serde(default)]
    pub tls: TlsFiles,
    /// Whether a proxy in front speaks https and this process http to it alone. Links cannot be bound to their
    /// connection then. Default false.
    #[serde(default)]
    pub tls_in_front: bool,
    /// `host:port` whose addresses are those of the region's nodes, such as a headless service, or several, or one text with
    /// commas: where nodes are looked for while Redis does not answer. Default none: a gateway that starts then waits for
    /// Redis.
    #[serde(default, deserialize_with = "cluster::list")]
    pub nodes_dns: Vec<String>,
    /// Where Redis is. Needed.
    pub redis: RedisConfig,
    /// Who this process is, and whom it trusts. Needed; the role in the certificate is `gateway`.
    pub mutual: MutualConfig,
    /// Logs, traces and metrics.
    #[serde(default)]
    pub telemetry: TelemetryConfig,
}

/// Runs until a signal. `say` prints a line for the person who started it.
///
/// # Errors
/// [`BadField`] for a value that cannot be used; else what did not start, and why.
pub async fn run(config: GatewayConfig, say: impl Fn(&str)) -> anyhow::Result<()> {
    let origin = PublicOrigin::parse(&config.public_origin).map_err(|error| BadField::new("public_origin", error))?;
    let public_url = public_url(config.public_url.as_deref(), &origin)?;
    let tls = public_tls(&config.tls, &public_url, config.tls_in_front)?;
    let life = Life::start(config.admin_listen, &config.telemetry, &say).await?;
    let (mutual, gateway_id) = cluster::member(&config.mutual, Role::Gateway, &life)?;
    let region = mutual.identity().region;
    let control = cluster::control(&config.control, &mutual)?;
    let directory = cluster::directory(&config.redis, &life)?;
    let listener = TcpListener::bind(config.listen).await.with_context(|| format!("listen on {}", config.listen))?;
    let address = listener.local_addr().context("read the listening address")?;

    let ways = ways(mutual, &region, &config.nodes_dns)?;
    let drain_for = Duration::from_secs(config.drain_seconds);
    let verifier = Arc::new(TokenVerifier::unknowing());
    let gateway = flydex_gateway::Service::new(
        flydex_gateway::Config {
            gateway_id: gateway_id.clone(),
            region: region.clone(),
            public_origin: origin.as_str().to_owned(),
            public_url: public_url.websocket(""),
            drain_for,
        },
        ways,
        directory,
        Arc::clone(&verifier),
        Clock::system(),
        life.shutdown.clone(),
    );
    let handle = gateway.handle();
    let apply = move |news| match news {
        News::Revoked(entry) => handle.revoke(&entry),
        News::RegionDrains(drains) => handle.drain_region(drains),
    };
    Follower::start(control, Arc::clone(&verifier), apply, life.after_services());
    if config.quic {
        let (links, endpoint) = (gateway.clone(), quic::endpoint(address, &identity(&config.tls)?)?);
        life.shutdown.spawn(async move { links.serve_quic(endpoint).await });
    }
    let router = web::with_headers(traced(gateway.router()), &public_url, &[]);
    let router = located(router, config.trusted_proxies.clone());
    life.shutdown.spawn(http::serve(listener, tls, router, life.shutdown.clone()));
    wait_for_nodes(&life, gateway.handle());
    life.wait_for_control(verifier);
    life.started();
    say(&format!("gateway {gateway_id} of region {region} on {address}"));
    life.end_while_ready(drain_for).await
}

/// Where peers reach this gateway, as the origin that a WebSocket address is made of; `ws` on this computer alone.
fn public_url(configured: Option<&str>, origin: &PublicOrigin) -> Result<PublicOrigin, BadField> {
    let Some(url) = configured else { return Ok(origin.clone()) };
    let bad = || BadField::new("public_url", "it is not wss://host[:port]");
    let scheme = ["ws://", "wss://"].into_iter().find(|scheme| url.starts_with(scheme)).ok_or_else(bad)?;
    let rest = &url[scheme.len()..];
    PublicOrigin::parse(&format!("{}{rest}", scheme.replacen("ws", "http", 1))).map_err(|_| bad())
}

/// The ways to nodes: to the process that a record names and to no other, and to any node of the region at `nodes_dns`.
fn ways(mutual: MutualTls, region: &str, nodes_dns: &[String]) -> Result<Ways, BadField> {
    let nodes = Nodes { mutual, region: region.to_owned() };
    let names = Names::new(nodes_dns, nodes.clone())?;
    let seeds = (!nodes_dns.is_empty()).then(|| Arc::new(names) as Arc<dyn Seeds>);
    let dial = move |node: &NodeRecord| nodes.dial(&node.address, Some(node.node_id.as_str()));
    Ok(Ways { dial: Arc::new(dial), seeds })
}

/// Holds readiness back until nodes are reached; not looked at again, for a gateway without nodes has a better answer
/// than none.
fn wait_for_nodes(life: &Life, gateway: flydex_gateway::Handle) {
    let readiness = life.readiness.clone();
    readiness.fails(NODES, "none is reached on every stream yet");
    life.under(async move {
        gateway.ready().await;
        readiness.holds(NODES);
    });
}

fn default_listen() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 48200))
}

const fn default_drain_seconds() -> u64 {
    20
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_is_reached_at_the_public_origin_unless_it_says_where() {
        let origin = PublicOrigin::parse("https://flydex.example").unwrap();
        for (configured, reached) in [
            (None, "wss://flydex.example"),
            (Some("wss://EU.flydex.example:8443"), "wss://eu.flydex.example:8443"),
            (Some("ws://localhost:48200"), "ws://localhost:48200"),
        ] {
            assert_eq!(public_url(configured, &origin).unwrap().websocket(""), reached);
        }
        for refused in ["https://eu.flydex.example", "wss://eu.flydex.example/v1", "ws://eu.flydex.example", "eu"] {
            assert!(public_url(Some(refused), &origin).is_err(), "{refused}");
        }
    }
}
