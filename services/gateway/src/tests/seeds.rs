//! Nodes that names lead to, while the directory does not answer.

use std::sync::Arc;

use bytes::Bytes;
use flydex_proto::v1;
use flydex_proto::v1::session_up::Kind as SessionUp;
use flydex_store::directory::Directory as _;

use super::directory::Switched;
use super::host::{life, record, wire};
use super::wire::{Browser, Connector, Over};
use super::world::{GATEWAY, REGION, World, machine, soon};
use crate::seeds::{Found, Seeds, look};

fn open() -> SessionUp {
    SessionUp::Open(v1::OpenMachine { machine_id: Bytes::copy_from_slice(machine(1).as_bytes()) })
}

/// Opens machine 1 in a session: the number of the node at which it arrives.
async fn opened(world: &mut World, ticket: u128) -> (Browser, u8) {
    let (mut browser, _) = Browser::open(world, ticket).await;
    browser.send(open()).await;
    let arrived = futures_util::future::select_all(world.nodes().map(|host| Box::pin(host.session_opened())));
    let (_, index, _) = soon(arrived).await;
    (browser, u8::try_from(index).unwrap() + 1)
}

/// Lets the gateway ask the directory again.
async fn asked_again(world: &World) {
    let asked = world.directory.members_asked();
    soon(async {
        while world.directory.members_asked() < asked + 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_gateway_that_starts_without_the_directory_serves_at_the_nodes_that_names_lead_to() {
    let mut world = World::named(3).await;
    let (_one, tag) = opened(&mut world, 1).await;
    let (_two, same) = opened(&mut world, 2).await;
    assert_eq!(same, tag, "everybody agrees on one node");
    let mut connectors = Vec::new();
    for over in Over::ALL {
        let (connector, link_id) = Connector::open(&world, over).await;
        connectors.push(connector);
        let (_, open) = soon(world.node(tag).link_opened()).await;
        assert_eq!(open.link_id, link_id, "{over:?}");
    }
    let mut asked = world.names.as_ref().unwrap().asked();
    asked.sort_unstable();
    assert_eq!(asked, [1, 2, 3], "who answers is not asked again");
}

#[tokio::test]
async fn the_directorys_word_holds_as_soon_as_it_answers() {
    let mut world = World::named(3).await;
    let (_one, tag) = opened(&mut world, 1).await;
    world.directory.set_away(false);
    let owner = if tag == 1 { 2 } else { 1 };
    for tag in [owner, 3] {
        world.directory.renew(record(tag), 1).await.unwrap();
    }
    world.owned_by(owner).await;
    asked_again(&world).await;
    world.node(tag).way.kill();
    let (_two, at) = opened(&mut world, 2).await;
    assert_eq!(at, owner);
}

#[tokio::test]
async fn names_are_not_asked_while_the_directory_answers() {
    let world = World::found_by(2, Arc::new(Switched::default()), Some(vec![1, 2])).await;
    asked_again(&world).await;
    assert!(world.names.as_ref().unwrap().asked().is_empty());
}

#[tokio::test]
async fn a_node_that_comes_later_is_found_where_names_lead() {
    let mut world = World::named(1).await;
    world.add_node(2).await;
    tokio::time::pause();
    world.names.as_ref().unwrap().lead_to(&[1, 2]);
    soon(world.service.handle().nodes_ready(2)).await;
    tokio::time::resume();
    world.node(1).way.kill();
    let (_browser, tag) = opened(&mut world, 1).await;
    assert_eq!(tag, 2);
}

#[tokio::test]
async fn who_is_no_node_of_the_region_is_not_found() {
    let mut world = World::named(1).await;
    world.add_node(2).await;
    let names = world.names.clone().unwrap();
    names.lead_to(&[1, 2, 9]);
    let names = names as Arc<dyn Seeds>;
    let ours = v1::GatewayHello { gateway_id: GATEWAY.to_owned(), region: REGION.to_owned() };
    let hello = |incarnation, region: &str, node_id: &str| v1::NodeHello {
        incarnation,
        node_id: node_id.to_owned(),
        region: region.to_owned(),
    };
    let wrong = [
        Some(hello(wire(life(2)), "far", "node-2")),
        Some(hello(wire(life(2)), REGION, "")),
        Some(hello(Bytes::from_static(b"short"), REGION, "node-2")),
        None,
    ];
    for wrong in wrong {
        world.node(2).way.greets_with(wrong);
        let found = look(&names, &ours, &Found::new()).await.unwrap();
        assert_eq!(found.keys().collect::<Vec<_>>(), ["1"]);
    }
    world.node(2).way.greets_with(Some(hello(wire(life(2)), REGION, "node-2")));
    assert_eq!(look(&names, &ours, &Found::new()).await.unwrap().len(), 2);
}
