//! Any sequence of inputs, and what must hold after each (the invariants of the module).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;
use std::time::Duration;

use proptest::prelude::*;

use super::fixture::*;
use crate::command::{CommandClass, CommandKind, Decision, SignedCommand};
use crate::epoch::Epoch;
use crate::error::ErrorCode;
use crate::id::{DeviceId, LinkId, SessionId};
use crate::ledger::CommandKey;
use crate::limits::{EVENT_BODY_BYTES_MAX, EVENT_WINDOW_BYTES, MACHINE_COMMANDS_IN_FLIGHT_MAX};
use crate::machine::effect::{Effect, Subject};
use crate::machine::message::{
    Answer, ConnectorFrame, ConnectorMessage, DeviceMessageKind, Input, MachineMessage, MachineMessageKind,
    OutcomeKind, OwnerMessage, StreamVerdict,
};
use crate::placement::{LinkPlacement, OwnerRecord};
use crate::scope::Role;
use crate::status::MachineStatus;
use crate::stream::{StreamId, Verdict};

const SESSIONS: u128 = 3;

/// Device 1 has sessions 1 and 3, device 2 has session 2.
const fn device_of(session: u128) -> u8 {
    if session == 2 { 2 } else { 1 }
}

/// Signed once: the cases only choose among them.
static COMMANDS: LazyLock<Vec<SignedCommand>> = LazyLock::new(|| {
    let mut commands = Vec::new();
    for device in [1, 2] {
        for number in 0..4 {
            commands.push(command(device, 0, number, CommandKind::StartTurn, "one"));
            commands.push(command(device, 0, number, CommandKind::StartTurn, "other"));
        }
        for number in 4..6 {
            commands.push(command(device, device.into(), number, CommandKind::ListThreads, "page"));
        }
        commands.push(answer(device, 6, 1, Decision::Accept));
        commands.push(answer(device, 7, 1, Decision::Decline));
    }
    commands
});

#[derive(Clone, Debug)]
enum Step {
    Open(u128),
    Close(u128),
    Link {
        counter_step: u64,
        boot: u8,
    },
    Attach,
    CloseLink,
    /// The directory answers what it was asked, one way or the other.
    Directory(u8),
    /// The connector has attached to another node's epoch.
    Stale,
    /// Another node's later ownership is on record.
    Overtaken,
    Found,
    Placed(u8),
    Ask {
        session: u128,
        command: usize,
    },
    Answer {
        session: u128,
        command: usize,
        outcome: u8,
    },
    Subscribe {
        session: u128,
        device: u8,
        stream: u32,
        behind: u64,
    },
    Share {
        stream: u32,
        bytes: usize,
        skip: bool,
    },
    Replay {
        session: u128,
        stream: u32,
        seq: u64,
    },
    WrongEpoch {
        stream: u32,
        session: u128,
    },
    Credit {
        session: u128,
        share: u32,
    },
    Pass(u64),
    /// The node hands the machine over; only at the end.
    Leave,
}

fn step() -> impl Strategy<Value = Step> {
    let session = || 1..=SESSIONS;
    let commands = 0..24_usize;
    prop_oneof![
        3 => session().prop_map(Step::Open),
        1 => session().prop_map(Step::Close),
        2 => (0..2_u64, 1..4_u8).prop_map(|(counter_step, boot)| Step::Link { counter_step, boot }),
        4 => Just(Step::Attach),
        1 => Just(Step::CloseLink),
        2 => (0..5_u8).prop_map(Step::Directory),
        1 => prop_oneof![Just(Step::Stale), Just(Step::Overtaken), Just(Step::Found)],
        1 => (0..4_u8).prop_map(Step::Placed),
        8 => (session(), commands.clone()).prop_map(|(session, command)| Step::Ask { session, command }),
        6 => (session(), commands, 0..3_u8)
            .prop_map(|(session, command, outcome)| Step::Answer { session, command, outcome }),
        5 => (session(), 1..3_u8, 0..3_u32, prop_oneof![9 => Just(0), 1 => 1..4_u64])
            .prop_map(|(session, device, stream, behind)| Step::Subscribe { session, device, stream, behind }),
        12 => (0..3_u32, 1..100_000_usize, prop::bool::weighted(0.05))
            .prop_map(|(stream, bytes, skip)| Step::Share { stream, bytes, skip }),
        2 => (session(), 0..3_u32, 1..8_u64)
            .prop_map(|(session, stream, seq)| Step::Replay { session, stream, seq }),
        2 => (0..3_u32, session()).prop_map(|(stream, session)| Step::WrongEpoch { stream, session }),
        4 => (session(), 1..4_u32).prop_map(|(session, share)| Step::Credit { session, share }),
        1 => (0..40_u64).prop_map(Step::Pass),
    ]
}

/// What the outside has seen, from which the invariants are judged.
#[derive(Default)]
struct Seen {
    /// Sessions and links that were let in, or wait for it.
    here: BTreeMap<Opened, Here>,
    /// The last event of each stream that a session was sent since it was admitted.
    watched: BTreeMap<(SessionId, StreamId), u64>,
    /// Event bytes sent and not credited.
    unacknowledged: BTreeMap<SessionId, u64>,
    /// Effects whose final receipt went through.
    finished: BTreeSet<CommandKey>,
    sequence: BTreeMap<u32, u64>,
    counter: u64,
    links: u128,
}

/// A session or a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Opened {
    Session(SessionId),
    Link(LinkId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Here {
    Waits,
    Open,
}

/// Steps that only watch, share and credit.
fn stream_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (1..=SESSIONS, 0..2_u32).prop_map(|(session, stream)| {
            Step::Subscribe { session, device: device_of(session), stream, behind: 0 }
        }),
        6 => (0..2_u32, 1..EVENT_BODY_BYTES_MAX, prop::bool::weighted(0.02))
            .prop_map(|(stream, bytes, skip)| Step::Share { stream, bytes, skip }),
        2 => (1..=SESSIONS, 1..8_u32).prop_map(|(session, share)| Step::Credit { session, share }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn the_invariants_hold_after_every_input(steps in prop::collection::vec(step(), 1..200)) {
        let (mut world, mut seen) = (World::new(), Seen::default());
        for step in steps {
            check(&mut world, &mut seen, step)?;
        }
        check(&mut world, &mut seen, Step::Leave)?;
        prop_assert!(seen.here.is_empty(), "everybody is sent on: {:?}", seen.here);
    }

    #[test]
    fn the_invariants_hold_for_sessions_that_only_watch(steps in prop::collection::vec(stream_step(), 1..200)) {
        let (mut world, mut seen) = (World::new(), Seen::default());
        for number in 1..=SESSIONS {
            check(&mut world, &mut seen, Step::Open(number))?;
        }
        check(&mut world, &mut seen, Step::Directory(0))?;
        check(&mut world, &mut seen, Step::Link { counter_step: 1, boot: 1 })?;
        check(&mut world, &mut seen, Step::Attach)?;
        for step in steps {
            check(&mut world, &mut seen, step)?;
        }
    }
}

fn check(world: &mut World, seen: &mut Seen, step: Step) -> Result<(), TestCaseError> {
    let wrong_epoch = matches!(step, Step::WrongEpoch { .. });
    let asked = if let Step::Ask { session: asker, command } = &step {
        Some((*asker, COMMANDS[*command].header.command_id))
    } else {
        None
    };
    let linked_before = world.machine.linked().is_some();
    let in_flight_before: BTreeSet<CommandKey> =
        COMMANDS.iter().map(key_of).filter(|key| world.machine.is_in_flight(*key)).collect();
    let effects = take(world, seen, step);
    if wrong_epoch {
        prop_assert!(effects.iter().all(|effect| matches!(effect, Effect::Note(_))), "INV-FENCE: {effects:?}");
    }
    if let Some((asker, command_id)) = asked
        && seen.here.contains_key(&Opened::Session(session(asker)))
    {
        prop_assert!(answers(&effects, asker, command_id), "a command is always answered: {effects:?}");
    }
    for effect in &effects {
        judge(world, seen, &in_flight_before, effect)?;
        if let Effect::ToLink { message, .. } = effect {
            let attached = linked_before || world.machine.linked().is_some();
            prop_assert!(attached || matches!(message, OwnerMessage::Attach), "nothing is forwarded before the attach");
        }
    }
    one_phase(world, seen)?;
    prop_assert!(world.machine.in_flight() <= MACHINE_COMMANDS_IN_FLIGHT_MAX, "INV-BOUND");
    prop_assert!(answers_in_flight(world) <= 1, "an approval is answered once at a time");
    let unlinked = matches!(world.machine.status(), MachineStatus::Offline | MachineStatus::Connecting);
    prop_assert!(!unlinked || seen.watched.is_empty(), "no stream outlives the link that feeds it");
    Ok(())
}

/// The machine is owned, asked for, or nobody's: who waits does so for a question that is open, and for no longer.
fn one_phase(world: &World, seen: &Seen) -> Result<(), TestCaseError> {
    let owned = world.machine.owned().is_some();
    let asked = world.asked.is_some();
    prop_assert!(!(owned && asked), "it is not asked for what it has");
    let waits = seen.here.values().any(|here| *here == Here::Waits);
    prop_assert!(!waits || asked, "who waits is answered with the question: {:?}", seen.here);
    prop_assert!(owned || asked || seen.here.is_empty(), "nobody is at a machine that is not owned: {:?}", seen.here);
    Ok(())
}

fn take(world: &mut World, seen: &mut Seen, step: Step) -> Vec<Effect> {
    match step {
        Step::Open(number) => {
            seen.here.insert(Opened::Session(session(number)), Here::Waits);
            world.ask_to_open(number, device_of(number), Role::Owner, None)
        }
        Step::Close(number) => {
            seen.here.remove(&Opened::Session(session(number)));
            seen.forget(session(number));
            world.handle(Input::SessionClosed(session(number)))
        }
        Step::Link { counter_step, boot: number } => {
            seen.counter += counter_step;
            seen.links += 1;
            world.link = link(seen.links);
            seen.here.insert(Opened::Link(world.link), Here::Waits);
            world.boot = boot(number);
            world.open_link(seen.links, seen.counter, number)
        }
        Step::Attach => {
            let mut effects = world.owned(Vec::new());
            effects.extend(world.frame_at(None, ConnectorMessage::Attached { highest: world.epoch }));
            effects.extend(world.report(MachineStatus::CodexReady));
            effects
        }
        Step::CloseLink => {
            seen.here.remove(&Opened::Link(world.link));
            world.handle(Input::LinkClosed(world.link))
        }
        Step::Directory(answer) => {
            let Some(asked) = world.asked else { return Vec::new() };
            world.answer(match answer {
                0 => Answer::Owned(asked.floor.above(incarnation())),
                1 => Answer::Held(Some(other_node())),
                2 => Answer::Settling(Duration::from_secs(1)),
                3 => Answer::Unavailable,
                _ => Answer::Refused(ErrorCode::Overloaded),
            })
        }
        Step::Stale => {
            let highest = world.epoch.above(other_node());
            world.frame_at(None, ConnectorMessage::Stale { highest })
        }
        Step::Overtaken => world.handle(Input::Overtaken(taken_over(world.epoch))),
        Step::Found => world.handle(Input::Found(Some(taken_over(world.epoch)))),
        Step::Placed(placed) => {
            let placed = match placed {
                0 => LinkPlacement::Newest,
                1 => LinkPlacement::Superseded { counter: seen.counter + 1 },
                2 => LinkPlacement::Absurd,
                _ => LinkPlacement::NotHeld,
            };
            world.handle(Input::LinkPlaced { link_id: world.link, placed })
        }
        Step::Ask { session, command } => world.ask(session, &COMMANDS[command]),
        Step::Answer { session, command, outcome } => {
            let outcome = [OutcomeKind::Executed, OutcomeKind::Refused, OutcomeKind::Unknown][usize::from(outcome)];
            let command = &COMMANDS[command];
            let was_in_flight = world.machine.is_in_flight(key_of(command));
            let effects = world.receipt(session, command, outcome);
            let left = was_in_flight && !world.machine.is_in_flight(key_of(command));
            if left && outcome != OutcomeKind::Unknown && command.header.kind.class() == CommandClass::Effect {
                seen.finished.insert(key_of(command));
            }
            effects
        }
        Step::Subscribe { session, device, stream, behind } => {
            let from = seen.sequence.get(&stream).copied().unwrap_or_default().saturating_sub(behind);
            let effects = world.subscribe(session, device, stream, Verdict::Resumed { from });
            let own = device == device_of(session);
            assert!(own || sent_to(&effects, session).is_empty(), "INV-KEY: admitted as another device");
            effects
        }
        Step::Share { stream, bytes, skip } => {
            let seq = seen.sequence.entry(stream).or_default();
            *seq += if skip { 2 } else { 1 };
            let seq = *seq;
            world.shared(stream, seq, bytes)
        }
        Step::Replay { session, stream, seq } => world.say(session, MachineMessageKind::Event(event(stream, seq, 5))),
        Step::WrongEpoch { stream, session: to } => {
            let epoch = Some(world.epoch.above(incarnation()));
            let mut effects = world.frame_at(epoch, ConnectorMessage::SharedEvent(event(stream, 1, 1)));
            let verdict = StreamVerdict {
                command_id: command_id(1),
                stream_id: StreamId(stream),
                boot_id: world.boot,
                verdict: Verdict::Resumed { from: 0 },
            };
            let device_id = device_id(device_of(to));
            let subscribed = ConnectorMessage::Subscribed { session_id: session(to), device_id, verdict };
            effects.extend(world.frame_at(epoch, subscribed));
            let message = MachineMessage { trace: None, kind: MachineMessageKind::Event(event(stream, 1, 1)) };
            let frame = ConnectorFrame {
                epoch: Some(world.epoch),
                message: ConnectorMessage::ToSession { session_id: session(to), message },
            };
            effects.extend(world.handle(Input::LinkFrame { link_id: link(u128::MAX), frame }));
            effects
        }
        Step::Credit { session: of, share } => {
            let bytes = EVENT_WINDOW_BYTES / share;
            if let Some(unacknowledged) = seen.unacknowledged.get_mut(&session(of)) {
                *unacknowledged = unacknowledged.saturating_sub(bytes.into());
            }
            world.send(of, DeviceMessageKind::EventCredit(bytes))
        }
        Step::Leave => {
            let mut effects = world.handle(Input::HandOver);
            effects.extend(world.handle(Input::Drain { successor: Some(other_node()) }));
            effects
        }
        Step::Pass(seconds) => {
            world.pass(Duration::from_secs(seconds));
            world.handle(Input::Tick)
        }
    }
}

fn judge(
    world: &World,
    seen: &mut Seen,
    in_flight_before: &BTreeSet<CommandKey>,
    effect: &Effect,
) -> Result<(), TestCaseError> {
    match effect {
        Effect::SessionOpened(session_id) => {
            seen.let_in(Opened::Session(*session_id))?;
            seen.forget(*session_id);
        }
        Effect::EndSession { session_id, .. } | Effect::NotOwner { subject: Subject::Session(session_id), .. } => {
            seen.forget(*session_id);
            seen.gone(Opened::Session(*session_id))?;
        }
        Effect::LinkOpened(link_id) => seen.let_in(Opened::Link(*link_id))?,
        Effect::EndLink { link_id, .. } | Effect::NotOwner { subject: Subject::Link(link_id), .. } => {
            seen.gone(Opened::Link(*link_id))?;
        }
        Effect::ToSession { session_id, message } => {
            let known = seen.here.get(&Opened::Session(*session_id));
            let told = matches!(message.kind, MachineMessageKind::Failure(_)) || known == Some(&Here::Open);
            prop_assert!(known.is_some() && told, "INV-SCOPE: only open sessions are told anything");
            seen.told(*session_id, &message.kind)?;
        }
        Effect::ToLink { link_id, epoch, message } => {
            prop_assert_eq!(*link_id, world.link, "only the newest link is spoken to");
            prop_assert_eq!(*epoch, world.epoch, "INV-FENCE");
            if let OwnerMessage::FromSession { device_id, message, session_id, .. } = message
                && let DeviceMessageKind::Command(command) = &message.kind
            {
                let key = key_of(command);
                prop_assert_eq!(*device_id, command.header.device_id);
                prop_assert_eq!(*device_id, device_of_session(*session_id), "INV-KEY");
                prop_assert!(!seen.finished.contains(&key), "INV-ONCE: a finished command runs no more");
                prop_assert!(!in_flight_before.contains(&key), "INV-ONCE: a command in flight is not sent again");
            }
        }
        Effect::Acquire { .. }
        | Effect::Assert
        | Effect::Find
        | Effect::SetLink { .. }
        | Effect::DeviceRemoved(_)
        | Effect::Note(_) => {}
    }
    Ok(())
}

impl Seen {
    fn let_in(&mut self, opened: Opened) -> Result<(), TestCaseError> {
        prop_assert_eq!(self.here.insert(opened, Here::Open), Some(Here::Waits), "one answer for each");
        Ok(())
    }

    fn gone(&mut self, opened: Opened) -> Result<(), TestCaseError> {
        prop_assert!(self.here.remove(&opened).is_some(), "one end for each");
        Ok(())
    }

    fn forget(&mut self, session_id: SessionId) {
        self.unacknowledged.remove(&session_id);
        self.watched.retain(|(of, _), _| *of != session_id);
    }

    fn told(&mut self, session_id: SessionId, kind: &MachineMessageKind) -> Result<(), TestCaseError> {
        match kind {
            MachineMessageKind::Verdict(verdict) => {
                let (Verdict::Resumed { from } | Verdict::Gap { as_of: from }) = verdict.verdict;
                self.watched.insert((session_id, verdict.stream_id), from);
            }
            MachineMessageKind::Event(event) => {
                let Some(last) = self.watched.get_mut(&(session_id, event.stream_id)) else {
                    return Err(TestCaseError::fail("INV-KEY: an event of a stream that was not admitted"));
                };
                prop_assert_eq!(event.seq, *last + 1, "INV-ORDER");
                *last = event.seq;
                let unacknowledged = self.unacknowledged.entry(session_id).or_default();
                *unacknowledged += event.body.len() as u64;
                prop_assert!(*unacknowledged <= EVENT_WINDOW_BYTES.into(), "INV-BOUND: event credit");
            }
            MachineMessageKind::StreamEnd(end) => {
                let last = self.watched.remove(&(session_id, end.stream_id));
                prop_assert_eq!(last, Some(end.last_seq), "a stream ends with what was sent");
            }
            MachineMessageKind::Receipt(receipt) => {
                prop_assert_eq!(receipt.facts.device_id, device_of_session(session_id), "INV-KEY");
            }
            MachineMessageKind::Status(_)
            | MachineMessageKind::Progress { .. }
            | MachineMessageKind::Chunk { .. }
            | MachineMessageKind::ProbeReply { .. }
            | MachineMessageKind::Failure(_) => {}
        }
        Ok(())
    }
}

fn answers(effects: &[Effect], asker: u128, asked: crate::id::CommandId) -> bool {
    sent_to(effects, asker).into_iter().any(|kind| match kind {
        MachineMessageKind::Progress { command_id, .. } => command_id == asked,
        MachineMessageKind::Receipt(receipt) => receipt.facts.command_id == asked,
        MachineMessageKind::Failure(failure) => failure.command_id == Some(asked),
        MachineMessageKind::Status(_)
        | MachineMessageKind::Verdict(_)
        | MachineMessageKind::Event(_)
        | MachineMessageKind::Chunk { .. }
        | MachineMessageKind::ProbeReply { .. }
        | MachineMessageKind::StreamEnd(_) => false,
    })
}

fn taken_over(epoch: Epoch) -> OwnerRecord {
    OwnerRecord { holder: Some(other_node()), epoch: epoch.above(other_node()), link: None }
}

fn answers_in_flight(world: &World) -> usize {
    let answers = COMMANDS.iter().filter(|command| command.header.answer.is_some());
    answers.filter(|command| world.machine.is_in_flight(key_of(command))).count()
}

fn key_of(command: &SignedCommand) -> CommandKey {
    CommandKey { device_id: command.header.device_id, command_id: command.header.command_id }
}

fn device_of_session(session_id: SessionId) -> DeviceId {
    device_id(device_of(session_id.uuid().as_u128()))
}
