//! The connections to PostgreSQL: a bounded number, each lent to one transaction at a time.
//!
//! Every wait on one has a bound, whatever moment the host at the other end dies in. A connection comes back clean or
//! not at all: it lies idle again only after PostgreSQL has answered the end of its transaction, and where anything
//! went wrong on the way it is closed. What begins or ends a transaction runs in a task of its own, so that a request
//! which is given up cannot leave it half done; and a place in the pool is free only once its connection is idle or
//! gone, so that there are never more of them than there may be.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flydex_domain::error::ErrorCode;
use flydex_domain::limits::{
    POSTGRES_ACQUIRE_TIMEOUT, POSTGRES_ANSWER_TIMEOUT, POSTGRES_CONNECTIONS_MAX, POSTGRES_LIFETIME_MAX,
    POSTGRES_PING_TIMEOUT,
};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, PgConnection};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use super::query::{in_time, within};

/// The pool. Cheap to clone.
#[derive(Clone)]
pub(super) struct Connections {
    pool: Arc<Shared>,
}

struct Shared {
    options: PgConnectOptions,
    places: Arc<Semaphore>,
    /// The newest last; it is lent first, so that a quiet process lets the others grow old.
    idle: Mutex<Vec<Open>>,
    /// Where a transaction is ended that is dropped, whoever drops it.
    runtime: Handle,
}

struct Open {
    connection: PgConnection,
    since: Instant,
}

/// An open transaction. Dropped without [`Transaction::commit`] it is rolled back at once.
pub(super) struct Transaction {
    lent: Option<Lent>,
    standing: Standing,
}

struct Lent {
    // In this order: the place is free when the connection is gone.
    open: Open,
    place: OwnedSemaphorePermit,
    pool: Connections,
}

/// What is known of a connection whose transaction is open.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Every statement was answered.
    Sound,
    /// PostgreSQL has refused one, and with it all that was done.
    Refused,
    /// One was asked and its answer not waited for.
    Asked,
    /// There is nobody at the other end, or it cannot be understood.
    Lost,
}

impl Connections {
    /// Opens none of them yet.
    pub(super) fn new(options: PgConnectOptions) -> Self {
        let places = Arc::new(Semaphore::new(POSTGRES_CONNECTIONS_MAX as usize));
        Self { pool: Arc::new(Shared { options, places, idle: Mutex::default(), runtime: Handle::current() }) }
    }

    /// Begins a transaction on a connection that answers.
    pub(super) async fn begin(&self, statement: &'static str) -> Result<Transaction, sqlx::Error> {
        let place = timeout(POSTGRES_ACQUIRE_TIMEOUT, Arc::clone(&self.pool.places).acquire_owned()).await;
        let place = place.map_err(|_| sqlx::Error::PoolTimedOut)?.map_err(|_| sqlx::Error::PoolClosed)?;
        let pool = self.clone();
        let beginning = async move {
            let open = in_time(pool.begun(statement)).await?;
            Ok(Transaction { lent: Some(Lent { open, place, pool }), standing: Standing::Sound })
        };
        tokio::spawn(beginning).await.map_err(|_| sqlx::Error::WorkerCrashed)?
    }

    /// Waits for the open transactions, no longer than for an answer, and closes every connection.
    pub(super) async fn close(&self) {
        let all = self.pool.places.acquire_many(POSTGRES_CONNECTIONS_MAX);
        let waited = in_time(async { all.await.map_err(|_| sqlx::Error::PoolClosed) }).await;
        self.pool.places.close();
        drop(waited);
        while let Some(open) = self.idle() {
            // One that does not take its leave is closed all the same.
            let _ = within(POSTGRES_PING_TIMEOUT, open.connection.close()).await;
        }
    }

    /// An idle connection if there is one that answers, else a new one, with its transaction begun.
    async fn begun(&self, statement: &'static str) -> Result<Open, sqlx::Error> {
        if let Some(mut open) = self.idle() {
            if within(POSTGRES_PING_TIMEOUT, open.run(statement)).await.is_ok() {
                return Ok(open);
            }
            tracing::info!(error.code = ErrorCode::StoreUnavailable.name(), "connection to the database let go");
        }
        let connection = PgConnection::connect_with(&self.pool.options).await?;
        let mut open = Open { connection, since: Instant::now() };
        open.run(statement).await?;
        Ok(open)
    }

    /// The newest of the idle connections; those that are too old are closed on the way.
    fn idle(&self) -> Option<Open> {
        let mut idle = self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(Open::is_young);
        idle.pop()
    }

    fn put_back(&self, open: Open) {
        if open.is_young() && !self.pool.places.is_closed() {
            self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner).push(open);
        }
    }
}

impl Open {
    async fn run(&mut self, statement: &'static str) -> Result<(), sqlx::Error> {
        sqlx::raw_sql(statement).execute(&mut self.connection).await.map(drop)
    }

    fn is_young(&self) -> bool {
        self.since.elapsed() < POSTGRES_LIFETIME_MAX
    }
}

impl Transaction {
    /// The connection, for one statement whose answer goes to [`Transaction::heard`].
    pub(super) fn ask(&mut self) -> Result<&mut PgConnection, sqlx::Error> {
        let gone = || sqlx::Error::Io(std::io::ErrorKind::NotConnected.into());
        match self.standing {
            Standing::Sound | Standing::Refused => self.standing = Standing::Asked,
            Standing::Asked | Standing::Lost => return Err(gone()),
        }
        self.lent.as_mut().map(|lent| &mut lent.open.connection).ok_or_else(gone)
    }

    /// Takes the answer to what was asked.
    pub(super) fn heard<T>(&mut self, answer: Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
        self.standing = match &answer {
            Ok(_) => Standing::Sound,
            Err(sqlx::Error::Database(_)) => Standing::Refused,
            Err(_) => Standing::Lost,
        };
        answer
    }

    /// Makes the changes durable, and tells so even if nobody waits for it.
    pub(super) async fn commit(mut self) -> Result<(), sqlx::Error> {
        // PostgreSQL would answer as if it had, and keep nothing.
        if self.standing != Standing::Sound {
            return Err(sqlx::Error::Protocol("a statement of this transaction has failed".to_owned()));
        }
        let lent = self.lent.take().ok_or(sqlx::Error::WorkerCrashed)?;
        tokio::spawn(lent.end("COMMIT", POSTGRES_ANSWER_TIMEOUT, true)).await.map_err(|_| sqlx::Error::WorkerCrashed)?
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        let Some(lent) = self.lent.take() else { return };
        let (bound, goes_back) = match self.standing {
            Standing::Sound | Standing::Refused => (POSTGRES_PING_TIMEOUT, true),
            // It keeps its place until its statement is over, or requests that were given up would have more
            // connections between them than there may be. What is read after an unread answer is not relied on.
            Standing::Asked => (POSTGRES_ANSWER_TIMEOUT, false),
            Standing::Lost => return,
        };
        let runtime = lent.pool.pool.runtime.clone();
        runtime.spawn(lent.end("ROLLBACK", bound, goes_back));
    }
}

impl Lent {
    async fn end(mut self, statement: &'static str, bound: Duration, goes_back: bool) -> Result<(), sqlx::Error> {
        within(bound, self.open.run(statement)).await?;
        let Self { open, place, pool } = self;
        if goes_back {
            pool.put_back(open);
        }
        drop(place);
        Ok(())
    }
}
