//! The role `machines`: a node that holds machines, found by gateways through Redis.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use flydex_domain::id::Incarnation;
use flydex_domain::token::TokenVerifier;
use flydex_runtime::clock::Clock;
use flydex_runtime::mutual::{self, Allowed, MutualConfig, Role};
use flydex_runtime::telemetry::TelemetryConfig;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tonic::service::Routes;

use crate::cluster::{self, BadField, Life, RedisConfig};
use crate::follow::{Follower, News};

/// A node. Its name and region are those of its certificate.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct MachinesConfig {
    /// Address and port of gRPC for gateways. Default `0.0.0.0:48210`; port 0 takes a free one.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// `host:port` at which gateways reach this very process, written into Redis. Default: that of `listen`; needed
    /// when `listen` is every address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Address of `/livez`, `/readyz` and `/metrics`. Default `127.0.0.1:0`, a free port that is printed.
    #[serde(default = "default_admin_listen")]
    pub admin_listen: SocketAddr,
    /// Internal addresses of control processes, `host:port`, or one text with commas. At least one is needed.
    #[serde(deserialize_with = "cluster::list")]
    pub control: Vec<String>,
    /// Seconds that machines have to go to other nodes on a stop; it ends when all have gone. Default 20.
    #[serde(default = "default_drain_seconds")]
    pub drain_seconds: u64,
    /// Where Redis is. Needed.
    pub redis: RedisConfig,
    /// Who this process is, and whom it trusts. Needed; the role in the certificate is `machines`.
    pub mutual: MutualConfig,
    /// Logs, traces and metrics.
    #[serde(default)]
    pub telemetry: TelemetryConfig,
}

/// Runs until a signal. `say` prints a line for the person who started it.
///
/// # Errors
/// [`BadField`] for a value that cannot be used; else what did not start, and why.
pub async fn run(config: MachinesConfig, say: impl Fn(&str)) -> anyhow::Result<()> {
    let life = Life::start(config.admin_listen, &config.telemetry, &say).await?;
    let (mutual, node_id) = cluster::member(&config.mutual, Role::Machines, &life)?;
    let region = mutual.identity().region;
    let control = cluster::control(&config.control, &mutual)?;
    let directory = cluster::directory(&config.redis, &life)?;
    let listener = TcpListener::bind(config.listen).await.with_context(|| format!("listen on {}", config.listen))?;
    let listening = listener.local_addr().context("read the listening address")?;
    let address = address(config.address.as_deref(), listening)?;

    let verifier = Arc::new(TokenVerifier::unknowing());
    let node = flydex_machines::Config {
        node_id: node_id.clone(),
        incarnation: Incarnation::from_bytes(rand::random()),
        address: format!("https://{address}"),
        region: region.clone(),
    };
    let service =
        flydex_machines::Service::new(node, directory, Arc::clone(&verifier), Clock::system(), life.shutdown.clone());
    let handle = service.handle();
    service.handle().report_links(control.clone());
    let apply = move |news| match news {
        News::Revoked(entry) => handle.revoke(entry),
        // Its gateways send the machines away; a node serves who is left.
        News::RegionDrains(_) => {}
    };
    Follower::start(control, Arc::clone(&verifier), apply, life.after_services());
    let allowed = Allowed { roles: vec![Role::Gateway], region: Some(region.clone()) };
    let router = Routes::new(service.into_grpc()).into_axum_router();
    // Gateways reach a node that drains, to take its machines elsewhere.
    let after = life.after_services();
    after.spawn(mutual::serve(listener, mutual, allowed, router, after.soft(), after.clone()));
    life.wait_for_control(verifier);
    life.started();
    say(&format!("node {node_id} of region {region} on {address}"));
    life.end(Duration::from_secs(config.drain_seconds)).await
}

/// Where gateways reach this process.
fn address(configured: Option<&str>, listening: SocketAddr) -> Result<String, BadField> {
    match configured {
        Some(address) => {
            let named = address.rsplit_once(':').filter(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
            named.map(|_| address.to_owned()).ok_or_else(|| BadField::new("address", "it is not host:port"))
        }
        None if listening.ip().is_unspecified() => {
            Err(BadField::new("address", "set host:port at which gateways reach this process, for it listens on all"))
        }
        None => Ok(listening.to_string()),
    }
}

fn default_listen() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::UNSPECIFIED, 48210))
}

pub(crate) fn default_admin_listen() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

const fn default_drain_seconds() -> u64 {
    20
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_listens_on_every_address_must_say_its_own() {
        let all = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 1));
        assert!(address(None, all).unwrap_err().to_string().starts_with("address: "));
        assert_eq!(address(Some("node-1.nodes:48210"), all).unwrap(), "node-1.nodes:48210");
        assert_eq!(address(None, SocketAddr::from((Ipv4Addr::LOCALHOST, 7))).unwrap(), "127.0.0.1:7");
        assert!(address(Some("node-1"), all).is_err());
    }
}
