use ed25519_dalek::SigningKey;
use uuid::Uuid;

use super::*;

fn record(account: u128) -> PairedRecord {
    PairedRecord {
        origin: "https://relay.example".to_owned(),
        account_id: AccountId::from_uuid(Uuid::from_u128(account)),
        account_name: "Ada".to_owned(),
        machine_id: MachineId::from_uuid(Uuid::from_u128(2)),
        machine_label: "desk".to_owned(),
        credential: SecretText::new("credential".to_owned()),
        token_keys: Vec::new(),
        regions: Regions::default(),
        trusted_pem: None,
        key_counter: 0,
        key_since: None,
        cuts_heard_with: 0,
    }
}

fn paired(account: u128) -> (tempfile::TempDir, StateDir) {
    let root = tempfile::tempdir().unwrap();
    let state = StateDir::open(&root.path().join("flydex")).unwrap();
    record(account).replace(&state).unwrap();
    let key = PublicKey::of(&SigningKey::from_bytes(&[1; 32]));
    enrol(&state, key, Role::Owner, "phone", UnixMillis(1)).unwrap();
    state.write(FENCE_FILE, b"{}").unwrap();
    (root, state)
}

#[test]
fn a_record_survives_its_file() {
    let (_root, state) = paired(1);
    assert_eq!(PairedRecord::load(&state).unwrap(), Some(record(1)));
}

#[test]
fn the_same_account_keeps_its_devices() {
    let (_root, state) = paired(1);
    record(1).replace(&state).unwrap();
    assert_eq!(load_devices(&state).unwrap().devices().count(), 1);
}

#[test]
fn another_account_clears_every_device_key() {
    let (_root, state) = paired(1);
    record(9).replace(&state).unwrap();
    assert_eq!(load_devices(&state).unwrap().devices().count(), 0);
    assert!(state.read(FENCE_FILE).unwrap().is_none());
}

#[test]
fn an_unreadable_record_clears_every_device_key() {
    let (_root, state) = paired(1);
    state.write(PAIRED_FILE, b"{").unwrap();
    record(1).replace(&state).unwrap();
    assert_eq!(load_devices(&state).unwrap().devices().count(), 0);
}

#[test]
fn forgetting_leaves_no_key() {
    let (_root, state) = paired(1);
    state.machine_key(|| Zeroizing::new([3; 32])).unwrap();
    PairedRecord::forget(&state).unwrap();
    assert!(PairedRecord::load(&state).unwrap().is_none());
    assert!(state.existing_machine_key().unwrap().is_none());
    assert_eq!(load_devices(&state).unwrap().devices().count(), 0);
}

#[test]
fn damaged_settings_are_said_rather_than_guessed() {
    let (_root, state) = paired(1);
    assert_eq!(Settings::load(&state).unwrap(), Settings::default());
    state.write(SETTINGS_FILE, br#"{"strict_audti":true}"#).unwrap();
    assert!(Settings::load(&state).is_err());
}

#[test]
fn the_debug_output_of_a_record_shows_no_credential() {
    let shown = format!("{:?}", record(1));
    assert!(shown.contains("redacted") && !shown.contains("\"credential\""), "{shown}");
}
