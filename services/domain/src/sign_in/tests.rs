use proptest::prelude::*;

use super::*;

const BEGAN: UnixMillis = UnixMillis(1_800_000_000_000);
const AGE_MAX: u64 = 300_000;

fn after(millis: u64) -> UnixMillis {
    UnixMillis(BEGAN.0 + millis)
}

#[test]
fn a_user_without_a_passkey_is_fresh_for_five_minutes_after_the_sign_in() {
    let presence = Presence { signed_in_at: BEGAN, asserted_at: None };
    assert!(presence.is_fresh(false, BEGAN));
    assert!(presence.is_fresh(false, after(AGE_MAX)));
    assert!(!presence.is_fresh(false, after(AGE_MAX + 1)));
}

#[test]
fn a_user_with_a_passkey_is_fresh_only_by_an_assertion() {
    let presence = Presence { signed_in_at: BEGAN, asserted_at: None };
    assert!(!presence.is_fresh(true, BEGAN));
    let asserted = Presence { asserted_at: Some(after(1_000_000)), ..presence };
    assert!(asserted.is_fresh(true, after(1_000_000 + AGE_MAX)));
    assert!(!asserted.is_fresh(true, after(1_000_001 + AGE_MAX)));
}

#[test]
fn a_proof_from_the_future_is_not_fresh() {
    let presence = Presence { signed_in_at: after(0), asserted_at: Some(after(10_000_000)) };
    assert!(!presence.is_fresh(true, BEGAN));
    assert!(!presence.is_fresh(false, BEGAN));
}

#[test]
fn every_method_is_found_by_its_name() {
    for method in SignInMethod::ALL {
        assert_eq!(SignInMethod::from_name(method.name()), Some(method));
    }
    assert_eq!(SignInMethod::from_name("password"), None);
}

#[test]
fn a_recovery_code_is_read_as_people_type_it() {
    let code =
        RecoveryCode::new([0x00, 0x44, 0x32, 0x14, 0xc7, 0x42, 0x54, 0xb6, 0x35, 0xcf, 0x84, 0x65, 0x3a, 0x56, 0xd7]);
    let text = code.expose();
    assert_eq!(text, "0123-4567-89ab-cdef-ghjk-mnpq");
    for typed in ["0123-4567-89ab-cdef-ghjk-mnpq", " OL23 4567 89AB CDEF GHJK MNPQ ", "oi23456789abcdefghjkmnpq"] {
        assert_eq!(typed.parse(), Ok(code.clone()), "{typed}");
    }
    for typed in
        ["", "0123", "0123-4567-89ab-cdef-ghjk-mnpu", "0123-4567-89ab-cdef-ghjk-mnpqr", "é123-4567-89ab-cdef-ghjk-mnpq"]
    {
        assert_eq!(typed.parse::<RecoveryCode>(), Err(MalformedRecoveryCode), "{typed}");
    }
}

#[test]
fn a_recovery_code_is_never_printed_by_accident() {
    assert_eq!(format!("{:?}", RecoveryCode::new([7; RECOVERY_CODE_BYTES])), "RecoveryCode(redacted)");
}

#[test]
fn only_the_same_code_fits_its_hash() {
    let code = RecoveryCode::new([7; RECOVERY_CODE_BYTES]);
    let mut other = [7; RECOVERY_CODE_BYTES];
    other[RECOVERY_CODE_BYTES - 1] = 8;
    assert!(code.is_stored_as(&code.hash()));
    assert!(!RecoveryCode::new(other).is_stored_as(&code.hash()));
    assert_eq!(RecoveryCode::new(other).selector(), code.selector());
}

#[test]
fn the_last_way_in_stays() {
    let alone = WaysIn { passkeys: 1, identities: 0, recovery_codes: 0 };
    assert!(!alone.can_lose_passkey());
    assert!(WaysIn { passkeys: 2, ..alone }.can_lose_passkey());
    assert!(WaysIn { recovery_codes: 1, ..alone }.can_lose_passkey());
    assert!(WaysIn { identities: 1, ..alone }.can_lose_passkey());
    let linked = WaysIn { passkeys: 0, identities: 1, recovery_codes: 0 };
    assert!(!linked.can_lose_identity());
    assert!(WaysIn { passkeys: 1, ..linked }.can_lose_identity());
}

proptest! {
    #[test]
    fn a_recovery_code_survives_its_text(random in any::<[u8; RECOVERY_CODE_BYTES]>()) {
        let code = RecoveryCode::new(random);
        prop_assert_eq!(code.expose().parse::<RecoveryCode>(), Ok(code));
    }
}
