use std::collections::BTreeSet;
use std::time::Duration;

use super::fixture::*;
use crate::command::CommandKind;
use crate::epoch::Epoch;
use crate::error::ErrorCode;
use crate::ledger::CommandKey;
use crate::limits::{ACTOR_IDLE_AFTER, OWNER_LOOK_JITTER, OWNER_LOOK_WAIT_MAX, OWNER_LOOK_WAIT_MIN};
use crate::machine::effect::{Effect, Subject};
use crate::machine::message::{Answer, ConnectorMessage, Input, MachineMessageKind, Stage};
use crate::placement::{Cause, LinkPlacement, OwnerRecord};
use crate::scope::Role;
use crate::status::MachineStatus;

fn opened(effects: &[Effect]) -> Vec<Subject> {
    let subject = |effect: &Effect| {
        if let Effect::SessionOpened(session_id) = effect {
            return Some(Subject::Session(*session_id));
        }
        if let Effect::LinkOpened(link_id) = effect { Some(Subject::Link(*link_id)) } else { None }
    };
    effects.iter().filter_map(subject).collect()
}

fn taken_over(world: &World) -> OwnerRecord {
    OwnerRecord { holder: Some(other_node()), epoch: world.epoch.above(other_node()), link: None }
}

#[test]
fn who_opens_a_machine_waits_until_it_is_owned_and_is_asked_for_once() {
    let mut world = World::new();
    let effects = world.ask_to_open(1, 1, Role::Owner, None);
    assert!(matches!(effects[..], [Effect::Acquire { floor: Epoch::ZERO, replacing: None, cause: Cause::Session }]));
    assert!(world.ask_to_open(2, 2, Role::Owner, None).is_empty());
    assert!(opened(&world.open_link(1, 1, 1)).is_empty());
    let effects = world.answer(Answer::Owned(Epoch::ZERO.above(incarnation())));
    let all = [Subject::Link(link(1)), Subject::Session(session(1)), Subject::Session(session(2))];
    assert_eq!(opened(&effects), all);
    assert_eq!(statuses(&effects, 1), [MachineStatus::Connecting]);
    assert_eq!(opened(&world.ask_to_open(3, 3, Role::Owner, None)), [Subject::Session(session(3))]);
}

#[test]
fn a_command_for_a_machine_that_is_not_owned_yet_fails_at_once_and_is_not_kept() {
    let mut world = World::new();
    world.ask_to_open(1, 1, Role::Owner, None);
    let command = command(1, 1, 1, CommandKind::StartTurn, "one");
    assert_eq!(failures(&world.ask(1, &command), 1), [ErrorCode::MachineOffline]);
    let effects = world.answer(Answer::Owned(Epoch::ZERO.above(incarnation())));
    assert!(forwarded(&effects).is_empty());
    assert_eq!(world.machine.in_flight(), 0);
}

#[test]
fn a_machine_that_another_node_holds_is_forgotten_and_everybody_sent_there() {
    let mut world = World::new();
    world.ask_to_open(1, 1, Role::Owner, None);
    world.open_link(1, 1, 1);
    let effects = world.answer(Answer::Held(Some(other_node())));
    let all = [Subject::Link(link(1)), Subject::Session(session(1))];
    assert_eq!(not_owner(&effects), all.map(|subject| (subject, Some(other_node()))));
    assert_eq!(world.machine.session_count(), 0);
    assert!(world.machine.is_idle(world.now.instant));
    assert_eq!(world.machine.next_tick(world.now), Some(world.now.instant));
    world.ask_to_open(2, 1, Role::Owner, None);
    assert!(world.asked.is_some() && !world.machine.is_idle(world.now.instant), "it may be asked for again");
}

#[test]
fn a_later_comer_that_knows_the_holder_to_be_gone_is_not_sent_to_it() {
    let mut world = World::new();
    world.ask_to_open(1, 1, Role::Owner, None);
    world.ask_to_open(2, 2, Role::Owner, Some(other_node()));
    assert!(not_owner(&world.answer(Answer::Held(Some(other_node())))).is_empty());
    assert_eq!(world.asked.unwrap().replacing, Some(other_node()));
    let effects = world.answer(Answer::Owned(Epoch::ZERO.above(incarnation())));
    assert_eq!(opened(&effects), [Subject::Session(session(1)), Subject::Session(session(2))]);
}

#[test]
fn while_the_directory_settles_sessions_come_again_and_a_link_is_let_in() {
    let wait = Duration::from_secs(3);
    let mut world = World::new();
    world.ask_to_open(1, 1, Role::Owner, None);
    let effects = world.answer(Answer::Settling(wait));
    let [Effect::EndSession { code: ErrorCode::Moving, retry_after, .. }] = effects[..] else {
        panic!("the session is told to come again: {effects:?}");
    };
    assert_eq!(retry_after, wait);

    world.ask_to_open(1, 1, Role::Owner, None);
    world.open_link(1, 1, 1);
    assert!(session_ends(&world.answer(Answer::Settling(wait))).is_empty());
    assert_eq!(world.asked.unwrap().cause, Cause::Link);
    let effects = world.answer(Answer::Owned(Epoch::ZERO.above(incarnation())));
    assert_eq!(opened(&effects), [Subject::Link(link(1)), Subject::Session(session(1))]);
}

#[test]
fn without_a_directory_the_node_mints_the_epoch_and_asserts_it_later() {
    let mut world = World::new();
    world.open_link(1, 1, 1);
    world.link = link(1);
    let effects = world.answer(Answer::Unavailable);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Assert)));
    assert_eq!(world.epoch, Epoch::ZERO.above(incarnation()));
    let highest = Epoch { counter: 7, incarnation: other_node() };
    world.frame_at(None, ConnectorMessage::Stale { highest });
    world.answer(Answer::Unavailable);
    assert_eq!(world.epoch, highest.above(incarnation()), "above what the connector has seen");
    let effects = world.frame_at(None, ConnectorMessage::Attached { highest: world.epoch });
    assert!(effects.iter().any(|effect| matches!(effect, Effect::SetLink { counter: 1, .. })));
    assert_eq!(world.machine.status(), MachineStatus::LinkUp);
}

#[test]
fn an_epoch_that_names_another_node_is_not_used_whoever_hands_it_out() {
    let mut world = World::new();
    world.open_link(1, 1, 1);
    let foreign = Epoch { counter: 4, incarnation: other_node() };
    let effects = world.answer(Answer::Owned(foreign));
    let asked =
        effects.iter().find_map(|effect| if let Effect::ToLink { epoch, .. } = effect { Some(*epoch) } else { None });
    assert_eq!(asked, Some(foreign.above(incarnation())));
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Assert)), "the record is put right");
}

#[test]
fn an_owner_learns_from_the_directory_that_it_is_none_any_more() {
    let mut world = World::linked();
    let command = command(1, 1, 1, CommandKind::StartTurn, "one");
    world.ask(1, &command);
    let own = OwnerRecord { holder: Some(other_node()), epoch: world.epoch, link: None };
    assert!(world.handle(Input::Overtaken(own)).is_empty(), "only a later ownership counts");
    let effects = world.handle(Input::Overtaken(taken_over(&world)));
    assert_eq!(failures(&effects, 1), [ErrorCode::Moving], "the command is asked of the new owner");
    assert_eq!(not_owner(&effects).len(), 2);
    assert_eq!(world.machine.owned(), None);
}

#[test]
fn a_second_link_of_an_owned_machine_asks_nobody() {
    let mut world = World::linked();
    let effects = world.open_link(2, 2, 1);
    assert_eq!(world.asked, None);
    assert_eq!(opened(&effects), [Subject::Link(link(2))]);
}

#[test]
fn a_link_below_the_counter_on_record_is_told_that_counter() {
    let counter_told = |effects: &[Effect]| {
        effects.iter().find_map(|effect| {
            let Effect::EndLink { code: ErrorCode::LinkSuperseded, link_counter, .. } = effect else { return None };
            Some(*link_counter)
        })
    };
    let mut world = World::linked();
    assert_eq!(counter_told(&world.open_link(2, 0, 1)), Some(1));
    let placed = LinkPlacement::Superseded { counter: 40 };
    let effects = world.handle(Input::LinkPlaced { link_id: link(1), placed });
    assert_eq!(counter_told(&effects), Some(40));
    assert_eq!(world.machine.status(), MachineStatus::Offline);
}

#[test]
fn a_link_that_the_directory_does_not_take_from_this_node_is_asserted_with_its_ownership() {
    let mut world = World::linked();
    let effects = world.handle(Input::LinkPlaced { link_id: link(1), placed: LinkPlacement::NotHeld });
    assert!(matches!(effects[..], [Effect::Assert]));
}

#[test]
fn a_machine_with_sessions_and_no_link_looks_for_it_ever_more_seldom() {
    let mut world = World::new();
    world.open(1, 1, Role::Owner);
    let mut wait = OWNER_LOOK_WAIT_MIN;
    for _ in 0..7 {
        let due = world.machine.next_tick(world.now).unwrap() - world.now.instant;
        assert!(due <= wait && due >= wait.mul_f64(1.0 - OWNER_LOOK_JITTER), "{due:?} of {wait:?}");
        assert!(world.handle(Input::Tick).is_empty(), "not before it is due");
        world.pass(due);
        assert!(matches!(world.handle(Input::Tick)[..], [Effect::Find]));
        wait = (wait * 2).min(OWNER_LOOK_WAIT_MAX);
    }
    assert_eq!(wait, OWNER_LOOK_WAIT_MAX);
    let own = OwnerRecord { holder: Some(incarnation()), epoch: world.epoch, link: None };
    assert!(world.handle(Input::Found(Some(own.clone()))).is_empty());
    for nobody in [None, Some(OwnerRecord { holder: None, ..own })] {
        let effects = world.handle(Input::Found(nobody));
        assert!(matches!(effects[..], [Effect::Assert]), "the link would not be sent here");
    }
    let effects = world.handle(Input::Found(Some(taken_over(&world))));
    assert_eq!(not_owner(&effects), [(Subject::Session(session(1)), Some(other_node()))]);
}

#[test]
fn machines_that_lost_their_links_together_look_apart() {
    let mut due = BTreeSet::new();
    for number in 0..100 {
        let mut world = World::of_machine(number);
        world.open(1, 1, Role::Owner);
        for _ in 0..10 {
            world.now.instant = world.machine.next_tick(world.now).unwrap();
            world.handle(Input::Tick);
        }
        due.insert((world.machine.next_tick(world.now).unwrap() - world.now.instant).as_millis() / 100);
    }
    assert!(due.len() > 20, "of 30 tenths of a second, {due:?}");
}

#[test]
fn without_a_link_a_node_gives_way_to_any_other_holder() {
    let lesser = OwnerRecord { holder: Some(other_node()), epoch: Epoch::ZERO.above(other_node()), link: None };
    let world = || {
        let mut world = World::new();
        world.open(1, 1, Role::Owner);
        let highest = Epoch { counter: 7, incarnation: other_node() };
        world.link_up(1, 1, 1);
        world.frame_at(None, ConnectorMessage::Stale { highest });
        world.open(1, 1, Role::Owner);
        world.link_up(2, 2, 1);
        assert!(world.epoch > lesser.epoch);
        world
    };
    for input in [Input::Overtaken(lesser.clone()), Input::Found(Some(lesser.clone()))] {
        let mut linked = world();
        assert!(linked.handle(input.clone()).is_empty(), "the link proves the greater epoch");
        assert!(linked.machine.owned().is_some());
        linked.handle(Input::LinkClosed(link(2)));
        let effects = linked.handle(input);
        assert_eq!(not_owner(&effects), [(Subject::Session(session(1)), Some(other_node()))]);
    }
}

#[test]
fn a_machine_with_a_link_does_not_look_and_trusts_its_link() {
    let mut world = World::linked();
    assert!(world.machine.next_tick(world.now).unwrap() > world.now.instant + OWNER_LOOK_WAIT_MAX);
    assert!(world.handle(Input::Found(Some(taken_over(&world)))).is_empty());
    world.handle(Input::LinkClosed(link(1)));
    assert!(world.machine.next_tick(world.now).unwrap() <= world.now.instant + OWNER_LOOK_WAIT_MIN);
    world.handle(Input::SessionClosed(session(1)));
    assert_eq!(world.machine.next_tick(world.now), Some(world.now.instant + ACTOR_IDLE_AFTER));
}

#[test]
fn a_machine_that_is_handed_over_finishes_what_it_has_and_takes_nothing_new() {
    let mut world = World::linked();
    let running = command(1, 1, 1, CommandKind::StartTurn, "one");
    world.ask(1, &running);
    world.handle(Input::HandOver);
    assert_eq!(world.machine.undelivered(), 1);
    let command_id = running.header.command_id;
    let progress = MachineMessageKind::Progress { command_id, stage: Stage::Delivered };
    assert_eq!(sent_to(&world.say(1, progress.clone()), 1), [progress]);
    assert_eq!(world.machine.undelivered(), 0);
    let next = command(1, 1, 2, CommandKind::StartTurn, "two");
    assert_eq!(failures(&world.ask(1, &next), 1), [ErrorCode::Moving]);
    assert!(!world.machine.is_in_flight(CommandKey { device_id: device_id(1), command_id: next.header.command_id }));
    assert_eq!(session_ends(&world.ask_to_open(2, 2, Role::Owner, None)), [(session(2), ErrorCode::Moving)]);
    let effects = world.handle(Input::Drain { successor: Some(other_node()) });
    assert_eq!(not_owner(&effects).len(), 2, "its session and its link go to the successor");
}
