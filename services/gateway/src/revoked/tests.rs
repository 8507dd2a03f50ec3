use ed25519_dalek::SigningKey;
use flydex_domain::id::{AccountId, DeviceId, GrantId, MachineId, UserId};
use flydex_domain::key::PublicKey;
use flydex_domain::scope::Role;
use flydex_domain::token::EncodedKey;

use super::*;

const NOW: UnixMillis = UnixMillis(1_000_000_000);

fn id<T: for<'a> TryFrom<&'a [u8]>>(tag: u8) -> T {
    T::try_from(&[tag; 16]).ok().unwrap()
}

fn key() -> PublicKey {
    PublicKey::of(&SigningKey::from_bytes(&[5; 32]))
}

fn grant(issued_at: UnixMillis) -> Grant {
    Grant {
        grant_id: id::<GrantId>(1),
        account_id: id::<AccountId>(2),
        user_id: id::<UserId>(3),
        role: Role::Owner,
        device_key: EncodedKey(key()),
        expires_at: issued_at.plus(GRANT_LIFETIME),
    }
}

fn credential(issued_at: UnixMillis) -> MachineCredential {
    MachineCredential {
        account_id: id::<AccountId>(2),
        machine_id: id::<MachineId>(4),
        machine_key: EncodedKey(key()),
        serial: 1,
        region_pin: None,
        strict_audit: false,
        issued_at,
        expires_at: issued_at.plus(CREDENTIAL_LIFETIME),
    }
}

#[test]
fn a_revocation_holds_for_what_was_signed_before_it_in_its_account() {
    let later = UnixMillis(NOW.0 + 1);
    let account_id = id::<AccountId>(2);
    let foreign = id::<AccountId>(9);
    let cases = [
        (Revocation::User { account_id, user_id: id(3) }, Some(ErrorCode::GrantInvalid), None),
        (Revocation::User { account_id: foreign, user_id: id(3) }, None, None),
        (Revocation::User { account_id, user_id: id(8) }, None, None),
        (
            Revocation::Device { account_id, device_id: key().device_id(), keeps: None },
            Some(ErrorCode::DeviceRevoked),
            None,
        ),
        (Revocation::Device { account_id, device_id: DeviceId::from_bytes([0; 32]), keeps: None }, None, None),
        (
            Revocation::Grant { account_id, grant_id: id(1) },
            Some(ErrorCode::GrantInvalid),
            Some(ErrorCode::GrantInvalid),
        ),
        (Revocation::Grant { account_id, grant_id: id(7) }, None, None),
        (Revocation::Machine { account_id, machine_id: id(4) }, None, None),
    ];
    for (revocation, before, after) in cases {
        let revoked = Revoked::default();
        revoked.add(&revocation, NOW, NOW);
        assert_eq!(revoked.check_grant(&grant(NOW)).err(), before, "{revocation:?}");
        assert_eq!(revoked.check_grant(&grant(later)).err(), after, "{revocation:?}");
    }
    let revoked = Revoked::default();
    revoked.add(&Revocation::Machine { account_id, machine_id: id(4) }, NOW, NOW);
    assert_eq!(revoked.check_credential(&credential(NOW)), Err(ErrorCode::MachineRevoked));
    assert_eq!(revoked.check_credential(&credential(later)), Ok(()));
}

#[test]
fn a_revocation_that_is_heard_of_late_refuses_nothing_signed_since() {
    let revoked = Revoked::default();
    let (since, now) = (UnixMillis(NOW.0 + 1), UnixMillis(NOW.0 + 3_600_000));
    revoked.add(&Revocation::User { account_id: id(2), user_id: id(3) }, NOW, now);
    assert_eq!(revoked.check_grant(&grant(since)), Ok(()));
    assert_eq!(revoked.check_grant(&grant(NOW)), Err(ErrorCode::GrantInvalid));
}

#[test]
fn a_quarantined_machines_credentials_do_not_hold_until_it_is_paired_again() {
    let revoked = Revoked::default();
    revoked.add(&Revocation::Quarantine { account_id: id(2), machine_id: id(4), serial: 7 }, NOW, NOW);
    let check = |serial| revoked.check_credential(&MachineCredential { serial, ..credential(NOW) });
    assert_eq!([check(1), check(7)], [Err(ErrorCode::MachineKeyCloned); 2]);
    assert_eq!(check(8), Ok(()));
    revoked.add(&Revocation::Quarantine { account_id: id(9), machine_id: id(4), serial: 8 }, NOW, NOW);
    assert_eq!(check(8), Ok(()));
}

#[test]
fn revocations_are_forgotten_with_the_tokens_they_are_about_and_never_exceed_their_bound() {
    let revoked = Revoked::default();
    let revocation = Revocation::Machine { account_id: id(2), machine_id: id(4) };
    for _ in 0..=REVOCATIONS_KEPT_MAX {
        revoked.add(&revocation, NOW, NOW);
    }
    assert_eq!(revoked.records.lock().unwrap().entries.len(), REVOCATIONS_KEPT_MAX);
    revoked.add(
        &revocation,
        NOW.plus(GRANT_LIFETIME).plus(TOKEN_SKEW_MAX),
        NOW.plus(GRANT_LIFETIME).plus(TOKEN_SKEW_MAX),
    );
    assert_eq!(revoked.records.lock().unwrap().entries.len(), 1);
}

#[test]
fn past_the_bound_everything_signed_before_the_forgotten_is_refused() {
    let revoked = Revoked::with_bound(1);
    let at = |ms: u64| UnixMillis(NOW.0 + ms);
    let account_id = id::<AccountId>(2);
    revoked.add(&Revocation::User { account_id, user_id: id(3) }, at(10), at(10));
    revoked.add(&Revocation::User { account_id: id(9), user_id: id(9) }, at(20), at(20));
    assert_eq!(revoked.check_grant(&grant(at(10))), Err(ErrorCode::GrantInvalid));
    assert_eq!(revoked.check_credential(&credential(at(10))), Err(ErrorCode::CredentialInvalid));
    assert_eq!(revoked.check_grant(&grant(at(11))), Ok(()));
    assert_eq!(revoked.check_credential(&credential(at(11))), Ok(()));
}

#[test]
fn superseded_credentials_open_nothing_and_the_next_one_does() {
    let revoked = Revoked::default();
    revoked.add(&Revocation::Superseded { account_id: id(2), machine_id: id(4), serial: 7 }, NOW, NOW);
    let check = |serial| revoked.check_credential(&MachineCredential { serial, ..credential(NOW) });
    assert_eq!(
        [check(1), check(7), check(8)],
        [Err(ErrorCode::CredentialInvalid), Err(ErrorCode::CredentialInvalid), Ok(())]
    );
    revoked.add(&Revocation::Superseded { account_id: id(2), machine_id: id(5), serial: 9 }, NOW, NOW);
    assert_eq!(check(8), Ok(()));
}
