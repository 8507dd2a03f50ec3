mod audit;
mod links;
mod machines;
mod schema;
mod token_keys;
mod ways_in;

use std::os::unix::fs::PermissionsExt as _;

use ed25519_dalek::SigningKey;
use flydex_domain::audit::{AuditEntry, AuditKind, ChainError, ChainHead};
use flydex_domain::id::{AccountSessionId, AuditId, ClaimId, DeviceId, GrantId, LocalConnectId, MachineId, UserId};
use flydex_domain::key::PublicKey;
use flydex_domain::limits::{SIGN_IN_LINKS_OPEN_MAX, USER_SESSIONS_MAX};
use flydex_domain::local_connect::Lifecycle;
use flydex_domain::revocation::Revocation;
use flydex_domain::scope::{AccountScope, Role};
use flydex_domain::sign_in::SignInMethod;
use flydex_domain::time::UnixMillis;
use tempfile::TempDir;
use uuid::Uuid;

use super::testing::{Database, counting_statements};
use super::*;

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);
const LATER: UnixMillis = UnixMillis(NOW.0 + 1_000);

struct Base {
    database: Database,
    sql: Sql,
    owner: User,
    stranger: User,
}

impl Base {
    async fn open() -> Self {
        let database = Database::empty().await;
        let sql = database.open().await;
        let (owner, stranger) = (user(1), user(2));
        let mut tx = sql.write().await.expect("a transaction");
        for user in [&owner, &stranger] {
            let account = Account { account_id: user.account_id, name: "Account".to_owned() };
            tx.create_account(&account, NOW).await.expect("an account");
            tx.create_user(user, NOW).await.expect("a user");
        }
        tx.commit().await.expect("committed");
        Self { database, sql, owner, stranger }
    }

    async fn with_records(count: u128) -> Self {
        let base = Self::open().await;
        let mut tx = base.sql.write().await.expect("a transaction");
        for number in 1..=count {
            tx.append_audit(scope(&base.owner), &entry(number)).await.expect("appended");
            tx.append_audit(scope(&base.stranger), &entry(number)).await.expect("appended");
        }
        tx.commit().await.expect("committed");
        base
    }

    /// What somebody with the database in hand does.
    async fn tamper(&self, statements: &[&'static str]) {
        for statement in statements {
            self.sql.tamper(statement).await;
        }
    }

    async fn drop_the_guard(&self) {
        let on_postgres = "DROP TRIGGER audit_is_never_changed ON audit";
        let statement = if self.sql.is_postgres() { on_postgres } else { "DROP TRIGGER audit_is_never_changed" };
        self.sql.tamper(statement).await;
    }

    async fn verify(&self) -> Result<u64, ChainError> {
        let mut tx = self.sql.read().await.expect("a transaction");
        let stranger = tx.verify_audit(scope(&self.stranger)).await.expect("the database answers");
        assert!(stranger.is_ok(), "another account's chain is not touched");
        let verdict = tx.verify_audit(scope(&self.owner)).await.expect("the database answers");
        let every = tx.verify_every_audit(None).await.expect("the database answers");
        assert_eq!(every, vec![(self.owner.account_id, verdict), (self.stranger.account_id, stranger)]);
        verdict
    }
}

#[tokio::test]
async fn statements_count_for_who_puts_them_and_for_nobody_beside() {
    let base = Base::open().await;
    let verify = async |times: u64| {
        for _ in 0..times {
            assert_eq!(base.verify().await, Ok(0));
        }
    };
    let ((), once) = counting_statements(verify(1)).await;
    assert_ne!(once, 0);
    let (((), beside), ((), mine)) = tokio::join!(counting_statements(verify(3)), counting_statements(verify(1)));
    assert_eq!((mine, beside), (once, 3 * once));
}

#[tokio::test]
async fn an_untouched_chain_holds_over_a_restart() {
    let base = Base::with_records(500).await;
    assert_eq!(base.verify().await, Ok(500));
    base.sql.close().await;
    let sql = base.database.open().await;
    let mut tx = sql.write().await.expect("a transaction");
    assert_eq!(tx.append_audit(scope(&base.owner), &entry(501)).await.expect("appended"), 501);
    assert_eq!(tx.verify_audit(scope(&base.owner)).await.expect("the database answers"), Ok(501));
}

#[tokio::test]
async fn an_edited_record_is_found() {
    let base = Base::with_records(5).await;
    assert!(base.sql.try_tamper("UPDATE audit SET at = 1").await.is_err(), "the trigger holds");
    base.drop_the_guard().await;
    base.tamper(&["UPDATE audit SET at = at + 1 WHERE number = 3 \
         AND account_id = (SELECT account_id FROM users ORDER BY user_id LIMIT 1)"])
        .await;
    assert_eq!(base.verify().await, Err(ChainError::Altered { number: 3 }));
}

#[tokio::test]
async fn a_deleted_record_is_found_in_the_middle_and_at_the_end() {
    let base = Base::with_records(5).await;
    base.tamper(&["DELETE FROM audit WHERE number = 5 \
                   AND account_id = (SELECT account_id FROM users ORDER BY user_id LIMIT 1)"])
        .await;
    assert_eq!(base.verify().await, Err(ChainError::HeadMismatch { found: 4 }));
    base.tamper(&["DELETE FROM audit WHERE number = 2 \
                   AND account_id = (SELECT account_id FROM users ORDER BY user_id LIMIT 1)"])
        .await;
    assert_eq!(base.verify().await, Err(ChainError::OutOfPlace { expected: 2 }));
}

#[tokio::test]
async fn reordered_records_are_found() {
    let base = Base::with_records(5).await;
    base.drop_the_guard().await;
    base.tamper(&[
        "UPDATE audit SET number = 100 WHERE number = 2 \
         AND account_id = (SELECT account_id FROM users ORDER BY user_id LIMIT 1)",
        "UPDATE audit SET number = 2 WHERE number = 3 \
         AND account_id = (SELECT account_id FROM users ORDER BY user_id LIMIT 1)",
        "UPDATE audit SET number = 3 WHERE number = 100 \
         AND account_id = (SELECT account_id FROM users ORDER BY user_id LIMIT 1)",
    ])
    .await;
    assert_eq!(base.verify().await, Err(ChainError::Altered { number: 2 }));
}

#[tokio::test]
async fn one_record_id_is_taken_once() {
    let base = Base::with_records(1).await;
    let mut tx = base.sql.write().await.expect("a transaction");
    let repeated = tx.append_audit(scope(&base.owner), &entry(1)).await;
    assert!(matches!(repeated, Err(StoreError::Conflict)));
    drop(tx);
    assert_eq!(base.verify().await, Ok(1), "a transaction that is dropped leaves no trace");
}

#[tokio::test]
async fn appends_from_many_tasks_make_one_chain() {
    let base = Base::open().await;
    let appends = (1..=40).map(|number| {
        let (sql, scope) = (base.sql.clone(), scope(&base.owner));
        tokio::spawn(async move {
            let mut tx = sql.write().await?;
            tx.append_audit(scope, &entry(number)).await?;
            tx.commit().await
        })
    });
    for append in appends.collect::<Vec<_>>() {
        append.await.expect("the task ends").expect("appended");
    }
    assert_eq!(base.verify().await, Ok(40));
}

#[tokio::test]
async fn appends_of_many_accounts_make_one_log_without_gaps_in_the_order_of_their_commits() {
    let base = Base::open().await;
    let appends = (1..=40).map(|number| {
        // Another process has its own connections to the same database.
        let sql = base.sql.clone();
        let user = if number % 2 == 0 { base.owner } else { base.stranger };
        tokio::spawn(async move {
            let User { account_id, user_id, .. } = user;
            let mut tx = sql.write().await?;
            let entry = tx.append_revocation(scope(&user), Revocation::User { account_id, user_id }, NOW).await?;
            let seen = tx.revocations_after(0, 100).await?;
            assert!(seen.iter().map(|entry| entry.number).eq(1..=entry.number), "every earlier one is committed");
            if number % 5 == 0 {
                return Ok(());
            }
            tx.commit().await
        })
    });
    for append in appends.collect::<Vec<_>>() {
        append.await.expect("the task ends").expect("appended");
    }
    let log = base.sql.read().await.expect("a view").revocations_after(0, 100).await.expect("the log");
    assert!(log.iter().map(|entry| entry.number).eq(1..=32), "what was not committed leaves no gap");
}

#[tokio::test]
async fn a_bound_of_an_account_holds_for_those_who_come_at_once() {
    let base = Base::open().await;
    let links = (0..2 * SIGN_IN_LINKS_OPEN_MAX).map(|number| {
        let (sql, owner) = (base.sql.clone(), base.owner);
        tokio::spawn(async move {
            let mut tx = sql.write().await?;
            let token = [u8::try_from(number).expect("few"); 32];
            tx.create_link(scope(&owner), &owner, &token, NOW, LATER).await?;
            tx.commit().await
        })
    });
    let mut made = 0;
    for link in links.collect::<Vec<_>>() {
        match link.await.expect("the task ends") {
            Ok(()) => made += 1,
            Err(error) => assert!(matches!(error, StoreError::Full), "{error}"),
        }
    }
    assert_eq!(made, SIGN_IN_LINKS_OPEN_MAX);
}

#[tokio::test]
async fn two_who_change_one_pairing_see_each_others_change() {
    let base = Base::open().await;
    let new = local_connect();
    let mut tx = base.sql.write().await.expect("a transaction");
    tx.begin_local_connect(&new).await.expect("begun");
    tx.commit().await.expect("committed");
    let changes = (0..20).map(|_| {
        let (sql, id) = (base.sql.clone(), new.local_connect_id);
        tokio::spawn(async move {
            let mut tx = sql.write().await?;
            let read = tx.local_connect(id).await?;
            tx.update_local_connect(&read).await?;
            tx.commit().await
        })
    });
    for change in changes.collect::<Vec<_>>() {
        change.await.expect("the task ends").expect("changed");
    }
    let read = base.sql.read().await.expect("a view").local_connect(new.local_connect_id).await.expect("found");
    assert_eq!(read.revision, new.revision + 20);
}

#[tokio::test]
async fn nothing_of_an_account_is_found_or_changed_from_another() {
    let base = Base::with_records(1).await;
    let (own, foreign) = (scope(&base.owner), scope(&base.stranger));
    let machine = new_machine();
    let device = device(&base.owner);
    let session = session(1, LATER);
    let user_id = base.owner.user_id;
    let mut tx = base.sql.write().await.expect("a transaction");
    tx.pair_machine(own, &machine, NOW).await.expect("paired");
    tx.enrol_device(own, &device).await.expect("enrolled");
    tx.begin_session(own, user_id, &session, &[1; 32]).await.expect("begun");
    let id = machine.machine_id;
    missing(tx.machine(foreign, id).await);
    missing(tx.rename_machine(foreign, id, "mine").await);
    missing(tx.revoke_machine(foreign, id, NOW).await);
    missing(tx.quarantine_machine(foreign, id, NOW).await);
    assert!(matches!(tx.advance_credential(foreign, id, 1, NOW).await, Err(StoreError::Conflict)));
    assert!(matches!(tx.pair_machine(foreign, &machine, NOW).await, Err(StoreError::Conflict)));
    missing(tx.device(foreign, device.device_id).await);
    missing(tx.revoke_device(foreign, device.device_id, NOW).await);
    missing(tx.end_session(foreign, user_id, session.account_session_id).await);
    missing(tx.roll_session(foreign, &session).await);
    missing(tx.audit_record(foreign, entry(9).audit_id).await);
    let revocation = Revocation::Machine { account_id: base.owner.account_id, machine_id: id };
    missing(tx.append_revocation(foreign, revocation, NOW).await);
    assert_eq!(tx.machines(foreign).await.expect("a list"), vec![]);
    assert!(tx.set_strict_audit(foreign, true).await.expect("changed"));
    assert!(!tx.strict_audit(own).await.expect("the policy"));
    assert_eq!(tx.devices(foreign).await.expect("a list"), vec![]);
    assert_eq!(tx.sessions(foreign, user_id, NOW).await.expect("a list"), vec![]);
    assert_eq!(tx.device_standing(foreign, device.device_id).await.expect("an answer"), DeviceStanding::Unknown);
    let machine = tx.machine(own, id).await.expect("still there");
    assert_eq!(machine.credential_serial, 1);
    assert_eq!((machine.label.as_str(), machine.revoked, machine.quarantined), ("desk", false, false));
    assert!(!machine.strict_audit);
}

#[tokio::test]
async fn a_local_connect_is_changed_by_one_of_two_who_read_it() {
    let base = Base::open().await;
    let new = local_connect();
    let mut tx = base.sql.write().await.expect("a transaction");
    tx.begin_local_connect(&new).await.expect("begun");
    let read = tx.local_connect(new.local_connect_id).await.expect("found");
    assert_eq!(read, new);
    assert_eq!(tx.local_connect_by_claim(new.claim_id).await.expect("found"), new);
    let browser = BrowserSide {
        account_id: base.owner.account_id,
        user_id: base.owner.user_id,
        account_session_id: AccountSessionId::from_uuid(Uuid::from_u128(4)),
        device_key: key(5),
        device_label: "phone".to_owned(),
        device_mac: Some([6; 32]),
    };
    let changed = LocalConnect { browser: Some(browser), machine_mac: Some([7; 32]), ..read.clone() };
    tx.update_local_connect(&changed).await.expect("the first");
    assert!(matches!(tx.update_local_connect(&read).await, Err(StoreError::Conflict)));
    let read = tx.local_connect(new.local_connect_id).await.expect("found");
    assert_eq!(read, LocalConnect { revision: 2, ..changed });
    tx.remove_local_connects_ended_before(UnixMillis(u64::MAX / 2)).await.expect("removed");
    missing(tx.local_connect_by_claim(new.claim_id).await);
}

#[tokio::test]
async fn links_and_sessions_are_bounded() {
    let base = Base::open().await;
    let own = scope(&base.owner);
    let mut tx = base.sql.write().await.expect("a transaction");
    for number in 0..SIGN_IN_LINKS_OPEN_MAX {
        let token = [u8::try_from(number).expect("few"); 32];
        tx.create_link(own, &base.owner, &token, NOW, LATER).await.expect("a link");
    }
    let full = tx.create_link(own, &base.owner, &[0xff; 32], NOW, LATER).await;
    assert!(matches!(full, Err(StoreError::Full)));
    for number in 0..USER_SESSIONS_MAX {
        let session = session(u64::try_from(number).expect("few"), LATER);
        let token = [u8::try_from(number).expect("few"); 32];
        let ended = tx.begin_session(own, base.owner.user_id, &session, &token).await.expect("begun");
        assert_eq!(ended, None);
    }
    let ended = tx.begin_session(own, base.owner.user_id, &session(1_000, LATER), &[0xff; 32]).await.expect("begun");
    assert_eq!(ended, Some(session(0, LATER)), "the oldest makes room");
}

#[tokio::test]
async fn the_file_is_its_owners_alone() {
    let folder = TempDir::new().expect("a temporary folder");
    let _sql = Sql::open_sqlite(&folder.path().join("flydex.sqlite")).await.expect("the database opens");
    for name in ["flydex.sqlite", "flydex.sqlite-wal", "flydex.sqlite-shm"] {
        let metadata = std::fs::metadata(folder.path().join(name)).expect("the file is there");
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600, "{name}");
    }
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused() {
    let folder = TempDir::new().expect("a temporary folder");
    let path = folder.path().join("flydex.sqlite");
    std::fs::write(&path, [7; 8192]).expect("written");
    assert!(matches!(Sql::open_sqlite(&path).await, Err(StoreError::Unavailable(_) | StoreError::Migration(_))));
    assert!(matches!(Sql::open_sqlite(folder.path()).await, Err(StoreError::File(_))));
}

#[tokio::test]
async fn a_region_drains_until_its_drain_is_ended() {
    let base = Base::open().await;
    let mut tx = base.sql.write().await.expect("a transaction");
    for region in ["eu", "us", "eu"] {
        tx.drain_region(region, NOW).await.expect("noted");
    }
    tx.end_region_drain("us").await.expect("ended");
    tx.end_region_drain("us").await.expect("it has ended");
    assert_eq!(tx.region_drains().await.expect("read").into_iter().collect::<Vec<_>>(), ["eu"]);
}

#[tokio::test]
async fn a_setting_is_made_once() {
    let base = Base::open().await;
    let mut tx = base.sql.write().await.expect("a transaction");
    assert_eq!(tx.setting_or("seed", [1; 32]).await.expect("made"), [1; 32]);
    assert_eq!(tx.setting_or("seed", [2; 32]).await.expect("kept"), [1; 32]);
}

#[track_caller]
fn missing<T: std::fmt::Debug>(result: Result<T, StoreError>) {
    assert!(matches!(result, Err(StoreError::NotFound)), "{result:?}");
}

fn scope(user: &User) -> AccountScope {
    user.principal().scope()
}

fn user(number: u128) -> User {
    User {
        account_id: AccountId::from_uuid(Uuid::from_u128(number)),
        user_id: UserId::from_uuid(Uuid::from_u128(number)),
        role: Role::Owner,
    }
}

fn entry(number: u128) -> AuditEntry {
    AuditEntry::new(AuditId::from_uuid(Uuid::from_u128(number)), AuditKind::SignedIn, NOW)
}

fn key(seed: u8) -> PublicKey {
    PublicKey::of(&SigningKey::from_bytes(&[seed; 32]))
}

fn new_machine() -> NewMachine {
    NewMachine {
        machine_id: MachineId::from_uuid(Uuid::from_u128(7)),
        label: "desk".to_owned(),
        key: key(7),
        region: "local".to_owned(),
        connector_version: Some("1.2.3".to_owned()),
    }
}

fn device(user: &User) -> Device {
    let key = key(8);
    let device_id: DeviceId = key.device_id();
    Device { device_id, key, user_id: user.user_id, label: "phone".to_owned(), created_at: NOW }
}

fn session(number: u64, expires_at: UnixMillis) -> AccountSession {
    AccountSession {
        account_session_id: AccountSessionId::from_uuid(Uuid::from_u128(u128::from(number) + 1)),
        grant_id: GrantId::from_uuid(Uuid::from_u128(u128::from(number) + 1)),
        created_at: NOW,
        seen_at: UnixMillis(NOW.0 + number),
        expires_at,
        method: SignInMethod::Link,
        signed_in_at: NOW,
        asserted_at: None,
    }
}

fn local_connect() -> LocalConnect {
    LocalConnect {
        local_connect_id: LocalConnectId::from_uuid(Uuid::from_u128(1)),
        claim_id: ClaimId::from_uuid(Uuid::from_u128(2)),
        token_sha256: [1; 32],
        redeem_sha256: [2; 32],
        revision: 1,
        lifecycle: Lifecycle::begin(NOW),
        created_at: NOW,
        machine_id: MachineId::from_uuid(Uuid::from_u128(3)),
        machine_key: key(3),
        machine_label: "desk".to_owned(),
        connector_version: Some("1.2.3".to_owned()),
        role: Role::Owner,
        pinned_account_id: None,
        browser: None,
        machine_mac: None,
    }
}
