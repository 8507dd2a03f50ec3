use flydex_domain::placement::{NodeRecord, NodeState};
use flydex_gateway::Dial;
use tonic::transport::{Endpoint, Uri};

use super::*;

/// A gateway over that way to its node.
pub(super) fn gateway(dial: impl Dial, directory: Arc<dyn Directory>, shutdown: &Shutdown) -> flydex_gateway::Service {
    flydex_gateway::Service::new(
        flydex_gateway::Config {
            gateway_id: node_id(),
            region: "local".to_owned(),
            public_origin: "http://localhost".to_owned(),
            public_url: "ws://localhost".to_owned(),
            drain_for: DRAIN_GRACE,
        },
        flydex_gateway::Ways::to(dial),
        directory,
        Arc::new(TokenVerifier::new([])),
        Clock::system(),
        shutdown.clone(),
    )
}

pub(super) fn node_id() -> NodeId {
    NodeId::try_from("all".to_owned()).unwrap()
}

#[tokio::test]
async fn a_server_is_ready_when_its_database_answers_and_its_node_is_reached() {
    let folder = tempfile::tempdir().unwrap();
    let config = AllConfig { data_dir: folder.path().to_owned(), quic: false, ..AllConfig::default() };
    let origin = PublicOrigin::parse("http://localhost:48200").unwrap();
    let shutdown = Shutdown::new();
    let identity = identity(&config, &origin).unwrap();
    let roles = Roles::start(&config, &origin, config.listen, &identity, &shutdown).await.unwrap();
    let readiness = Readiness::default();
    watch(&readiness, roles.sql.clone(), roles.gateway.handle());
    roles.gateway.handle().ready().await;
    assert_eq!(readiness.missing().await, []);
    roles.sql.close().await;
    assert_eq!(readiness.missing().await, [("database", "it does not answer")]);
}

#[tokio::test]
async fn a_server_whose_node_is_out_of_reach_is_not_ready() {
    let folder = tempfile::tempdir().unwrap();
    let sql = Sql::open_sqlite(&folder.path().join("flydex.sqlite")).await.unwrap();
    let directory = InProcessDirectory::default();
    let record = NodeRecord {
        incarnation: Incarnation::from_bytes([1; 16]),
        node_id: node_id(),
        address: "memory://all".to_owned(),
        state: NodeState::Active,
        machines: 0,
    };
    directory.renew(record, 1).await.unwrap();
    let nowhere = |_: &NodeRecord| {
        let nowhere = tower::service_fn(|_: Uri| std::future::pending::<Result<Unconnected, std::io::Error>>());
        Ok(Endpoint::from_static("http://node.invalid").connect_with_connector_lazy(nowhere))
    };
    let gateway = gateway(nowhere, Arc::new(directory), &Shutdown::new());
    let readiness = Readiness::default();
    watch(&readiness, sql, gateway.handle());
    assert_eq!(readiness.missing().await, [("node", "none is reached on every stream")]);
}

type Unconnected = hyper_util::rt::TokioIo<tokio::io::DuplexStream>;
