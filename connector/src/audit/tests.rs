use ed25519_dalek::SigningKey;
use flydex_domain::audit::AuditKind;
use flydex_domain::id::AuditId;
use flydex_domain::key::PublicKey;
use flydex_domain::time::UnixMillis;
use flydex_runtime::clock::Clock;
use flydex_runtime::lifecycle::Shutdown;
use uuid::Uuid;

use super::*;
use crate::pair::tests::relay::{Relay, Script};
use crate::record::PairedRecord;
use crate::spool::SpoolRecord;
use crate::state::StateDir;
use crate::storage::memory::MemoryStorage;

fn record(number: u128) -> SpoolRecord {
    SpoolRecord {
        audit_id: AuditId::from_uuid(Uuid::from_u128(number)),
        kind: AuditKind::ApprovalAnswered,
        at_ms: UnixMillis(5),
        device_id: None,
        approval_id: None,
        generation: None,
        command_id: None,
        command_hash: None,
        decision: None,
        outcome: "executed".to_owned(),
        code: None,
        deferred: false,
    }
}

async fn uploader(script: Script) -> (Uploader, Relay, tempfile::TempDir) {
    flydex_runtime::tls::install_provider();
    let (relay, root) = (Relay::start(script).await, tempfile::tempdir().unwrap());
    let key = SigningKey::from_bytes(&[4; 32]);
    relay.know(PublicKey::of(&key));
    let given = relay.next_credential();
    let record: PairedRecord = serde_json::from_value(serde_json::json!({
        "origin": relay.origin(),
        "account_id": given["account_id"],
        "account_name": "Ada",
        "machine_id": given["machine_id"],
        "machine_label": "desk",
        "credential": given["credential"],
        "token_keys": given["token_keys"],
        "regions": { "regions": [] },
    }))
    .unwrap();
    let state = StateDir::open(&root.path().join("flydex")).unwrap();
    let origin = relay.origin().parse().unwrap();
    let keyring = Arc::new(Keyring::new(state, record, Arc::new(key), origin, Clock::manual(1_700_000_000_000)));
    let spool = Spool::open(Box::new(MemoryStorage::default())).unwrap();
    (Uploader { api: relay.api(), keyring, spool }, relay, root)
}

#[tokio::test]
async fn records_are_uploaded_until_the_server_has_acknowledged_each() {
    let (uploader, relay, _root) = uploader(Script::default()).await;
    for number in 1..=3 {
        uploader.spool.append(record(number)).unwrap();
    }
    let shutdown = Shutdown::new();
    let mut pending = uploader.spool.watch();
    shutdown.spawn(uploader.run(shutdown.soft()));
    pending.wait_for(|count| *count == 0).await.unwrap();
    let sent: Vec<_> = (1..=3).map(|number| serde_json::to_value(record(number)).unwrap()).collect();
    assert_eq!(relay.audited(), sent, "each once, oldest first");
    assert!(sent.iter().all(|record| record.get("device_id").is_none()), "what is not known is left out");
    shutdown.begin();
}

#[tokio::test]
async fn what_the_server_refuses_waits() {
    let refuses = Some(ErrorCode::StoreUnavailable);
    let (uploader, relay, _root) = uploader(Script { refuses, ..Script::default() }).await;
    uploader.spool.append(record(1)).unwrap();
    let error = uploader.upload().await.unwrap_err();
    assert_eq!((error.code(), error.may_retry()), (ErrorCode::StoreUnavailable, true));
    assert_eq!((uploader.spool.pending(10), relay.audited().len()), (vec![record(1)], 0));
}
