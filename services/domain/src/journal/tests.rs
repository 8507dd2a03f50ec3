use proptest::prelude::*;
use uuid::Uuid;

use super::*;

fn key(number: u8) -> Key {
    (DeviceId::from_bytes([number; 32]), CommandId::from_uuid(Uuid::from_u128(number.into())))
}

fn begun(number: u8, at: u64) -> Record {
    Record::Begun(Begun {
        key: key(number),
        hash: CommandHash::from_bytes([number; 32]),
        kind: CommandKind::StartTurn,
        issued_at: UnixMillis(at),
        at: UnixMillis(at),
        thread_id: "0199-thread".to_owned(),
    })
}

fn settled(number: u8, at: u64, outcome: Outcome) -> Record {
    Record::Settled(Settled {
        key: key(number),
        hash: CommandHash::from_bytes([number; 32]),
        outcome,
        issued_at: UnixMillis(at),
        at: UnixMillis(at),
        ids: vec![number; 3],
    })
}

fn file(records: &[Record]) -> Vec<u8> {
    let mut bytes = HEADER.to_vec();
    for record in records {
        bytes.extend(encode(record));
    }
    bytes
}

fn state(journal: &Journal, number: u8) -> Option<Known> {
    journal.get(&key(number)).map(|entry| entry.remembered().state)
}

#[test]
fn what_was_begun_and_not_settled_is_left_open_after_a_restart() {
    let bytes = file(&[begun(1, 5), settled(1, 6, Outcome::Executed), begun(2, 7)]);
    let Replayed { journal, whole_bytes } = replay(&bytes).unwrap();
    assert_eq!(whole_bytes, bytes.len() as u64);
    assert_eq!(state(&journal, 1), Some(Known::Settled(Outcome::Executed)));
    assert_eq!(journal.get(&key(1)).unwrap().ids(), [1, 1, 1]);
    assert_eq!(state(&journal, 2), Some(Known::LeftOpen));
    assert_eq!(journal.get(&key(2)).unwrap().open(), Some((CommandKind::StartTurn, "0199-thread")));
    assert_eq!(state(&journal, 3), None);
}

#[test]
fn what_is_begun_in_this_life_is_under_way() {
    let mut journal = Journal::default();
    journal.record(&begun(1, 5));
    assert_eq!(state(&journal, 1), Some(Known::UnderWay));
    journal.record(&settled(1, 6, Outcome::Unknown));
    assert_eq!(state(&journal, 1), Some(Known::Settled(Outcome::Unknown)));
    journal.record(&settled(1, 7, Outcome::Executed));
    assert_eq!(state(&journal, 1), Some(Known::Settled(Outcome::Executed)), "proof supersedes unknown");
}

#[test]
fn an_empty_or_just_begun_file_is_an_empty_journal() {
    assert_eq!(replay(&[]).unwrap().whole_bytes, 0);
    assert_eq!(replay(&HEADER[..3]).unwrap().whole_bytes, 0);
    assert_eq!(replay(HEADER).unwrap().whole_bytes, 8);
    assert_eq!(replay(b"something else entirely").unwrap_err(), Damage::Header);
    assert_eq!(replay(b"FlyDexJ\x02").unwrap_err(), Damage::Header);
}

#[test]
fn a_tail_of_zeros_is_torn() {
    let mut bytes = file(&[begun(1, 5)]);
    let whole = bytes.len() as u64;
    bytes.extend([0; 4096]);
    assert_eq!(replay(&bytes).unwrap().whole_bytes, whole);
}

#[test]
fn damage_before_the_tail_is_said() {
    let bytes = file(&[begun(1, 5), settled(1, 6, Outcome::Executed), begun(2, 7)]);
    let second = HEADER.len() + encode(&begun(1, 5)).len();
    let mut damaged = bytes.clone();
    damaged[second + 20] ^= 1;
    assert_eq!(replay(&damaged).unwrap_err(), Damage::Frame { at: second as u64 });
}

#[test]
fn forgetting_raises_low_water_above_what_is_forgotten() {
    let mut journal = Journal::default();
    let month = u64::try_from(JOURNAL_RETENTION.as_millis()).unwrap();
    for number in 1..=3 {
        journal.record(&begun(number, u64::from(number) * 10));
        journal.record(&settled(number, u64::from(number) * 10, Outcome::Executed));
    }
    assert!(!journal.evict(UnixMillis(month + 10)));
    assert!(journal.evict(UnixMillis(month + 21)));
    assert_eq!(journal.low_water(), UnixMillis(20));
    assert_eq!((state(&journal, 1), state(&journal, 2)), (None, None));
    assert_eq!(state(&journal, 3), Some(Known::Settled(Outcome::Executed)));
    let again = replay(&journal.rewritten()).unwrap().journal;
    assert_eq!(again.low_water(), UnixMillis(20));
    assert_eq!(state(&again, 3), Some(Known::Settled(Outcome::Executed)));
}

#[test]
fn what_is_under_way_is_never_forgotten() {
    let mut journal = Journal::default();
    journal.record(&begun(1, 0));
    assert!(!journal.evict(UnixMillis(u64::MAX)));
    assert_eq!(state(&journal, 1), Some(Known::UnderWay));
}

fn records() -> impl Strategy<Value = Vec<Record>> {
    let outcome = prop_oneof![
        Just(Outcome::Executed),
        Just(Outcome::Unknown),
        (0..ErrorCode::ALL.len()).prop_map(|index| Outcome::Refused(ErrorCode::ALL[index])),
    ];
    let record = prop_oneof![
        (any::<u8>(), any::<u64>()).prop_map(|(number, at)| begun(number, at)),
        (any::<u8>(), any::<u64>(), outcome).prop_map(|(number, at, outcome)| settled(number, at, outcome)),
        any::<u64>().prop_map(|at| Record::LowWater(UnixMillis(at))),
    ];
    proptest::collection::vec(record, 0..20)
}

proptest! {
    #[test]
    fn a_record_survives_its_frame(records in records()) {
        for record in records {
            let frame = encode(&record);
            prop_assert!(frame.len() <= FRAME_BYTES + JOURNAL_RECORD_BYTES_MAX);
            prop_assert_eq!(decode_payload(&frame[FRAME_BYTES..]), Some(record));
        }
    }

    /// A crash at any byte loses at most the record that was being written.
    #[test]
    fn any_cut_leaves_a_prefix_of_whole_records(records in records(), cut in any::<prop::sample::Index>()) {
        let bytes = file(&records);
        let cut = cut.index(bytes.len() + 1);
        let replayed = replay(&bytes[..cut]).unwrap();
        let whole = usize::try_from(replayed.whole_bytes).unwrap();
        prop_assert!(whole <= cut);
        let mut expected = Journal::default();
        let mut at = HEADER.len();
        for record in &records {
            at += encode(record).len();
            if at <= whole {
                expected.record(record);
            }
        }
        prop_assert_eq!(replayed.journal.entries.len(), expected.entries.len());
        prop_assert_eq!(replayed.journal.low_water(), expected.low_water());
    }

    /// Damage is found, or costs only the tail; nothing is ever read that was not written.
    #[test]
    fn a_flipped_bit_never_invents_a_record(
        records in records(), at in any::<prop::sample::Index>(), bit in 0_u8..8,
    ) {
        let mut bytes = file(&records);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(replayed) = replay(&bytes) {
            let mut whole = Journal::default();
            for record in &records {
                whole.record(record);
            }
            prop_assert!(at as u64 >= replayed.whole_bytes);
            for key in replayed.journal.entries.keys() {
                prop_assert!(whole.get(key).is_some());
            }
        }
    }

    #[test]
    fn a_rewritten_journal_says_the_same(records in records()) {
        let journal = replay(&file(&records)).unwrap().journal;
        let again = replay(&journal.rewritten()).unwrap().journal;
        prop_assert_eq!(journal.low_water(), again.low_water());
        prop_assert_eq!(journal.entries.len(), again.entries.len());
        for (key, entry) in &journal.entries {
            let other = again.get(key).unwrap();
            prop_assert_eq!(entry.remembered(), other.remembered());
            prop_assert_eq!(entry.ids(), other.ids());
            prop_assert_eq!(entry.open(), other.open());
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = replay(&bytes);
        let mut with_header = HEADER.to_vec();
        with_header.extend(bytes);
        let _ = replay(&with_header);
    }
}
