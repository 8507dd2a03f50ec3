use proptest::prelude::*;
use uuid::Uuid;

use super::*;

pub(super) fn account(number: u128) -> AccountId {
    AccountId::from_uuid(Uuid::from_u128(number))
}

pub(super) fn chain(account_id: AccountId, length: u64) -> (Vec<AuditRecord>, ChainHead) {
    let mut head = ChainHead::start(account_id);
    let mut records = Vec::new();
    for number in 1..=length {
        let audit_id = AuditId::from_uuid(Uuid::from_u128(u128::from(number)));
        let entry = AuditEntry {
            machine_id: Some(MachineId::from_uuid(Uuid::from_u128(7))),
            ..AuditEntry::new(audit_id, AuditKind::CommandExecuted, UnixMillis(number * 10))
        };
        let previous_hash = head.hash;
        head = head.append(account_id, &entry);
        records.push(AuditRecord { number, entry, previous_hash, hash: head.hash });
    }
    (records, head)
}

#[test]
fn an_untouched_chain_holds() {
    let (records, head) = chain(account(1), 5);
    assert_eq!(verify_chain(account(1), &records, &head), Ok(()));
    assert_eq!(verify_chain(account(1), &[], &ChainHead::start(account(1))), Ok(()));
}

#[test]
fn a_chain_does_not_hold_for_another_account() {
    let (records, head) = chain(account(1), 2);
    assert_eq!(verify_chain(account(2), &records, &head), Err(ChainError::Altered { number: 1 }));
}

#[test]
fn a_hash_that_was_changed_alone_is_found_at_its_record() {
    let (records, head) = chain(account(1), 4);
    for place in 0..records.len() {
        for change in
            [|record: &mut AuditRecord| record.previous_hash[31] ^= 1, |record: &mut AuditRecord| record.hash[31] ^= 1]
        {
            let mut records = records.clone();
            change(&mut records[place]);
            let number = records[place].number;
            assert_eq!(verify_chain(account(1), &records, &head), Err(ChainError::Altered { number }));
        }
    }
}

#[test]
fn a_chain_that_was_written_anew_behind_a_record_is_found_by_the_head() {
    let (mut records, head) = chain(account(1), 4);
    let mut at = ChainHead::start(account(1));
    for record in &mut records {
        record.entry.deferred ^= record.number == 2;
        record.previous_hash = at.hash;
        at = at.append(account(1), &record.entry);
        record.hash = at.hash;
    }
    assert_eq!(verify_chain(account(1), &records, &at), Ok(()));
    assert_eq!(verify_chain(account(1), &records, &head), Err(ChainError::HeadMismatch { found: 4 }));
}

#[test]
fn a_cut_tail_is_found_by_the_head() {
    let (mut records, head) = chain(account(1), 3);
    records.pop();
    assert_eq!(verify_chain(account(1), &records, &head), Err(ChainError::HeadMismatch { found: 2 }));
}

#[test]
fn kinds_outcomes_and_names_lead_to_each_other() {
    for kind in AuditKind::ALL {
        assert_eq!(AuditKind::from_name(kind.name()), Some(*kind));
    }
    assert_eq!(AuditKind::from_name("unheard_of"), None);
    assert_eq!(AuditOutcome::from_name("unknown"), Some(AuditOutcome::Unknown));
    assert_eq!(AuditOutcome::from_name(""), None);
}

/// One way to tamper with a stored record.
pub(super) fn tamper(entry: &mut AuditEntry, field: usize) {
    match field {
        0 => entry.at = UnixMillis(entry.at.0 + 1),
        1 => entry.kind = AuditKind::SignedIn,
        2 => entry.deferred = !entry.deferred,
        3 => entry.user_id = Some(UserId::from_uuid(Uuid::from_u128(1))),
        4 => entry.machine_id = None,
        5 => entry.device_id = Some(DeviceId::from_bytes([1; 32])),
        6 => entry.approval_id = Some(ApprovalId::from_bytes([1; 32])),
        7 => entry.generation = Some(Generation::from_bytes([1; 32])),
        8 => entry.command_id = Some(CommandId::from_uuid(Uuid::from_u128(1))),
        9 => entry.command_hash = Some(CommandHash::from_bytes([1; 32])),
        10 => entry.decision = Some(Decision::Accept),
        11 => entry.outcome = Some(AuditOutcome::Executed),
        12 => entry.code = Some(ErrorCode::Internal),
        13 => entry.address_hash = Some([1; 32]),
        _ => entry.audit_id = AuditId::from_uuid(Uuid::from_u128(99)),
    }
}

proptest! {
    #[test]
    fn a_changed_field_is_found_at_its_record(length in 1_u64..8, place in 0_usize..8, field in 0_usize..15) {
        let (mut records, head) = chain(account(1), length);
        let place = place % records.len();
        tamper(&mut records[place].entry, field);
        let number = records[place].number;
        prop_assert_eq!(verify_chain(account(1), &records, &head), Err(ChainError::Altered { number }));
    }

    #[test]
    fn a_removed_or_moved_record_is_found(length in 2_u64..8, place in 0_usize..8, other in 0_usize..8) {
        let (records, head) = chain(account(1), length);
        let (place, other) = (place % records.len(), other % records.len());
        let mut removed = records.clone();
        removed.remove(place);
        prop_assert!(verify_chain(account(1), &removed, &head).is_err());
        let mut moved = records.clone();
        moved.swap(place, other);
        prop_assert_eq!(verify_chain(account(1), &moved, &head).is_ok(), place == other);
        let mut renumbered = moved;
        for (index, record) in renumbered.iter_mut().enumerate() {
            record.number = index as u64 + 1;
        }
        prop_assert_eq!(verify_chain(account(1), &renumbered, &head).is_ok(), place == other);
    }
}
