use std::time::Duration;

use flydex_domain::error::ErrorCode;
use flydex_domain::id::DeviceId;
use flydex_domain::key::PublicKey;
use flydex_domain::limits::{ACTOR_IDLE_AFTER, EVENT_WINDOW_BYTES, GRANT_LIFETIME, TOKEN_SKEW_MAX};
use flydex_domain::revocation::{Revocation, RevocationEntry};
use flydex_domain::scope::Role;
use flydex_domain::secret::SecretKey;
use flydex_domain::token::TokenSigner;
use flydex_proto::v1;
use flydex_proto::v1::device_message::Kind as Asked;
use flydex_proto::v1::gateway_frame::Kind as ToNode;
use flydex_proto::v1::machine_message::Kind as Said;
use flydex_proto::v1::node_frame::Kind as FromNode;

use super::fixture::*;
use crate::CallError;

#[tokio::test]
async fn a_forged_an_expired_and_a_missing_grant_get_the_same_answer() {
    let node = Node::start().await;
    let mut gateway = node.gateway().await;
    let claims = node.grant_claims(ACCOUNT, 1, Role::Owner);
    let forged = TokenSigner::from_seed("k1", &SecretKey::new([2; 32])).sign(&claims);
    let mut old = claims.clone();
    old.expires_at = node.now().minus(TOKEN_SKEW_MAX);
    for grant in [forged, node.sign(&old), String::new(), "v4.public.nonsense".to_owned()] {
        gateway.open(ACCOUNT, MACHINE, 1, grant).await;
        assert_eq!(gateway.session_end(1).await, ErrorCode::GrantInvalid);
    }
    assert_eq!(node.handle.inspect(machine_key()).await, Err(CallError::NotThere), "nothing was started");
}

#[tokio::test]
async fn a_credential_is_not_a_grant_and_a_grant_is_not_a_credential() {
    let node = Node::start().await;
    let mut gateway = node.gateway().await;
    gateway.open(ACCOUNT, MACHINE, 1, node.credential(ACCOUNT, MACHINE)).await;
    assert_eq!(gateway.session_end(1).await, ErrorCode::GrantInvalid);
    gateway.open_link(1, 1, 1, node.grant(ACCOUNT, 1, Role::Owner)).await;
    assert_eq!(gateway.link_end(1).await, ErrorCode::CredentialInvalid);
}

#[tokio::test]
async fn a_grant_of_another_account_finds_no_machine_here() {
    let node = Node::start().await;
    let mut gateway = node.gateway().await;
    gateway.linked(&node, 1, 1, 1).await;
    gateway.open(ACCOUNT, MACHINE, 1, node.grant(77, 1, Role::Owner)).await;
    assert_eq!(gateway.session_end(1).await, ErrorCode::NotFound);
}

#[tokio::test]
async fn a_foreign_machine_id_looks_like_one_that_does_not_exist() {
    let node = Node::start().await;
    let mut gateway = node.gateway().await;
    gateway.linked(&node, 1, 1, 1).await;
    let stranger = 77;
    let mut answers = Vec::new();
    for (session, machine) in [(1, MACHINE), (2, 4_242)] {
        gateway.open(stranger, machine, session, node.grant(stranger, 1, Role::Owner)).await;
        let status = gateway.state(session, v1::MachineState::Offline).await;
        let asked = v1::SessionMessage {
            session_id: id(session),
            message: Some(v1::DeviceMessage { trace: None, kind: Some(Asked::Probe(v1::Probe { nonce: 1 })) }),
        };
        gateway.send(stranger, machine, ToNode::SessionMessage(asked)).await;
        answers.push((status.state, status.boot_id, status.connector_version, gateway.failure(session).await));
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0].3, ErrorCode::MachineOffline);
}

#[tokio::test]
async fn a_session_is_spoken_for_only_by_the_stream_that_opened_it() {
    let node = Node::start().await;
    let mut gateway = node.gateway().await;
    let mut intruder = node.gateway().await;
    gateway.linked(&node, 1, 1, 1).await;
    gateway.opened(&node, 1, 1, Role::Owner).await;
    gateway.state(1, v1::MachineState::CodexReady).await;
    intruder.ask(1, &start_turn(1, 1, "stolen")).await;
    intruder.send(ACCOUNT, MACHINE, ToNode::CloseSession(v1::CloseSession { session_id: id(1) })).await;
    intruder.opened(&node, 2, 2, Role::Owner).await;
    gateway.ask(1, &start_turn(1, 2, "own")).await;
    let from = gateway.forwarded(1).await;
    let Some(Asked::Command(command)) = from.message.and_then(|message| message.kind) else {
        panic!("a command is forwarded");
    };
    assert_eq!(command.body, copy(b"own"));
}

#[tokio::test]
async fn a_command_reaches_the_connector_as_it_was_signed_and_a_repeat_is_answered() {
    let node = Node::start().await;
    let mut gateway = node.gateway().await;
    let epoch = gateway.linked(&node, 1, 1, 1).await;
    gateway.opened(&node, 1, 1, Role::Operator).await;
    gateway.state(1, v1::MachineState::CodexReady).await;
    let command = start_turn(1, 1, "hello");
    gateway.ask(1, &command).await;
    let from = gateway.forwarded(1).await;
    assert_eq!((from.session_id, from.role.as_str()), (id(1), "operator"));
    let Some(Asked::Command(arrived)) = from.message.and_then(|message| message.kind) else {
        panic!("a command is forwarded");
    };
    assert!(arrived.header == command.header && arrived.body == command.body);
    assert!(arrived.signature == command.signature);
    gateway.answer(1, &epoch, 1, Said::Receipt(executed(&command))).await;
    let first = gateway.receipt(1).await;
    gateway.opened(&node, 2, 1, Role::Operator).await;
    gateway.ask(2, &command).await;
    let repeated = gateway.receipt(2).await;
    assert!(first == repeated && first == executed(&command));
    let reused = start_turn(1, 1, "something else");
    gateway.ask(2, &reused).await;
    assert_eq!(gateway.failure(2).await, ErrorCode::CommandIdReused);
}

#[tokio::test]
async fn an_offline_machine_answers_at_once() {
    let node = Node::start().await;
    let mut gateway = node.gateway().await;
    gateway.opened(&node, 1, 1, Role::Owner).await;
    gateway.state(1, v1::MachineState::Offline).await;
    gateway.ask(1, &start_turn(1, 1, "hello")).await;
    assert_eq!(gateway.failure(1).await, ErrorCode::MachineOffline);
}

#[tokio::test]
async fn a_malformed_command_is_answered_and_harms_nobody() {
    let node = Node::start().await;
    let mut gateway = node.gateway().await;
    gateway.opened(&node, 1, 1, Role::Owner).await;
    let mut command = start_turn(1, 1, "hello");
    command.header = copy(b"\xff\xff\xff");
    gateway.ask(1, &command).await;
    assert_eq!(gateway.failure(1).await, ErrorCode::BadRequest);
    gateway.ask(1, &start_turn(1, 2, "hello")).await;
    assert_eq!(gateway.failure(1).await, ErrorCode::MachineOffline);
}

#[tokio::test]
async fn a_slow_session_loses_its_stream_and_the_others_get_every_event() {
    let node = Node::start().await;
    let mut gateway = node.gateway().await;
    let mut other = node.gateway().await;
    let epoch = gateway.linked(&node, 1, 1, 1).await;
    gateway.opened(&node, 1, 1, Role::Owner).await;
    other.opened(&node, 2, 2, Role::Owner).await;
    gateway.admit(1, &epoch, 1, 1, 1).await;
    gateway.admit(1, &epoch, 1, 2, 2).await;
    let half = EVENT_WINDOW_BYTES / 2;
    for seq in 1..=8 {
        gateway.share(1, &epoch, seq, half as usize).await;
        assert_eq!(other.event(2).await, seq);
        let before = node.handle.inspect(machine_key()).await.unwrap();
        assert_eq!(before.sessions, 2);
        other.session(2, Asked::EventCredit(v1::EventCredit { bytes: half })).await;
        // The credit is handled before the next event is shared: both go through one actor, but over two streams.
        other.session(2, Asked::Probe(v1::Probe { nonce: seq })).await;
        loop {
            let from = gateway.forwarded(1).await;
            if from.session_id == id(2) {
                break;
            }
        }
    }
    let end = gateway.said(1, |said| if let Said::StreamEnd(end) = said { Some(*end) } else { None }).await;
    assert_eq!((end.last_seq, end.code), (2, u32::from(ErrorCode::SlowConsumer.number())));
    assert!(!other.has_seen(|kind| matches!(kind, FromNode::ToSession(to)
        if matches!(to.message.as_ref().and_then(|message| message.kind.as_ref()), Some(Said::StreamEnd(_))))));
}

#[tokio::test]
async fn a_revoked_device_is_cut_removed_and_kept_out() {
    let node = Node::start().await;
    let mut gateway = node.gateway().await;
    gateway.linked(&node, 1, 1, 1).await;
    let grant = node.grant(ACCOUNT, 1, Role::Owner);
    gateway.open(ACCOUNT, MACHINE, 1, grant.clone()).await;
    gateway.opened(&node, 2, 2, Role::Owner).await;
    let device_id = PublicKey::of(&device_key(1)).device_id();
    node.clock.advance(Duration::from_millis(5));
    node.handle.revoke(entry(&node, Revocation::Device { account_id: account_id(ACCOUNT), device_id, keeps: None }));
    assert_eq!(gateway.session_end(1).await, ErrorCode::DeviceRevoked);
    let removed = loop {
        if let (_, v1::owner_frame::Kind::RemoveDevice(remove)) = gateway.owner(1).await {
            break DeviceId::try_from(remove.device_id.as_ref()).unwrap();
        }
    };
    assert_eq!(removed, device_id);
    gateway.open(ACCOUNT, MACHINE, 3, grant).await;
    assert_eq!(gateway.session_end(3).await, ErrorCode::DeviceRevoked);
    node.clock.advance(Duration::from_millis(5));
    gateway.opened(&node, 4, 1, Role::Owner).await;
}

#[tokio::test]
async fn a_revoked_user_and_a_revoked_grant_lose_their_sessions() {
    let node = Node::start().await;
    let mut gateway = node.gateway().await;
    gateway.opened(&node, 1, 1, Role::Owner).await;
    let revoked = node.grant_claims(ACCOUNT, 2, Role::Owner);
    gateway.open(ACCOUNT, MACHINE, 2, node.sign(&revoked)).await;
    gateway.opened(&node, 3, 3, Role::Owner).await;
    let account_id = account_id(ACCOUNT);
    node.handle.revoke(entry(&node, Revocation::User { account_id, user_id: user_id(1) }));
    assert_eq!(gateway.session_end(1).await, ErrorCode::Unauthenticated);
    node.handle.revoke(entry(&node, Revocation::Grant { account_id, grant_id: revoked.grant_id }));
    assert_eq!(gateway.session_end(2).await, ErrorCode::GrantInvalid);
    gateway.open(ACCOUNT, MACHINE, 2, node.sign(&revoked)).await;
    assert_eq!(gateway.session_end(2).await, ErrorCode::GrantInvalid);
    assert_eq!(node.handle.inspect(machine_key()).await.unwrap().sessions, 1);
}

#[tokio::test]
async fn a_session_ends_with_its_grant() {
    let node = Node::start().await;
    let mut gateway = node.gateway().await;
    gateway.opened(&node, 1, 1, Role::Owner).await;
    node.clock.advance(GRANT_LIFETIME + TOKEN_SKEW_MAX);
    assert_eq!(gateway.session_end(1).await, ErrorCode::GrantInvalid);
}

#[tokio::test]
async fn a_gateway_stream_that_ends_takes_its_sessions_and_links_with_it() {
    let node = Node::start().await;
    let mut gateway = node.gateway().await;
    let mut other = node.gateway().await;
    gateway.linked(&node, 1, 1, 1).await;
    gateway.opened(&node, 1, 1, Role::Owner).await;
    other.opened(&node, 2, 2, Role::Owner).await;
    other.state(2, v1::MachineState::CodexReady).await;
    drop(gateway);
    other.state(2, v1::MachineState::Offline).await;
    until(async || node.handle.inspect(machine_key()).await.is_ok_and(|seen| seen.sessions == 1)).await;
}

#[tokio::test]
async fn a_failed_actor_is_told_to_everybody_it_served_and_replaced() {
    let node = Node::start().await;
    let mut gateway = node.gateway().await;
    gateway.linked(&node, 1, 1, 1).await;
    gateway.opened(&node, 1, 1, Role::Owner).await;
    node.handle.host.find(machine_key()).unwrap().send_defect();
    assert_eq!(gateway.session_end(1).await, ErrorCode::Internal);
    assert_eq!(gateway.link_end(1).await, ErrorCode::Internal);
    gateway.linked(&node, 2, 2, 1).await;
    gateway.opened(&node, 1, 1, Role::Owner).await;
}

#[tokio::test]
async fn an_idle_machine_is_forgotten_and_comes_back_when_asked_for() {
    let node = Node::start().await;
    let mut gateway = node.gateway().await;
    gateway.opened(&node, 1, 1, Role::Owner).await;
    gateway.send(ACCOUNT, MACHINE, ToNode::CloseSession(v1::CloseSession { session_id: id(1) })).await;
    until(async || node.handle.inspect(machine_key()).await.is_ok_and(|seen| seen.sessions == 0)).await;
    node.clock.advance(ACTOR_IDLE_AFTER);
    until(async || node.handle.inspect(machine_key()).await == Err(CallError::NotThere)).await;
    gateway.opened(&node, 1, 1, Role::Owner).await;
}

#[tokio::test]
async fn a_drain_tells_everybody_and_ends_the_stream() {
    let node = Node::start().await;
    let mut gateway = node.gateway().await;
    gateway.linked(&node, 1, 1, 1).await;
    gateway.opened(&node, 1, 1, Role::Owner).await;
    node.shutdown.begin();
    assert_eq!(gateway.session_end(1).await, ErrorCode::GoingAway);
    assert_eq!(gateway.link_end(1).await, ErrorCode::GoingAway);
    while gateway.next().await.is_some() {}
    assert!(node.shutdown.drain(Duration::from_secs(10)).await, "no task is left");
}

fn entry(node: &Node, revocation: Revocation) -> RevocationEntry {
    RevocationEntry { number: 1, at: node.now(), revocation }
}
