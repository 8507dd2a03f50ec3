use flydex_agent_proto::v1 as agent;
use flydex_agent_proto::v1::command_body::Kind as Body;
use flydex_domain::command::{CommandKind, Outcome};
use flydex_domain::error::ErrorCode;
use flydex_domain::journal::replay;
use flydex_domain::limits::JOURNAL_RETRY_AFTER;
use flydex_domain::scope::Role;
use flydex_proto::v1;

use super::world::*;
use crate::paired::DeskPolicy;
use crate::storage::memory::MemoryStorage;

async fn delivered(world: &mut World) {
    world.until_message("delivered", |kind| matches!(kind, v1::machine_message::Kind::Progress(_)).then_some(())).await;
}

#[tokio::test]
async fn after_a_restart_a_known_outcome_is_told_and_nothing_runs_twice() {
    let mut world = World::start().await;
    world.attach(1, session(1)).await;
    let command = world.start_turn(1, session(1)).await;
    assert_eq!(world.receipt().await.outcome, Outcome::Executed);
    let mut again = World::boot(world.crash().await, 10).await;
    again.own(1, 2).await;
    again.attach(1, session(1)).await;
    again.bring(1, session(1), Role::Owner, command).await;
    let receipt = again.receipt().await;
    assert_eq!((receipt.outcome, receipt.boot_id), (Outcome::Executed, again.boot_id));
    assert_eq!(again.codex.script(|script| script.executed.len()), 0);
}

#[tokio::test]
async fn what_a_crash_left_open_is_unknown_until_codex_proves_it() {
    let mut world = World::start().await;
    world.attach(1, session(1)).await;
    let _gate = world.codex.hold();
    let command = world.start_turn(1, session(1)).await;
    delivered(&mut world).await;
    let mut again = World::boot(world.crash().await, 10).await;
    again.own(1, 2).await;
    again.attach(1, session(1)).await;
    again.bring(1, session(1), Role::Owner, command.clone()).await;
    assert_eq!(again.receipt().await.outcome, Outcome::Unknown);
    again.codex.script(|script| script.proof = Some("t1".to_owned()));
    again.bring(1, session(1), Role::Owner, command).await;
    let receipt = again.receipt().await;
    assert_eq!(receipt.outcome, Outcome::Executed);
    let Some(agent::command_result::Kind::TurnAccepted(accepted)) = result(&receipt).kind else { panic!() };
    assert_eq!(accepted.turn_id, "t1");
    assert_eq!(again.codex.script(|script| script.executed.len()), 0);
}

#[tokio::test]
async fn a_command_for_an_earlier_life_that_never_arrived_is_unknown_and_never_runs() {
    let mut world = World::start().await;
    world.attach(1, session(1)).await;
    let body = prost::Message::encode_to_vec(&agent::CommandBody { kind: Some(Body::StartTurn(turn())) });
    let header = world.header(1, session(1), CommandKind::StartTurn, &body);
    let command = signed(1, &header, body);
    let mut again = World::boot(world.crash().await, 10).await;
    again.own(1, 2).await;
    again.attach(1, session(1)).await;
    again.bring(1, session(1), Role::Owner, command).await;
    assert_eq!(again.receipt().await.outcome, Outcome::Unknown);
    assert_eq!(again.codex.script(|script| script.executed.len()), 0);
}

#[tokio::test]
async fn a_damaged_journal_costs_knowledge_and_repeats_nothing() {
    let mut world = World::start().await;
    world.attach(1, session(1)).await;
    let command = world.start_turn(1, session(1)).await;
    assert_eq!(world.receipt().await.outcome, Outcome::Executed);
    let mut disks = world.crash().await;
    let mut content = disks.journal.content();
    content[20] ^= 1;
    disks.journal = MemoryStorage::with(content);
    let mut again = World::boot(disks, 10).await;
    again.own(1, 2).await;
    again.attach(1, session(1)).await;
    again.bring(1, session(1), Role::Owner, command).await;
    assert_eq!(again.receipt().await.outcome, Outcome::Unknown);
    assert!(again.disks.journal.aside().is_some());
    again.start_turn(1, session(1)).await;
    assert_eq!(again.receipt().await.outcome, Outcome::Executed, "the new journal works");
}

#[tokio::test]
async fn with_a_full_disk_only_what_stops_something_works_until_there_is_room() {
    let mut world = World::start().await;
    world.attach(1, session(1)).await;
    world.disks.journal.fill_disk(true);
    world.start_turn(1, session(1)).await;
    assert_eq!(world.receipt().await.outcome, Outcome::Refused(ErrorCode::JournalUnavailable));
    world.status.wait_for(|status| status.is_some_and(|status| !status.journal_writable)).await.unwrap();
    let interrupt = agent::Interrupt { thread_id: thread().to_string(), turn_id: "t".to_owned() };
    world.send(1, session(1), CommandKind::Interrupt, Body::Interrupt(interrupt)).await;
    assert_eq!(world.receipt().await.outcome, Outcome::Executed);
    world.send(1, session(1), CommandKind::ListModels, Body::ListModels(agent::ListModels {})).await;
    assert_eq!(world.receipt().await.outcome, Outcome::Executed);
    assert_eq!(world.codex.script(|script| script.executed.len()), 2);

    world.disks.journal.fill_disk(false);
    world.clock.advance(JOURNAL_RETRY_AFTER);
    world.status.wait_for(|status| status.is_some_and(|status| status.journal_writable)).await.unwrap();
    world.start_turn(1, session(1)).await;
    assert_eq!(world.receipt().await.outcome, Outcome::Executed);
    assert!(replay(&world.disks.journal.content()).is_ok());
}

#[tokio::test]
async fn the_journal_holds_no_content() {
    let mut world = World::start().await;
    world.attach(1, session(1)).await;
    world.start_turn(1, session(1)).await;
    world.receipt().await;
    let content = world.disks.journal.content();
    let contains = |needle: &[u8]| content.windows(needle.len()).any(|window| window == needle);
    assert!(contains(thread().to_string().as_bytes()));
    assert!(!contains(b"secret prompt"));
}

#[tokio::test]
async fn while_paused_nothing_acts() {
    let mut world = World::start().await;
    world.attach(1, session(1)).await;
    world.policy.send_replace(DeskPolicy { paused: true, ..DeskPolicy::default() });
    let report = world.until("report", |kind| match kind {
        v1::connector_frame::Kind::Report(report) => report.paused.then_some(()),
        _ => None,
    });
    report.await;
    world.start_turn(1, session(1)).await;
    assert_eq!(world.receipt().await.outcome, Outcome::Refused(ErrorCode::RemotePaused));
}

#[tokio::test]
async fn a_drain_finishes_what_is_under_way_and_begins_nothing() {
    let mut world = World::start().await;
    world.attach(1, session(1)).await;
    let gate = world.codex.hold();
    world.start_turn(1, session(1)).await;
    delivered(&mut world).await;
    world.shutdown.begin();
    world
        .until("draining", |kind| match kind {
            v1::connector_frame::Kind::Report(report) => (report.state() == v1::MachineState::Draining).then_some(()),
            _ => None,
        })
        .await;
    world.start_turn(1, session(1)).await;
    assert_eq!(world.failure().await, ErrorCode::GoingAway);
    gate.add_permits(1);
    assert_eq!(world.receipt().await.outcome, Outcome::Executed);
}
