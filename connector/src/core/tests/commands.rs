use flydex_agent_proto::v1 as agent;
use flydex_agent_proto::v1::command_body::Kind as Body;
use flydex_domain::command::{CommandHeader, CommandKind, Outcome};
use flydex_domain::error::ErrorCode;
use flydex_domain::id::{AccountId, BootId, MachineId};
use flydex_domain::limits::COMMAND_SKEW_MAX;
use flydex_domain::scope::Role;
use flydex_domain::time::UnixMillis;
use flydex_proto::v1;
use prost::Message as _;
use uuid::Uuid;

use super::world::*;
use crate::codex::Refused;

fn body() -> Vec<u8> {
    agent::CommandBody { kind: Some(Body::StartTurn(turn())) }.encode_to_vec()
}

async fn changed(world: &mut World, change: impl FnOnce(&mut CommandHeader)) {
    let body = body();
    let mut header = world.header(1, session(1), CommandKind::StartTurn, &body);
    change(&mut header);
    world.bring(1, session(1), Role::Owner, signed(1, &header, body)).await;
}

#[tokio::test]
async fn an_effect_is_delivered_executed_and_receipted_once() {
    let mut world = World::start().await;
    world.attach(1, session(1)).await;
    let accepted = agent::TurnAccepted { turn_id: "t1".to_owned(), joined: false };
    let result_kind = agent::command_result::Kind::TurnAccepted(accepted.clone());
    world.codex.script(|script| script.result = Ok(agent::CommandResult { kind: Some(result_kind.clone()) }));
    let command = world.start_turn(1, session(1)).await;
    world.until_message("delivered", |kind| matches!(kind, v1::machine_message::Kind::Progress(_)).then_some(())).await;
    let first = world.receipt().await;
    assert_eq!(first.outcome, Outcome::Executed);
    assert!(result(&first).kind == Some(result_kind.clone()));

    world.bring(1, session(1), Role::Owner, command).await;
    let again = world.receipt().await;
    assert_eq!((again.outcome, again.command_hash), (Outcome::Executed, first.command_hash));
    assert!(result(&again).kind == Some(result_kind));
    assert_eq!(world.codex.script(|script| script.executed.len()), 1);
}

#[tokio::test]
async fn what_is_not_proven_gets_a_failure_and_never_a_receipt() {
    let mut world = World::start().await;
    world.attach(1, session(1)).await;
    let body = body();
    let header = world.header(1, session(1), CommandKind::StartTurn, &body);
    let mut unsigned = signed(1, &header, body.clone());
    unsigned.signature = vec![0; 64].into();
    world.bring(1, session(1), Role::Owner, unsigned).await;
    assert_eq!(world.failure().await, ErrorCode::SignatureInvalid);

    let mut other_body = signed(1, &header, body.clone());
    other_body.body = agent::CommandBody::default().encode_to_vec().into();
    world.bring(1, session(1), Role::Owner, other_body).await;
    assert_eq!(world.failure().await, ErrorCode::BodyMismatch);

    changed(&mut world, |header| header.account_id = AccountId::from_uuid(Uuid::from_u128(9))).await;
    assert_eq!(world.failure().await, ErrorCode::WrongAccount);
    changed(&mut world, |header| header.machine_id = MachineId::from_uuid(Uuid::from_u128(9))).await;
    assert_eq!(world.failure().await, ErrorCode::WrongMachine);

    world.bring(2, session(2), Role::Owner, signed(1, &header, body)).await;
    assert_eq!(world.failure().await, ErrorCode::NotAdmitted);
    world.bring(1, session(1), Role::Owner, v1::Command::default()).await;
    assert_eq!(world.failure().await, ErrorCode::BadRequest);
    assert_eq!(world.codex.script(|script| script.executed.len()), 0);
}

#[tokio::test]
async fn what_is_proven_and_may_not_happen_is_refused_for_good() {
    let mut world = World::start().await;
    world.attach(1, session(1)).await;
    changed(&mut world, |header| header.issued_at = UnixMillis(START - 60_000 - 60_001)).await;
    assert_eq!(world.receipt().await.outcome, Outcome::Refused(ErrorCode::CommandExpired));
    changed(&mut world, |header| header.issued_at = UnixMillis(START).plus(COMMAND_SKEW_MAX * 2)).await;
    assert_eq!(world.receipt().await.outcome, Outcome::Refused(ErrorCode::CommandNotYetValid));
    changed(&mut world, |header| header.lifetime *= 100).await;
    assert_eq!(world.receipt().await.outcome, Outcome::Refused(ErrorCode::LifetimeTooLong));
    changed(&mut world, |header| header.boot_id = BootId::from_bytes([1; 16])).await;
    assert_eq!(world.receipt().await.outcome, Outcome::Unknown);

    let body = body();
    let header = world.header(1, session(1), CommandKind::StartTurn, &body);
    world.bring(1, session(1), Role::Viewer, signed(1, &header, body.clone())).await;
    assert_eq!(world.receipt().await.outcome, Outcome::Refused(ErrorCode::RoleInsufficient));
    world.bring(1, session(1), Role::Owner, signed(1, &header, body)).await;
    let refused = Outcome::Refused(ErrorCode::RoleInsufficient);
    assert_eq!(world.receipt().await.outcome, refused, "a refusal is final");

    let kind = Body::ListModels(agent::ListModels {});
    world.send(1, session(1), CommandKind::StartTurn, kind).await;
    assert_eq!(world.receipt().await.outcome, Outcome::Refused(ErrorCode::BadRequest), "kind and body differ");
    assert_eq!(world.codex.script(|script| script.executed.len()), 0);
}

#[tokio::test]
async fn the_same_id_with_another_body_is_refused() {
    let mut world = World::start().await;
    world.attach(1, session(1)).await;
    let first = body();
    let mut header = world.header(1, session(1), CommandKind::StartTurn, &first);
    world.bring(1, session(1), Role::Owner, signed(1, &header, first)).await;
    assert_eq!(world.receipt().await.outcome, Outcome::Executed);
    let other = agent::StartTurn { text: "other".to_owned(), ..turn() };
    let other = agent::CommandBody { kind: Some(Body::StartTurn(other)) }.encode_to_vec();
    header.body_sha256 = flydex_domain::encoding::sha256(&other);
    world.bring(1, session(1), Role::Owner, signed(1, &header, other)).await;
    assert_eq!(world.receipt().await.outcome, Outcome::Refused(ErrorCode::CommandIdReused));
    assert_eq!(world.codex.script(|script| script.executed.len()), 1);
}

#[tokio::test]
async fn a_repeat_while_under_way_runs_nothing_and_is_answered_where_it_was_asked_last() {
    let mut world = World::start().await;
    world.attach(1, session(1)).await;
    world.attach(1, session(2)).await;
    let gate = world.codex.hold();
    let command = world.start_turn(1, session(1)).await;
    world.until_message("delivered", |kind| matches!(kind, v1::machine_message::Kind::Progress(_)).then_some(())).await;
    world.bring(1, session(2), Role::Owner, command).await;
    // The list is answered after the repeat was looked at.
    world.send(1, session(2), CommandKind::UnwatchThread, Body::UnwatchThread(agent::UnwatchThread::default())).await;
    world.receipt().await;
    gate.add_permits(1);
    let session_id = world
        .until("receipt", |kind| match kind {
            v1::connector_frame::Kind::ToSession(to) => Some(to.session_id.clone()),
            _ => None,
        })
        .await;
    assert_eq!(session_id.as_ref(), session(2).as_bytes());
    assert_eq!(world.codex.script(|script| script.executed.len()), 1);
}

#[tokio::test]
async fn codex_s_refusals_and_doubts_are_told_apart() {
    let mut world = World::start().await;
    world.attach(1, session(1)).await;
    world.codex.script(|script| script.result = Err(Refused::because_of_turn(ErrorCode::TurnRunning, "t9")));
    world.start_turn(1, session(1)).await;
    let receipt = world.receipt().await;
    assert_eq!(receipt.outcome, Outcome::Refused(ErrorCode::TurnRunning));
    let Some(agent::command_result::Kind::Refusal(refusal)) = result(&receipt).kind else { panic!("no refusal") };
    assert_eq!(refusal.running_turn_id, "t9");
    world.codex.script(|script| script.result = Err(Refused::unknown()));
    world.start_turn(1, session(1)).await;
    assert_eq!(world.receipt().await.outcome, Outcome::Unknown);
}

#[tokio::test]
async fn a_viewer_reads_and_does_not_act() {
    let mut world = World::start().await;
    let attached = world.attach(3, session(3)).await;
    assert!(attached.snapshot.unwrap().own_role() == agent::DeviceRole::Viewer);
    world.send(3, session(3), CommandKind::ListThreads, Body::ListThreads(agent::ListThreads::default())).await;
    assert_eq!(world.receipt().await.outcome, Outcome::Executed);
    world.start_turn(3, session(3)).await;
    assert_eq!(world.receipt().await.outcome, Outcome::Refused(ErrorCode::RoleInsufficient));
}

#[tokio::test]
async fn a_large_answer_comes_in_chunks_that_hash_to_what_was_signed() {
    let mut world = World::start().await;
    world.attach(1, session(1)).await;
    let text = "x".repeat(200_000);
    let items = vec![agent::Model { id: text, ..Default::default() }];
    let kind = agent::command_result::Kind::ModelList(agent::ModelList { models: items });
    let content = agent::CommandResult { kind: Some(kind) };
    world.codex.script(|script| script.result = Ok(content.clone()));
    world.send(1, session(1), CommandKind::ListModels, Body::ListModels(agent::ListModels {})).await;
    let bulk = world.receipt().await.bulk.unwrap();
    let mut bytes = Vec::new();
    while bytes.len() < bulk.total_bytes as usize {
        let chunk = world
            .until_message("chunk", |kind| match kind {
                v1::machine_message::Kind::Chunk(chunk) => Some(chunk.clone()),
                _ => None,
            })
            .await;
        assert_eq!(chunk.offset as usize, bytes.len());
        bytes.extend_from_slice(&chunk.bytes);
    }
    assert_eq!(flydex_domain::encoding::sha256(&bytes), bulk.sha256);
    assert!(agent::CommandResult::decode(bytes.as_slice()).unwrap() == content);
}

#[tokio::test]
async fn a_repeated_read_is_told_to_ask_anew_and_a_refused_one_has_its_outcome() {
    let mut world = World::start().await;
    world.attach(1, session(1)).await;
    let read = Body::ListModels(agent::ListModels {});
    let command = world.send(1, session(1), CommandKind::ListModels, read.clone()).await;
    assert_eq!(world.receipt().await.outcome, Outcome::Executed);
    world.bring(1, session(1), Role::Owner, command).await;
    assert_eq!(world.failure().await, ErrorCode::CommandIdReused);

    world.codex.script(|script| script.result = Err(ErrorCode::CodexUnavailable.into()));
    let command = world.send(1, session(1), CommandKind::ListModels, read).await;
    assert_eq!(world.receipt().await.outcome, Outcome::Refused(ErrorCode::CodexUnavailable));
    world.bring(1, session(1), Role::Owner, command).await;
    assert_eq!(world.receipt().await.outcome, Outcome::Refused(ErrorCode::CodexUnavailable));
    assert_eq!(world.codex.script(|script| script.executed.len()), 2);
}
