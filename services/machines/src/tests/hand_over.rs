use std::sync::Arc;
use std::time::Duration;

use flydex_domain::error::ErrorCode;
use flydex_domain::scope::Role;
use flydex_proto::v1;
use flydex_proto::v1::machine_message::Kind as Said;

use super::fixture::*;
use super::fleet::Fleet;

#[tokio::test]
async fn a_draining_node_hands_a_machine_over_once_its_connector_has_what_was_forwarded() {
    let node = Node::start().await;
    let mut gateway = node.gateway().await;
    node.directory.join(OTHER_NODE).await;
    let epoch = gateway.linked(&node, 1, 1, 1).await;
    gateway.opened(&node, 1, 1, Role::Owner).await;
    gateway.ask(1, &start_turn(1, 1, "hello")).await;
    gateway.forwarded(1).await;
    node.shutdown.begin();
    let progress = v1::Progress { command_id: id(1), state: v1::ProgressState::Delivered.into() };
    gateway.answer(1, &epoch, 1, Said::Progress(progress)).await;
    gateway.progress(1, v1::ProgressState::Delivered).await;
    assert_eq!(gateway.not_owner(id(1)).await, Some(OTHER_NODE), "its link");
    assert_eq!(gateway.not_owner(id(1)).await, Some(OTHER_NODE), "its session");
    assert_eq!(node.owner().await.unwrap().holder, None, "the successor need not take it by force");
    while gateway.next().await.is_some() {}
    assert!(node.shutdown.drain(Duration::from_secs(10)).await, "no task is left");
}

#[tokio::test]
async fn the_successor_owns_the_machine_above_the_one_that_went() {
    let first = Node::start().await;
    let second = Node::join(OTHER_NODE, Arc::clone(&first.directory)).await;
    until(async || first.directory.is_member(OTHER_NODE).await).await;
    let mut gateway = first.gateway().await;
    let before = gateway.linked(&first, 1, 1, 1).await;
    gateway.opened(&first, 1, 1, Role::Owner).await;
    first.shutdown.begin();
    assert_eq!(gateway.not_owner(id(1)).await, Some(OTHER_NODE));
    let mut gateway = second.gateway().await;
    gateway.opened(&second, 1, 1, Role::Owner).await;
    let after = gateway.linked(&second, 1, 1, 1).await;
    assert!(after.counter > before.counter && after.incarnation == copy(OTHER_NODE.as_bytes()));
    gateway.state(1, v1::MachineState::CodexReady).await;
    assert!(first.shutdown.drain(Duration::from_secs(10)).await);
    assert_eq!(second.owner().await.unwrap().holder, Some(OTHER_NODE), "what the first still does changes nothing");
}

#[tokio::test]
async fn a_command_that_comes_during_a_hand_over_is_told_that_the_machine_moves() {
    let node = Node::start().await;
    let mut gateway = node.gateway().await;
    node.directory.join(OTHER_NODE).await;
    gateway.linked(&node, 1, 1, 1).await;
    gateway.opened(&node, 1, 1, Role::Owner).await;
    // Never delivered: the hand-over waits for as long as it may.
    gateway.ask(1, &start_turn(1, 1, "hello")).await;
    gateway.forwarded(1).await;
    node.shutdown.begin();
    until(async || node.handle.host.find_or_start(machine_key()).is_err()).await;
    gateway.open(ACCOUNT, MACHINE, 2, node.grant(ACCOUNT, 1, Role::Owner)).await;
    assert_eq!(gateway.session_end(2).await, ErrorCode::Moving);
    assert_eq!(gateway.not_owner(id(1)).await, Some(OTHER_NODE));
}

#[tokio::test(start_paused = true)]
async fn in_a_drain_of_many_machines_few_are_without_an_owner_at_a_time() {
    let first = Node::start().await;
    let second = Node::join(OTHER_NODE, Arc::clone(&first.directory)).await;
    let mut fleet = Fleet::new([&first, &second]).await;
    fleet.link(100, 2).await;
    first.shutdown.begin();
    fleet.until(|fleet| fleet.held_by(1) == 100 && fleet.all_open()).await;
    assert!(fleet.most_homeless <= 20, "of 100 machines {}", fleet.most_homeless);
    assert_eq!(fleet.ended, [], "nobody lost its socket or its session");
    assert!(first.shutdown.drain(Duration::from_secs(60)).await);
}

#[tokio::test]
async fn machines_are_spread_over_the_nodes_that_stay_and_none_comes_back() {
    let node = Node::start().await;
    node.directory.join(OTHER_NODE).await;
    node.directory.join(THIRD_NODE).await;
    until(async || node.directory.is_member(INCARNATION).await).await;
    let mut successors = crate::hand_over::Successors::look(&node.handle.host.context).await;
    let mut seen = std::collections::BTreeMap::new();
    for number in 0..400_u128 {
        // Any spread will do, as long as the low half differs the way random ids do.
        let machine = machine_key_of(number.wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835));
        *seen.entry(successors.choose(machine)).or_insert(0) += 1;
    }
    assert_eq!(seen.len(), 2, "{seen:?}");
    assert!(seen[&Some(OTHER_NODE)] > 100 && seen[&Some(THIRD_NODE)] > 100, "{seen:?}");
}
