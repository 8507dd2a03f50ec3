use std::time::Duration;

use super::fixture::*;
use crate::command::{CommandKind, Decision};
use crate::error::ErrorCode;
use crate::id::{AccountId, MachineId};
use crate::limits::{ACTOR_COMMAND_WAIT, MACHINE_COMMANDS_IN_FLIGHT_MAX};
use crate::machine::effect::Dropped;
use crate::machine::message::{DeviceMessageKind, Input, MachineMessageKind, OutcomeKind, OwnerMessage, Stage};
use crate::scope::Role;
use crate::secret::Payload;

#[test]
fn a_command_is_forwarded_and_its_receipt_comes_back() {
    let mut world = World::linked();
    let start = command(1, 1, 1, CommandKind::StartTurn, "hello");
    let effects = world.ask(1, &start);
    assert_eq!(forwarded(&effects), [session(1)]);
    let accepted = MachineMessageKind::Progress { command_id: command_id(1), stage: Stage::Accepted };
    assert_eq!(sent_to(&effects, 1), [accepted]);
    let Some(OwnerMessage::FromSession { device_id: device, role, .. }) = to_link(&effects).first().copied() else {
        panic!("the command is forwarded");
    };
    assert_eq!((*device, *role), (device_id(1), Role::Owner));

    let delivered = MachineMessageKind::Progress { command_id: command_id(1), stage: Stage::Delivered };
    assert_eq!(sent_to(&world.say(1, delivered.clone()), 1), [delivered]);
    assert_eq!(receipts(&world.receipt(1, &start, OutcomeKind::Executed), 1), [OutcomeKind::Executed]);
    assert_eq!(world.machine.in_flight(), 0);
}

#[test]
fn a_command_that_is_not_the_sessions_own_is_refused_by_the_actor() {
    let check = |altered: crate::command::SignedCommand, code: ErrorCode| {
        let mut world = World::linked();
        let effects = world.ask(1, &altered);
        assert_eq!(failures(&effects, 1), [code]);
        assert!(forwarded(&effects).is_empty(), "{code} must not be forwarded");
    };
    let other_account = AccountId::from_uuid(uuid::Uuid::from_u128(9));
    let other_machine = MachineId::from_uuid(uuid::Uuid::from_u128(9));
    let kind = CommandKind::StartTurn;
    check(altered(1, 1, 1, kind, "b", |header| header.account_id = other_account), ErrorCode::WrongAccount);
    check(altered(1, 1, 1, kind, "b", |header| header.machine_id = other_machine), ErrorCode::WrongMachine);
    check(command(2, 1, 1, kind, "b"), ErrorCode::DeviceNotEnrolled);
    let mut forged = command(1, 1, 1, kind, "b");
    forged.signature = command(1, 1, 2, kind, "b").signature;
    check(forged, ErrorCode::SignatureInvalid);
    let mut swapped = command(1, 1, 1, kind, "b");
    swapped.body = Payload::new(bytes::Bytes::from_static(b"c"));
    check(swapped, ErrorCode::BodyMismatch);
    check(command(1, 2, 1, CommandKind::ListThreads, "b"), ErrorCode::NotAdmitted);
}

#[test]
fn a_viewer_reads_and_does_not_act() {
    let mut world = World::linked();
    world.open(2, 2, Role::Viewer);
    assert_eq!(forwarded(&world.ask(2, &command(2, 2, 1, CommandKind::ListThreads, "b"))), [session(2)]);
    let effects = world.ask(2, &command(2, 2, 2, CommandKind::StartTurn, "b"));
    assert_eq!(failures(&effects, 2), [ErrorCode::Forbidden]);
    assert!(forwarded(&effects).is_empty());
}

#[test]
fn an_offline_machine_answers_at_once_and_keeps_nothing() {
    let mut world = World::new();
    world.open(1, 1, Role::Owner);
    let effects = world.ask(1, &command(1, 1, 1, CommandKind::StartTurn, "b"));
    assert_eq!(failures(&effects, 1), [ErrorCode::MachineOffline]);
    let effects = world.send(1, DeviceMessageKind::Probe { nonce: 3 });
    assert_eq!(failures(&effects, 1), [ErrorCode::MachineOffline]);
    assert_eq!(world.machine.in_flight(), 0);
    let effects = world.link_up(1, 1, 1);
    assert!(forwarded(&effects).is_empty(), "the relay queues nothing");
}

#[test]
fn a_machine_that_is_connecting_is_offline_for_commands() {
    let mut world = World::new();
    world.open(1, 1, Role::Owner);
    world.open_link(1, 1, 1);
    let effects = world.ask(1, &command(1, 1, 1, CommandKind::StartTurn, "b"));
    assert_eq!(failures(&effects, 1), [ErrorCode::MachineOffline]);
}

#[test]
fn a_repeat_with_a_known_receipt_is_answered_from_memory_even_offline() {
    let mut world = World::linked();
    let start = command(1, 1, 1, CommandKind::StartTurn, "hello");
    world.ask(1, &start);
    world.receipt(1, &start, OutcomeKind::Executed);
    let effects = world.ask(1, &start);
    assert_eq!(receipts(&effects, 1), [OutcomeKind::Executed]);
    assert!(forwarded(&effects).is_empty());
    world.handle(Input::LinkClosed(link(1)));
    assert_eq!(receipts(&world.ask(1, &start), 1), [OutcomeKind::Executed]);
}

#[test]
fn an_id_that_stood_for_something_else_is_refused() {
    let mut world = World::linked();
    let first = command(1, 1, 1, CommandKind::StartTurn, "hello");
    let other = command(1, 1, 1, CommandKind::StartTurn, "other");
    world.ask(1, &first);
    assert_eq!(failures(&world.ask(1, &other), 1), [ErrorCode::CommandIdReused]);
    world.receipt(1, &first, OutcomeKind::Executed);
    assert_eq!(failures(&world.ask(1, &other), 1), [ErrorCode::CommandIdReused]);
    world.open(2, 2, Role::Owner);
    let same_id_of_another = command(2, 2, 1, CommandKind::StartTurn, "other");
    assert_eq!(forwarded(&world.ask(2, &same_id_of_another)), [session(2)]);
}

#[test]
fn a_repeat_in_flight_is_not_forwarded_again_and_its_answer_goes_to_the_newest_asker() {
    let mut world = World::linked();
    let start = command(1, 1, 1, CommandKind::StartTurn, "hello");
    world.ask(1, &start);
    world.open(2, 1, Role::Owner);
    let effects = world.ask(2, &start);
    assert!(forwarded(&effects).is_empty());
    let accepted = MachineMessageKind::Progress { command_id: command_id(1), stage: Stage::Accepted };
    assert_eq!(sent_to(&effects, 2), [accepted]);
    let delivered = MachineMessageKind::Progress { command_id: command_id(1), stage: Stage::Delivered };
    assert_eq!(sent_to(&world.say(1, delivered.clone()), 2), [delivered]);
    let effects = world.receipt(1, &start, OutcomeKind::Executed);
    assert_eq!(receipts(&effects, 2), [OutcomeKind::Executed]);
    assert!(receipts(&effects, 1).is_empty());
}

#[test]
fn a_receipt_for_a_session_that_left_is_kept_for_the_repeat() {
    let mut world = World::linked();
    let start = command(1, 1, 1, CommandKind::StartTurn, "hello");
    world.ask(1, &start);
    world.handle(Input::SessionClosed(session(1)));
    assert_eq!(drops(&world.receipt(1, &start, OutcomeKind::Executed)), [Dropped::UnknownSession]);
    world.open(2, 1, Role::Owner);
    assert_eq!(receipts(&world.ask(2, &start), 2), [OutcomeKind::Executed]);
}

#[test]
fn an_unknown_outcome_is_asked_again_of_the_machine_and_may_be_proven() {
    let mut world = World::linked();
    let start = command(1, 1, 1, CommandKind::StartTurn, "hello");
    world.ask(1, &start);
    world.receipt(1, &start, OutcomeKind::Unknown);
    assert_eq!(forwarded(&world.ask(1, &start)), [session(1)], "the machine may have proof by now");
    world.receipt(1, &start, OutcomeKind::Executed);
    assert_eq!(receipts(&world.ask(1, &start), 1), [OutcomeKind::Executed]);
    assert_eq!(receipts(&world.receipt(1, &start, OutcomeKind::Unknown), 1), [OutcomeKind::Unknown]);
    assert_eq!(receipts(&world.ask(1, &start), 1), [OutcomeKind::Executed], "a final word stays");
}

#[test]
fn a_read_is_asked_of_the_machine_every_time() {
    let mut world = World::linked();
    let list = command(1, 1, 1, CommandKind::ListThreads, "page");
    world.ask(1, &list);
    world.receipt(1, &list, OutcomeKind::Executed);
    assert_eq!(forwarded(&world.ask(1, &list)), [session(1)]);
}

#[test]
fn a_receipt_with_another_hash_or_of_another_device_reaches_nobody() {
    let mut world = World::linked();
    world.open(2, 2, Role::Owner);
    let start = command(1, 1, 1, CommandKind::StartTurn, "hello");
    world.ask(1, &start);
    let mut wrong = receipt(&start, OutcomeKind::Executed);
    wrong.facts.command_hash = command(1, 1, 2, CommandKind::StartTurn, "x").hash();
    let effects = world.say(1, MachineMessageKind::Receipt(wrong));
    assert_eq!(drops(&effects), [Dropped::HashMismatch]);
    assert!(receipts(&effects, 1).is_empty());
    assert_eq!(world.machine.in_flight(), 1);
    let unasked = command(1, 1, 5, CommandKind::StartTurn, "hello");
    let effects = world.receipt(2, &unasked, OutcomeKind::Executed);
    assert_eq!(drops(&effects), [Dropped::ForeignDevice]);
    assert!(receipts(&effects, 2).is_empty());
}

#[test]
fn the_loss_of_the_link_fails_what_is_in_flight_and_a_repeat_is_forwarded_to_the_next_link() {
    let mut world = World::linked();
    let start = command(1, 1, 1, CommandKind::StartTurn, "hello");
    world.ask(1, &start);
    let effects = world.handle(Input::LinkClosed(link(1)));
    assert_eq!(failures(&effects, 1), [ErrorCode::MachineOffline]);
    assert_eq!(failures(&world.ask(1, &start), 1), [ErrorCode::MachineOffline]);
    world.link_up(2, 2, 1);
    assert_eq!(forwarded(&world.ask(1, &start)), [session(1)]);
}

#[test]
fn commands_in_flight_are_bounded_and_the_next_is_told_so() {
    let mut world = World::linked();
    for number in 0..MACHINE_COMMANDS_IN_FLIGHT_MAX as u128 {
        let effects = world.ask(1, &command(1, 1, number, CommandKind::StartTurn, "b"));
        assert_eq!(forwarded(&effects).len(), 1);
    }
    let one_more = command(1, 1, 1_000, CommandKind::StartTurn, "b");
    assert_eq!(failures(&world.ask(1, &one_more), 1), [ErrorCode::MachineBusy]);
    let first = command(1, 1, 0, CommandKind::StartTurn, "b");
    world.receipt(1, &first, OutcomeKind::Refused);
    assert_eq!(forwarded(&world.ask(1, &one_more)).len(), 1);
}

#[test]
fn a_command_without_a_receipt_frees_its_place_in_time() {
    let mut world = World::linked();
    let start = command(1, 1, 1, CommandKind::StartTurn, "hello");
    world.ask(1, &start);
    let due = world.machine.next_tick(world.now).unwrap();
    assert_eq!(due, world.now.instant + ACTOR_COMMAND_WAIT);
    world.pass(ACTOR_COMMAND_WAIT - Duration::from_millis(1));
    assert!(failures(&world.handle(Input::Tick), 1).is_empty());
    world.pass(Duration::from_millis(1));
    assert_eq!(failures(&world.handle(Input::Tick), 1), [ErrorCode::DeadlineExceeded]);
    assert_eq!(world.machine.in_flight(), 0);
    assert_eq!(receipts(&world.receipt(1, &start, OutcomeKind::Executed), 1), [OutcomeKind::Executed]);
    assert_eq!(receipts(&world.ask(1, &start), 1), [OutcomeKind::Executed], "a late receipt counts");
}

#[test]
fn of_two_answers_to_one_approval_only_one_is_in_flight_and_the_machine_tells_the_loser() {
    let mut world = World::linked();
    world.open(2, 2, Role::Owner);
    let accept = answer(1, 1, 5, Decision::Accept);
    let decline = answer(2, 2, 5, Decision::Decline);
    let other = answer(2, 3, 6, Decision::Decline);
    assert_eq!(forwarded(&world.ask(1, &accept)), [session(1)]);
    let effects = world.ask(2, &decline);
    assert!(forwarded(&effects).is_empty());
    assert_eq!(failures(&effects, 2), [ErrorCode::MachineBusy]);
    assert_eq!(forwarded(&world.ask(2, &other)), [session(2)], "another approval is another matter");
    assert!(forwarded(&world.ask(1, &accept)).is_empty(), "the same again is the same command");
    world.receipt(1, &accept, OutcomeKind::Executed);
    assert_eq!(forwarded(&world.ask(2, &decline)), [session(2)], "the machine says who answered");
    assert_eq!(receipts(&world.receipt(2, &decline, OutcomeKind::Refused), 2), [OutcomeKind::Refused]);
}

#[test]
fn the_reads_of_a_session_that_left_do_not_hold_places() {
    let mut world = World::linked();
    world.ask(1, &command(1, 1, 1, CommandKind::ListThreads, "b"));
    world.ask(1, &command(1, 1, 2, CommandKind::StartTurn, "b"));
    assert_eq!(world.machine.in_flight(), 2);
    world.handle(Input::SessionClosed(session(1)));
    assert_eq!(world.machine.in_flight(), 1);
}
