use uuid::Uuid;

use super::*;
use crate::error::ErrorCode;
use crate::id::{CommandId, DeviceId};

const HASH: CommandHash = CommandHash::from_bytes([7; 32]);
const OTHER: CommandHash = CommandHash::from_bytes([8; 32]);

fn key(number: u128) -> CommandKey {
    CommandKey { device_id: DeviceId::from_bytes([1; 32]), command_id: CommandId::from_uuid(Uuid::from_u128(number)) }
}

fn epoch(counter: u64, tag: u8) -> Epoch {
    Epoch { counter, incarnation: Incarnation::from_bytes([tag; 16]) }
}

fn broken(history: &[Event]) -> Vec<(usize, Rule)> {
    check(history).into_iter().map(|(at, broken)| (at, broken.rule)).collect()
}

#[test]
fn a_history_as_it_should_be_breaks_nothing() {
    let (session, stream) = (SessionId::from_uuid(Uuid::from_u128(1)), StreamId::MACHINE);
    let history = [
        Event::Asked(key(1), HASH),
        Event::Attached(epoch(1, 1)),
        Event::Obeyed { epoch: epoch(1, 1), sender: Some(Incarnation::from_bytes([1; 16])) },
        Event::Journalled(key(1), HASH),
        Event::Told(key(1), HASH, Word::Delivered),
        Event::Acted(key(1), HASH),
        Event::Attached(epoch(2, 2)),
        Event::Told(key(1), HASH, Word::Unknown),
        Event::Told(key(1), HASH, Word::Executed),
        Event::Told(key(1), OTHER, Word::Refused),
        Event::Watches(session, stream, 4),
        Event::Seen(session, stream, 5),
        Event::Seen(session, stream, 6),
        Event::Ended(session, stream),
        Event::Watches(session, stream, 0),
        Event::Seen(session, stream, 1),
    ];
    assert_eq!(broken(&history), []);
}

#[test]
fn a_second_effect_breaks_once_whatever_was_signed_under_the_id() {
    assert_eq!(broken(&[Event::Acted(key(1), HASH), Event::Acted(key(1), HASH)]), [(1, Rule::Once)]);
    assert_eq!(broken(&[Event::Acted(key(1), HASH), Event::Acted(key(1), OTHER)]), [(1, Rule::Once)]);
    assert_eq!(broken(&[Event::Acted(key(1), HASH), Event::Acted(key(2), HASH)]), []);
}

#[test]
fn a_word_that_is_not_so_breaks_final() {
    assert_eq!(broken(&[Event::Told(key(1), HASH, Word::Executed)]), [(0, Rule::Final)]);
    assert_eq!(broken(&[Event::Told(key(1), HASH, Word::Delivered)]), [(0, Rule::Final)]);
    let refused_after = [Event::Acted(key(1), HASH), Event::Told(key(1), HASH, Word::Refused)];
    assert_eq!(broken(&refused_after), [(1, Rule::Final)]);
    let refused_before = [Event::Told(key(1), HASH, Word::Refused), Event::Acted(key(1), HASH)];
    assert_eq!(broken(&refused_before), [(1, Rule::Final)]);
}

#[test]
fn what_a_journal_knows_is_not_begun_again_and_a_final_word_stays() {
    let refused = Outcome::Refused(ErrorCode::RemotePaused);
    assert_eq!((begins(false).is_ok(), begins(true).map_err(|broken| broken.rule)), (true, Err(Rule::Once)));
    assert_eq!(settles(None, refused), Ok(()));
    assert_eq!(settles(Some(Outcome::Unknown), Outcome::Executed), Ok(()), "a proof");
    for (before, after) in [(Outcome::Executed, refused), (refused, Outcome::Executed), (refused, Outcome::Unknown)] {
        assert_eq!(settles(Some(before), after).map_err(|broken| broken.rule), Err(Rule::Final));
        assert_eq!(settles(Some(before), before), Ok(()));
    }
}

#[test]
fn an_owner_of_the_past_breaks_the_fence() {
    let obeyed = |epoch: Epoch, tag: u8| Event::Obeyed { epoch, sender: Some(Incarnation::from_bytes([tag; 16])) };
    assert_eq!(broken(&[Event::Attached(epoch(2, 1)), obeyed(epoch(1, 1), 1)]), [(1, Rule::Fence)]);
    assert_eq!(broken(&[Event::Attached(epoch(2, 1)), obeyed(epoch(2, 1), 2)]), [(1, Rule::Fence)]);
    assert_eq!(broken(&[Event::Attached(epoch(2, 1)), Event::Attached(epoch(1, 9))]), [(1, Rule::Fence)]);
    assert_eq!(broken(&[Event::Attached(epoch(2, 1)), Event::Attached(epoch(2, 1)), obeyed(epoch(2, 1), 1)]), []);
}

#[test]
fn a_hole_a_repeat_or_an_unasked_event_breaks_the_order() {
    let (session, stream) = (SessionId::from_uuid(Uuid::from_u128(1)), StreamId(3));
    let watches = Event::Watches(session, stream, 1);
    assert_eq!(broken(&[watches, Event::Seen(session, stream, 3)]), [(1, Rule::Order)]);
    assert_eq!(broken(&[watches, Event::Seen(session, stream, 1)]), [(1, Rule::Order)]);
    let after = [watches, Event::Ended(session, stream), Event::Seen(session, stream, 2)];
    assert_eq!(broken(&after), [(2, Rule::Order)]);
}

/// A remote accept as it should be; what the history is to tell of it is not said here.
fn good() -> Accept {
    Accept {
        rendered: [1; 32],
        would_happen: [1; 32],
        answered: Generation::from_bytes([1; 32]),
        asking: Generation::from_bytes([1; 32]),
        at: UnixMillis(1),
        expires_at: UnixMillis(2),
        answered_before: false,
        audited: false,
    }
}

fn question(number: u64) -> Question {
    Question { generation: Generation::from_bytes([1; 32]), number }
}

fn accepted(command: u128, number: u64) -> Event {
    Event::Accepted(key(command), HASH, question(number), good())
}

#[test]
fn each_condition_of_an_accept_is_needed() {
    let good = Accept { audited: true, ..good() };
    assert_eq!(approved(&good), Ok(()));
    let bad = [
        Accept { rendered: [2; 32], ..good },
        Accept { answered: Generation::from_bytes([2; 32]), ..good },
        Accept { at: UnixMillis(2), ..good },
        Accept { answered_before: true, ..good },
        Accept { audited: false, ..good },
    ];
    for accept in bad {
        let history = [Event::Accepted(key(1), HASH, question(1), accept)];
        assert_eq!(broken(&history), [(0, Rule::Approve)], "{accept:?}");
    }
}

#[test]
fn an_accept_before_its_audit_record_breaks_approve_whoever_else_was_audited() {
    let audited = Event::Audited(key(1), HASH);
    assert_eq!(broken(&[audited, accepted(1, 1)]), []);
    assert_eq!(broken(&[accepted(1, 1), audited]), [(0, Rule::Approve)]);
    assert_eq!(broken(&[Event::Audited(key(2), HASH), accepted(1, 1)]), [(1, Rule::Approve)]);
    assert_eq!(broken(&[Event::Audited(key(1), OTHER), accepted(1, 1)]), [(1, Rule::Approve)]);
}

#[test]
fn an_accept_of_a_question_that_has_ended_breaks_approve() {
    let audited = [Event::Audited(key(1), HASH), Event::Audited(key(2), HASH)];
    let after = |rest: &[Event]| broken(&[audited.as_slice(), rest].concat());
    assert_eq!(after(&[accepted(1, 1), accepted(2, 2)]), []);
    assert_eq!(after(&[accepted(1, 1), accepted(2, 1)]), [(3, Rule::Approve)]);
    assert_eq!(after(&[accepted(1, 1), accepted(1, 1)]), [(3, Rule::Approve)]);
    assert_eq!(after(&[Event::Closed(question(1)), accepted(1, 1)]), [(3, Rule::Approve)]);
    let of_another_life = Question { generation: Generation::from_bytes([2; 32]), number: 1 };
    assert_eq!(after(&[Event::Closed(of_another_life), accepted(1, 1)]), []);
}

#[test]
fn what_was_asked_and_not_answered_is_named() {
    let mut checker = Checker::default();
    for event in [Event::Asked(key(1), HASH), Event::Asked(key(2), HASH), Event::Told(key(2), HASH, Word::Unknown)] {
        checker.see(&event).unwrap();
    }
    assert_eq!(checker.unanswered(), [key(1)]);
}
