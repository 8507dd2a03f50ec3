use std::sync::Arc;

use flydex_domain::limits::REBALANCE_INTERVAL;
use flydex_domain::placement::NodeState;
use flydex_store::directory::Directory as _;

use super::fixture::*;
use super::fleet::Fleet;

#[tokio::test(start_paused = true)]
async fn a_node_that_comes_gets_its_share_and_nobody_loses_anything() {
    let first = Node::start().await;
    let second = Node::join(OTHER_NODE, Arc::clone(&first.directory)).await;
    let mut fleet = Fleet::new([&first, &second]).await;
    fleet.link(60, 2).await;
    let since = tokio::time::Instant::now();
    fleet.until(|fleet| fleet.held_by(1) == 22 && fleet.all_open()).await;
    assert!(since.elapsed() > REBALANCE_INTERVAL * 21, "one at a time: {:?}", since.elapsed());
    fleet.pass(REBALANCE_INTERVAL * 3).await;
    assert_eq!([fleet.held_by(0), fleet.held_by(1)], [38, 22], "then it rests");
    assert!(fleet.all_open());
    assert_eq!(fleet.ended, [], "every link and session stayed on its socket");
}

#[tokio::test(start_paused = true)]
async fn what_has_a_command_in_flight_stays() {
    let first = Node::start().await;
    let mut gateway = first.gateway().await;
    gateway.linked(&first, 1, 1, 1).await;
    gateway.opened(&first, 1, 1, flydex_domain::scope::Role::Owner).await;
    gateway.ask(1, &start_turn(1, 1, "hello")).await;
    gateway.forwarded(1).await;
    let second = Node::join(OTHER_NODE, Arc::clone(&first.directory)).await;
    let mut fleet = Fleet::new([&first, &second]).await;
    fleet.link_from(10, 40, 0).await;
    fleet.pass(REBALANCE_INTERVAL * 12).await;
    assert_eq!([fleet.held_by(0), fleet.held_by(1)], [23, 8], "of the others as many as are to move");
    assert!(first.handle.inspect(machine_key()).await.is_ok_and(|seen| seen.in_flight == 1));
}

#[tokio::test(start_paused = true)]
async fn nothing_moves_while_a_node_drains() {
    let first = Node::start().await;
    let second = Node::join(OTHER_NODE, Arc::clone(&first.directory)).await;
    let mut fleet = Fleet::new([&first, &second]).await;
    fleet.link(20, 1).await;
    let mut third = first.directory.members().await.unwrap().members.remove(0).record;
    (third.incarnation, third.state) = (THIRD_NODE, NodeState::Draining);
    for beat in 1..60 {
        first.directory.renew(third.clone(), beat).await.unwrap();
        fleet.pass(REBALANCE_INTERVAL / 10).await;
    }
    assert_eq!(fleet.held_by(0), 20);
    first.directory.leave(THIRD_NODE).await.unwrap();
    fleet.until(|fleet| fleet.held_by(1) == 2 && fleet.all_open()).await;
}
