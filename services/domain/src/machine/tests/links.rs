use std::time::Duration;

use super::fixture::*;
use crate::epoch::Epoch;
use crate::error::ErrorCode;
use crate::id::Incarnation;
use crate::limits::{ACTOR_IDLE_AFTER, CREDENTIAL_LIFETIME, EPOCH_JUMP_MAX, LINK_ALTERNATION_WINDOW, LINK_ATTACH_WAIT};
use crate::machine::effect::{Dropped, Effect, Subject};
use crate::machine::message::{Answer, ConnectorMessage, Input, OwnerMessage};
use crate::revocation::{DeviceCut, Revocation};
use crate::scope::Role;
use crate::status::MachineStatus;
use crate::stream::Verdict;

#[test]
fn the_status_follows_the_link_the_attach_and_the_report() {
    let mut world = World::new();
    assert_eq!(statuses(&world.open(1, 1, Role::Viewer), 1), [MachineStatus::Offline]);
    assert_eq!(statuses(&world.open_link(1, 1, 1), 1), [MachineStatus::Connecting]);
    assert_eq!(statuses(&world.link_up(2, 2, 1), 1), [MachineStatus::LinkUp]);
    let unavailable = MachineStatus::CodexUnavailable(ErrorCode::CodexTooOld);
    for status in [MachineStatus::CodexStarting, unavailable, MachineStatus::CodexReady, MachineStatus::Draining] {
        assert_eq!(statuses(&world.report(status), 1), [status]);
        assert!(statuses(&world.report(status), 1).is_empty(), "the same report is no news");
    }
    assert_eq!(drops(&world.report(MachineStatus::Offline)), [Dropped::Unexpected]);
    assert_eq!(statuses(&world.handle(Input::LinkClosed(link(2))), 1), [MachineStatus::Offline]);
}

#[test]
fn a_link_is_asked_to_attach_under_the_acquired_epoch() {
    let mut world = World::new();
    let effects = world.open_link(1, 1, 1);
    assert!(matches!(effects[..], [Effect::Acquire { floor: Epoch::ZERO, .. }, ..]));
    let epoch = Epoch::ZERO.above(incarnation());
    let effects = world.answer(Answer::Owned(epoch));
    let [Effect::LinkOpened(_), Effect::ToLink { epoch: asked, message: OwnerMessage::Attach, .. }] = &effects[..]
    else {
        panic!("the connector is asked to attach");
    };
    assert_eq!(*asked, epoch);
}

#[test]
fn a_directory_that_refuses_ends_the_link_with_its_code() {
    let mut world = World::new();
    world.open_link(1, 1, 1);
    let effects = world.answer(Answer::Refused(ErrorCode::Overloaded));
    assert_eq!(link_ends(&effects), [(link(1), ErrorCode::Overloaded)]);
    assert_eq!(world.machine.status(), MachineStatus::Offline);
}

#[test]
fn the_newest_link_wins_by_its_counter() {
    let mut world = World::linked();
    assert_eq!(link_ends(&world.open_link(2, 0, 1)), [(link(2), ErrorCode::LinkSuperseded)]);
    assert_eq!(world.machine.status(), MachineStatus::CodexReady);
    assert_eq!(link_ends(&world.open_link(3, 1, 1)), [(link(1), ErrorCode::LinkSuperseded)]);
    assert_eq!(link_ends(&world.open_link(4, 2, 1)), [(link(3), ErrorCode::LinkSuperseded)]);
    assert_eq!(drops(&world.report(MachineStatus::CodexReady)), [Dropped::UnknownLink]);
    assert!(world.handle(Input::LinkClosed(link(1))).is_empty(), "the old link's end changes nothing");
    assert_eq!(world.machine.status(), MachineStatus::Connecting);
}

#[test]
fn two_connectors_that_take_turns_hold_one_key_twice() {
    let mut world = World::new();
    let mut counter = 0;
    let mut turns = 0;
    let ends = loop {
        counter += 1;
        turns += 1;
        let effects = world.open_link(counter, u64::try_from(counter).unwrap(), u8::from(counter % 2 == 0));
        if link_ends(&effects).iter().any(|(_, code)| *code == ErrorCode::MachineKeyCloned) {
            break link_ends(&effects);
        }
        world.pass(Duration::from_secs(1));
    };
    assert_eq!(turns, 6, "two firsts and more than three returns");
    assert_eq!(ends.len(), 2, "both are turned away");
    assert_eq!(world.machine.status(), MachineStatus::Offline);
    assert_eq!(link_ends(&world.open_link(99, 99, 1)), [(link(99), ErrorCode::MachineKeyCloned)]);
    world.pass(LINK_ALTERNATION_WINDOW);
    assert!(link_ends(&world.open_link(100, 100, 1)).is_empty());
}

#[test]
fn a_connector_that_restarts_or_reconnects_often_is_not_a_clone() {
    let mut world = World::new();
    for number in 1..100_u8 {
        let effects = world.open_link(number.into(), number.into(), number);
        assert!(link_ends(&effects).iter().all(|(_, code)| *code == ErrorCode::LinkSuperseded));
    }
    for number in 100..200_u8 {
        let effects = world.open_link(number.into(), number.into(), 1);
        assert!(link_ends(&effects).iter().all(|(_, code)| *code == ErrorCode::LinkSuperseded));
    }
}

#[test]
fn frames_of_another_epoch_or_before_the_attach_are_dropped() {
    let mut world = World::linked();
    let stale = Epoch { counter: 0, incarnation: Incarnation::from_bytes([9; 16]) };
    let newer = world.epoch.above(incarnation());
    for epoch in [None, Some(stale), Some(newer)] {
        let effects = world.frame_at(epoch, ConnectorMessage::Report(report(MachineStatus::Draining)));
        assert_eq!(drops(&effects), [Dropped::StaleEpoch]);
        assert_eq!(world.machine.status(), MachineStatus::CodexReady);
    }
    let mut world = World::new();
    world.open_link(1, 1, 1);
    world.link = link(1);
    let effects = world.frame(ConnectorMessage::Report(report(MachineStatus::CodexReady)));
    assert_eq!(drops(&effects), [Dropped::StaleEpoch]);
}

#[test]
fn a_stale_owner_asks_once_above_and_then_gives_way() {
    let mut world = World::new();
    world.open_link(1, 1, 1);
    world.link = link(1);
    let epoch = Epoch::ZERO.above(incarnation());
    world.answer(Answer::Owned(epoch));
    let highest = Epoch { counter: 5, incarnation: Incarnation::from_bytes([9; 16]) };
    let effects = world.frame_at(None, ConnectorMessage::Stale { highest });
    assert!(matches!(effects[..], [Effect::Acquire { floor, .. }] if floor == highest));
    let above = highest.above(incarnation());
    world.answer(Answer::Owned(above));
    let higher = above.above(Incarnation::from_bytes([9; 16]));
    let effects = world.frame_at(None, ConnectorMessage::Stale { highest: higher });
    assert_eq!(not_owner(&effects), [(Subject::Link(link(1)), Some(other_node()))]);
    let effects = world.open_link(2, 2, 1);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Acquire { floor, .. } if *floor == higher)));
}

#[test]
fn an_owner_that_is_fenced_off_while_attached_drops_its_state() {
    let mut world = World::linked();
    world.subscribe(1, 1, 0, Verdict::Resumed { from: 0 });
    let highest = world.epoch.above(Incarnation::from_bytes([9; 16]));
    let effects = world.frame_at(None, ConnectorMessage::Stale { highest });
    let moved = [Subject::Link(link(1)), Subject::Session(session(1))];
    assert_eq!(not_owner(&effects), moved.map(|subject| (subject, Some(other_node()))));
    assert_eq!(stream_ends(&effects, 1), [(0, 0, ErrorCode::Moving)]);
    assert!(world.machine.is_idle(world.now.instant), "it is forgotten at once");
}

#[test]
fn an_epoch_that_no_history_explains_is_refused() {
    let mut world = World::new();
    world.open_link(1, 1, 1);
    world.link = link(1);
    world.answer(Answer::Owned(Epoch::ZERO.above(incarnation())));
    let highest = Epoch { counter: EPOCH_JUMP_MAX + 2, incarnation: incarnation() };
    let effects = world.frame_at(None, ConnectorMessage::Stale { highest });
    assert_eq!(link_ends(&effects), [(link(1), ErrorCode::EpochRefused)]);
}

#[test]
fn an_attach_under_another_epoch_than_asked_is_dropped() {
    let mut world = World::new();
    world.open_link(1, 1, 1);
    world.link = link(1);
    let epoch = Epoch::ZERO.above(incarnation());
    world.answer(Answer::Owned(epoch));
    let effects = world.frame_at(None, ConnectorMessage::Attached { highest: epoch.above(incarnation()) });
    assert_eq!(drops(&effects), [Dropped::StaleEpoch]);
    assert_eq!(world.machine.status(), MachineStatus::Connecting);
}

#[test]
fn revocations_end_what_they_are_about_and_nothing_of_another_account() {
    let account_id = account();
    let other = crate::id::AccountId::from_uuid(uuid::Uuid::from_u128(1));
    let mut world = World::linked();
    world.open(2, 2, Role::Owner);
    let effects =
        world.handle(Input::Revoked(Revocation::Device { account_id: other, device_id: device_id(1), keeps: None }));
    assert!(effects.is_empty());
    let effects = world.handle(Input::Revoked(Revocation::Device { account_id, device_id: device_id(1), keeps: None }));
    assert_eq!(session_ends(&effects), [(session(1), ErrorCode::DeviceRevoked)]);
    assert!(matches!(to_link(&effects)[..], [OwnerMessage::RemoveDevice(cut)] if *cut == removed(1)));
    let effects = world.frame(ConnectorMessage::DeviceRemoved(removed(1)));
    assert!(matches!(effects[..], [Effect::DeviceRemoved(cut)] if cut == removed(1)));
    let effects = world.handle(Input::Revoked(Revocation::User { account_id, user_id: user(2) }));
    assert_eq!(session_ends(&effects), [(session(2), ErrorCode::Unauthenticated)]);
    world.open(3, 3, Role::Owner);
    let effects = world.handle(Input::Revoked(Revocation::Grant { account_id, grant_id: grant_id(3) }));
    assert_eq!(session_ends(&effects), [(session(3), ErrorCode::GrantInvalid)]);
    world.open(4, 4, Role::Owner);
    let machine_id = machine_key().machine_id();
    let effects = world.handle(Input::Revoked(Revocation::Machine { account_id, machine_id }));
    assert_eq!(session_ends(&effects), [(session(4), ErrorCode::MachineRevoked)]);
    assert_eq!(link_ends(&effects), [(link(1), ErrorCode::MachineRevoked)]);
}

#[test]
fn a_device_that_may_do_less_is_cut_and_its_machine_told_what_it_keeps() {
    let account_id = account();
    let mut world = World::linked();
    let keeps = Some(Role::Viewer);
    let effects = world.handle(Input::Revoked(Revocation::Device { account_id, device_id: device_id(1), keeps }));
    // It comes back with a grant of the new role: it was not revoked.
    assert_eq!(session_ends(&effects), [(session(1), ErrorCode::GrantInvalid)]);
    let cut = DeviceCut { device_id: device_id(1), keeps };
    assert!(matches!(to_link(&effects)[..], [OwnerMessage::RemoveDevice(told)] if *told == cut));
}

#[test]
fn a_quarantine_ends_the_link_and_leaves_the_sessions() {
    let mut world = World::linked();
    let (account_id, machine_id) = (machine_key().account_id(), machine_key().machine_id());
    let other = crate::id::MachineId::from_uuid(uuid::Uuid::nil());
    let effects = world.handle(Input::Revoked(Revocation::Quarantine { account_id, machine_id: other, serial: 9 }));
    assert!(effects.is_empty());
    let effects = world.handle(Input::Revoked(Revocation::Quarantine { account_id, machine_id, serial: 9 }));
    assert_eq!(link_ends(&effects), [(link(1), ErrorCode::MachineKeyCloned)]);
    assert!(session_ends(&effects).is_empty());
}

#[test]
fn a_device_that_was_revoked_while_the_machine_was_away_is_removed_when_it_attaches() {
    let mut world = World::new();
    world.link = link(1);
    let open = crate::machine::message::OpenLink {
        link_id: link(1),
        link_counter: 1,
        boot_id: boot(1),
        transport: crate::machine::message::Transport::Quic,
        connector_version: String::new(),
        channel_bound: false,
        holds_until: world.now.unix.plus(CREDENTIAL_LIFETIME),
        revoked_devices: vec![removed(5)],
        replacing: None,
    };
    world.handle(Input::LinkOpened(open));
    let epoch = Epoch::ZERO.above(incarnation());
    world.answer(Answer::Owned(epoch));
    let effects = world.frame_at(None, ConnectorMessage::Attached { highest: epoch });
    assert!(matches!(to_link(&effects)[..], [OwnerMessage::RemoveDevice(cut)] if *cut == removed(5)));
}

#[test]
fn a_link_lives_no_longer_than_its_credential_however_much_it_says() {
    let mut world = World::linked();
    world.subscribe(1, 1, 0, Verdict::Resumed { from: 0 });
    let almost = CREDENTIAL_LIFETIME - Duration::from_millis(1);
    world.pass(almost);
    world.open(2, 2, Role::Owner);
    assert_eq!(events(&world.shared(0, 1, 10), 1), [1]);
    assert!(link_ends(&world.handle(Input::Tick)).is_empty());
    let due = world.machine.next_tick(world.now).unwrap();
    assert!(due <= world.now.instant + Duration::from_millis(1), "the tick is asked for");
    world.pass(Duration::from_millis(1));
    let effects = world.handle(Input::Tick);
    assert_eq!(link_ends(&effects), [(link(1), ErrorCode::CredentialInvalid)]);
    assert_eq!(statuses(&effects, 2), [MachineStatus::Offline]);
    assert_eq!(drops(&world.shared(0, 2, 10)), [Dropped::UnknownLink], "what it says now counts for nothing");
}

#[test]
fn a_link_that_never_attaches_ends_in_time_and_its_connector_may_come_again() {
    let mut world = World::new();
    world.open(1, 1, Role::Owner);
    world.open_link(1, 1, 1);
    let end = world.now.instant + LINK_ATTACH_WAIT;
    assert!(world.machine.next_tick(world.now).unwrap() <= end, "the tick is asked for");
    world.pass(LINK_ATTACH_WAIT - Duration::from_millis(1));
    assert!(link_ends(&world.handle(Input::Tick)).is_empty());
    world.pass(Duration::from_millis(1));
    let effects = world.handle(Input::Tick);
    assert_eq!(link_ends(&effects), [(link(1), ErrorCode::DeadlineExceeded)]);
    assert_eq!(statuses(&effects, 1), [MachineStatus::Offline]);
    assert_eq!(statuses(&world.link_up(2, 2, 1), 1), [MachineStatus::LinkUp]);
    world.pass(LINK_ATTACH_WAIT);
    assert!(link_ends(&world.handle(Input::Tick)).is_empty(), "one that has attached stays");
}

#[test]
fn an_expired_credential_opens_no_link_and_disturbs_none() {
    let mut world = World::linked();
    let expired = crate::machine::message::OpenLink {
        link_id: link(2),
        link_counter: 9,
        boot_id: boot(1),
        transport: crate::machine::message::Transport::Quic,
        connector_version: String::new(),
        channel_bound: false,
        holds_until: world.now.unix,
        revoked_devices: Vec::new(),
        replacing: None,
    };
    let effects = world.handle(Input::LinkOpened(expired));
    assert_eq!(link_ends(&effects), [(link(2), ErrorCode::CredentialInvalid)]);
    assert_eq!(world.machine.status(), MachineStatus::CodexReady);
}

#[test]
fn a_drain_ends_everything_and_admits_nothing() {
    let mut world = World::linked();
    let effects = world.handle(Input::Drain { successor: None });
    assert_eq!(session_ends(&effects), [(session(1), ErrorCode::GoingAway)]);
    assert_eq!(link_ends(&effects), [(link(1), ErrorCode::GoingAway)]);
    assert_eq!(session_ends(&world.open(2, 1, Role::Owner)), [(session(2), ErrorCode::Moving)]);
    assert_eq!(link_ends(&world.open_link(2, 2, 1)), [(link(2), ErrorCode::Moving)]);
}

#[test]
fn a_machine_without_sessions_and_link_becomes_idle() {
    let mut world = World::new();
    assert!(!world.machine.is_idle(world.now.instant));
    world.pass(ACTOR_IDLE_AFTER);
    assert!(world.machine.is_idle(world.now.instant));
    world.open(1, 1, Role::Owner);
    assert!(!world.machine.is_idle(world.now.instant));
    world.handle(Input::SessionClosed(session(1)));
    assert!(!world.machine.is_idle(world.now.instant));
    assert_eq!(world.machine.next_tick(world.now), Some(world.now.instant + ACTOR_IDLE_AFTER));
}

fn removed(tag: u8) -> DeviceCut {
    DeviceCut { device_id: device_id(tag), keeps: None }
}
