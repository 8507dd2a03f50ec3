use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use flydex_domain::id::{Incarnation, NodeId};
use flydex_domain::token::TokenVerifier;
use flydex_runtime::clock::Clock;
use flydex_runtime::lifecycle::Shutdown;
use flydex_runtime::mutual::authority::Authority;
use flydex_runtime::mutual::{self, Allowed, PeerIdentity};
use flydex_store::directory::redis::{Endpoint as RedisEndpoint, Keeper};
use flydex_store::directory::{InProcessDirectory, RedisDirectory};
use tokio::net::TcpListener;
use tonic::service::Routes;

use super::*;
use crate::gateway::ways;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// The certificate of a process of the cluster.
fn member(authority: &Authority, identity: &str) -> MutualTls {
    let identity: PeerIdentity = identity.parse().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let config = authority.write(folder.path(), &identity, Clock::system().unix_millis(), DAY).unwrap();
    MutualTls::load(config, Clock::system()).unwrap()
}

/// A node that calls itself `node-1`, under a certificate that says who it is.
async fn node(mutual: MutualTls, shutdown: &Shutdown) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let config = flydex_machines::Config {
        node_id: NodeId::try_from("node-1".to_owned()).unwrap(),
        incarnation: Incarnation::from_bytes(rand::random()),
        address: format!("https://{address}"),
        region: "eu".to_owned(),
    };
    let directory = Arc::new(InProcessDirectory::default());
    let verifier = Arc::new(TokenVerifier::unknowing());
    let service = flydex_machines::Service::new(config, directory, verifier, Clock::system(), shutdown.clone());
    let allowed = Allowed { roles: vec![Role::Gateway], region: Some("eu".to_owned()) };
    let router = Routes::new(service.into_grpc()).into_axum_router();
    tokio::spawn(mutual::serve(listener, mutual, allowed, router, shutdown.soft(), shutdown.clone()));
    address
}

/// A gateway that finds nodes at a name alone: at the address of its Redis nobody listens.
async fn gateway(mutual: MutualTls, name: &str, shutdown: &Shutdown) -> flydex_gateway::Handle {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let redis = format!("redis://{}", taken.local_addr().unwrap());
    drop(taken);
    let (keeper, keep) = Keeper::new(RedisEndpoint::alone(&redis).unwrap());
    tokio::spawn(keep);
    let config = flydex_gateway::Config {
        gateway_id: NodeId::try_from("gateway-1".to_owned()).unwrap(),
        region: "eu".to_owned(),
        public_origin: "http://localhost".to_owned(),
        public_url: "ws://localhost".to_owned(),
        drain_for: Duration::ZERO,
    };
    let ways = ways(mutual, "eu", &[name.to_owned()]).unwrap();
    let directory = Arc::new(RedisDirectory::new(keeper));
    let verifier = Arc::new(TokenVerifier::unknowing());
    flydex_gateway::Service::new(config, ways, directory, verifier, Clock::system(), shutdown.clone()).handle()
}

#[tokio::test]
async fn a_node_is_found_by_name_while_redis_is_away() {
    let (authority, shutdown) = (Authority::new().unwrap(), Shutdown::new());
    let address = node(member(&authority, "spiffe://flydex/eu/machines/node-1"), &shutdown).await;
    let ours = member(&authority, "spiffe://flydex/eu/gateway/gateway-1");
    let gateway = gateway(ours, &format!("localhost:{}", address.port()), &shutdown).await;
    tokio::time::timeout(Duration::from_secs(30), gateway.ready()).await.unwrap();
}

#[tokio::test]
async fn who_is_at_the_address_must_have_the_certificate_of_a_node_of_the_region() {
    let authority = Authority::new().unwrap();
    for (identity, is_asked) in [
        ("spiffe://flydex/eu/machines/node-1", true),
        ("spiffe://flydex/eu/gateway/node-1", false),
        ("spiffe://flydex/eu/control/node-1", false),
        ("spiffe://flydex/us/machines/node-1", false),
    ] {
        let shutdown = Shutdown::new();
        let address = node(member(&authority, identity), &shutdown).await;
        let mutual = member(&authority, "spiffe://flydex/eu/gateway/gateway-1");
        let nodes = Nodes { mutual, region: "eu".to_owned() };
        let names = Names::new(&[format!("localhost:{}", address.port())], nodes.clone()).unwrap();
        let addresses = names.addresses().await.unwrap();
        assert!(addresses.contains(&format!("https://{address}")), "{addresses:?}");
        assert_eq!(answers(names.dial(&format!("https://{address}")).unwrap()).await, is_asked, "{identity}");
        // Whoever is known by another name is not the one that is dialled.
        assert!(!answers(nodes.dial(&format!("https://{address}"), Some("node-2")).unwrap()).await, "{identity}");
    }
}

#[test]
fn a_name_without_a_port_is_refused() {
    let authority = Authority::new().unwrap();
    let mutual = member(&authority, "spiffe://flydex/eu/gateway/gateway-1");
    for name in ["nodes", "nodes:", ":1", "nodes:port"] {
        let nodes = Nodes { mutual: mutual.clone(), region: "eu".to_owned() };
        assert!(Names::new(&[name.to_owned()], nodes).is_err(), "{name}");
    }
}

/// Whether a connection comes about.
async fn answers(channel: Channel) -> bool {
    let mut client = flydex_proto::v1::machine_host_client::MachineHostClient::new(channel);
    let hello = flydex_proto::v1::GatewayFrame::default();
    client.exchange(tokio_stream::once(hello)).await.is_ok()
}
