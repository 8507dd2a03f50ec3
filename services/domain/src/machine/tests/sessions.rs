use std::time::Duration;

use super::fixture::*;
use crate::error::ErrorCode;
use crate::id::AccountId;
use crate::limits::{EVENT_WINDOW_BYTES, MACHINE_SESSIONS_MAX, SESSION_STREAMS_MAX, TOKEN_SKEW_MAX};
use crate::machine::effect::Dropped;
use crate::machine::message::{
    ConnectorMessage, DeviceMessageKind, Input, MachineMessageKind, OpenSession, OwnerMessage, StreamEnd, StreamVerdict,
};
use crate::scope::Role;
use crate::stream::{StreamId, Verdict};

#[test]
fn a_session_of_another_account_is_told_that_there_is_no_such_machine() {
    let mut world = World::new();
    let mut grant = grant(1, Role::Owner, world.now.unix.plus(Duration::from_secs(60)));
    grant.account_id = AccountId::from_uuid(uuid::Uuid::from_u128(1));
    let effects = world.handle(Input::SessionOpened(OpenSession { session_id: session(1), grant, replacing: None }));
    assert_eq!(session_ends(&effects), [(session(1), ErrorCode::NotFound)]);
    assert_eq!(world.machine.session_count(), 0);
}

#[test]
fn a_session_lives_no_longer_than_its_grant() {
    let mut world = World::linked();
    world.pass(Duration::from_secs(3599) + TOKEN_SKEW_MAX);
    assert!(session_ends(&world.handle(Input::Tick)).is_empty());
    world.pass(Duration::from_secs(1));
    assert_eq!(session_ends(&world.handle(Input::Tick)), [(session(1), ErrorCode::GrantInvalid)]);
    let expired = grant(1, Role::Owner, world.now.unix.minus(TOKEN_SKEW_MAX));
    let effects =
        world.handle(Input::SessionOpened(OpenSession { session_id: session(2), grant: expired, replacing: None }));
    assert_eq!(session_ends(&effects), [(session(2), ErrorCode::GrantInvalid)]);
}

#[test]
fn sessions_of_one_machine_are_bounded() {
    let mut world = World::new();
    for number in 0..MACHINE_SESSIONS_MAX as u128 {
        assert!(session_ends(&world.open(number, 1, Role::Owner)).is_empty());
    }
    assert_eq!(session_ends(&world.open(9_999, 1, Role::Owner)), [(session(9_999), ErrorCode::Overloaded)]);
}

#[test]
fn an_open_session_id_cannot_be_taken_by_another_device() {
    let mut world = World::linked();
    assert_eq!(session_ends(&world.open(1, 2, Role::Owner)), [(session(1), ErrorCode::Conflict)]);
    assert!(session_ends(&world.open(1, 1, Role::Owner)).is_empty());
    assert_eq!(world.machine.session_count(), 1);
}

#[test]
fn only_a_session_that_the_connector_admitted_gets_events() {
    let mut world = World::linked();
    world.open(2, 2, Role::Owner);
    world.subscribe(1, 1, 0, Verdict::Resumed { from: 0 });
    let effects = world.shared(0, 1, 10);
    assert_eq!(events(&effects, 1), [1]);
    assert!(events(&effects, 2).is_empty());
}

#[test]
fn a_subscription_for_another_device_or_boot_is_dropped() {
    let mut world = World::linked();
    let effects = world.subscribe(1, 2, 0, Verdict::Resumed { from: 0 });
    assert_eq!(drops(&effects), [Dropped::ForeignDevice]);
    assert!(sent_to(&effects, 1).is_empty());
    assert_eq!(drops(&world.subscribe(7, 1, 0, Verdict::Resumed { from: 0 })), [Dropped::UnknownSession]);
    let verdict = StreamVerdict {
        command_id: command_id(1),
        stream_id: StreamId(0),
        boot_id: boot(66),
        verdict: Verdict::Resumed { from: 0 },
    };
    let subscribed = ConnectorMessage::Subscribed { session_id: session(1), device_id: device_id(1), verdict };
    assert_eq!(drops(&world.frame(subscribed)), [Dropped::Unexpected]);
    assert!(events(&world.shared(0, 1, 10), 1).is_empty());
}

#[test]
fn a_replay_and_the_shared_events_after_it_make_one_sequence() {
    let mut world = World::linked();
    let effects = world.subscribe(1, 1, 3, Verdict::Resumed { from: 5 });
    assert!(matches!(sent_to(&effects, 1)[..], [MachineMessageKind::Verdict(_)]));
    for seq in 6..=8 {
        let effects = world.say(1, MachineMessageKind::Event(event(3, seq, 10)));
        assert_eq!(events(&effects, 1), [seq]);
    }
    assert!(events(&world.shared(3, 8, 10), 1).is_empty(), "it was replayed");
    assert_eq!(events(&world.shared(3, 9, 10), 1), [9]);
}

#[test]
fn a_hole_ends_the_stream_instead_of_being_shown() {
    let mut world = World::linked();
    world.subscribe(1, 1, 3, Verdict::Gap { as_of: 5 });
    let effects = world.shared(3, 7, 10);
    assert!(events(&effects, 1).is_empty());
    assert_eq!(stream_ends(&effects, 1), [(3, 5, ErrorCode::Internal)]);
    assert!(sent_to(&world.shared(3, 6, 10), 1).is_empty());
}

#[test]
fn a_replayed_event_of_a_stream_that_is_not_watched_is_dropped() {
    let mut world = World::linked();
    let effects = world.say(1, MachineMessageKind::Event(event(3, 1, 10)));
    assert_eq!(drops(&effects), [Dropped::NotSubscribed]);
    assert!(events(&effects, 1).is_empty());
}

#[test]
fn a_slow_session_loses_its_stream_and_the_others_do_not_notice() {
    let mut world = World::linked();
    world.open(2, 2, Role::Owner);
    world.subscribe(1, 1, 0, Verdict::Resumed { from: 0 });
    world.subscribe(2, 2, 0, Verdict::Resumed { from: 0 });
    let half = EVENT_WINDOW_BYTES as usize / 2;
    for seq in 1..=2 {
        let effects = world.shared(0, seq, half);
        assert_eq!((events(&effects, 1), events(&effects, 2)), (vec![seq], vec![seq]));
        world.send(2, DeviceMessageKind::EventCredit(EVENT_WINDOW_BYTES / 2));
    }
    let effects = world.shared(0, 3, 1);
    assert_eq!(stream_ends(&effects, 1), [(0, 2, ErrorCode::SlowConsumer)]);
    assert_eq!(events(&effects, 2), [3]);
    assert!(sent_to(&world.shared(0, 4, 1), 1).is_empty());
    assert!(to_link(&effects).is_empty(), "the connector is not told");

    world.send(1, DeviceMessageKind::EventCredit(EVENT_WINDOW_BYTES));
    world.subscribe(1, 1, 0, Verdict::Resumed { from: 2 });
    assert_eq!(events(&world.say(1, MachineMessageKind::Event(event(0, 3, 1))), 1), [3]);
}

#[test]
fn credit_never_exceeds_the_window() {
    let mut world = World::linked();
    world.subscribe(1, 1, 0, Verdict::Resumed { from: 0 });
    for _ in 0..3 {
        world.send(1, DeviceMessageKind::EventCredit(u32::MAX));
    }
    assert_eq!(events(&world.shared(0, 1, EVENT_WINDOW_BYTES as usize), 1), [1]);
    assert_eq!(stream_ends(&world.shared(0, 2, 1), 1), [(0, 1, ErrorCode::SlowConsumer)]);
}

#[test]
fn streams_of_one_session_are_bounded() {
    let mut world = World::linked();
    let max = u32::try_from(SESSION_STREAMS_MAX).unwrap();
    for stream in 0..max {
        assert!(stream_ends(&world.subscribe(1, 1, stream, Verdict::Resumed { from: 0 }), 1).is_empty());
    }
    let effects = world.subscribe(1, 1, max, Verdict::Resumed { from: 4 });
    assert_eq!(stream_ends(&effects, 1), [(max, 4, ErrorCode::Overloaded)]);
    assert!(stream_ends(&world.subscribe(1, 1, 0, Verdict::Resumed { from: 0 }), 1).is_empty());
}

#[test]
fn the_loss_of_the_link_ends_every_stream_with_its_last_event() {
    let mut world = World::linked();
    world.subscribe(1, 1, 0, Verdict::Resumed { from: 0 });
    world.subscribe(1, 1, 4, Verdict::Gap { as_of: 9 });
    world.shared(0, 1, 1);
    let effects = world.handle(Input::LinkClosed(link(1)));
    let offline = ErrorCode::MachineOffline;
    assert_eq!(stream_ends(&effects, 1), [(0, 1, offline), (4, 9, offline)]);
    world.link_up(2, 2, 1);
    assert!(events(&world.shared(0, 2, 1), 1).is_empty(), "a new link admits anew");
}

#[test]
fn the_connector_ends_a_subscription_with_what_was_sent() {
    let mut world = World::linked();
    world.subscribe(1, 1, 4, Verdict::Gap { as_of: 9 });
    let end = StreamEnd { stream_id: StreamId(4), last_seq: 77, code: ErrorCode::CodexUnavailable };
    let ended = ConnectorMessage::Unsubscribed { session_id: session(1), end };
    assert_eq!(stream_ends(&world.frame(ended.clone()), 1), [(4, 9, ErrorCode::CodexUnavailable)]);
    assert_eq!(drops(&world.frame(ended)), [Dropped::NotSubscribed]);
}

#[test]
fn the_connector_hears_of_the_end_of_sessions_that_it_knows() {
    let mut world = World::linked();
    world.open(2, 1, Role::Owner);
    assert!(to_link(&world.handle(Input::SessionClosed(session(2)))).is_empty(), "it never heard of it");
    world.send(1, DeviceMessageKind::Probe { nonce: 1 });
    let effects = world.handle(Input::SessionClosed(session(1)));
    assert!(matches!(to_link(&effects)[..], [OwnerMessage::SessionGone(gone)] if *gone == session(1)));
}

#[test]
fn a_connector_cannot_speak_for_the_actor() {
    let mut world = World::linked();
    let end = StreamEnd { stream_id: StreamId(0), last_seq: 0, code: ErrorCode::Internal };
    let effects = world.say(1, MachineMessageKind::StreamEnd(end));
    assert_eq!(drops(&effects), [Dropped::Unexpected]);
    assert!(sent_to(&effects, 1).is_empty());
}
