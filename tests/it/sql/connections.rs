//! Connections that go back to the pool while their host dies, or after a request that nobody waited for to its end.

use std::future::poll_fn;
use std::pin::pin;
use std::str::FromStr as _;
use std::sync::{Arc, Mutex};
use std::task::Poll;

use anyhow::{Context as _, ensure};
use flydex_domain::limits::{POSTGRES_ANSWER_TIMEOUT, POSTGRES_CONNECTIONS_MAX};
use flydex_store::Sql;
use flydex_store::sql::{PostgresUrl, Tx, User};
use flydex_tests::postgres::Postgres;
use flydex_tests::wait;
use futures_util::future::{join_all, try_join_all};
use tokio::time::Instant;
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use super::{all_connections, append, entry, owner, scope};

/// As many questions as giving one connection back may ask, and one more.
const QUESTIONS_OF_A_RETURN: usize = 3;
/// More polls than a change needs from its beginning to its end.
const POLLS_MAX: u32 = 16;
/// What PostgreSQL complains of comes from here.
const NOTICES: &str = "sqlx::postgres::notice";

#[tokio::test]
async fn a_host_that_dies_while_connections_are_given_back_keeps_none_of_them() -> anyhow::Result<()> {
    let postgres = Postgres::start().await?;
    Sql::migrate_postgres(&PostgresUrl::from_str(&postgres.url())?).await?;
    let endings = [Ending::Dropped, Ending::Committed, Ending::GivenUp];
    try_join_all(endings.map(|ending| dies_while_given_back(&postgres, ending))).await.map(drop)
}

async fn dies_while_given_back(postgres: &Postgres, ending: Ending) -> anyhow::Result<()> {
    let (way, url) = postgres.way().await?;
    let sql = Sql::connect_postgres(&PostgresUrl::from_str(&url)?).await?;
    let owner = owner(&sql).await?;
    for questions in 0..=QUESTIONS_OF_A_RETURN {
        let place = || format!("{ending:?}, {questions} questions answered");
        let in_use = all_connections(&sql).await?;
        way.fall_silent_after(questions);
        let since = Instant::now();
        join_all(in_use.into_iter().map(|tx| ending.of(tx, &owner))).await;
        wait::until("a change to go through", async || append(&sql, &owner).await.ok()).await.with_context(place)?;
        drop(wait::until("every place", async || all_connections(&sql).await.ok()).await.with_context(place)?);
        ensure!(since.elapsed() < 3 * POSTGRES_ANSWER_TIMEOUT, "{} {:?}", place(), since.elapsed());
    }
    Ok(())
}

/// What becomes of a change.
#[derive(Clone, Copy, Debug)]
enum Ending {
    Dropped,
    Committed,
    /// In the middle of a statement.
    GivenUp,
}

impl Ending {
    async fn of(self, mut tx: Tx, owner: &User) {
        match self {
            Self::Dropped => drop(tx),
            // Whether it was in time is not the question.
            Self::Committed => drop(tx.commit().await),
            Self::GivenUp => given_up_after(1, tx.append_audit(scope(owner), &entry())).await,
        }
    }
}

/// Drops a future once it was polled this often, if it is not ready by then.
async fn given_up_after<T>(polls: u32, future: impl Future<Output = T>) {
    let mut future = pin!(future);
    let mut polled = 0;
    poll_fn(|context| {
        polled += 1;
        let is_ready = future.as_mut().poll(context).is_ready();
        if is_ready || polled == polls { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

#[tokio::test]
async fn what_is_given_up_at_any_moment_leaves_its_connection_clean() -> anyhow::Result<()> {
    let postgres = Postgres::start().await?;
    let url = PostgresUrl::from_str(&postgres.url())?;
    Sql::migrate_postgres(&url).await?;
    let notices = Notices::default();
    let _heard = tracing_subscriber::registry().with(notices.clone()).set_default();
    let (sql, other) = (Sql::connect_postgres(&url).await?, Sql::connect_postgres(&url).await?);
    let owner = owner(&sql).await?;
    let mut committed = 0;
    for polls in 1..=POLLS_MAX {
        join_all((0..POSTGRES_CONNECTIONS_MAX).map(|_| given_up_after(polls, sql.read()))).await;
        join_all((0..POSTGRES_CONNECTIONS_MAX).map(|_| given_up_after(polls, append(&sql, &owner)))).await;
        // What was given up holds nobody's turn, and what comes after it changes what it means to.
        append(&other, &owner).await?;
        for tx in all_connections(&sql).await? {
            tx.commit().await?;
        }
        append(&sql, &owner).await?;
        let verified = sql.read().await?.verify_audit(scope(&owner)).await?.context("the chain holds")?;
        ensure!(verified >= committed + 2, "{polls}: {verified} after {committed}");
        committed = verified;
    }
    assert_eq!(notices.texts(), Vec::<String>::new());
    Ok(())
}

/// What PostgreSQL complained of.
#[derive(Clone, Default)]
struct Notices(Arc<Mutex<Vec<String>>>);

impl Notices {
    fn texts(&self) -> Vec<String> {
        self.0.lock().expect("nobody panicked").clone()
    }
}

impl<S: tracing::Subscriber> Layer<S> for Notices {
    fn on_event(&self, event: &tracing::Event<'_>, _context: Context<'_, S>) {
        if event.metadata().target() == NOTICES {
            event.record(&mut Texts(&mut self.0.lock().expect("nobody panicked")));
        }
    }
}

struct Texts<'texts>(&'texts mut Vec<String>);

impl Visit for Texts<'_> {
    fn record_debug(&mut self, _field: &Field, value: &dyn std::fmt::Debug) {
        self.0.push(format!("{value:?}"));
    }
}
