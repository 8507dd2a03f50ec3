use std::sync::Arc;
use std::time::Duration;

use flydex_domain::error::{ErrorCode, Retry};
use flydex_domain::limits::{LINK_ALTERNATION_WINDOW, LINK_ALTERNATIONS_MAX, LINK_ATTACH_WAIT};
use flydex_domain::revocation::{Revocation, RevocationEntry};
use flydex_domain::scope::Role;
use flydex_domain::secret::SecretKey;
use flydex_domain::token::TokenSigner;
use flydex_proto::v1;
use flydex_proto::v1::connector_frame::Kind as FromConnector;
use flydex_proto::v1::machine_message::Kind as Said;
use flydex_proto::v1::owner_frame::Kind as ToConnector;

use super::fixture::*;

#[tokio::test]
async fn a_link_attaches_and_its_report_reaches_the_sessions() {
    let node = Node::start().await;
    let mut gateway = node.gateway().await;
    gateway.opened(&node, 1, 1, Role::Viewer).await;
    gateway.linked(&node, 1, 1, 1).await;
    let status = gateway.state(1, v1::MachineState::CodexReady).await;
    assert_eq!(status.boot_id, copy(&[1; 16]));
    assert_eq!((status.codex_version.as_str(), status.connector_version.as_str()), ("0.169.0", "1.0.0"));
    assert!(status.channel_bound && status.transport() == v1::Transport::Websocket);
}

#[tokio::test]
async fn a_credential_that_is_forged_or_of_another_machine_opens_no_link() {
    let node = Node::start().await;
    let mut gateway = node.gateway().await;
    let forger = TokenSigner::from_seed("k1", &SecretKey::new([9; 32]));
    let forged = forger.sign(&node.grant_claims(ACCOUNT, 1, Role::Owner));
    let wrong = [forged, String::new(), node.credential(ACCOUNT, 99), node.credential(99, MACHINE)];
    for credential in wrong {
        gateway.open_link(1, 1, 1, credential).await;
        assert_eq!(gateway.link_end(1).await, ErrorCode::CredentialInvalid);
    }
}

#[tokio::test]
async fn a_machine_that_is_pinned_to_another_region_opens_no_link() {
    let node = Node::start().await;
    let mut gateway = node.gateway().await;
    gateway.open_link(1, 1, 1, node.pinned_credential(ACCOUNT, MACHINE, Some("far"))).await;
    assert_eq!(gateway.link_end(1).await, ErrorCode::MachineWrongRegion);
    gateway.open_link(2, 2, 1, node.pinned_credential(ACCOUNT, MACHINE, Some("home"))).await;
    gateway.owner(2).await;
}

#[tokio::test]
async fn the_newest_link_wins_across_gateways() {
    let node = Node::start().await;
    let mut first = node.gateway().await;
    let mut second = node.gateway().await;
    let old_epoch = first.linked(&node, 1, 1, 1).await;
    second.opened(&node, 1, 1, Role::Owner).await;
    let epoch = second.linked(&node, 2, 2, 1).await;
    assert_eq!(first.link_end(1).await, ErrorCode::LinkSuperseded);
    assert!(epoch == old_epoch, "the same owner keeps its epoch");
    second.state(1, v1::MachineState::CodexReady).await;
    first.open_link(3, 1, 1, node.credential(ACCOUNT, MACHINE)).await;
    assert_eq!(first.link_end(3).await, ErrorCode::LinkSuperseded);
    second.ask(1, &start_turn(1, 1, "hello")).await;
    assert_eq!(second.forwarded(2).await.session_id, id(1));
}

/// Two lives of a connector take turns, each over its own gateway, until one is turned away; how many links that took.
async fn take_turns(node: &Node, gateways: &mut [Gateway; 2], first_link: u128) -> u128 {
    for link in first_link..first_link + 20 {
        let turn = usize::from(link.is_multiple_of(2));
        let boot = u8::try_from(turn + 1).unwrap();
        let gateway = &mut gateways[turn];
        gateway.open_link(link, u64::try_from(link).unwrap(), boot, node.credential(ACCOUNT, MACHINE)).await;
        if gateway.attached_or_ended(link).await == Some(ErrorCode::MachineKeyCloned) {
            return link - first_link + 1;
        }
    }
    panic!("nobody is turned away");
}

#[tokio::test]
async fn two_connectors_with_one_key_are_both_turned_away_though_each_has_its_own_gateway() {
    let node = Node::start().await;
    let mut gateways = [node.gateway().await, node.gateway().await];
    let links = take_turns(&node, &mut gateways, 1).await;
    assert_eq!(links, 2 + LINK_ALTERNATIONS_MAX as u128 + 1, "the first two are no return");
    assert_eq!(gateways[0].link_end(links - 1).await, ErrorCode::MachineKeyCloned, "the one that was there goes too");
    for (turn, gateway) in gateways.iter_mut().enumerate() {
        let (link, boot) = (50 + turn as u128, u8::try_from(turn + 1).unwrap());
        gateway.open_link(link, 50, boot, node.credential(ACCOUNT, MACHINE)).await;
        assert_eq!(gateway.link_end(link).await, ErrorCode::MachineKeyCloned, "for a minute");
    }
    node.clock.advance(LINK_ALTERNATION_WINDOW);
    gateways[0].linked(&node, 60, 60, 1).await;
}

#[tokio::test]
async fn an_owner_that_takes_a_machine_over_finds_the_two_connectors_again_by_itself() {
    let first = Node::start().await;
    let second = Node::join(OTHER_NODE, Arc::clone(&first.directory)).await;
    until(async || first.directory.is_member(OTHER_NODE).await).await;
    let mut gateways = [first.gateway().await, first.gateway().await];
    for (link, turn) in [(1, 0), (2, 1), (3, 0), (4, 1)] {
        gateways[turn].linked(&first, link, u64::try_from(link).unwrap(), u8::try_from(turn + 1).unwrap()).await;
    }
    first.shutdown.begin();
    assert_eq!(gateways[1].not_owner(id(4)).await, Some(OTHER_NODE));
    let mut gateways = [second.gateway().await, second.gateway().await];
    assert_eq!(take_turns(&second, &mut gateways, 5).await, 2 + LINK_ALTERNATIONS_MAX as u128 + 1);
    assert!(first.shutdown.drain(Duration::from_secs(10)).await);
}

#[tokio::test]
async fn a_link_that_never_attaches_is_ended_with_a_code_that_lets_its_connector_come_again() {
    let node = Node::start().await;
    let mut gateway = node.gateway().await;
    gateway.opened(&node, 1, 1, Role::Owner).await;
    gateway.open_link(1, 1, 1, node.credential(ACCOUNT, MACHINE)).await;
    gateway.owner(1).await;
    gateway.state(1, v1::MachineState::Connecting).await;
    node.clock.advance(LINK_ATTACH_WAIT);
    let code = gateway.link_end(1).await;
    assert_eq!((code, code.retry()), (ErrorCode::DeadlineExceeded, Retry::Later));
    gateway.state(1, v1::MachineState::Offline).await;
    gateway.linked(&node, 2, 2, 1).await;
}

#[tokio::test]
async fn frames_of_another_epoch_reach_no_session() {
    let node = Node::start().await;
    let mut gateway = node.gateway().await;
    let epoch = gateway.linked(&node, 1, 1, 1).await;
    gateway.opened(&node, 1, 1, Role::Owner).await;
    let stale = v1::Epoch { counter: epoch.counter + 1, incarnation: epoch.incarnation.clone() };
    let reply = |nonce| Said::ProbeReply(v1::ProbeReply { nonce, machine_time_ms: 0 });
    gateway.answer(1, &stale, 1, reply(1)).await;
    gateway.answer(1, &epoch, 1, reply(2)).await;
    let first = gateway.said(1, |said| if let Said::ProbeReply(reply) = said { Some(reply.nonce) } else { None }).await;
    assert_eq!(first, 2);
}

#[tokio::test]
async fn a_stale_attach_is_repeated_above_the_connectors_highest_epoch() {
    let node = Node::start().await;
    let mut gateway = node.gateway().await;
    gateway.open_link(1, 1, 1, node.credential(ACCOUNT, MACHINE)).await;
    let (asked, _) = gateway.owner(1).await;
    let highest = v1::Epoch { counter: asked.counter + 10, incarnation: copy(&[200; 16]) };
    let stale = FromConnector::Stale(v1::Stale { highest: Some(highest.clone()) });
    gateway.link_frame(1, None, stale).await;
    let (above, kind) = gateway.owner(1).await;
    assert!(matches!(kind, ToConnector::Attach(_)));
    assert!(above.counter > highest.counter);
}

#[tokio::test]
async fn a_lost_link_is_told_to_sessions_and_to_commands_in_flight() {
    let node = Node::start().await;
    let mut gateway = node.gateway().await;
    let epoch = gateway.linked(&node, 1, 1, 1).await;
    gateway.opened(&node, 1, 1, Role::Owner).await;
    gateway.admit(1, &epoch, 1, 1, 1).await;
    let command = start_turn(1, 1, "hello");
    gateway.ask(1, &command).await;
    gateway.forwarded(1).await;
    let close = v1::CloseLink { link_id: id(1) };
    gateway.send(ACCOUNT, MACHINE, v1::gateway_frame::Kind::CloseLink(close)).await;
    assert_eq!(gateway.failure(1).await, ErrorCode::MachineOffline);
    let end = gateway.said(1, |said| if let Said::StreamEnd(end) = said { Some(end.code) } else { None }).await;
    assert_eq!(end, u32::from(ErrorCode::MachineOffline.number()));
    gateway.state(1, v1::MachineState::Offline).await;
    let epoch = gateway.linked(&node, 2, 2, 1).await;
    gateway.state(1, v1::MachineState::CodexReady).await;
    gateway.ask(1, &command).await;
    gateway.forwarded(2).await;
    gateway.answer(2, &epoch, 1, Said::Receipt(executed(&command))).await;
    assert!(gateway.receipt(1).await == executed(&command));
}

#[tokio::test]
async fn a_quarantined_machine_loses_its_link_and_cannot_link_again() {
    let node = Node::start().await;
    let mut gateway = node.gateway().await;
    gateway.linked(&node, 1, 1, 1).await;
    let revocation =
        Revocation::Quarantine { account_id: account_id(ACCOUNT), machine_id: machine_id(MACHINE), serial: u64::MAX };
    node.handle.revoke(RevocationEntry { number: 1, at: node.now(), revocation });
    assert_eq!(gateway.link_end(1).await, ErrorCode::MachineKeyCloned);
    gateway.open_link(2, 2, 1, node.credential(ACCOUNT, MACHINE)).await;
    assert_eq!(gateway.link_end(2).await, ErrorCode::MachineKeyCloned);
}

#[tokio::test]
async fn a_revoked_machine_loses_its_link_and_sessions_and_cannot_link_again() {
    let node = Node::start().await;
    let mut gateway = node.gateway().await;
    gateway.linked(&node, 1, 1, 1).await;
    gateway.opened(&node, 1, 1, Role::Owner).await;
    let credential = node.credential(ACCOUNT, MACHINE);
    let revocation = Revocation::Machine { account_id: account_id(ACCOUNT), machine_id: machine_id(MACHINE) };
    node.handle.revoke(RevocationEntry { number: 1, at: node.now(), revocation });
    assert_eq!(gateway.link_end(1).await, ErrorCode::MachineRevoked);
    assert_eq!(gateway.session_end(1).await, ErrorCode::MachineRevoked);
    gateway.open_link(2, 2, 1, credential).await;
    assert_eq!(gateway.link_end(2).await, ErrorCode::MachineRevoked);
}
