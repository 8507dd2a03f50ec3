//! Many nodes: finding a machine's owner, following it, and losing it.

use bytes::Bytes;
use flydex_domain::error::ErrorCode;
use flydex_domain::id::Incarnation;
use flydex_domain::limits;
use flydex_domain::placement::{NodeRecord, NodeState};
use flydex_domain::token::MachineCredential;
use flydex_proto::v1;
use flydex_proto::v1::gateway_frame::Kind as ToNode;
use flydex_proto::v1::link_down::Kind as LinkDown;
use flydex_proto::v1::machine_message::Kind as Said;
use flydex_proto::v1::node_frame::Kind as FromNode;
use flydex_proto::v1::owner_frame::Kind as OwnerKind;
use flydex_proto::v1::session_down::Kind as SessionDown;
use flydex_proto::v1::session_up::Kind as SessionUp;
use flydex_store::directory::{Directory as _, DirectoryError};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use super::host::{Arrived, life, record, to_session, wire};
use super::wire::{Browser, Connector, Over, link_hello};
use super::world::{World, machine, machine_key_1, soon};

fn open() -> SessionUp {
    SessionUp::Open(v1::OpenMachine { machine_id: Bytes::copy_from_slice(machine(1).as_bytes()) })
}

fn probe() -> SessionUp {
    let kind = Some(v1::device_message::Kind::Probe(v1::Probe { nonce: 1 }));
    let message = Some(v1::DeviceMessage { trace: None, kind });
    let machine_id = Bytes::copy_from_slice(machine(1).as_bytes());
    SessionUp::ToMachine(v1::ToMachine { machine_id, message })
}

fn event(seq: u64) -> Said {
    Said::Event(v1::Event { stream_id: 0, seq, body: Bytes::from_static(b"x") })
}

fn not_owner(owner: Option<Incarnation>, subject_id: &Bytes) -> FromNode {
    let owner = owner.map_or_else(Bytes::new, wire);
    FromNode::NotOwner(v1::NotOwner { owner, subject_id: subject_id.clone() })
}

fn attach(link_id: &Bytes) -> FromNode {
    let frame = v1::OwnerFrame { epoch: None, kind: Some(OwnerKind::Attach(v1::AttachOwner {})) };
    FromNode::ToLink(v1::NodeToLink { link_id: link_id.clone(), frame: Some(frame) })
}

/// A session with machine 1 open at the node of that number.
async fn session_at(world: &mut World, tag: u8, ticket: u128) -> (Browser, Bytes, Arrived) {
    let (mut browser, session_id) = Browser::open(world, ticket).await;
    browser.send(open()).await;
    let (arrived, _) = soon(world.node(tag).session_opened()).await;
    (browser, session_id, arrived)
}

async fn first_event(browser: &mut Browser) -> u64 {
    let SessionDown::FromMachine(from) = browser.next().await else { panic!("an event comes first") };
    let Some(Said::Event(event)) = from.message.unwrap().kind else { panic!("an event comes first") };
    event.seq
}

async fn told_that_it_moves(browser: &mut Browser) {
    let SessionDown::MachineClosed(closed) = browser.next().await else { panic!("the machine is closed") };
    assert_eq!(closed.code, u32::from(ErrorCode::Moving.number()));
    let advice = std::time::Duration::from_millis(closed.retry_after_ms.into());
    assert!(advice >= limits::MOVING_RETRY_AFTER_MIN && advice <= limits::MOVING_RETRY_AFTER_MAX, "{advice:?}");
}

/// The number of the node at which something is opened first.
async fn opened_somewhere(world: &mut World) -> (u8, Arrived) {
    let arrived = soon(futures_util::future::select_all(world.nodes().map(|host| Box::pin(host.next()))));
    let (arrived, index, _) = arrived.await;
    (u8::try_from(index).unwrap() + 1, arrived)
}

#[tokio::test]
async fn a_machine_is_opened_at_its_owner_and_nowhere_else() {
    let mut world = World::with_nodes(3).await;
    world.owned_by(2).await;
    let (_browser, _, _) = session_at(&mut world, 2, 1).await;
    let (_connector, link_id) = Connector::open(&world, Over::PlainWebSocket).await;
    let (_, open) = soon(world.node(2).link_opened()).await;
    assert_eq!((open.link_id, open.replacing), (link_id, Bytes::new()));
    assert!(world.node(1).is_idle() && world.node(3).is_idle());
}

#[tokio::test]
async fn everybody_finds_the_same_node_for_a_machine_that_nobody_owns() {
    let mut world = World::with_nodes(3).await;
    let (_connector, _) = Connector::open(&world, Over::PlainWebSocket).await;
    let (tag, _) = opened_somewhere(&mut world).await;
    let mut browsers = Vec::new();
    for ticket in 1..=5 {
        browsers.push(session_at(&mut world, tag, ticket).await);
    }
    assert_eq!(world.directory.found(), 1, "the others remember it");
}

#[tokio::test]
async fn an_open_follows_the_owner_that_a_node_names_and_later_ones_go_there_at_once() {
    let mut world = World::with_nodes(2).await;
    world.owned_by(1).await;
    let (mut browser, session_id, arrived) = session_at(&mut world, 1, 1).await;
    arrived.answer(not_owner(Some(life(2)), &session_id)).await;
    let (there, open) = soon(world.node(2).session_opened()).await;
    assert_eq!(open.session_id, session_id);
    // The first has nothing to say any more.
    arrived.answer(to_session(&session_id, event(9))).await;
    there.answer(to_session(&session_id, event(1))).await;
    assert_eq!(first_event(&mut browser).await, 1);
    session_at(&mut world, 2, 2).await;
    assert!(world.node(1).is_idle());
}

#[tokio::test]
async fn a_link_follows_the_owner_over_the_same_socket() {
    for over in Over::ALL {
        let mut world = World::with_nodes(2).await;
        world.owned_by(1).await;
        let (mut connector, link_id) = Connector::open(&world, over).await;
        let (arrived, _) = soon(world.node(1).link_opened()).await;
        arrived.answer(not_owner(Some(life(2)), &link_id)).await;
        let (there, open) = soon(world.node(2).link_opened()).await;
        assert_eq!((&open.link_id, open.replacing), (&link_id, Bytes::new()));
        there.answer(attach(&link_id)).await;
        assert!(matches!(connector.next().await, LinkDown::Frame(_)), "{over:?}");
    }
}

#[tokio::test]
async fn an_open_that_is_sent_from_node_to_node_ends_as_moving() {
    let mut world = World::with_nodes(2).await;
    world.owned_by(1).await;
    let (mut browser, session_id, arrived) = session_at(&mut world, 1, 1).await;
    arrived.answer(not_owner(Some(life(2)), &session_id)).await;
    let (arrived, _) = soon(world.node(2).session_opened()).await;
    arrived.answer(not_owner(Some(life(1)), &session_id)).await;
    let (arrived, _) = soon(world.node(1).session_opened()).await;
    arrived.answer(not_owner(Some(life(2)), &session_id)).await;
    told_that_it_moves(&mut browser).await;
    browser.send(SessionUp::Ping(v1::Ping { nonce: 1 })).await;
    assert!(matches!(browser.next().await, SessionDown::Pong(_)), "the session itself goes on");
    assert!(world.node(2).is_idle());
}

#[tokio::test]
async fn a_device_that_has_spoken_to_a_machine_is_told_when_its_owner_changes() {
    let mut world = World::with_nodes(2).await;
    world.owned_by(1).await;
    let (mut browser, session_id, arrived) = session_at(&mut world, 1, 1).await;
    browser.send(probe()).await;
    soon(world.node(1).next()).await;
    arrived.answer(not_owner(Some(life(2)), &session_id)).await;
    told_that_it_moves(&mut browser).await;
    // What it said before it heard of that is dropped without another word.
    browser.send(probe()).await;
    browser.send(open()).await;
    let (there, _) = soon(world.node(2).session_opened()).await;
    there.answer(to_session(&session_id, event(1))).await;
    assert_eq!(first_event(&mut browser).await, 1);
}

#[tokio::test]
async fn a_node_that_takes_a_machine_no_more_is_not_asked_about_it_again() {
    let mut world = World::with_nodes(2).await;
    world.owned_by(1).await;
    let (mut browser, session_id, arrived) = session_at(&mut world, 1, 1).await;
    world.directory.release(machine_key_1(), life(1)).await.unwrap();
    world.directory.renew(NodeRecord { state: NodeState::Draining, ..record(1) }, 2).await.unwrap();
    let asked = world.directory.members_asked();
    soon(async {
        while world.directory.members_asked() < asked + 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let code = ErrorCode::Moving.number().into();
    arrived.answer(FromNode::EndSession(v1::EndSession { session_id, code, retry_after_ms: 50 })).await;
    told_that_it_moves(&mut browser).await;
    browser.send(open()).await;
    soon(world.node(2).session_opened()).await;
}

#[tokio::test]
async fn a_link_that_its_node_turns_away_as_moving_is_opened_again_over_the_same_socket() {
    for over in Over::ALL {
        let mut world = World::with_nodes(2).await;
        world.owned_by(1).await;
        let (mut connector, link_id) = Connector::open(&world, over).await;
        let moving = || {
            let code = ErrorCode::Moving.number().into();
            FromNode::EndLink(v1::EndLink { link_id: link_id.clone(), code, retry_after_ms: 0, link_counter: 0 })
        };
        for _ in 0..=limits::FORWARDS_MAX {
            let (arrived, open) = soon(world.node(1).link_opened()).await;
            assert_eq!((&open.link_id, open.replacing), (&link_id, Bytes::new()), "{over:?}");
            arrived.answer(moving()).await;
        }
        let LinkDown::End(end) = connector.next().await else { panic!("it was too often") };
        assert_eq!(end.code, u32::from(ErrorCode::Moving.number()), "{over:?}");
    }
}

#[tokio::test]
async fn a_frozen_owner_loses_its_sessions_within_two_seconds_and_they_open_elsewhere() {
    let mut world = World::with_nodes(2).await;
    world.owned_by(1).await;
    let (mut browser, session_id, _) = session_at(&mut world, 1, 1).await;
    world.node(1).way.freeze();
    let began = tokio::time::Instant::now();
    told_that_it_moves(&mut browser).await;
    browser.send(open()).await;
    let (_, opening) = soon(world.node(2).session_opened()).await;
    // Its lease still says that it lives.
    assert_eq!((opening.session_id, opening.replacing), (session_id, wire(life(1))));
    assert!(began.elapsed() < std::time::Duration::from_secs(3), "{:?}", began.elapsed());
}

#[tokio::test]
async fn an_owner_that_has_just_come_is_asked_for_before_it_is_taken_for_gone() {
    let mut world = World::with_nodes(1).await;
    world.add_node(2).await;
    world.owned_by(2).await;
    let (_browser, _, _) = session_at(&mut world, 2, 1).await;
    assert!(world.node(1).is_idle());
}

#[tokio::test]
async fn a_machine_is_handed_over_to_a_node_that_has_just_come() {
    let mut world = World::with_nodes(1).await;
    world.owned_by(1).await;
    let (_connector, link_id) = Connector::open(&world, Over::ALL[0]).await;
    let (arrived, _) = soon(world.node(1).link_opened()).await;
    world.directory.release(machine_key_1(), life(1)).await.unwrap();
    world.add_node(2).await;
    arrived.answer(not_owner(Some(life(2)), &link_id)).await;
    let (_, open) = soon(world.node(2).link_opened()).await;
    assert_eq!(open.link_id, link_id);
    assert!(world.node(1).is_idle(), "the one that goes is not asked again");
}

#[tokio::test]
async fn a_killed_nodes_links_are_placed_again_and_its_machines_closed_in_sessions() {
    for over in Over::ALL {
        let mut world = World::with_nodes(2).await;
        world.owned_by(1).await;
        let (mut browser, session_id, _) = session_at(&mut world, 1, 1).await;
        let (mut connector, link_id) = Connector::open(&world, over).await;
        soon(world.node(1).link_opened()).await;
        world.node(1).way.kill();
        told_that_it_moves(&mut browser).await;
        let (there, open) = soon(world.node(2).link_opened()).await;
        assert_eq!((&open.link_id, open.replacing), (&link_id, wire(life(1))));
        there.answer(attach(&link_id)).await;
        assert!(matches!(connector.next().await, LinkDown::Frame(_)), "{over:?}");
        browser.send(self::open()).await;
        let (_, open) = soon(world.node(2).session_opened()).await;
        assert_eq!(open.session_id, session_id);
    }
}

#[tokio::test]
async fn a_frozen_node_is_given_up_and_is_not_heard_when_it_thaws() {
    let mut world = World::with_nodes(2).await;
    world.owned_by(1).await;
    let (mut connector, link_id) = Connector::open(&world, Over::PlainWebSocket).await;
    let (arrived, _) = soon(world.node(1).link_opened()).await;
    world.node(1).way.freeze();
    arrived.answer(attach(&link_id)).await;
    let began = tokio::time::Instant::now();
    let (there, open) = soon(world.node(2).link_opened()).await;
    assert!(began.elapsed() < std::time::Duration::from_secs(3), "{:?}", began.elapsed());
    assert_eq!(open.replacing, wire(life(1)));
    world.node(1).way.thaw();
    world.service.handle().nodes_ready(2).await;
    let gone = v1::OwnerFrame { epoch: None, kind: Some(OwnerKind::SessionGone(v1::SessionGone::default())) };
    there.answer(FromNode::ToLink(v1::NodeToLink { link_id, frame: Some(gone) })).await;
    let LinkDown::Frame(frame) = connector.next().await else { panic!("the new owner's frame comes first") };
    assert!(matches!(frame.kind, Some(OwnerKind::SessionGone(_))));
}

#[tokio::test]
async fn a_hundred_links_of_a_killed_node_go_on_at_the_others_and_each_tells_whom_it_left() {
    const LINKS: usize = 100;
    let mut world = World::with_nodes(3).await;
    let mut connectors = Vec::new();
    for number in 0..LINKS {
        let machine_id = machine(u8::try_from(number).unwrap());
        let credential = world.sign(&MachineCredential { machine_id, ..world.credential() });
        let hello = v1::LinkHello { credential, ..link_hello(&world) };
        connectors.push(Connector::open_with(&world, Over::PlainWebSocket, hello).await.0);
    }
    let mut at_first = 0;
    for _ in 0..LINKS {
        at_first += usize::from(opened_somewhere(&mut world).await.0 == 1);
    }
    assert!(at_first > 0, "two draws of three nodes");
    world.directory.leave(life(1)).await.unwrap();
    world.node(1).way.kill();
    for _ in 0..at_first {
        let (tag, arrived) = opened_somewhere(&mut world).await;
        assert_ne!(tag, 1);
        let Some(ToNode::OpenLink(open)) = arrived.frame.kind.clone() else { panic!("the links come again") };
        assert_eq!(open.replacing, wire(life(1)));
        arrived.answer(attach(&open.link_id)).await;
    }
    let mut frames: FuturesUnordered<_> = connectors.iter_mut().map(|connector| Box::pin(frame(connector))).collect();
    for _ in 0..at_first {
        assert!(soon(frames.next()).await.is_some());
    }
}

/// The next frame of an owner, whatever pings come before.
async fn frame(connector: &mut Connector) -> v1::OwnerFrame {
    loop {
        let next = connector.next().await;
        if let LinkDown::Frame(frame) = next {
            return frame;
        }
        assert!(matches!(next, LinkDown::Ping(_)), "the link goes on");
    }
}

#[tokio::test]
async fn a_node_that_left_is_let_go_when_it_carries_nothing_any_more() {
    let mut world = World::with_nodes(3).await;
    world.owned_by(2).await;
    let (mut browser, session_id, arrived) = session_at(&mut world, 2, 1).await;
    world.directory.leave(life(2)).await.unwrap();
    world.directory.leave(life(3)).await.unwrap();
    tokio::time::pause();
    let idle = world.node(3).way.clone();
    soon(idle.let_go()).await;
    arrived.answer(to_session(&session_id, event(1))).await;
    assert_eq!(first_event(&mut browser).await, 1, "what is open there goes on");
    let machine_id = Bytes::copy_from_slice(machine(1).as_bytes());
    browser.send(SessionUp::Close(v1::CloseMachine { machine_id })).await;
    let Some(ToNode::CloseSession(_)) = soon(world.node(2).next()).await.frame.kind else { panic!("it is closed") };
    let left = world.node(2).way.clone();
    soon(left.let_go()).await;
}

#[tokio::test]
async fn a_link_outlives_its_only_node_for_a_while() {
    for over in Over::ALL {
        let mut world = World::start().await;
        let (mut connector, link_id) = Connector::open(&world, over).await;
        let (arrived, _) = soon(world.host.link_opened()).await;
        arrived.break_stream().await;
        let (arrived, open) = soon(world.host.link_opened()).await;
        assert_eq!((&open.link_id, open.replacing), (&link_id, Bytes::new()), "one does not replace oneself");
        arrived.answer(attach(&link_id)).await;
        assert!(matches!(connector.next().await, LinkDown::Frame(_)), "{over:?}");
    }
}

#[tokio::test]
async fn a_link_for_which_no_node_comes_back_ends_as_moving() {
    let mut world = World::start().await;
    let (mut connector, _) = Connector::open(&world, Over::PlainWebSocket).await;
    soon(world.host.link_opened()).await;
    tokio::time::pause();
    world.host.way.kill();
    let mut last = connector.next().await;
    while let LinkDown::Ping(_) = last {
        last = connector.next().await;
    }
    let LinkDown::End(end) = last else { panic!("the link ends") };
    assert_eq!(end.code, u32::from(ErrorCode::Moving.number()));
    assert!(end.retry_after_ms > 0);
}

#[tokio::test]
async fn without_the_directory_a_known_owner_stays_and_everybody_agrees_on_a_new_one() {
    let mut world = World::with_nodes(3).await;
    world.owned_by(2).await;
    let _one = session_at(&mut world, 2, 1).await;
    world.directory.set_away(true);
    let _two = session_at(&mut world, 2, 2).await;
    let ids: Vec<Incarnation> = world.nodes().map(|host| host.incarnation).collect();
    assert_eq!(ids, [life(1), life(2), life(3)]);
    world.node(2).way.kill();
    let (_connector, _) = Connector::open(&world, Over::PlainWebSocket).await;
    let (tag, arrived) = loop {
        let (tag, arrived) = opened_somewhere(&mut world).await;
        if tag != 2 {
            break (tag, arrived);
        }
    };
    assert!(matches!(arrived.frame.kind, Some(ToNode::OpenLink(_))));
    session_at(&mut world, tag, 3).await;
}

#[tokio::test]
async fn whatever_the_directory_answers_instead_of_an_answer_the_gateway_serves() {
    for trouble in [DirectoryError::Unavailable, DirectoryError::Format, DirectoryError::FromTheFuture] {
        let mut world = World::with_nodes(2).await;
        world.directory.set_trouble(Some(trouble));
        let (mut browser, _) = Browser::open(&world, 1).await;
        browser.send(open()).await;
        let (tag, arrived) = opened_somewhere(&mut world).await;
        assert!(matches!(arrived.frame.kind, Some(ToNode::OpenSession(_))), "{trouble}");
        let (_connector, link_id) = Connector::open(&world, Over::PlainWebSocket).await;
        let (_, open) = soon(world.node(tag).link_opened()).await;
        assert_eq!(open.link_id, link_id, "{trouble}");
        assert!(world.service.handle().is_ready(), "{trouble}");
    }
}

#[tokio::test]
async fn a_process_that_is_not_the_node_it_is_dialled_as_gets_no_frames() {
    let hello = |tag, region: &str| v1::NodeHello {
        incarnation: wire(life(tag)),
        node_id: "node-1".to_owned(),
        region: region.to_owned(),
    };
    for wrong in [Some(hello(9, "local")), Some(hello(1, "far")), None] {
        let mut world = World::with_nodes(2).await;
        world.owned_by(1).await;
        let (_, _, arrived) = session_at(&mut world, 1, 1).await;
        world.node(1).way.greets_with(wrong);
        arrived.break_stream().await;
        let (mut browser, _) = Browser::open(&world, 2).await;
        browser.send(open()).await;
        let (_, opening) = soon(world.node(2).session_opened()).await;
        assert_eq!(opening.replacing, wire(life(1)));
    }
}

#[tokio::test]
async fn a_node_speaks_for_no_machine_that_is_open_at_another() {
    let mut world = World::with_nodes(2).await;
    world.owned_by(1).await;
    let (mut browser, session_id, arrived) = session_at(&mut world, 1, 1).await;
    let (mut connector, link_id) = Connector::open(&world, Over::PlainWebSocket).await;
    let (link_arrived, _) = soon(world.node(1).link_opened()).await;
    // Node 2 has a machine of its own, and so a stream on which to lie.
    let (mut other, _) = Browser::open(&world, 2).await;
    world.directory.set_away(true);
    let evil = loop {
        let tag = rand::random::<u8>();
        let machine_id = Bytes::from(vec![tag; 16]);
        other.send(SessionUp::Open(v1::OpenMachine { machine_id })).await;
        if let (2, arrived) = opened_somewhere(&mut world).await {
            break arrived;
        }
    };
    let code = ErrorCode::NotFound.number().into();
    let lies = [
        to_session(&session_id, event(9)),
        FromNode::EndSession(v1::EndSession { session_id: session_id.clone(), code, retry_after_ms: 0 }),
        not_owner(Some(life(2)), &session_id),
        not_owner(Some(life(2)), &link_id),
        attach(&link_id),
        FromNode::EndLink(v1::EndLink { link_id: link_id.clone(), code, ..Default::default() }),
    ];
    let (account_id, machine_id) = (arrived.frame.account_id.clone(), arrived.frame.machine_id.clone());
    for lie in lies {
        evil.answer_as(account_id.clone(), machine_id.clone(), lie).await;
    }
    evil.break_stream().await;
    let SessionDown::MachineClosed(closed) = other.next().await else { panic!("the liar's own machine is closed") };
    assert_ne!(closed.machine_id, machine_id);
    arrived.answer(to_session(&session_id, event(1))).await;
    assert_eq!(first_event(&mut browser).await, 1);
    let gone = v1::OwnerFrame { epoch: None, kind: Some(OwnerKind::SessionGone(v1::SessionGone::default())) };
    link_arrived.answer(FromNode::ToLink(v1::NodeToLink { link_id, frame: Some(gone) })).await;
    let LinkDown::Frame(frame) = connector.next().await else { panic!("its owner's frame comes first") };
    assert!(matches!(frame.kind, Some(OwnerKind::SessionGone(_))));
    // Nor was the gateway's memory of the place poisoned.
    session_at(&mut world, 1, 3).await;
}
