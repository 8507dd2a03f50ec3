use std::time::Duration;

use ed25519_dalek::SigningKey;
use flydex_domain::key::PublicKey;
use flydex_domain::scope::{Principal, Role};
use flydex_domain::token::EncodedKey;
use uuid::Uuid;

use super::*;

const NOW: UnixMillis = UnixMillis(2_000_000_000_000);

#[test]
fn a_token_issued_before_the_revocation_is_refused_and_one_issued_after_it_is_not() {
    let revocations = Revocations::default();
    let before = grant(NOW.minus(Duration::from_millis(1)));
    let after = grant(NOW.plus(Duration::from_millis(1)));
    assert_eq!(revocations.refuse_grant(&before), None);
    revocations.record(&Revocation::User { account_id: account(), user_id: before.user_id }, NOW, NOW);
    assert_eq!(revocations.refuse_grant(&before), Some(ErrorCode::GrantInvalid));
    assert_eq!(revocations.refuse_grant(&after), None);
    revocations.record(&Revocation::Device { account_id: account(), device_id: device_id(), keeps: None }, NOW, NOW);
    assert_eq!(revocations.refuse_grant(&before), Some(ErrorCode::DeviceRevoked));
    assert_eq!(revocations.refuse_grant(&after), None);
    revocations.record(&Revocation::Machine { account_id: account(), machine_id: machine_id() }, NOW, NOW);
    assert_eq!(revocations.refuse_credential(&credential(NOW)), Some(ErrorCode::MachineRevoked));
    assert_eq!(revocations.refuse_credential(&credential(NOW.plus(Duration::from_millis(1)))), None);
}

#[test]
fn a_revocation_that_is_heard_of_late_refuses_nothing_issued_since() {
    let revocations = Revocations::default();
    let now = NOW.plus(Duration::from_secs(3600));
    let since = grant(NOW.plus(Duration::from_millis(1)));
    revocations.record(&Revocation::User { account_id: account(), user_id: since.user_id }, NOW, now);
    revocations.record(&Revocation::Device { account_id: account(), device_id: device_id(), keeps: None }, NOW, now);
    assert_eq!(revocations.refuse_grant(&since), None);
    assert_eq!(revocations.refuse_grant(&grant(NOW)), Some(ErrorCode::DeviceRevoked));
}

#[test]
fn a_quarantined_machines_credentials_do_not_hold_until_it_is_paired_again() {
    let revocations = Revocations::default();
    let of_serial = |serial| MachineCredential { serial, ..credential(NOW) };
    revocations.record(
        &Revocation::Quarantine { account_id: account(), machine_id: machine_id(), serial: 7 },
        NOW,
        NOW,
    );
    for serial in [1, 7] {
        assert_eq!(revocations.refuse_credential(&of_serial(serial)), Some(ErrorCode::MachineKeyCloned));
    }
    assert_eq!(revocations.refuse_credential(&of_serial(8)), None);
    let other = AccountId::from_uuid(Uuid::from_u128(99));
    revocations.record(&Revocation::Quarantine { account_id: other, machine_id: machine_id(), serial: 8 }, NOW, NOW);
    assert_eq!(revocations.refuse_credential(&of_serial(8)), None);
}

#[test]
fn a_revocation_of_another_account_changes_nothing() {
    let revocations = Revocations::default();
    let grant = grant(NOW);
    let other = AccountId::from_uuid(Uuid::from_u128(99));
    revocations.record(&Revocation::User { account_id: other, user_id: grant.user_id }, NOW, NOW);
    revocations.record(&Revocation::Device { account_id: other, device_id: device_id(), keeps: None }, NOW, NOW);
    revocations.record(&Revocation::Grant { account_id: other, grant_id: grant.grant_id }, NOW, NOW);
    revocations.record(&Revocation::Machine { account_id: other, machine_id: machine_id() }, NOW, NOW);
    assert_eq!(revocations.refuse_grant(&grant), None);
    assert_eq!(revocations.refuse_credential(&credential(NOW)), None);
    assert!(revocations.to_remove(&credential(NOW)).is_empty());
}

#[test]
fn past_the_bound_everything_issued_before_the_forgotten_is_refused() {
    let revocations = Revocations::with_bound(2);
    let old = grant(NOW);
    for number in 0..3 {
        let grant_id = GrantId::from_uuid(Uuid::from_u128(number));
        revocations.record(&Revocation::Grant { account_id: account(), grant_id }, NOW, NOW);
    }
    let records = revocations.records();
    assert_eq!((records.grants.len(), records.oldest.len(), records.floor), (2, 2, Some(NOW)));
    drop(records);
    assert_eq!(revocations.refuse_grant(&old), Some(ErrorCode::GrantInvalid));
    assert_eq!(revocations.refuse_credential(&credential(NOW)), Some(ErrorCode::CredentialInvalid));
    assert_eq!(revocations.refuse_grant(&grant(NOW.plus(Duration::from_millis(1)))), None);
}

#[test]
fn a_revocation_outlives_every_token_and_then_goes() {
    let revocations = Revocations::default();
    let grant = grant(NOW);
    revocations.record(&Revocation::User { account_id: account(), user_id: grant.user_id }, NOW, NOW);
    let later = NOW.plus(GRANT_LIFETIME.max(CREDENTIAL_LIFETIME) + TOKEN_SKEW_MAX);
    let user_id = UserId::from_uuid(Uuid::from_u128(50));
    revocations.record(
        &Revocation::User { account_id: account(), user_id },
        later.minus(Duration::from_millis(1)),
        later.minus(Duration::from_millis(1)),
    );
    assert_eq!(revocations.records().users.len(), 2);
    revocations.record(&Revocation::User { account_id: account(), user_id }, later, later);
    assert_eq!(revocations.records().users.len(), 1);
    assert_eq!(revocations.records().floor, None);
}

#[test]
fn a_machine_removes_a_revoked_device_once_and_a_later_machine_never_knew_it() {
    let revocations = Revocations::default();
    revocations.record(&Revocation::Device { account_id: account(), device_id: device_id(), keeps: None }, NOW, NOW);
    let removed = DeviceCut { device_id: device_id(), keeps: None };
    assert_eq!(revocations.to_remove(&credential(NOW)), [removed]);
    assert!(revocations.to_remove(&credential(NOW.plus(Duration::from_millis(1)))).is_empty());
    let machine = Principal::Machine { account_id: account(), machine_id: machine_id() };
    revocations.removed(MachineKey::new(machine.scope(), machine_id()), removed);
    assert!(revocations.to_remove(&credential(NOW)).is_empty());
}

#[test]
fn the_least_that_a_device_keeps_counts_and_an_answer_to_more_is_no_answer_to_it() {
    let revocations = Revocations::default();
    let cut = |keeps| Revocation::Device { account_id: account(), device_id: device_id(), keeps };
    revocations.record(&cut(Some(Role::Operator)), NOW, NOW);
    assert_eq!(revocations.refuse_grant(&grant(NOW)), Some(ErrorCode::GrantInvalid), "it may come back");
    let lowered = DeviceCut { device_id: device_id(), keeps: Some(Role::Operator) };
    assert_eq!(revocations.to_remove(&credential(NOW)), [lowered]);
    revocations.record(&cut(None), NOW, NOW);
    revocations.record(&cut(Some(Role::Viewer)), NOW, NOW);
    assert_eq!(revocations.refuse_grant(&grant(NOW)), Some(ErrorCode::DeviceRevoked));
    let machine = Principal::Machine { account_id: account(), machine_id: machine_id() };
    let machine = MachineKey::new(machine.scope(), machine_id());
    revocations.removed(machine, lowered);
    let removed = DeviceCut { keeps: None, ..lowered };
    assert_eq!(revocations.to_remove(&credential(NOW)), [removed]);
    revocations.removed(machine, removed);
    assert!(revocations.to_remove(&credential(NOW)).is_empty());
}

fn account() -> AccountId {
    AccountId::from_uuid(Uuid::from_u128(1))
}

fn machine_id() -> MachineId {
    MachineId::from_uuid(Uuid::from_u128(2))
}

fn key() -> PublicKey {
    PublicKey::of(&SigningKey::from_bytes(&[3; 32]))
}

fn device_id() -> DeviceId {
    key().device_id()
}

fn grant(issued_at: UnixMillis) -> Grant {
    Grant {
        grant_id: GrantId::from_uuid(Uuid::from_u128(77)),
        account_id: account(),
        user_id: UserId::from_uuid(Uuid::from_u128(4)),
        role: Role::Owner,
        device_key: EncodedKey(key()),
        expires_at: issued_at.plus(GRANT_LIFETIME),
    }
}

fn credential(issued_at: UnixMillis) -> MachineCredential {
    MachineCredential {
        account_id: account(),
        machine_id: machine_id(),
        machine_key: EncodedKey(key()),
        serial: 1,
        region_pin: None,
        strict_audit: false,
        issued_at,
        expires_at: issued_at.plus(CREDENTIAL_LIFETIME),
    }
}
