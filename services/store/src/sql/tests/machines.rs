use flydex_domain::revocation::{Revocation, RevocationEntry};
use sqlx::migrate::Migrator;

use super::super::migrations;
use super::*;

#[tokio::test]
async fn a_credential_counts_up_from_its_newest_only() {
    let base = Base::open().await;
    let own = scope(&base.owner);
    let machine = new_machine();
    let mut tx = base.sql.write().await.expect("a transaction");
    tx.pair_machine(own, &machine, NOW).await.expect("paired");
    tx.advance_credential(own, machine.machine_id, 1, LATER).await.expect("advanced");
    assert!(matches!(tx.advance_credential(own, machine.machine_id, 1, LATER).await, Err(StoreError::Conflict)));
    let known = tx.machine(own, machine.machine_id).await.expect("the machine");
    assert_eq!((known.credential_serial, known.credential_issued_at), (2, LATER));
    tx.revoke_machine(own, machine.machine_id, LATER).await.expect("revoked");
    assert!(matches!(tx.advance_credential(own, machine.machine_id, 2, LATER).await, Err(StoreError::Conflict)));
    assert!(matches!(tx.pair_machine(own, &machine, LATER).await, Err(StoreError::Conflict)));
}

#[tokio::test]
async fn a_quarantine_ends_the_credentials_so_far_until_the_machine_is_paired_again() {
    let base = Base::open().await;
    let own = scope(&base.owner);
    let machine = new_machine();
    let id = machine.machine_id;
    let mut tx = base.sql.write().await.expect("a transaction");
    tx.pair_machine(own, &machine, NOW).await.expect("paired");
    tx.advance_credential(own, id, 1, NOW).await.expect("advanced");
    assert_eq!(tx.quarantine_machine(own, id, LATER).await.expect("quarantined"), 2);
    let known = tx.machine(own, id).await.expect("the machine");
    assert_eq!((known.quarantined, known.quarantined_serial), (true, 2));
    let newer = NewMachine { connector_version: Some("2.0.0".to_owned()), ..machine };
    let known = tx.pair_machine(own, &newer, LATER).await.expect("paired again");
    assert_eq!((known.quarantined, known.quarantined_serial, known.credential_serial), (false, 2, 3));
    assert_eq!(known.connector_version.as_deref(), Some("2.0.0"));
    tx.revoke_machine(own, id, LATER).await.expect("revoked");
    missing(tx.quarantine_machine(own, id, LATER).await);
}

#[tokio::test]
async fn every_kind_of_revocation_is_read_as_it_was_written() {
    let base = Base::open().await;
    let User { account_id, user_id, .. } = base.owner;
    let machine_id = new_machine().machine_id;
    let revocations = [
        Revocation::User { account_id, user_id },
        Revocation::Grant { account_id, grant_id: GrantId::from_uuid(Uuid::from_u128(1)) },
        Revocation::Device { account_id, device_id: key(8).device_id(), keeps: None },
        Revocation::Device { account_id, device_id: key(8).device_id(), keeps: Some(Role::Viewer) },
        Revocation::Machine { account_id, machine_id },
        Revocation::Quarantine { account_id, machine_id, serial: u64::MAX - 1 },
        Revocation::Superseded { account_id, machine_id, serial: 7 },
    ];
    let mut tx = base.sql.write().await.expect("a transaction");
    for revocation in revocations.clone() {
        tx.append_revocation(scope(&base.owner), revocation, NOW).await.expect("appended");
    }
    let log = tx.revocations_after(0, 10).await.expect("the log");
    let expected: Vec<_> =
        (1..).zip(revocations).map(|(number, revocation)| RevocationEntry { number, at: NOW, revocation }).collect();
    assert_eq!(log, expected);
}

#[tokio::test]
async fn a_database_of_the_first_schema_keeps_its_machines() {
    let folder = TempDir::new().expect("a temporary folder");
    let path = folder.path().join("flydex.sqlite");
    let owner = user(1);
    {
        let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
        let pool = SqlitePoolOptions::new().connect_with(options).await.expect("a database");
        let first = migrations::of_sqlite().into_iter().take(1).collect();
        Migrator::with_migrations(first).run(&pool).await.expect("the first schema");
        sqlx::query("INSERT INTO accounts VALUES ($1, 'Account', 0, 0, $2)")
            .bind(owner.account_id.as_bytes().as_slice())
            .bind([0; 32].as_slice())
            .execute(&pool)
            .await
            .expect("an account");
        let NewMachine { machine_id, key, .. } = new_machine();
        sqlx::query("INSERT INTO machines VALUES ($1, $2, 'desk', 'local', 0, NULL, 5, 0)")
            .bind(machine_id.as_bytes().as_slice())
            .bind(owner.account_id.as_bytes().as_slice())
            .execute(&pool)
            .await
            .expect("a machine");
        sqlx::query("INSERT INTO machine_keys VALUES ($1, $2, 'ed25519', $3, 0, NULL)")
            .bind(owner.account_id.as_bytes().as_slice())
            .bind(machine_id.as_bytes().as_slice())
            .bind(key.as_bytes())
            .execute(&pool)
            .await
            .expect("its key");
        pool.close().await;
    }
    let sql = Sql::open_sqlite(&path).await.expect("the database is brought up to date");
    let machines = sql.read().await.expect("a transaction").machines(scope(&owner)).await.expect("a list");
    let [machine] = &machines[..] else { panic!("{machines:?}") };
    assert_eq!((machine.credential_serial, machine.quarantined, machine.quarantined_serial), (5, false, 0));
    assert_eq!((machine.connector_version.as_deref(), machine.strict_audit), (None, false));
}

#[tokio::test]
async fn a_database_that_was_closed_does_not_answer() {
    let base = Base::open().await;
    base.sql.ping().await.expect("it answers");
    base.sql.close().await;
    assert!(matches!(base.sql.ping().await, Err(StoreError::Unavailable(_))));
}
