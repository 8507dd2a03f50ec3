use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use flydex_domain::limits::{ASSERT_ALL_INTERVAL, LEASE_RENEW_INTERVAL};
use flydex_domain::placement::{NodeRecord, NodeState};
use flydex_domain::scope::Role;
use flydex_proto::v1::node_frame::Kind as FromNode;
use flydex_store::directory::Directory as _;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

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

/// Counts the warnings of this thread.
#[derive(Clone, Default)]
struct Warnings(Arc<AtomicUsize>);

impl<S: tracing::Subscriber> Layer<S> for Warnings {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        self.0.fetch_add(usize::from(*event.metadata().level() == tracing::Level::WARN), Ordering::SeqCst);
    }
}

#[tokio::test]
async fn a_directory_that_stays_away_is_warned_of_once() {
    let warnings = Warnings::default();
    let _guard = tracing_subscriber::registry().with(warnings.clone()).set_default();
    let node = Node::start().await;
    until(async || node.records().await.len() == 1).await;
    let before = node.directory.refused();
    node.directory.set_away(true);
    until(async || node.directory.refused() >= before + 3).await;
    assert_eq!(warnings.0.load(Ordering::SeqCst), 1);
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
async fn a_stream_without_a_hello_of_this_region_ends_and_a_second_hello_changes_nothing() {
    let node = Node::start().await;
    let nameless = node.stranger().await;
    nameless.greet("", "home").await;
    let elsewhere = node.stranger().await;
    elsewhere.greet("gateway-9", "far").await;
    let mut silent = node.stranger().await;
    silent.open(ACCOUNT, MACHINE, 1, node.grant(ACCOUNT, 1, Role::Owner)).await;
    for mut stranger in [nameless, elsewhere, silent] {
        while stranger.next().await.is_some() {}
    }
    assert!(node.handle.inspect(machine_key()).await.is_err(), "nothing was opened");
    let mut gateway = node.gateway().await;
    gateway.greet("gateway-2", "home").await;
    gateway.opened(&node, 1, 1, Role::Owner).await;
}

#[tokio::test]
async fn a_directory_that_has_forgotten_is_told_again_who_owns_a_machine_and_where_it_is_linked() {
    let node = Node::start().await;
    let mut gateway = node.gateway().await;
    gateway.linked(&node, 1, 7, 1).await;
    until(async || node.owner().await.is_some_and(|record| record.link.is_some())).await;
    let before = node.owner().await.unwrap();
    assert_eq!(before.holder, Some(INCARNATION));
    let link = before.link.as_ref().unwrap();
    assert_eq!((link.counter, link.gateway_id.as_str()), (7, "gateway-1"));
    node.directory.forget();
    until(async || node.owner().await.as_ref() == Some(&before)).await;
}

#[tokio::test]
async fn an_ownership_that_was_taken_while_the_directory_was_away_is_given_up_when_it_is_back() {
    let node = Node::start().await;
    let mut gateway = node.gateway().await;
    node.directory.set_away(true);
    let epoch = gateway.linked(&node, 1, 1, 1).await;
    assert_eq!(epoch.counter, 1, "minted without the directory");
    gateway.opened(&node, 1, 1, Role::Owner).await;
    node.directory.take_over(machine_key(), OTHER_NODE, 5).await;
    node.directory.set_away(false);
    assert_eq!(gateway.not_owner(id(1)).await, Some(OTHER_NODE));
    assert_eq!(gateway.not_owner(id(1)).await, Some(OTHER_NODE), "its link, then its session");
    until(async || node.handle.inspect(machine_key()).await.is_err()).await;
    assert_eq!(node.owner().await.unwrap().holder, Some(OTHER_NODE));
}

#[tokio::test]
async fn an_ownership_minted_without_the_directory_is_on_record_when_it_is_back() {
    let node = Node::start().await;
    let mut gateway = node.gateway().await;
    node.directory.set_away(true);
    gateway.linked(&node, 1, 1, 1).await;
    gateway.opened(&node, 1, 1, Role::Owner).await;
    node.directory.set_away(false);
    until(async || node.owner().await.is_some_and(|record| record.link.is_some())).await;
    assert_eq!(node.owner().await.unwrap().holder, Some(INCARNATION));
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_was_replaced_by_force_hears_of_it_without_asking() {
    let node = Node::start().await;
    let mut gateway = node.gateway().await;
    gateway.linked(&node, 1, 1, 1).await;
    until(async || node.owner().await.is_some_and(|record| record.link.is_some())).await;
    node.directory.force(machine_key(), OTHER_NODE, INCARNATION).await;
    let before = tokio::time::Instant::now();
    assert_eq!(gateway.not_owner(id(1)).await, Some(OTHER_NODE), "its link goes to the node that sessions find");
    assert!(before.elapsed() <= ASSERT_ALL_INTERVAL + LEASE_RENEW_INTERVAL);
}

#[tokio::test]
async fn without_a_link_nobody_on_record_is_replaced_when_the_directory_is_back() {
    let node = Node::start().await;
    let mut gateway = node.gateway().await;
    node.directory.take_over(machine_key(), OTHER_NODE, 1).await;
    node.directory.set_away(true);
    gateway.opened(&node, 1, 1, Role::Owner).await;
    node.directory.set_away(false);
    assert_eq!(gateway.not_owner(id(1)).await, Some(OTHER_NODE));
    assert_eq!(node.owner().await.unwrap().holder, Some(OTHER_NODE));
}
