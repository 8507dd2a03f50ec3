use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::machine::message::ReceiptFacts;
use crate::secret::Payload;

const SESSION: u128 = 1;

#[test]
fn settled_commands_are_forgotten_oldest_first_and_those_in_flight_never() {
    let mut ledger = Ledger::default();
    let now = start();
    forward(&mut ledger, key(u128::MAX), 1, now);
    for number in 0..=ACTOR_LEDGER_ENTRIES_MAX as u128 {
        forward(&mut ledger, key(number), 1, now);
        ledger.receipt(&receipt(key(number), 1, OutcomeKind::Executed, 0));
    }
    assert_eq!(ledger.len(), ACTOR_LEDGER_ENTRIES_MAX + 1);
    assert_eq!(ledger.ask(key(0), hash(1), session(SESSION), true), Asked::Forward, "the oldest is forgotten");
    assert!(matches!(ledger.ask(key(1), hash(1), session(SESSION), true), Asked::Answered(_)));
    assert_eq!(ledger.ask(key(u128::MAX), hash(1), session(SESSION), true), Asked::InFlight(Stage::Accepted));
}

#[test]
fn kept_receipts_are_bounded_in_bytes() {
    let mut ledger = Ledger::default();
    for number in 0..100 {
        forward(&mut ledger, key(number), 1, start());
        ledger.receipt(&receipt(key(number), 1, OutcomeKind::Executed, ACTOR_LEDGER_BYTES_MAX / 10));
        assert!(ledger.receipt_bytes() <= ACTOR_LEDGER_BYTES_MAX);
    }
    assert!(matches!(ledger.ask(key(99), hash(1), session(SESSION), true), Asked::Answered(_)));
    assert_eq!(ledger.ask(key(0), hash(1), session(SESSION), true), Asked::Forward);
}

#[test]
fn a_receipt_whose_pieces_follow_is_not_kept() {
    let mut ledger = Ledger::default();
    forward(&mut ledger, key(1), 1, start());
    let mut bulk = receipt(key(1), 1, OutcomeKind::Executed, 10);
    bulk.facts.bulk = true;
    assert_eq!(ledger.receipt(&bulk), Received::Settled(session(SESSION)));
    assert_eq!(ledger.ask(key(1), hash(1), session(SESSION), true), Asked::Forward);
    assert_eq!(ledger.ask(key(1), hash(2), session(SESSION), true), Asked::Reused, "the hash is kept");
}

#[test]
fn an_unknown_outcome_answers_only_while_nobody_can_be_asked() {
    let mut ledger = Ledger::default();
    forward(&mut ledger, key(1), 1, start());
    ledger.receipt(&receipt(key(1), 1, OutcomeKind::Unknown, 10));
    assert_eq!(ledger.ask(key(1), hash(1), session(SESSION), true), Asked::Forward);
    assert!(matches!(ledger.ask(key(1), hash(1), session(SESSION), false), Asked::Answered(_)));
}

#[derive(Clone, Debug)]
enum Step {
    Ask { key: u8, hash: u8, session: u8, online: bool },
    Receive { key: u8, hash: u8, outcome: u8 },
    LinkLost,
    Expire,
    SessionGone(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..100_u8, 0..2_u8, 0..4_u8, any::<bool>())
            .prop_map(|(key, hash, session, online)| Step::Ask { key, hash, session, online }),
        6 => (0..100_u8, 0..2_u8, 0..3_u8).prop_map(|(key, hash, outcome)| Step::Receive { key, hash, outcome }),
        1 => Just(Step::LinkLost),
        1 => Just(Step::Expire),
        1 => (0..4_u8).prop_map(Step::SessionGone),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// INV-BOUND, and INV-ONCE's fast half: a command whose final receipt is known is never forwarded again
    /// under that id, an id never changes its meaning, and the first final word stays.
    #[test]
    fn a_final_word_stays_and_the_bounds_hold(steps in prop::collection::vec(step(), 1..400)) {
        let mut ledger = Ledger::default();
        let now = start();
        let mut finals = BTreeMap::new();
        let mut meaning = BTreeMap::new();
        for step in steps {
            match step {
                Step::Ask { key: number, hash: content, session: asker, online } => {
                    let (key, hash) = (key(number.into()), hash(content));
                    match ledger.ask(key, hash, session(asker.into()), online) {
                        Asked::Forward => {
                            prop_assert!(!finals.contains_key(&key), "a finished command would run again");
                            prop_assert!(meaning.get(&key).is_none_or(|known| *known == hash));
                            meaning.insert(key, hash);
                            forward_as(&mut ledger, key, content, asker, now);
                        }
                        Asked::InFlight(_) => prop_assert!(ledger.is_in_flight(key)),
                        Asked::Answered(receipt) => {
                            prop_assert_eq!(receipt.facts.command_hash, hash);
                            if let Some(known) = finals.get(&key) {
                                prop_assert_eq!(receipt.facts.outcome, *known);
                            }
                        }
                        Asked::Reused => prop_assert!(meaning.get(&key).is_some_and(|known| *known != hash)),
                        Asked::Full => prop_assert_eq!(ledger.in_flight(), MACHINE_COMMANDS_IN_FLIGHT_MAX),
                    }
                }
                Step::Receive { key: number, hash: content, outcome } => {
                    let outcome = [OutcomeKind::Executed, OutcomeKind::Refused, OutcomeKind::Unknown][usize::from(outcome)];
                    let known = meaning.get(&key(number.into())).copied();
                    let received = ledger.receipt(&receipt(key(number.into()), content, outcome, 10));
                    match known {
                        Some(known) if known != hash(content) => prop_assert_eq!(received, Received::Mismatch),
                        Some(_) if outcome != OutcomeKind::Unknown => {
                            finals.entry(key(number.into())).or_insert(outcome);
                        }
                        Some(_) | None => {}
                    }
                }
                Step::LinkLost => {
                    ledger.link_lost();
                    prop_assert_eq!(ledger.in_flight(), 0);
                }
                Step::Expire => prop_assert!(ledger.expire(now).is_empty(), "nothing is due"),
                Step::SessionGone(gone) => ledger.session_gone(session(gone.into())),
            }
            prop_assert!(ledger.in_flight() <= MACHINE_COMMANDS_IN_FLIGHT_MAX);
            prop_assert!(ledger.len() <= ACTOR_LEDGER_ENTRIES_MAX + MACHINE_COMMANDS_IN_FLIGHT_MAX);
            prop_assert!(ledger.receipt_bytes() <= ACTOR_LEDGER_BYTES_MAX);
        }
    }
}

fn forward(ledger: &mut Ledger, key: CommandKey, content: u8, now: Instant) {
    forward_as(ledger, key, content, 1, now);
}

fn forward_as(ledger: &mut Ledger, key: CommandKey, content: u8, asker: u8, now: Instant) {
    let entry = InFlight {
        hash: hash(content),
        class: CommandClass::Effect,
        via: session(asker.into()),
        target: session(asker.into()),
        stage: Stage::Accepted,
        deadline: now + Duration::from_secs(60),
        answer: None,
        trace: None,
    };
    ledger.forwarded(key, entry);
}

#[expect(clippy::disallowed_methods, reason = "a monotonic instant cannot be made from nothing")]
fn start() -> Instant {
    Instant::now()
}

fn key(number: u128) -> CommandKey {
    CommandKey { device_id: DeviceId::from_bytes([1; 32]), command_id: CommandId::from_uuid(Uuid::from_u128(number)) }
}

fn hash(content: u8) -> CommandHash {
    CommandHash::from_bytes([content; 32])
}

fn session(number: u128) -> SessionId {
    SessionId::from_uuid(Uuid::from_u128(number))
}

fn receipt(key: CommandKey, content: u8, outcome: OutcomeKind, bytes: usize) -> SignedReceipt {
    let facts = ReceiptFacts {
        device_id: key.device_id,
        command_id: key.command_id,
        command_hash: hash(content),
        outcome,
        bulk: false,
    };
    SignedReceipt { receipt: Payload::new(Bytes::from(vec![0; bytes])), signature: Bytes::new(), facts }
}
