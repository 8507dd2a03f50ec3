//! A gateway or a connector that lies: it gets, tells and ends nothing that is not its own (INV-SCOPE).

use flydex_domain::error::ErrorCode;
use flydex_domain::limits::{CREDENTIAL_LIFETIME, NODE_GATEWAY_STREAMS_MAX, TOKEN_SKEW_MAX};
use flydex_domain::scope::Role;
use flydex_proto::v1;
use flydex_proto::v1::connector_frame::Kind as FromConnector;
use flydex_proto::v1::device_message::Kind as Asked;
use flydex_proto::v1::gateway_frame::Kind as ToNode;
use flydex_proto::v1::machine_message::Kind as Said;
use flydex_proto::v1::node_frame::Kind as FromNode;

use super::fixture::*;

const OTHER_ACCOUNT: u128 = 77;
const OTHER_MACHINE: u128 = 78;

fn event(seq: u64) -> Said {
    Said::Event(v1::Event { stream_id: 0, seq, body: copy(b"x") })
}

fn probe_reply(nonce: u64) -> Said {
    Said::ProbeReply(v1::ProbeReply { nonce, machine_time_ms: 0 })
}

/// The nonce of the first reply that a session gets.
async fn replied(gateway: &mut Gateway, session: u128) -> u64 {
    gateway.said(session, |said| if let Said::ProbeReply(reply) = said { Some(reply.nonce) } else { None }).await
}

#[tokio::test]
async fn a_link_with_an_expired_credential_is_cut_and_what_it_goes_on_to_say_reaches_nobody() {
    let node = Node::start().await;
    let mut gateway = node.gateway().await;
    let mut liar = node.gateway().await;
    let credential = node.credential(ACCOUNT, MACHINE);
    let epoch = liar.linked(&node, 1, 1, 1).await;
    node.clock.advance(CREDENTIAL_LIFETIME / 2);
    gateway.opened(&node, 1, 1, Role::Owner).await;
    gateway.state(1, v1::MachineState::CodexReady).await;
    liar.admit(1, &epoch, 1, 1, 1).await;
    liar.share(1, &epoch, 1, 10).await;
    assert_eq!(gateway.event(1).await, 1);

    node.clock.advance(CREDENTIAL_LIFETIME / 2 + TOKEN_SKEW_MAX);
    assert_eq!(liar.link_end(1).await, ErrorCode::CredentialInvalid);
    gateway.state(1, v1::MachineState::Offline).await;
    // Its gateway does not care and keeps the link; the same credential opens no other.
    liar.share(1, &epoch, 2, 10).await;
    liar.answer(1, &epoch, 1, probe_reply(1)).await;
    liar.open_link(2, 2, 1, credential).await;
    assert_eq!(liar.link_end(2).await, ErrorCode::CredentialInvalid);

    let renewed = gateway.linked(&node, 3, 3, 1).await;
    gateway.state(1, v1::MachineState::CodexReady).await;
    gateway.answer(3, &renewed, 1, probe_reply(2)).await;
    assert_eq!(replied(&mut gateway, 1).await, 2, "nothing of the old link came before");
}

#[tokio::test]
async fn a_connector_reaches_no_session_of_another_account_or_machine() {
    let node = Node::start().await;
    let mut gateway = node.gateway().await;
    let epoch = gateway.linked(&node, 1, 1, 1).await;
    gateway.opened(&node, 1, 1, Role::Owner).await;
    for (account, machine, session) in [(OTHER_ACCOUNT, MACHINE, 2), (ACCOUNT, OTHER_MACHINE, 3)] {
        gateway.open(account, machine, session, node.grant(account, 1, Role::Owner)).await;
        gateway
            .find(|kind| {
                matches!(kind, FromNode::SessionOpened(opened) if opened.session_id == id(session)).then_some(())
            })
            .await;
        gateway.answer(1, &epoch, session, probe_reply(1)).await;
        gateway.admit(1, &epoch, 1, session, 1).await;
        gateway.answer(1, &epoch, session, event(1)).await;
    }
    gateway.share(1, &epoch, 1, 10).await;
    gateway.answer(1, &epoch, 1, probe_reply(2)).await;
    assert_eq!(replied(&mut gateway, 1).await, 2);
    let of_others = |kind: &FromNode| {
        let FromNode::ToSession(to) = kind else { return false };
        let status = matches!(to.message.as_ref().and_then(|message| message.kind.as_ref()), Some(Said::Status(_)));
        to.session_id != id(1) && !status
    };
    assert!(!gateway.has_seen(of_others));
}

#[tokio::test]
async fn frames_that_swap_account_machine_session_or_link_do_nothing() {
    let node = Node::start().await;
    let mut gateway = node.gateway().await;
    let epoch = gateway.linked(&node, 1, 1, 1).await;
    gateway.opened(&node, 1, 1, Role::Owner).await;
    gateway.state(1, v1::MachineState::CodexReady).await;
    let probe = |session: u128| {
        let message = v1::DeviceMessage { trace: None, kind: Some(Asked::Probe(v1::Probe { nonce: 1 })) };
        ToNode::SessionMessage(v1::SessionMessage { session_id: id(session), message: Some(message) })
    };
    let link_frame = |link: u128| {
        let to = v1::ToSession {
            session_id: id(1),
            message: Some(v1::MachineMessage { trace: None, kind: Some(probe_reply(1)) }),
        };
        let frame = v1::ConnectorFrame { epoch: Some(epoch.clone()), kind: Some(FromConnector::ToSession(to)) };
        ToNode::LinkMessage(v1::LinkMessage { link_id: id(link), frame: Some(frame) })
    };
    let close_session = |session: u128| ToNode::CloseSession(v1::CloseSession { session_id: id(session) });
    let close_link = |link: u128| ToNode::CloseLink(v1::CloseLink { link_id: id(link) });
    let wrong = [
        (OTHER_ACCOUNT, MACHINE, 1),
        (ACCOUNT, OTHER_MACHINE, 1),
        (OTHER_ACCOUNT, OTHER_MACHINE, 1),
        (ACCOUNT, MACHINE, 9),
    ];
    for (account, machine, number) in wrong {
        for kind in [probe(number), link_frame(number), close_session(number), close_link(number)] {
            gateway.send(account, machine, kind).await;
        }
    }
    // Nothing was forwarded, nobody was told anything, nothing was closed.
    gateway.session(1, Asked::Probe(v1::Probe { nonce: 2 })).await;
    let Some(Asked::Probe(first)) = gateway.forwarded(1).await.message.and_then(|message| message.kind) else {
        panic!("the probe arrives")
    };
    assert_eq!(first.nonce, 2);
    gateway.answer(1, &epoch, 1, probe_reply(2)).await;
    assert_eq!(replied(&mut gateway, 1).await, 2);
}

#[tokio::test]
async fn a_link_is_spoken_for_only_by_the_stream_that_opened_it() {
    let node = Node::start().await;
    let mut gateway = node.gateway().await;
    let mut liar = node.gateway().await;
    let epoch = gateway.linked(&node, 1, 1, 1).await;
    gateway.opened(&node, 1, 1, Role::Owner).await;
    gateway.state(1, v1::MachineState::CodexReady).await;
    liar.answer(1, &epoch, 1, probe_reply(1)).await;
    liar.send(ACCOUNT, MACHINE, ToNode::CloseLink(v1::CloseLink { link_id: id(1) })).await;
    // Not even with the credential: the id is taken, which it is told, and it carries nothing afterwards.
    liar.open_link(1, 2, 1, node.credential(ACCOUNT, MACHINE)).await;
    assert_eq!(liar.link_end(1).await, ErrorCode::Conflict);
    liar.answer(1, &epoch, 1, probe_reply(1)).await;
    gateway.answer(1, &epoch, 1, probe_reply(2)).await;
    assert_eq!(replied(&mut gateway, 1).await, 2);
}

#[tokio::test]
async fn a_connectors_malformed_frame_ends_its_link_instead_of_leaving_a_hole() {
    let node = Node::start().await;
    let mut gateway = node.gateway().await;
    let malformed = [
        None,
        Some(FromConnector::Subscribed(v1::Subscribed::default())),
        Some(FromConnector::ToSession(v1::ToSession { session_id: id(1), message: None })),
        Some(FromConnector::DeviceRemoved(v1::DeviceRemoved { device_id: copy(b"short"), keeps: String::new() })),
    ];
    gateway.opened(&node, 1, 1, Role::Owner).await;
    for (number, kind) in (1..).zip(malformed) {
        let epoch = gateway.linked(&node, number, u64::try_from(number).unwrap(), 1).await;
        gateway.state(1, v1::MachineState::CodexReady).await;
        let frame = Some(v1::ConnectorFrame { epoch: Some(epoch), kind });
        let message = v1::LinkMessage { link_id: id(number), frame };
        gateway.send(ACCOUNT, MACHINE, ToNode::LinkMessage(message)).await;
        assert_eq!(gateway.link_end(number).await, ErrorCode::BadRequest);
        gateway.state(1, v1::MachineState::Offline).await;
    }
}

#[tokio::test]
async fn gateway_streams_are_bounded_and_the_next_is_refused() {
    let node = Node::start().await;
    let host = &node.handle.host;
    let streams: Vec<_> = std::iter::from_fn(|| host.open_peer().ok()).collect();
    assert_eq!(streams.len(), NODE_GATEWAY_STREAMS_MAX);
    assert_eq!(host.open_peer().err(), Some(ErrorCode::Overloaded));
    host.close_peer(&streams[0].0);
    assert!(host.open_peer().is_ok());
}

#[tokio::test]
async fn a_link_that_is_opened_again_on_its_stream_starts_over() {
    let node = Node::start().await;
    let mut gateway = node.gateway().await;
    gateway.linked(&node, 1, 1, 1).await;
    gateway.opened(&node, 1, 1, Role::Owner).await;
    gateway.state(1, v1::MachineState::CodexReady).await;
    let epoch = gateway.linked(&node, 1, 2, 1).await;
    gateway.state(1, v1::MachineState::CodexReady).await;
    gateway.answer(1, &epoch, 1, probe_reply(3)).await;
    assert_eq!(replied(&mut gateway, 1).await, 3);
}

#[tokio::test]
async fn a_session_that_another_stream_opens_with_its_grant_ends_where_it_was() {
    let node = Node::start().await;
    let mut gateway = node.gateway().await;
    let mut other = node.gateway().await;
    gateway.opened(&node, 1, 1, Role::Owner).await;
    other.opened(&node, 1, 1, Role::Owner).await;
    assert_eq!(gateway.session_end(1).await, ErrorCode::Conflict);
}

#[tokio::test]
async fn a_gateway_that_sends_too_much_in_one_frame_loses_its_stream_and_no_other_does() {
    let node = Node::start().await;
    let mut gateway = node.gateway().await;
    let mut liar = node.gateway().await;
    let epoch = gateway.linked(&node, 1, 1, 1).await;
    gateway.opened(&node, 1, 1, Role::Owner).await;
    liar.share(1, &epoch, 1, 1024 * 1024).await;
    liar.ended().await;
    gateway.answer(1, &epoch, 1, probe_reply(4)).await;
    assert_eq!(replied(&mut gateway, 1).await, 4);
}
