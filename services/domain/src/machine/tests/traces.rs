//! What follows from a command or a subscription carries its trace, whoever says it.

use std::time::Duration;

use super::fixture::*;
use crate::command::{CommandKind, SignedCommand};
use crate::error::ErrorCode;
use crate::id::CommandId;
use crate::limits::{ACTOR_COMMAND_WAIT, EVENT_WINDOW_BYTES};
use crate::machine::effect::Effect;
use crate::machine::message::{
    ConnectorMessage, DeviceMessage, DeviceMessageKind, Failure, Input, MachineMessage, MachineMessageKind,
    OutcomeKind, Stage, StreamVerdict, Trace,
};
use crate::scope::Role;
use crate::secret::Payload;
use crate::stream::{StreamId, Verdict};

fn trace(number: u8) -> Trace {
    Trace { trace_id: [number; 16], span_id: [number; 8], flags: 1 }
}

fn ask(world: &mut World, to: u128, command: &SignedCommand, number: u8) -> Vec<Effect> {
    let message =
        DeviceMessage { trace: Some(trace(number)), kind: DeviceMessageKind::Command(Box::new(command.clone())) };
    world.handle(Input::SessionMessage { session_id: session(to), message, deadline: None })
}

/// Everything said to a session is in this trace, and something is said.
fn all_in(effects: &[Effect], to: u128, number: u8) {
    let said: Vec<&MachineMessage> = effects
        .iter()
        .filter_map(|effect| {
            if let Effect::ToSession { session_id, message } = effect { Some((session_id, message)) } else { None }
        })
        .filter(|(session_id, _)| **session_id == session(to))
        .map(|(_, message)| message)
        .filter(|message| !matches!(message.kind, MachineMessageKind::Status(_)))
        .collect();
    assert!(!said.is_empty(), "the session is told");
    for message in said {
        assert_eq!(message.trace, Some(trace(number)), "{:?}", message.kind);
    }
}

#[test]
fn the_actors_own_answers_carry_the_trace_of_the_command() {
    let mut world = World::linked();
    let start = command(1, 1, 1, CommandKind::StartTurn, "hello");
    all_in(&ask(&mut world, 1, &start, 1), 1, 1);
    all_in(&ask(&mut world, 1, &start, 2), 1, 2);
    all_in(&ask(&mut world, 1, &command(1, 1, 1, CommandKind::StartTurn, "other"), 3), 1, 3);
    world.receipt(1, &start, OutcomeKind::Executed);
    all_in(&ask(&mut world, 1, &start, 4), 1, 4);
    let forged = altered(1, 1, 2, CommandKind::StartTurn, "b", |header| header.account_id = other_account());
    all_in(&ask(&mut world, 1, &forged, 5), 1, 5);
}

#[test]
fn a_command_that_is_given_up_fails_in_its_own_trace() {
    let mut world = World::linked();
    ask(&mut world, 1, &command(1, 1, 1, CommandKind::StartTurn, "a"), 1);
    world.pass(ACTOR_COMMAND_WAIT);
    let effects = world.handle(Input::Tick);
    assert_eq!(failures(&effects, 1), [ErrorCode::DeadlineExceeded]);
    all_in(&effects, 1, 1);
    ask(&mut world, 1, &command(1, 1, 2, CommandKind::StartTurn, "b"), 2);
    let effects = world.handle(Input::LinkClosed(link(1)));
    assert_eq!(failures(&effects, 1), [ErrorCode::MachineOffline]);
    all_in(&effects, 1, 2);
    let effects = ask(&mut world, 1, &command(1, 1, 3, CommandKind::StartTurn, "c"), 3);
    all_in(&effects, 1, 3);
}

#[test]
fn a_connectors_answers_without_a_trace_get_their_commands_before_and_after_the_receipt() {
    let mut world = World::linked();
    let start = command(1, 1, 1, CommandKind::StartTurn, "hello");
    ask(&mut world, 1, &start, 1);
    let command_id = command_id(1);
    let chunk = |offset| MachineMessageKind::Chunk { command_id, offset, bytes: Payload::new("x".into()) };
    let failure = Failure { code: ErrorCode::MachineBusy, command_id: Some(command_id), retry_after: Duration::ZERO };
    all_in(&world.say(1, MachineMessageKind::Progress { command_id, stage: Stage::Delivered }), 1, 1);
    all_in(&world.say(1, MachineMessageKind::Failure(failure)), 1, 1);
    all_in(&world.say(1, chunk(0)), 1, 1);
    all_in(&world.receipt(1, &start, OutcomeKind::Executed), 1, 1);
    all_in(&world.say(1, chunk(1)), 1, 1);
}

#[test]
fn another_devices_command_under_the_same_id_lends_its_trace_to_nobody() {
    let mut world = World::linked();
    world.open(2, 2, Role::Owner);
    ask(&mut world, 1, &command(1, 1, 1, CommandKind::StartTurn, "hello"), 1);
    let chunk = MachineMessageKind::Chunk { command_id: command_id(1), offset: 0, bytes: Payload::new("x".into()) };
    let effects = world.say(2, chunk);
    let traces: Vec<_> = effects
        .iter()
        .filter_map(|effect| if let Effect::ToSession { message, .. } = effect { Some(message.trace) } else { None })
        .collect();
    assert_eq!(traces, [None]);
}

#[test]
fn a_subscription_lends_its_trace_to_its_verdict_events_and_end() {
    let mut world = World::linked();
    world.open(2, 2, Role::Owner);
    let subscribe = |world: &mut World, to: u128, device: u8, id: CommandId| {
        let verdict = Verdict::Resumed { from: 0 };
        let verdict = StreamVerdict { command_id: id, stream_id: StreamId(3), boot_id: boot(1), verdict };
        let (session_id, device_id) = (session(to), device_id(device));
        world.frame(ConnectorMessage::Subscribed { session_id, device_id, verdict })
    };
    let watches = [command(1, 1, 1, CommandKind::WatchThread, "w"), command(2, 2, 2, CommandKind::WatchThread, "w")];
    ask(&mut world, 1, &watches[0], 1);
    ask(&mut world, 2, &watches[1], 2);
    all_in(&subscribe(&mut world, 1, 1, command_id(1)), 1, 1);
    // Its receipt may overtake the verdict: they travel on different lanes.
    world.receipt(2, &watches[1], OutcomeKind::Executed);
    all_in(&subscribe(&mut world, 2, 2, command_id(2)), 2, 2);
    let effects = world.shared(3, 1, 10);
    all_in(&effects, 1, 1);
    all_in(&effects, 2, 2);
    let effects = world.shared(3, 2, EVENT_WINDOW_BYTES as usize);
    assert_eq!(stream_ends(&effects, 1), [(3, 1, ErrorCode::SlowConsumer)]);
    all_in(&effects, 1, 1);
    subscribe(&mut world, 1, 1, command_id(1));
    all_in(&world.handle(Input::LinkClosed(link(1))), 1, 1);
}
