use zeroize::Zeroizing;

use super::*;
use crate::pair::tests::relay::{Relay, Script};
use crate::regions::Regions;

fn record(relay: &Relay, origin: &str) -> PairedRecord {
    let answer = relay.next_credential();
    PairedRecord {
        origin: origin.to_owned(),
        account_id: relay.account_id(),
        account_name: "Ada".to_owned(),
        machine_id: MachineId::from_uuid(uuid::Uuid::from_u128(3)),
        machine_label: "desk".to_owned(),
        credential: SecretText::new(answer["credential"].as_str().unwrap().to_owned()),
        token_keys: Vec::new(),
        regions: Regions::default(),
        trusted_pem: None,
        key_counter: 0,
        key_since: None,
        cuts_heard_with: 0,
    }
}

#[tokio::test]
async fn a_farewell_is_said_once_however_often_it_took() {
    flydex_runtime::tls::install_provider();
    let relay = Relay::start(Script::default()).await;
    let root = tempfile::tempdir().unwrap();
    let state = StateDir::open(&root.path().join("flydex")).unwrap();
    let clock = Clock::manual(1_700_000_000_000);
    assert_eq!(tell(&state, &clock).await.unwrap(), Told::Yes, "there is nothing to say");
    let key = state.machine_key(|| Zeroizing::new([4; 32])).unwrap();
    relay.know(flydex_domain::key::PublicKey::of(&key));

    let free = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap().local_addr().unwrap();
    prepare(&state, &record(&relay, &format!("http://{free}")), &key).unwrap();
    assert_eq!(tell(&state, &clock).await.unwrap(), Told::Later, "nobody is there");
    state.check_files().unwrap();

    prepare(&state, &record(&relay, relay.origin()), &key).unwrap();
    for _ in 0..2 {
        assert_eq!(tell(&state, &clock).await.unwrap(), Told::Yes);
    }
    assert_eq!(relay.released(), 1);
    assert!(state.read(RELEASE_FILE).unwrap().is_none());
}
