use flydex_domain::error::ErrorCode;
use flydex_domain::scope::Role;
use flydex_proto::v1;
use flydex_proto::v1::connector_frame::Kind as FromConnector;
use flydex_proto::v1::gateway_frame::Kind as ToNode;
use flydex_proto::v1::machine_message::Kind as Said;
use flydex_proto::v1::node_frame::Kind as FromNode;

use super::fixture::*;

#[tokio::test]
async fn a_machine_of_another_live_node_is_not_taken_and_its_node_is_named() {
    let node = Node::start().await;
    let mut gateway = node.gateway().await;
    node.directory.take_over(machine_key(), OTHER_NODE, 5).await;
    gateway.open(ACCOUNT, MACHINE, 1, node.grant(ACCOUNT, 1, Role::Owner)).await;
    assert_eq!(gateway.not_owner(id(1)).await, Some(OTHER_NODE));
    gateway.open_link(2, 1, 1, node.credential(ACCOUNT, MACHINE)).await;
    assert_eq!(gateway.not_owner(id(2)).await, Some(OTHER_NODE));
    until(async || node.handle.inspect(machine_key()).await.is_err()).await;
}

#[tokio::test]
async fn a_machine_of_a_node_that_the_gateway_has_lost_is_taken_at_once() {
    let node = Node::start().await;
    let mut gateway = node.gateway().await;
    node.directory.take_over(machine_key(), OTHER_NODE, 5).await;
    let open = v1::OpenSession {
        session_id: id(1),
        grant: node.grant(ACCOUNT, 1, Role::Owner),
        replacing: copy(OTHER_NODE.as_bytes()),
    };
    gateway.send(ACCOUNT, MACHINE, ToNode::OpenSession(open)).await;
    gateway.find(|kind| matches!(kind, FromNode::SessionOpened(_)).then_some(())).await;
    let record = node.owner().await.unwrap();
    assert_eq!(record.holder, Some(INCARNATION));
    let epoch = gateway.linked(&node, 1, 1, 1).await;
    assert_eq!(epoch.counter, record.epoch.counter);
}

#[tokio::test]
async fn an_owner_whose_connector_attached_elsewhere_sends_everybody_there() {
    let node = Node::start().await;
    let mut gateway = node.gateway().await;
    let epoch = gateway.linked(&node, 1, 1, 1).await;
    gateway.opened(&node, 2, 1, Role::Owner).await;
    gateway.ask(2, &start_turn(1, 1, "hello")).await;
    gateway.forwarded(1).await;
    let highest = v1::Epoch { counter: epoch.counter + 1, incarnation: copy(OTHER_NODE.as_bytes()) };
    gateway.link_frame(1, None, FromConnector::Stale(v1::Stale { highest: Some(highest) })).await;
    assert_eq!(gateway.failure(2).await, ErrorCode::Moving, "the command is asked of the new owner");
    assert_eq!(gateway.not_owner(id(2)).await, Some(OTHER_NODE));
    assert_eq!(gateway.not_owner(id(1)).await, Some(OTHER_NODE));
}

#[tokio::test]
async fn a_session_whose_link_came_up_at_another_node_is_sent_there() {
    let node = Node::start().await;
    let mut gateway = node.gateway().await;
    gateway.opened(&node, 1, 1, Role::Owner).await;
    node.directory.take_over(machine_key(), OTHER_NODE, 5).await;
    node.clock.advance(flydex_domain::limits::OWNER_LOOK_WAIT_MIN);
    assert_eq!(gateway.not_owner(id(1)).await, Some(OTHER_NODE));
}

#[tokio::test]
async fn a_link_below_the_counter_on_record_is_told_that_counter() {
    let node = Node::start().await;
    let mut gateway = node.gateway().await;
    gateway.linked(&node, 1, 40, 1).await;
    until(async || node.owner().await.is_some_and(|record| record.link.is_some())).await;
    gateway.open_link(2, 3, 1, node.credential(ACCOUNT, MACHINE)).await;
    assert_eq!(gateway.superseded(2).await, 40);
    gateway.send(ACCOUNT, MACHINE, ToNode::CloseLink(v1::CloseLink { link_id: id(1) })).await;
    // Nothing here remembers the first link; the directory does.
    gateway.linked(&node, 3, 3, 1).await;
    assert_eq!(gateway.superseded(3).await, 40);
}

#[tokio::test]
async fn a_session_that_waits_for_an_ownership_is_answered_and_its_commands_are_too() {
    let node = Node::start().await;
    let mut gateway = node.gateway().await;
    let answers = node.directory.hold_answers().await;
    gateway.open(ACCOUNT, MACHINE, 1, node.grant(ACCOUNT, 1, Role::Owner)).await;
    gateway.ask(1, &start_turn(1, 1, "hello")).await;
    assert_eq!(gateway.failure(1).await, ErrorCode::MachineOffline);
    assert!(!gateway.has_seen(|kind| matches!(kind, FromNode::SessionOpened(_))));
    assert!(!gateway.has_seen(|kind| matches!(kind, FromNode::ToSession(to)
        if matches!(to.message.as_ref().and_then(|message| message.kind.as_ref()), Some(Said::Status(_))))));
    drop(answers);
    gateway.find(|kind| matches!(kind, FromNode::SessionOpened(_)).then_some(())).await;
    gateway.state(1, v1::MachineState::Offline).await;
}
