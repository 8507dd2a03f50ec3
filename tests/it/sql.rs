//! The control plane's database on a real PostgreSQL: late, restarted, migrated twice at once, and shared by several
//! processes of which one is stuck. What every statement does is tested in the crates, once on each database.

use std::str::FromStr as _;

use flydex_domain::audit::{AuditEntry, AuditKind};
use flydex_domain::id::{AccountId, AuditId, UserId};
use flydex_domain::revocation::Revocation;
use flydex_domain::scope::{AccountScope, Role};
use flydex_domain::time::UnixMillis;
use flydex_store::sql::{Account, PostgresUrl, SchemaError, User};
use flydex_store::{Sql, StoreError};
use flydex_tests::postgres::Postgres;
use flydex_tests::wait;
use futures_util::future::try_join_all;
use uuid::Uuid;

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

#[tokio::test]
async fn a_database_that_comes_late_is_waited_for_and_one_that_restarts_is_taken_up_again() -> anyhow::Result<()> {
    let mut postgres = Postgres::start().await?;
    let url = PostgresUrl::from_str(&postgres.url())?;
    assert_eq!(Sql::migrate_postgres(&url).await?, (0, 3));
    postgres.crash().await?;
    let connecting = tokio::spawn(async move { Sql::connect_postgres(&url).await });
    tokio::task::yield_now().await;
    assert!(!connecting.is_finished(), "nothing answers yet");
    postgres.run().await?;
    let sql = wait::within("the database to be reached", connecting).await???;
    let owner = owner(&sql).await?;

    let mut torn = sql.write().await?;
    torn.append_audit(scope(&owner), &entry()).await?;
    postgres.crash().await?;
    assert!(matches!(torn.append_audit(scope(&owner), &entry()).await, Err(StoreError::Unavailable(_))));
    assert!(matches!(sql.ping().await, Err(StoreError::Unavailable(_))), "it says so and goes on");
    postgres.run().await?;
    append(&sql, &owner).await?;
    let verified = sql.read().await?.verify_audit(scope(&owner)).await?;
    assert_eq!(verified, Ok(1), "what was torn left nothing");
    Ok(())
}

#[tokio::test]
async fn of_two_migrators_one_waits_for_the_other_and_before_them_nothing_opens() -> anyhow::Result<()> {
    let postgres = Postgres::start().await?;
    let url = PostgresUrl::from_str(&postgres.url())?;
    let refused = Sql::connect_postgres(&url).await.err();
    let expected = SchemaError::Behind { found: 0, wanted: 3 };
    assert!(matches!(refused, Some(StoreError::Schema(error)) if error == expected), "{refused:?}");
    assert!(expected.to_string().ends_with("run `migrate` first"));
    let migrations = try_join_all((0..4).map(|_| Sql::migrate_postgres(&url))).await?;
    assert!(migrations.iter().all(|(_, after)| *after == 3), "{migrations:?}");
    owner(&Sql::connect_postgres(&url).await?).await?;
    Ok(())
}

#[tokio::test]
async fn several_control_planes_append_at_once_without_a_gap_and_one_that_is_stuck_holds_up_its_account_alone()
-> anyhow::Result<()> {
    let postgres = Postgres::start().await?;
    let url = PostgresUrl::from_str(&postgres.url())?;
    Sql::migrate_postgres(&url).await?;
    let (one, two) = (Sql::connect_postgres(&url).await?, Sql::connect_postgres(&url).await?);
    let (owner_a, owner_b) = (owner(&one).await?, owner(&two).await?);
    let appends = (0..100).map(|number| {
        let sql = if number % 2 == 0 { one.clone() } else { two.clone() };
        let user = if number % 3 == 0 { owner_a } else { owner_b };
        async move { append(&sql, &user).await }
    });
    try_join_all(appends).await?;
    let mut view = one.read().await?;
    assert_eq!(view.verify_audit(scope(&owner_a)).await?, Ok(34));
    assert_eq!(view.verify_audit(scope(&owner_b)).await?, Ok(66));
    let log = view.revocations_after(0, 1_000).await?;
    assert!(log.iter().map(|entry| entry.number).eq(1..=100), "{log:?}");
    drop(view);

    let mut stuck = one.write().await?;
    stuck.append_audit(scope(&owner_a), &entry()).await?;
    // Another account does not wait; the same one waits until PostgreSQL has ended what is stuck.
    append(&two, &owner_b).await?;
    append(&two, &owner_a).await?;
    assert!(stuck.commit().await.is_err(), "it is told so");
    assert_eq!(two.read().await?.verify_audit(scope(&owner_a)).await?, Ok(35));
    Ok(())
}

/// One audit record and one revocation, as a sign-out makes them.
async fn append(sql: &Sql, user: &User) -> Result<(), StoreError> {
    let User { account_id, user_id, .. } = *user;
    let mut tx = sql.write().await?;
    tx.append_revocation(scope(user), Revocation::User { account_id, user_id }, NOW).await?;
    tx.append_audit(scope(user), &entry()).await?;
    tx.commit().await
}

fn entry() -> AuditEntry {
    AuditEntry::new(AuditId::from_uuid(Uuid::new_v4()), AuditKind::SignedOut, NOW)
}

fn scope(user: &User) -> AccountScope {
    user.principal().scope()
}

async fn owner(sql: &Sql) -> Result<User, StoreError> {
    let account_id = AccountId::from_uuid(Uuid::new_v4());
    let user = User { account_id, user_id: UserId::from_uuid(Uuid::new_v4()), role: Role::Owner };
    let mut tx = sql.write().await?;
    tx.create_account(&Account { account_id, name: "Account".to_owned() }, NOW).await?;
    tx.create_user(&user, NOW).await?;
    tx.commit().await?;
    Ok(user)
}
