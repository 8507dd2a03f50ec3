//! The core over real links, between relays of two regions whose owners know nothing of each other.

use std::time::Duration;

use flydex_domain::epoch::Epoch;
use flydex_domain::id::Incarnation;
use flydex_domain::region::DRAIN_HINT;
use flydex_proto::v1;
use flydex_proto::v1::connector_frame::Kind as Frame;
use flydex_proto::v1::link_down::Kind as Down;
use flydex_proto::v1::link_up::Kind as Up;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

use super::world::*;
use crate::core::CoreConfig;
use crate::link;
use crate::link::tests::{Peer as _, WebSocketPeer, endpoint, listen, upgrade_if_asked, welcome};
use crate::paired::{Entropy, LinkStatus, PairedState, RegionEndpoint};
use crate::storage::memory::MemoryStorage;

type Relay = WebSocketPeer<TcpStream>;

fn of(node: u8, counter: u64) -> Epoch {
    Epoch { counter, incarnation: Incarnation::from_bytes([node; 16]) }
}

/// Gives the core links of its own to these regions.
fn link_to(world: &World, regions: watch::Receiver<Vec<RegionEndpoint>>) {
    let paired = PairedState { regions, ..world.paired.clone() };
    let config = CoreConfig {
        paired,
        boot_id: world.boot_id,
        connector_version: "1".to_owned(),
        entropy: Entropy::from_fn(|bytes| bytes.fill(0)),
        journal: Box::new(MemoryStorage::default()),
        devices: Box::new(MemoryStorage::default()),
        fence: world.fence.clone(),
        spool: world.spool.clone(),
        approval_lifetime: flydex_domain::limits::APPROVAL_LIFETIME,
        desk: mpsc::channel(1).1,
        status: watch::Sender::default(),
        region_report: watch::Sender::default(),
    };
    link::start(link::Config::of(&config), world.links.clone(), world.clock.clone(), &world.shutdown);
}

/// The next that asks for a link: a probe says nothing and goes.
async fn linked(listener: &TcpListener) -> Relay {
    loop {
        let stream = listener.accept().await.unwrap().0;
        if let Some(relay) = upgrade_if_asked(stream).await {
            return relay;
        }
    }
}

async fn owner(relay: &mut Relay, epoch: Epoch, kind: v1::owner_frame::Kind) {
    relay.send(Down::Frame(v1::OwnerFrame { epoch: Some(epoch.into()), kind: Some(kind) })).await;
}

async fn attach(relay: &mut Relay, epoch: Epoch) -> Frame {
    owner(relay, epoch, v1::owner_frame::Kind::Attach(v1::AttachOwner {})).await;
    answer(relay).await
}

/// The next word about ownership.
async fn answer(relay: &mut Relay) -> Frame {
    loop {
        let Up::Frame(v1::ConnectorFrame { kind: Some(kind), .. }) = relay.receive().await.expect("a frame") else {
            continue;
        };
        if matches!(kind, Frame::Attached(_) | Frame::Stale(_)) {
            return kind;
        }
    }
}

fn attached(epoch: Epoch) -> Frame {
    Frame::Attached(v1::Attached { highest: Some(epoch.into()) })
}

fn stale(highest: Epoch) -> Frame {
    Frame::Stale(v1::Stale { highest: Some(highest.into()) })
}

#[tokio::test]
async fn a_move_to_another_region_is_made_before_the_break_and_fenced_by_the_epoch() {
    let ((here, at_here), (there, at_there)) = (listen().await, listen().await);
    let region = |name: &str, at| RegionEndpoint { region: name.to_owned(), ..endpoint(at, "ws", None, None) };
    let (list, regions) = watch::channel(vec![region("here", at_here)]);
    let mut world = World::boot(Disks::new(), 4).await;
    link_to(&world, regions);
    let mut old = linked(&here).await;
    welcome(&mut old, None).await;
    assert!(attach(&mut old, of(1, 5)).await == attached(of(1, 5)));

    list.send_replace(vec![region("here", at_here), region("there", at_there)]);
    let away = v1::GoAway { reconnect_in_ms: 1, try_for_ms: 30_000, hint: DRAIN_HINT.to_owned() };
    old.send(Down::GoAway(away)).await;
    let mut new = linked(&there).await;
    welcome(&mut new, None).await;
    // Make before break: the old owner still serves, and the new one cannot go below it.
    assert!(attach(&mut new, of(2, 1)).await == stale(of(1, 5)));
    assert!(attach(&mut old, of(1, 5)).await == attached(of(1, 5)));
    assert!(attach(&mut new, of(2, 6)).await == attached(of(2, 6)));
    let ends = async { while old.receive().await.is_some() {} };
    tokio::time::timeout(Duration::from_secs(10), ends).await.expect("the old link ends");
    assert_eq!(world.fence.highest(), of(2, 6));

    // The new region is lost, and the old one, which has never heard of its owner, takes over again.
    drop((new, there));
    let mut back = linked(&here).await;
    welcome(&mut back, None).await;
    assert!(attach(&mut back, of(1, 5)).await == stale(of(2, 6)));
    assert!(attach(&mut back, of(3, 7)).await == attached(of(3, 7)));
    let is_attached = |status: &Option<_>| {
        status.is_some_and(|status: crate::paired::CoreStatus| matches!(status.link, LinkStatus::Attached(_)))
    };
    world.status.wait_for(is_attached).await.unwrap();
}
