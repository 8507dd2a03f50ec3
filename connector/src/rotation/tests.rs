use std::sync::Arc;
use std::time::Duration;

use flydex_domain::error::ErrorCode;
use flydex_domain::id::MachineId;
use flydex_domain::limits::MACHINE_KEY_USED_AFTER;
use flydex_runtime::clock::Clock;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::*;
use crate::credential::Keyring;
use crate::pair::tests::relay::{Relay, Script};
use crate::paired::empty_desk;
use crate::regions::Regions;
use crate::state::MACHINE_KEY_FILE;

const NOW_MS: u64 = 1_700_000_000_000;

/// A paired machine on disk, and its server.
struct Machine {
    _root: tempfile::TempDir,
    state: StateDir,
    relay: Relay,
}

impl Machine {
    async fn paired(script: Script) -> Self {
        flydex_runtime::tls::install_provider();
        let relay = Relay::start(script).await;
        let root = tempfile::tempdir().unwrap();
        let state = StateDir::open(&root.path().join("flydex")).unwrap();
        let key = state.machine_key(|| Zeroizing::new([4; 32])).unwrap();
        relay.know(PublicKey::of(&key));
        let answer = relay.next_credential();
        let record = PairedRecord {
            origin: relay.origin().to_owned(),
            account_id: relay.account_id(),
            account_name: "Ada".to_owned(),
            machine_id: MachineId::from_uuid(Uuid::from_u128(3)),
            machine_label: "desk".to_owned(),
            credential: SecretText::new(answer["credential"].as_str().unwrap().to_owned()),
            token_keys: serde_json::from_value(answer["token_keys"].clone()).unwrap(),
            regions: Regions::default(),
            trusted_pem: None,
            key_counter: 0,
            key_since: None,
            cuts_heard_with: 0,
        };
        record.store(&state).unwrap();
        Self { _root: root, state, relay }
    }

    fn record(&self) -> PairedRecord {
        PairedRecord::load(&self.state).unwrap().unwrap()
    }

    /// What a start of the connector has in hand: nothing but the disk.
    fn started(&self) -> Keyring {
        let record = self.record();
        let key = settled_key(&self.state, &record).unwrap().unwrap();
        let origin = self.relay.origin().parse().unwrap();
        Keyring::new(self.state.clone(), record, Arc::new(key), origin, Clock::manual(NOW_MS))
    }

    async fn rotate(&self) -> Result<(), ErrorCode> {
        self.started().rotate(&self.relay.api(), &Entropy::system()).await.map_err(|error| error.code())
    }

    /// Starts, renews, and checks that the machine can prove what its credential says.
    async fn can_link(&self, changes: u32) {
        let keyring = self.started();
        keyring.renew(&self.relay.api(), &crate::paired::empty_desk()).await.unwrap();
        let (record, key) = (self.record(), PublicKey::of(&keyring.key()));
        assert_eq!(credential::named_key(&record), Some(key));
        assert_eq!(PublicKey::of(&self.state.existing_machine_key().unwrap().unwrap()), key);
        assert_eq!((self.relay.rotations(), record.key_counter), (changes, u64::from(changes)));
        assert!(self.state.read(ROTATION_FILE).unwrap().is_none());
        self.state.check_files().unwrap();
    }

    fn file(&self, name: &str) -> Vec<u8> {
        self.state.read(name).unwrap().unwrap().to_vec()
    }
}

#[tokio::test]
async fn the_key_changes_and_changes_again() {
    let machine = Machine::paired(Script::default()).await;
    let first = machine.file(MACHINE_KEY_FILE);
    for changes in 1..=2 {
        machine.rotate().await.unwrap();
        machine.can_link(changes).await;
    }
    assert_ne!(machine.file(MACHINE_KEY_FILE), first);
}

#[tokio::test]
async fn a_crash_before_control_was_asked_is_made_up_for() {
    let machine = Machine::paired(Script::default()).await;
    let key = machine.state.existing_machine_key().unwrap().unwrap();
    let now = UnixMillis(NOW_MS);
    Pending::begin(&machine.state, &machine.record(), &key, &Entropy::system(), now).unwrap();
    machine.can_link(1).await;
}

#[tokio::test]
async fn an_answer_that_was_lost_is_asked_for_again_with_the_same_key() {
    let machine = Machine::paired(Script { rotations_lost: 2, ..Script::default() }).await;
    assert!(machine.rotate().await.is_err());
    let stated = machine.file(ROTATION_FILE);
    assert!(machine.rotate().await.is_err());
    assert_eq!(machine.file(ROTATION_FILE), stated);
    machine.can_link(1).await;
}

#[tokio::test]
async fn a_crash_after_the_credential_was_stored_puts_the_key_in_its_place() {
    let machine = Machine::paired(Script { rotations_lost: 1, ..Script::default() }).await;
    assert!(machine.rotate().await.is_err());
    let (old_key, stated) = (machine.file(MACHINE_KEY_FILE), machine.file(ROTATION_FILE));
    machine.rotate().await.unwrap();
    machine.state.write(MACHINE_KEY_FILE, &old_key).unwrap();
    machine.state.write(ROTATION_FILE, &stated).unwrap();
    machine.can_link(1).await;
}

#[tokio::test]
async fn a_crash_after_the_key_is_in_its_place_leaves_nothing_behind() {
    let machine = Machine::paired(Script { rotations_lost: 1, ..Script::default() }).await;
    assert!(machine.rotate().await.is_err());
    let stated = machine.file(ROTATION_FILE);
    machine.rotate().await.unwrap();
    machine.state.write(ROTATION_FILE, &stated).unwrap();
    machine.can_link(1).await;
}

#[tokio::test]
async fn a_server_that_knows_of_no_change_leaves_the_machine_as_it_was() {
    let machine = Machine::paired(Script { refuses_rotation: Some(ErrorCode::NotFound), ..Script::default() }).await;
    let before = machine.file(MACHINE_KEY_FILE);
    assert_eq!(machine.rotate().await, Err(ErrorCode::NotFound));
    assert_eq!(machine.file(MACHINE_KEY_FILE), before);
    machine.can_link(0).await;
}

#[tokio::test]
async fn what_another_pairing_has_left_behind_is_not_used() {
    let machine = Machine::paired(Script { rotations_lost: 1, ..Script::default() }).await;
    assert!(machine.rotate().await.is_err());
    let other = PairedRecord { machine_id: MachineId::from_uuid(Uuid::from_u128(4)), ..machine.record() };
    let key = settled_key(&machine.state, &other).unwrap().unwrap();
    assert_eq!(PublicKey::of(&key), PublicKey::of(&SigningKey::from_bytes(&[4; 32])));
    assert!(machine.state.read(ROTATION_FILE).unwrap().is_none());
}

#[tokio::test]
async fn a_damaged_statement_is_said_and_kept() {
    let machine = Machine::paired(Script::default()).await;
    machine.state.write(ROTATION_FILE, b"{").unwrap();
    let refused = settled_key(&machine.state, &machine.record()).unwrap_err();
    assert_eq!(refused.code(), ErrorCode::StateUnusable);
    assert_eq!(machine.file(ROTATION_FILE), b"{");
}

#[tokio::test]
async fn a_new_key_is_used_soon_so_that_control_gives_the_old_one_up_and_after_a_restart_too() {
    let machine = Machine::paired(Script::default()).await;
    for restarted in [false, true] {
        machine.started().renew(&machine.relay.api(), &empty_desk()).await.unwrap();
        if restarted {
            machine.rotate().await.unwrap();
        }
        let keyring = Arc::new(machine.started());
        let (mut credential, stop) = (keyring.credential(), CancellationToken::new());
        let (api, entropy) = (machine.relay.api(), Entropy::system());
        let keeping = tokio::spawn(Arc::clone(&keyring).keep_young(api, empty_desk(), entropy, stop.clone()));
        if !restarted {
            keyring.rotate(&machine.relay.api(), &Entropy::system()).await.unwrap();
        }
        credential.mark_unchanged();
        tokio::task::yield_now().await;
        tokio::time::pause();
        tokio::time::advance(MACHINE_KEY_USED_AFTER).await;
        tokio::time::resume();
        tokio::time::timeout(Duration::from_secs(10), credential.changed()).await.expect("a renewal").unwrap();
        stop.cancel();
        keeping.await.unwrap();
    }
    machine.can_link(2).await;
}
