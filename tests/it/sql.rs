//! The control plane's database on a real PostgreSQL: late, restarted, frozen, gone without a word, migrated twice at
//! once, and shared by several processes of which one is stuck. What every statement does is tested in the crates, once
//! on each database.

mod connections;
mod process;

use std::str::FromStr as _;
use std::time::Duration;

use flydex_domain::audit::{AuditEntry, AuditKind};
use flydex_domain::id::{AccountId, AuditId, UserId};
use flydex_domain::limits::{POSTGRES_ANSWER_TIMEOUT, POSTGRES_CONNECTIONS_MAX};
use flydex_domain::revocation::Revocation;
use flydex_domain::scope::{AccountScope, Role};
use flydex_domain::time::UnixMillis;
use flydex_store::sql::{Account, PostgresUrl, SchemaError, Tx, User};
use flydex_store::{Sql, StoreError};
use flydex_tests::postgres::Postgres;
use flydex_tests::wait;
use futures_util::future::{join_all, try_join_all};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::Instant;
use uuid::Uuid;

/// Changes under way at once where all wait for the same turns: few enough that each has it in time on a busy computer.
const APPENDS_AT_ONCE: usize = 12;
const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

#[tokio::test]
async fn a_database_that_comes_late_is_waited_for_and_one_that_restarts_is_taken_up_again() -> anyhow::Result<()> {
    let mut postgres = Postgres::start().await?;
    let url = PostgresUrl::from_str(&postgres.url())?;
    let (before, newest) = Sql::migrate_postgres(&url).await?;
    assert!(before == 0 && newest > 0, "{before} {newest}");
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
    let Some(StoreError::Schema(error @ SchemaError::Behind { found: 0, wanted })) = refused else {
        panic!("an empty database is refused: {refused:?}")
    };
    assert!(error.to_string().ends_with("run `migrate` first"));
    let migrations = try_join_all((0..4).map(|_| Sql::migrate_postgres(&url))).await?;
    assert!(migrations.iter().all(|(_, after)| *after == wanted), "{migrations:?}");
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
    stream::iter(appends).buffer_unordered(APPENDS_AT_ONCE).try_collect::<()>().await?;
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

#[tokio::test]
async fn requests_to_a_frozen_database_fail_in_time_and_go_on_when_it_does() -> anyhow::Result<()> {
    let postgres = Postgres::start().await?;
    let url = PostgresUrl::from_str(&postgres.url())?;
    Sql::migrate_postgres(&url).await?;
    let sql = Sql::connect_postgres(&url).await?;
    let owner = owner(&sql).await?;
    let in_flight = all_connections(&sql).await?;
    postgres.freeze()?;
    every_one_fails_in_time(&sql, &owner, in_flight).await?;
    postgres.thaw()?;
    append(&sql, &owner).await?;
    assert_eq!(sql.read().await?.verify_audit(scope(&owner)).await?, Ok(1), "what failed left nothing");
    Ok(())
}

#[tokio::test]
async fn a_host_that_died_without_a_word_takes_no_connection_of_the_pool_with_it() -> anyhow::Result<()> {
    let postgres = Postgres::start().await?;
    Sql::migrate_postgres(&PostgresUrl::from_str(&postgres.url())?).await?;
    let (way, url) = postgres.way().await?;
    let sql = Sql::connect_postgres(&PostgresUrl::from_str(&url)?).await?;
    let owner = owner(&sql).await?;

    // Those that lie idle are tried before they are used: no request fails.
    drop(all_connections(&sql).await?);
    append(&sql, &owner).await?;
    way.fall_silent();
    try_join_all((0..POSTGRES_CONNECTIONS_MAX).map(|_| append(&sql, &owner))).await?;

    // Those in use have failed when their time is over, and then there is room for others.
    let in_flight = all_connections(&sql).await?;
    way.fall_silent();
    every_one_fails_in_time(&sql, &owner, in_flight).await?;
    let after = Instant::now();
    wait::until("a connection that answers", async || sql.ping().await.ok()).await?;
    assert!(after.elapsed() < POSTGRES_ANSWER_TIMEOUT, "{:?}", after.elapsed());
    append(&sql, &owner).await?;
    let verified = sql.read().await?.verify_audit(scope(&owner)).await?;
    assert_eq!(verified, Ok(2 + u64::from(POSTGRES_CONNECTIONS_MAX)));
    Ok(())
}

/// As many changes as there are connections, each on one of them.
async fn all_connections(sql: &Sql) -> Result<Vec<Tx>, StoreError> {
    try_join_all((0..POSTGRES_CONNECTIONS_MAX).map(|_| sql.write())).await
}

/// What was under way and what comes anew is told so, no later than it may be.
async fn every_one_fails_in_time(sql: &Sql, owner: &User, in_flight: Vec<Tx>) -> anyhow::Result<()> {
    let since = Instant::now();
    let appends = in_flight.into_iter().map(|mut tx| async move {
        tx.append_audit(scope(owner), &entry()).await?;
        tx.commit().await
    });
    let (under_way, anew) = tokio::join!(join_all(appends), append(sql, owner));
    for outcome in under_way.into_iter().chain([anew]) {
        assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{outcome:?}");
    }
    let room = Duration::from_secs(2);
    assert!(since.elapsed() < POSTGRES_ANSWER_TIMEOUT + room, "{:?}", since.elapsed());
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
