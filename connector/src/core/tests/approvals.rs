use flydex_agent_proto::v1 as agent;
use flydex_agent_proto::v1::agent_event::Kind as EventKind;
use flydex_domain::approval::{ApprovalAction, ApprovalBinding, ApprovalKind, FileChange, approval_transcript, digest};
use flydex_domain::audit::AuditKind;
use flydex_domain::command::{Decision, Outcome, Receipt};
use flydex_domain::error::ErrorCode;
use flydex_domain::id::{AuditId, CommandHash};
use flydex_domain::key::PublicKey;
use flydex_domain::limits::{APPROVAL_BYTES_MAX, APPROVAL_LIFETIME};
use flydex_domain::scope::Role;
use flydex_domain::time::UnixMillis;
use flydex_domain::token::AuditReceipt;
use prost::Message as _;
use uuid::Uuid;

use super::world::*;
use crate::codex::{AnswerOutcome, AskedApproval, CodexEvent, CodexStatus, RequestKey, Resolution};
use crate::paired::DeskPolicy;

mod spans;

pub(super) fn asked(number: u32) -> AskedApproval {
    AskedApproval {
        key: RequestKey { generation: generation(), request_id: number.to_string() },
        thread_id: thread(),
        turn_id: "turn".to_owned(),
        item_id: format!("item{number}"),
        started_at_ms: 5,
        opened_at: UnixMillis(START),
        action: ApprovalAction {
            kind: ApprovalKind::Command,
            command: "make".to_owned(),
            cwd: "/w".to_owned(),
            network: None,
            permissions: vec![],
            changes: vec![],
            reason: "because".to_owned(),
        },
        risk_high: false,
        session_scope_possible: true,
        desk_only: false,
    }
}

pub(super) async fn opened(world: &mut World) -> agent::Approval {
    let signed = world
        .until_event(|event| match event {
            EventKind::ApprovalOpened(signed) => Some(signed),
            _ => None,
        })
        .await;
    PublicKey::of(&key(100)).verify(approval_transcript(&signed.approval), &signed.signature).unwrap();
    agent::Approval::decode(signed.approval).unwrap()
}

async fn closed(world: &mut World) -> agent::ApprovalClosed {
    world
        .until_event(|event| match event {
            EventKind::ApprovalClosed(closed) => Some(closed),
            _ => None,
        })
        .await
}

async fn with_open() -> (World, agent::Approval) {
    let mut world = World::start().await;
    world.attach(1, session(1)).await;
    world.attach(2, session(2)).await;
    world.events.send(CodexEvent::ApprovalAsked(asked(0))).await.unwrap();
    let approval = opened(&mut world).await;
    (world, approval)
}

/// What a device hashes: the fields that it renders.
pub(super) fn rendered(approval: &agent::Approval) -> [u8; 32] {
    let binding = ApprovalBinding {
        machine_id: machine(),
        generation: generation(),
        approval_id: approval.approval_id.as_ref().try_into().unwrap(),
        expires_at: UnixMillis(approval.expires_at_ms),
        salt: approval.salt.as_ref().try_into().unwrap(),
    };
    let action = ApprovalAction {
        kind: ApprovalKind::Command,
        command: approval.command.clone(),
        cwd: approval.cwd.clone(),
        network: approval.has_network.then(|| approval.network.clone()),
        permissions: approval.permissions.clone(),
        changes: vec![],
        reason: approval.reason.clone(),
    };
    digest(&binding, &action)
}

fn no_audit(_: &flydex_domain::command::CommandHeader, _: &[u8]) -> String {
    String::new()
}

fn closed_in(receipt: &Receipt) -> agent::ApprovalClosed {
    match result(receipt).kind {
        Some(agent::command_result::Kind::Refusal(refusal)) => refusal.approval.unwrap(),
        Some(agent::command_result::Kind::ApprovalSettled(settled)) => settled.closed.unwrap(),
        _ => panic!("no approval in the result"),
    }
}

#[tokio::test]
async fn the_digest_of_what_is_shown_accepts_once_and_the_loser_learns_who_and_when() {
    let (mut world, approval) = with_open().await;
    let digest = rendered(&approval);
    let command = world.answer(1, &approval, Decision::Accept, digest, no_audit).await;
    let receipt = world.receipt().await;
    assert_eq!(receipt.outcome, Outcome::Executed);
    assert!(closed_in(&receipt).end() == agent::ApprovalEnd::Accepted);
    let event = closed(&mut world).await;
    assert!(event.end() == agent::ApprovalEnd::Accepted);
    assert_eq!(event.device_label, "phone");

    world.answer(2, &approval, Decision::Decline, digest, no_audit).await;
    let loser = world.receipt().await;
    assert_eq!(loser.outcome, Outcome::Refused(ErrorCode::AlreadyAnswered));
    let first = closed_in(&loser);
    assert_eq!((first.device_id.as_ref(), first.at_ms), (device_id(1).as_bytes().as_slice(), START));

    world.bring(1, session(1), Role::Owner, command).await;
    assert_eq!(world.receipt().await.outcome, Outcome::Executed, "the same answer again has the same outcome");
    let answered = world.codex.script(|script| script.answered.clone());
    assert_eq!(answered, [(asked(0).key, Decision::Accept)]);
}

#[tokio::test]
async fn a_second_answer_loses_while_the_first_is_under_way() {
    let (mut world, approval) = with_open().await;
    let gate = world.codex.hold();
    let digest = rendered(&approval);
    world.answer(1, &approval, Decision::Decline, digest, no_audit).await;
    world.answer(2, &approval, Decision::Accept, digest, no_audit).await;
    assert_eq!(world.receipt().await.outcome, Outcome::Refused(ErrorCode::AlreadyAnswered));
    gate.add_permits(1);
    assert_eq!(world.receipt().await.outcome, Outcome::Executed);
    assert_eq!(world.codex.script(|script| script.answered.len()), 1);
}

#[tokio::test]
async fn an_answer_to_something_else_is_a_mismatch_and_the_approval_stays_open() {
    let (mut world, approval) = with_open().await;
    let mut other = approval.clone();
    other.command = "rm".to_owned();
    world.answer(1, &approval, Decision::Accept, rendered(&other), no_audit).await;
    assert_eq!(world.receipt().await.outcome, Outcome::Refused(ErrorCode::DigestMismatch));
    world.answer(1, &approval, Decision::AcceptForSession, rendered(&approval), no_audit).await;
    assert_eq!(world.receipt().await.outcome, Outcome::Refused(ErrorCode::DecisionNotOffered));
    let mut wrong = approval.clone();
    wrong.generation = vec![1; 32].into();
    world.answer(1, &wrong, Decision::Accept, rendered(&approval), no_audit).await;
    assert_eq!(world.receipt().await.outcome, Outcome::Refused(ErrorCode::GenerationMismatch));
    let mut unknown = approval.clone();
    unknown.approval_id = vec![1; 32].into();
    world.answer(1, &unknown, Decision::Accept, rendered(&approval), no_audit).await;
    assert_eq!(world.receipt().await.outcome, Outcome::Refused(ErrorCode::ApprovalNotFound));
    assert_eq!(world.codex.script(|script| script.answered.len()), 0);
    world.answer(1, &approval, Decision::Accept, rendered(&approval), no_audit).await;
    assert_eq!(world.receipt().await.outcome, Outcome::Executed);
}

#[tokio::test]
async fn an_expired_approval_is_renewed_under_another_id() {
    let (mut world, approval) = with_open().await;
    world.clock.advance(APPROVAL_LIFETIME);
    assert!(closed(&mut world).await.end() == agent::ApprovalEnd::Expired);
    let renewed = opened(&mut world).await;
    assert_ne!(renewed.approval_id, approval.approval_id);
    world.answer(1, &approval, Decision::Accept, rendered(&approval), no_audit).await;
    assert_eq!(world.receipt().await.outcome, Outcome::Refused(ErrorCode::ApprovalExpired));
    world.answer(1, &renewed, Decision::Accept, rendered(&renewed), no_audit).await;
    assert_eq!(world.receipt().await.outcome, Outcome::Executed);
}

/// Its end holds by the clock, and waits for nobody to notice.
#[tokio::test]
async fn an_answer_at_the_end_of_an_approval_is_late_though_it_was_not_renewed_yet() {
    // What accepts is judged again once its record is on the disk; what stops something is not.
    for decision in [Decision::Accept, Decision::Decline] {
        let (mut world, approval) = with_open().await;
        world.clock.advance(APPROVAL_LIFETIME);
        world.answer(1, &approval, decision, rendered(&approval), no_audit).await;
        assert_eq!(world.receipt().await.outcome, Outcome::Refused(ErrorCode::ApprovalExpired));
        assert_eq!(world.codex.script(|script| script.answered.len()), 0);
    }
}

#[tokio::test]
async fn an_approval_takes_no_answer_while_nobody_knows_whether_its_life_of_codex_goes_on() {
    let (mut world, approval) = with_open().await;
    for status in [CodexStatus::Starting, CodexStatus::Unavailable(ErrorCode::CodexUnavailable)] {
        world.events.send(CodexEvent::Status(status)).await.unwrap();
        world.until_event(|event| matches!(event, EventKind::MachineChanged(_)).then_some(())).await;
        world.answer(1, &approval, Decision::Accept, rendered(&approval), no_audit).await;
        assert_eq!(world.receipt().await.outcome, Outcome::Refused(ErrorCode::GenerationMismatch));
    }
    assert_eq!(world.codex.script(|script| script.answered.len()), 0);
}

#[tokio::test]
async fn an_approval_that_ends_elsewhere_is_seen_to_end() {
    for (how, end, code) in [
        (Resolution::AtDesk, agent::ApprovalEnd::AtDesk, ErrorCode::AlreadyAnswered),
        (Resolution::Withdrawn, agent::ApprovalEnd::Withdrawn, ErrorCode::ApprovalWithdrawn),
        (Resolution::CodexLost, agent::ApprovalEnd::CodexLost, ErrorCode::GenerationMismatch),
    ] {
        let (mut world, approval) = with_open().await;
        world.events.send(CodexEvent::RequestResolved { key: asked(0).key, how }).await.unwrap();
        assert!(closed(&mut world).await.end() == end);
        world.answer(1, &approval, Decision::Accept, rendered(&approval), no_audit).await;
        assert_eq!(world.receipt().await.outcome, Outcome::Refused(code));
        let snapshot = world.attach(1, session(9)).await.snapshot.unwrap();
        assert!(snapshot.approvals.is_empty());
    }
}

#[tokio::test]
async fn an_answer_that_codex_contradicts_or_never_confirms_is_not_called_executed() {
    for (answer, outcome, end) in [
        (AnswerOutcome::AnsweredAtDesk, Outcome::Refused(ErrorCode::AlreadyAnswered), agent::ApprovalEnd::AtDesk),
        (AnswerOutcome::Gone, Outcome::Refused(ErrorCode::ApprovalWithdrawn), agent::ApprovalEnd::Withdrawn),
        (AnswerOutcome::Unknown, Outcome::Unknown, agent::ApprovalEnd::Unknown),
    ] {
        let (mut world, approval) = with_open().await;
        world.codex.script(|script| script.answer = answer);
        world.answer(1, &approval, Decision::Accept, rendered(&approval), no_audit).await;
        let receipt = world.receipt().await;
        assert_eq!(receipt.outcome, outcome);
        assert!(closed_in(&receipt).end() == end);
    }
}

#[tokio::test]
async fn a_late_confirmation_takes_the_place_of_unknown() {
    let (mut world, approval) = with_open().await;
    world.codex.script(|script| script.answer = AnswerOutcome::Unknown);
    world.answer(1, &approval, Decision::Accept, rendered(&approval), no_audit).await;
    assert_eq!(world.receipt().await.outcome, Outcome::Unknown);
    let how = Resolution::OursConfirmed(Decision::Accept);
    world.events.send(CodexEvent::RequestResolved { key: asked(0).key, how }).await.unwrap();
    assert_eq!(world.receipt().await.outcome, Outcome::Executed);
}

#[tokio::test]
async fn an_accept_without_controls_word_is_recorded_before_it_acts() {
    let (mut world, approval) = with_open().await;
    let gate = world.codex.hold();
    world.answer(1, &approval, Decision::Accept, rendered(&approval), no_audit).await;
    world
        .until_message("delivered", |kind| {
            matches!(kind, flydex_proto::v1::machine_message::Kind::Progress(_)).then_some(())
        })
        .await;
    let pending = world.spool.pending(10);
    assert_eq!((pending.len(), pending[0].kind, pending[0].deferred), (1, AuditKind::ApprovalIntent, true));
    gate.add_permits(1);
    assert_eq!(world.receipt().await.outcome, Outcome::Executed);
    let mut spooled = world.spool.watch();
    spooled.wait_for(|count| *count == 2).await.unwrap();
    assert_eq!(world.spool.pending(10)[1].kind, AuditKind::ApprovalAnswered);
}

#[tokio::test]
async fn an_accept_that_cannot_be_recorded_does_not_act_and_can_be_answered_again() {
    let (mut world, approval) = with_open().await;
    world.disks.spool.fill_disk(true);
    world.answer(1, &approval, Decision::Accept, rendered(&approval), no_audit).await;
    assert_eq!(world.receipt().await.outcome, Outcome::Refused(ErrorCode::AuditUnavailable));
    assert_eq!(world.codex.script(|script| script.answered.len()), 0);
    world.answer(1, &approval, Decision::Decline, rendered(&approval), no_audit).await;
    assert_eq!(world.receipt().await.outcome, Outcome::Executed);
}

#[tokio::test]
async fn an_accept_whose_record_took_until_the_end_of_the_approval_does_not_act() {
    let (mut world, approval) = with_open().await;
    let clock = world.clock.clone();
    world.disks.spool.before_write(move || clock.advance(APPROVAL_LIFETIME));
    world.answer(1, &approval, Decision::Accept, rendered(&approval), no_audit).await;
    assert_eq!(world.receipt().await.outcome, Outcome::Refused(ErrorCode::ApprovalExpired));
    assert_eq!(world.codex.script(|script| script.answered.len()), 0);
    assert_ne!(opened(&mut world).await.approval_id, approval.approval_id);
}

#[tokio::test]
async fn an_approval_that_codex_took_back_under_an_answer_is_not_open_again() {
    let (mut world, approval) = with_open().await;
    let (events, key) = (world.events.clone(), asked(0).key);
    world.disks.spool.fill_disk(true);
    world.disks.spool.before_write(move || {
        let _ = events.try_send(CodexEvent::RequestResolved { key: key.clone(), how: Resolution::Withdrawn });
    });
    world.answer(1, &approval, Decision::Accept, rendered(&approval), no_audit).await;
    assert_eq!(world.receipt().await.outcome, Outcome::Refused(ErrorCode::AuditUnavailable));
    assert!(closed(&mut world).await.end() == agent::ApprovalEnd::Withdrawn);
}

#[tokio::test]
async fn a_strict_account_wants_controls_word() {
    let (mut world, approval) = with_open().await;
    world.policy.send_replace(DeskPolicy { strict_audit: true, ..DeskPolicy::default() });
    world.until_event(|event| matches!(event, EventKind::MachineChanged(_)).then_some(())).await;
    world.answer(1, &approval, Decision::Accept, rendered(&approval), no_audit).await;
    assert_eq!(world.receipt().await.outcome, Outcome::Refused(ErrorCode::AuditUnavailable));
    let token = |world: &World| {
        let signer = flydex_domain::token::TokenSigner::from_seed("k", &flydex_domain::secret::SecretKey::new([8; 32]));
        assert_eq!(signer.public(), world.signer.public());
        move |header: &flydex_domain::command::CommandHeader, bytes: &[u8]| {
            let answer = header.answer.unwrap();
            signer.sign(&AuditReceipt {
                audit_id: AuditId::from_uuid(Uuid::from_u128(1)),
                account_id: header.account_id,
                machine_id: header.machine_id,
                device_id: header.device_id,
                approval_id: answer.approval_id,
                generation: answer.generation,
                command_id: header.command_id,
                command_hash: CommandHash::from_bytes(flydex_domain::command::command_transcript(bytes).sha256()),
                expires_at: UnixMillis(START + 60_000),
            })
        }
    };
    let token = token(&world);
    world.answer(1, &approval, Decision::Accept, rendered(&approval), token).await;
    assert_eq!(world.receipt().await.outcome, Outcome::Executed);
}

#[tokio::test]
async fn session_wide_acceptance_is_offered_where_the_desk_switched_it_on() {
    let (mut world, approval) = with_open().await;
    assert!(!approval.decisions.contains(&agent::OfferedDecision::AcceptForSession.into()));
    world.policy.send_replace(DeskPolicy { session_acceptance: true, ..DeskPolicy::default() });
    let renewed = opened(&mut world).await;
    assert!(renewed.decisions.contains(&agent::OfferedDecision::AcceptForSession.into()));
    world.answer(1, &renewed, Decision::AcceptForSession, rendered(&renewed), no_audit).await;
    assert_eq!(world.receipt().await.outcome, Outcome::Executed);
}

#[tokio::test]
async fn an_action_too_large_to_show_is_for_the_desk() {
    let mut world = World::start().await;
    world.attach(1, session(1)).await;
    let mut large = asked(1);
    let diff = "x".repeat(APPROVAL_BYTES_MAX);
    large.action.changes = vec![FileChange { path: "a".to_owned(), kind: "add".to_owned(), moved_to: None, diff }];
    world.events.send(CodexEvent::ApprovalAsked(large)).await.unwrap();
    let approval = opened(&mut world).await;
    assert!(approval.desk_only && approval.decisions.is_empty());
    world.answer(1, &approval, Decision::Accept, rendered(&approval), no_audit).await;
    assert_eq!(world.receipt().await.outcome, Outcome::Refused(ErrorCode::DeskOnly));
}

#[tokio::test]
async fn every_open_approval_is_in_the_snapshot() {
    let (mut world, approval) = with_open().await;
    let snapshot = world.attach(1, session(9)).await.snapshot.unwrap();
    let shown = agent::Approval::decode(snapshot.approvals[0].approval.clone()).unwrap();
    assert!(shown == approval);
}

#[tokio::test]
async fn after_a_restart_a_repeated_answer_still_tells_who_and_when() {
    let (mut world, approval) = with_open().await;
    let digest = rendered(&approval);
    let first = world.answer(1, &approval, Decision::Accept, digest, no_audit).await;
    let settled = closed_in(&world.receipt().await);
    let second = world.answer(2, &approval, Decision::Decline, digest, no_audit).await;
    let loser = closed_in(&world.receipt().await);
    // A refusal is told before it is durable; what is executed after it is not.
    world.start_turn(1, session(1)).await;
    world.receipt().await;
    let disks = world.crash().await;
    let names = |bytes: &[u8]| bytes.windows(5).any(|window| window == b"phone");
    assert!(!names(&disks.journal.content()), "the journal holds no text of a person");

    let mut again = World::boot(disks, 10).await;
    again.own(1, 2).await;
    again.attach(1, session(1)).await;
    again.attach(2, session(2)).await;
    again.bring(1, session(1), Role::Owner, first).await;
    let receipt = again.receipt().await;
    assert_eq!(receipt.outcome, Outcome::Executed);
    assert!(closed_in(&receipt) == settled);
    again.bring(2, session(2), Role::Owner, second).await;
    let receipt = again.receipt().await;
    assert_eq!(receipt.outcome, Outcome::Refused(ErrorCode::AlreadyAnswered));
    assert!(closed_in(&receipt) == loser && loser.device_label == "phone");
}

#[tokio::test]
async fn an_answer_at_the_desk_is_audited_after_the_fact_without_a_device() {
    let (mut world, approval) = with_open().await;
    let how = Resolution::AtDesk;
    world.events.send(CodexEvent::RequestResolved { key: asked(0).key, how }).await.unwrap();
    assert!(closed(&mut world).await.end() == agent::ApprovalEnd::AtDesk);
    world.spool.watch().wait_for(|count| *count == 1).await.unwrap();
    let record = world.spool.pending(10).remove(0);
    assert_eq!((record.kind, record.device_id, record.command_id), (AuditKind::ApprovalAnswered, None, None));
    assert_eq!(record.approval_id.unwrap().as_bytes().as_slice(), approval.approval_id.as_ref());
}
