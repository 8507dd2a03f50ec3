//! Peers and nodes that lie about whose a frame is: every hop goes by what was signed (INV-SCOPE).

use bytes::Bytes;
use flydex_domain::error::ErrorCode;
use flydex_domain::token::{Grant, MachineCredential, Ticket};
use flydex_proto::v1;
use flydex_proto::v1::connector_frame::Kind as ConnectorKind;
use flydex_proto::v1::gateway_frame::Kind as ToNode;
use flydex_proto::v1::link_up::Kind as LinkUp;
use flydex_proto::v1::machine_message::Kind as Said;
use flydex_proto::v1::node_frame::Kind as FromNode;
use flydex_proto::v1::owner_frame::Kind as OwnerKind;
use flydex_proto::v1::session_down::Kind as SessionDown;
use flydex_proto::v1::session_up::Kind as SessionUp;

use super::host::{Arrived, to_session};
use super::wire::{Browser, Connector, Ended, Over, hello, link_hello};
use super::world::{World, account, machine, soon};

fn wire_account(tag: u8) -> Bytes {
    Bytes::copy_from_slice(account(tag).as_bytes())
}

fn wire_machine(tag: u8) -> Bytes {
    Bytes::copy_from_slice(machine(tag).as_bytes())
}

fn event(seq: u64) -> Said {
    Said::Event(v1::Event { stream_id: 0, seq, body: Bytes::from_static(b"x") })
}

/// A session of an account, with machine 1 open in it.
async fn session_of(world: &mut World, number: u8) -> (Browser, Bytes, Arrived) {
    let account_id = account(number);
    let ticket = world.sign(&Ticket { account_id, ..world.ticket(number.into()) });
    let grant = world.sign(&Grant { account_id, ..world.grant() });
    let hello = v1::SessionHello { ticket, grant, ..hello(world, number.into()) };
    let (mut browser, session_id) = Browser::open_with(world, hello).await;
    browser.send(SessionUp::Open(v1::OpenMachine { machine_id: wire_machine(1) })).await;
    let (arrived, _) = soon(world.host.session_opened()).await;
    assert_eq!(arrived.frame.account_id, wire_account(number));
    (browser, session_id, arrived)
}

async fn first_event(browser: &mut Browser) -> u64 {
    let SessionDown::FromMachine(from) = browser.next().await else { panic!("an event comes first") };
    let Some(Said::Event(event)) = from.message.unwrap().kind else { panic!("an event comes first") };
    event.seq
}

#[tokio::test]
async fn a_node_cannot_hand_one_accounts_frames_to_a_session_of_another() {
    let mut world = World::start().await;
    let (mut one, one_id, one_arrived) = session_of(&mut world, 1).await;
    let (mut two, two_id, two_arrived) = session_of(&mut world, 2).await;
    let end = |session_id: &Bytes| {
        let code = ErrorCode::NotFound.number().into();
        FromNode::EndSession(v1::EndSession { session_id: session_id.clone(), code, retry_after_ms: 0 })
    };
    let not_owner =
        |subject_id: &Bytes| FromNode::NotOwner(v1::NotOwner { owner: Bytes::new(), subject_id: subject_id.clone() });
    // Each is named under the other's account, on the stream of its own frames, and so are ids that nobody has.
    for (arrived, session_id, other) in [(&one_arrived, &one_id, 2), (&two_arrived, &two_id, 1)] {
        for forged in [session_id.clone(), Bytes::from_static(&[0; 16]), Bytes::from_static(&[1; 15]), Bytes::new()] {
            for kind in [to_session(&forged, event(9)), end(&forged), not_owner(&forged)] {
                arrived.answer_as(wire_account(other), wire_machine(1), kind).await;
            }
        }
    }
    one_arrived.answer(to_session(&one_id, event(1))).await;
    two_arrived.answer(to_session(&two_id, event(2))).await;
    assert_eq!((first_event(&mut one).await, first_event(&mut two).await), (1, 2));
}

#[tokio::test]
async fn a_session_reaches_only_the_machine_that_it_opened_and_only_as_itself() {
    let mut world = World::start().await;
    let (mut browser, session_id, _) = session_of(&mut world, 1).await;
    let probe = |tag, nonce| {
        let kind = Some(v1::device_message::Kind::Probe(v1::Probe { nonce }));
        let message = Some(v1::DeviceMessage { trace: None, kind });
        SessionUp::ToMachine(v1::ToMachine { machine_id: wire_machine(tag), message })
    };
    // Opened as machine 1, then named as machine 2; and one that was never open is closed.
    browser.send(probe(2, 1)).await;
    let SessionDown::MachineClosed(closed) = browser.next().await else { panic!("it is not open") };
    assert_eq!((closed.machine_id, closed.code), (wire_machine(2), ErrorCode::NotFound.number().into()));
    browser.send(SessionUp::Close(v1::CloseMachine { machine_id: wire_machine(2) })).await;
    browser.send(probe(1, 2)).await;
    let arrived = soon(world.host.next()).await;
    assert_eq!((arrived.frame.account_id, arrived.frame.machine_id), (wire_account(1), wire_machine(1)));
    let Some(ToNode::SessionMessage(message)) = arrived.frame.kind else { panic!("only the probe arrives") };
    assert_eq!(message.session_id, session_id);
    let Some(v1::device_message::Kind::Probe(probe)) = message.message.unwrap().kind else { panic!("the probe") };
    assert_eq!(probe.nonce, 2);
}

#[tokio::test]
async fn a_link_speaks_for_the_machine_of_its_credential_whatever_its_frames_say() {
    for over in Over::ALL {
        let mut world = World::start().await;
        let (mut browser, session_id, _) = session_of(&mut world, 1).await;
        let foreign = MachineCredential { account_id: account(2), machine_id: machine(2), ..world.credential() };
        let hello = v1::LinkHello { credential: world.sign(&foreign), ..link_hello(&world) };
        let (mut connector, link_id) = Connector::open_with(&world, over, hello).await;
        let (arrived, open) = soon(world.host.link_opened()).await;
        assert_eq!((&arrived.frame.account_id, &arrived.frame.machine_id), (&wire_account(2), &wire_machine(2)));
        assert_eq!(open.link_id, link_id);
        // It names a session of another account: the owner hears it as the word of machine 2 of account 2.
        let message = Some(v1::MachineMessage { trace: None, kind: Some(event(9)) });
        let to = v1::ToSession { session_id: session_id.clone(), message };
        let frame = v1::ConnectorFrame { epoch: None, kind: Some(ConnectorKind::ToSession(to)) };
        connector.send(LinkUp::Frame(frame)).await;
        let heard = soon(world.host.next()).await;
        assert_eq!((&heard.frame.account_id, &heard.frame.machine_id), (&wire_account(2), &wire_machine(2)));
        // And should the owner pass it on in that name, the session does not get it.
        heard.answer(to_session(&session_id, event(9))).await;
        heard.answer_as(wire_account(2), wire_machine(1), to_session(&session_id, event(9))).await;
        browser.send(SessionUp::Ping(v1::Ping { nonce: 1 })).await;
        assert!(matches!(browser.next().await, SessionDown::Pong(_)), "{over:?}");
    }
}

#[tokio::test]
async fn one_links_id_under_another_machine_reaches_no_link() {
    for over in Over::ALL {
        let mut world = World::start().await;
        let (mut one, one_id) = Connector::open(&world, over).await;
        let (one_arrived, _) = soon(world.host.link_opened()).await;
        let foreign = MachineCredential { account_id: account(2), machine_id: machine(2), ..world.credential() };
        let hello = v1::LinkHello { credential: world.sign(&foreign), ..link_hello(&world) };
        let (_two, _) = Connector::open_with(&world, over, hello).await;
        soon(world.host.link_opened()).await;
        let to_link = |kind| {
            let frame = Some(v1::OwnerFrame { epoch: None, kind: Some(kind) });
            FromNode::ToLink(v1::NodeToLink { link_id: one_id.clone(), frame })
        };
        let code = ErrorCode::LinkSuperseded.number().into();
        let end = FromNode::EndLink(v1::EndLink { link_id: one_id.clone(), code, ..Default::default() });
        for kind in [to_link(OwnerKind::Attach(v1::AttachOwner {})), end] {
            one_arrived.answer_as(wire_account(2), wire_machine(2), kind).await;
        }
        let gone = v1::SessionGone { session_id: Bytes::from_static(&[1; 16]) };
        one_arrived.answer(to_link(OwnerKind::SessionGone(gone))).await;
        let v1::link_down::Kind::Frame(frame) = one.next().await else { panic!("its own frame comes first") };
        assert!(matches!(frame.kind, Some(OwnerKind::SessionGone(_))), "{over:?}");
    }
}

#[tokio::test]
async fn a_repeated_hello_or_proof_ends_the_link_and_opens_no_second_one() {
    for over in Over::ALL {
        let mut world = World::start().await;
        let proof = v1::LinkProof { signature: Bytes::from_static(&[0; 64]), channel_bound: over == Over::Quic };
        for again in [LinkUp::Hello(link_hello(&world)), LinkUp::Proof(proof)] {
            let (mut connector, link_id) = Connector::open(&world, over).await;
            soon(world.host.link_opened()).await;
            connector.send(again).await;
            assert_eq!(connector.end().await, Ended::with(ErrorCode::UnexpectedFrame), "{over:?}");
            let Some(ToNode::CloseLink(close)) = soon(world.host.next()).await.frame.kind else {
                panic!("the node is told that the link is gone")
            };
            assert_eq!(close.link_id, link_id);
        }
        // Nor does another hello in the place of a proof: the first one's nonce is not to be had again.
        let mut connector = Connector::connect(&world, over).await;
        connector.hello(link_hello(&world)).await.unwrap();
        connector.send(LinkUp::Hello(link_hello(&world))).await;
        assert_eq!(connector.end().await, Ended::with(ErrorCode::UnexpectedFrame), "{over:?}");
    }
}
