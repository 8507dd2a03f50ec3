use std::time::Duration;

use flydex_domain::placement::{NodeRecord, NodeState};
use flydex_domain::scope::Role;
use flydex_proto::v1;
use flydex_proto::v1::gateway_frame::Kind as ToNode;
use flydex_proto::v1::node_frame::Kind as FromNode;
use flydex_store::directory::Directory as _;

use super::fixture::*;

impl Node {
    async fn records(&self) -> Vec<NodeRecord> {
        let members = self.directory.members().await.map_or_else(|_| Vec::new(), |members| members.members);
        members.into_iter().map(|member| member.record).collect()
    }
}

#[tokio::test]
async fn a_node_is_on_record_with_its_load_until_it_has_drained() {
    let node = Node::start().await;
    let mut gateway = node.gateway().await;
    until(async || node.records().await.len() == 1).await;
    gateway.opened(&node, 1, 1, Role::Owner).await;
    until(async || node.records().await.iter().any(|record| record.machines == 1)).await;
    let record = node.records().await.remove(0);
    assert_eq!((record.incarnation, record.address.as_str()), (INCARNATION, "memory://node-1"));
    assert_eq!(record.state, NodeState::Active);
    assert!(node.shutdown.drain(Duration::from_secs(10)).await);
    assert!(node.records().await.is_empty());
}

#[tokio::test]
async fn a_node_goes_on_without_a_directory_and_is_on_record_again_when_it_is_back() {
    let node = Node::start().await;
    until(async || node.records().await.len() == 1).await;
    node.directory.set_away(true);
    let mut gateway = node.gateway().await;
    gateway.opened(&node, 1, 1, Role::Owner).await;
    node.directory.forget();
    node.directory.set_away(false);
    until(async || node.records().await.len() == 1).await;
}

#[tokio::test]
async fn a_stream_begins_with_the_nodes_hello() {
    let node = Node::start().await;
    let mut gateway = node.gateway().await;
    let Some(FromNode::Hello(hello)) = gateway.next().await.and_then(|frame| frame.kind) else {
        panic!("the hello comes first");
    };
    assert_eq!(hello.incarnation, copy(INCARNATION.as_bytes()));
    assert_eq!((hello.node_id.as_str(), hello.region.as_str()), ("node-1", "home"));
}

#[tokio::test]
async fn a_gateways_hello_that_makes_no_sense_harms_nobody() {
    let node = Node::start().await;
    let mut gateway = node.gateway().await;
    for gateway_id in ["gateway-1", "gateway-2", ""] {
        let hello = v1::GatewayHello { gateway_id: gateway_id.to_owned(), region: "home".to_owned() };
        gateway.send(ACCOUNT, MACHINE, ToNode::Hello(hello)).await;
    }
    gateway.opened(&node, 1, 1, Role::Owner).await;
}
