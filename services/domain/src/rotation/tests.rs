use uuid::Uuid;

use super::*;

const AT: UnixMillis = UnixMillis(1_000);

fn of(number: u128) -> (AccountId, MachineId) {
    (AccountId::from_uuid(Uuid::from_u128(number)), MachineId::from_uuid(Uuid::from_u128(number)))
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn public(seed: u8) -> PublicKey {
    PublicKey::of(&key(seed))
}

fn change(counter: u64, old: u8, new: u8) -> KeyRotation {
    KeyRotation::make(of(1), counter, AT, &key(old), &key(new))
}

#[test]
fn a_known_key_leads_to_the_newest_wherever_it_is_in_the_chain() {
    let chain = [change(1, 1, 2), change(2, 2, 3), change(3, 3, 4)];
    for known in 1..=4 {
        assert_eq!(newest(public(known), of(1), &chain), Ok(public(4)), "from {known}");
    }
    assert_eq!(newest(public(9), of(1), &chain), Ok(public(9)), "nothing follows on a key of another machine");
    assert_eq!(newest(public(1), of(1), &[]), Ok(public(1)));
}

#[test]
fn a_statement_is_about_one_machine_of_one_account_and_every_field_counts() {
    let statement = change(1, 1, 2);
    assert_eq!(statement.verify(of(1)), Ok(()));
    assert!(statement.verify(of(2)).is_err());
    assert!(statement.verify((of(1).0, of(2).1)).is_err());
    for altered in [
        KeyRotation { counter: 2, ..statement.clone() },
        KeyRotation { at_ms: UnixMillis(1_001), ..statement.clone() },
        KeyRotation { new_key: EncodedKey(public(3)), ..statement.clone() },
        KeyRotation { old_key: EncodedKey(public(3)), ..statement.clone() },
        KeyRotation { new_signature: statement.old_signature, ..statement.clone() },
        KeyRotation { old_signature: statement.new_signature, ..statement },
    ] {
        assert!(altered.verify(of(1)).is_err(), "{altered:?}");
    }
}

#[test]
fn a_key_that_only_the_relay_vouches_for_is_not_followed() {
    // Signed by the relay's own key in the old one's name.
    let forged = KeyRotation { old_key: EncodedKey(public(1)), ..change(1, 66, 67) };
    assert_eq!(newest(public(1), of(1), &[forged]), Err(ChainError::Forged));
    // A key that is somebody else's, without whom it is claimed.
    let claimed = KeyRotation { new_key: EncodedKey(public(5)), ..change(1, 1, 2) };
    assert_eq!(newest(public(1), of(1), &[claimed]), Err(ChainError::Forged));
}

#[test]
fn a_chain_that_leads_back_or_does_not_rise_ends() {
    assert_eq!(newest(public(1), of(1), &[change(1, 1, 2), change(2, 2, 1)]), Err(ChainError::Disordered));
    assert_eq!(newest(public(1), of(1), &[change(2, 1, 2), change(2, 2, 3)]), Err(ChainError::Disordered));
    assert_eq!(newest(public(1), of(1), &[change(0, 1, 2)]), Err(ChainError::Disordered));
}

#[test]
fn json_brings_a_statement_back_and_takes_nothing_else() {
    let statement = change(1, 1, 2);
    let json = serde_json::to_value(&statement).unwrap();
    assert_eq!(serde_json::from_value::<KeyRotation>(json.clone()).unwrap(), statement);
    for field in ["counter", "old_key", "new_key", "at_ms", "old_signature", "new_signature"] {
        let mut missing = json.clone();
        missing.as_object_mut().unwrap().remove(field);
        assert!(serde_json::from_value::<KeyRotation>(missing).is_err(), "{field}");
    }
    let mut more = json;
    more["more"] = true.into();
    assert!(serde_json::from_value::<KeyRotation>(more).is_err());
}
