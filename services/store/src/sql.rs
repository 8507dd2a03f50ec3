//! The control plane's database: SQLite in one file, or PostgreSQL, each through a bounded pool.
//!
//! Every statement is portable SQL (`$1` placeholders, no row locks, three column types): one text serves both. All
//! of them run in a transaction: [`Sql::read`] for a consistent view, [`Sql::write`] for a change. Changes of one
//! account go one at a time on either database (`turn`). What belongs to an account is reached through an
//! [`AccountScope`](flydex_domain::scope::AccountScope) only, and a foreign row is as missing as one that never was.
//! The few lookups before there is an account (a token's hash, a claim's id) say so in their documentation.

mod account_sessions;
mod accounts;
mod attempts;
mod audit;
mod billing;
mod connections;
mod devices;
mod identities;
mod invitations;
mod links;
mod local_connects;
mod machine_keys;
mod machines;
mod members;
mod migrations;
mod passkeys;
mod postgres;
mod query;
mod recovery_codes;
mod region_drains;
mod revocations;
mod row;
mod settings;
mod sign_in_links;
#[cfg(any(test, feature = "conformance"))]
pub mod testing;
mod token_keys;
mod turn;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use flydex_domain::id::AccountId;
use flydex_domain::limits::{SQL_BUSY_TIMEOUT, SQL_CONNECTIONS_MAX};
use sqlx::Sqlite;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use tokio::sync::{Mutex, OwnedMutexGuard};

pub use self::account_sessions::{AccountSession, SignedIn};
pub use self::accounts::{Account, User};
pub use self::attempts::{Attempt, AttemptKind};
pub use self::audit::{AuditPage, AuditSearch};
use self::connections::Connections;
pub use self::devices::{Device, DeviceStanding};
pub use self::identities::Identity;
pub use self::invitations::{Invitation, Invited};
pub use self::links::LinkReport;
pub use self::local_connects::{BrowserSide, LocalConnect};
pub use self::machine_keys::FormerKey;
pub use self::machines::{Machine, NewMachine};
pub use self::members::{Member, Membership};
pub use self::migrations::SchemaError;
pub use self::passkeys::Passkey;
pub use self::postgres::PostgresUrl;
pub use self::sign_in_links::SignInLink;
pub use self::token_keys::KeptTokenKey;

/// Why a statement gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no such row in this account.
    #[error("not found")]
    NotFound,
    /// Another change came first, or a unique value is taken.
    #[error("changed by another request")]
    Conflict,
    /// The account or the server has as many of these as it may have.
    #[error("no room for another row")]
    Full,
    /// A stored value is not of its documented form.
    #[error("malformed value in column {column}")]
    Malformed {
        /// Where.
        column: &'static str,
    },
    /// The database cannot be opened, or did not answer.
    #[error("database is not available")]
    Unavailable(#[source] sqlx::Error),
    /// The schema cannot be brought up to date.
    #[error("database cannot be migrated")]
    Migration(#[source] sqlx::migrate::MigrateError),
    /// The schema is not one that this program can run on.
    #[error("database does not fit this program")]
    Schema(#[from] SchemaError),
    /// The address is not one of a PostgreSQL. It is not repeated: there is a password in it.
    #[error("not an address of a PostgreSQL, as in postgres://user:password@host:5432/database")]
    Address,
    /// The database's file cannot be made private.
    #[error("database file cannot be used")]
    File(#[source] std::io::Error),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let conflict = error.as_database_error().is_some_and(|database| database.is_unique_violation());
        if matches!(error, sqlx::Error::RowNotFound) {
            Self::NotFound
        } else if conflict {
            Self::Conflict
        } else {
            Self::Unavailable(error)
        }
    }
}

/// The database. Cheap to clone.
#[derive(Clone)]
pub struct Sql {
    pool: Pool,
}

#[derive(Clone)]
enum Pool {
    Sqlite {
        pool: SqlitePool,
        // SQLite has one writer: waiting here in turn is fairer than its busy polling.
        writer: Arc<Mutex<()>>,
    },
    Postgres(Connections),
}

impl fmt::Debug for Sql {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Nothing of the options: a password is among them.
        f.write_str(match self.pool {
            Pool::Sqlite { .. } => "Sql(SQLite)",
            Pool::Postgres(_) => "Sql(PostgreSQL)",
        })
    }
}

impl Sql {
    /// Opens or makes the database file, readable by its owner only, and brings its schema up to date.
    ///
    /// # Errors
    /// When the file cannot be used, or holds something newer than this program can run on.
    pub async fn open_sqlite(path: &Path) -> Result<Self, StoreError> {
        make_private(path).map_err(StoreError::File)?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(SQL_BUSY_TIMEOUT);
        let pool = SqlitePoolOptions::new()
            .max_connections(SQL_CONNECTIONS_MAX)
            .acquire_timeout(SQL_BUSY_TIMEOUT)
            .connect_with(options)
            .await?;
        let mut connection = pool.acquire().await?;
        migrations::stand_of_sqlite(&mut connection).await?.check_not_ahead(migrations::KNOWN)?;
        migrations::run_on_sqlite(&mut connection, migrations::of_sqlite()).await?;
        drop(connection);
        Ok(Self { pool: Pool::Sqlite { pool, writer: Arc::default() } })
    }

    /// Opens a database file to look at it: nothing of it is changed, and none is made.
    ///
    /// # Errors
    /// When there is none, or its schema is not one that this program can run on.
    pub async fn look_at_sqlite(path: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new().filename(path).read_only(true).busy_timeout(SQL_BUSY_TIMEOUT);
        let pool =
            SqlitePoolOptions::new().max_connections(1).acquire_timeout(SQL_BUSY_TIMEOUT).connect_with(options).await?;
        let mut connection = pool.acquire().await?;
        migrations::stand_of_sqlite(&mut connection).await?.check(migrations::KNOWN)?;
        drop(connection);
        Ok(Self { pool: Pool::Sqlite { pool, writer: Arc::default() } })
    }

    /// Begins a consistent view.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn read(&self) -> Result<Tx, StoreError> {
        let inner = match &self.pool {
            Pool::Sqlite { pool, .. } => Inner::Sqlite(pool.begin().await?),
            Pool::Postgres(pool) => Inner::Postgres(pool.begin(POSTGRES_VIEW).await?),
        };
        Ok(Tx { inner, changes: false, turn: None, _writer: None })
    }

    /// Begins a change; nothing of it stays unless [`Tx::commit`] returns.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn write(&self) -> Result<Tx, StoreError> {
        let (inner, writer) = match &self.pool {
            Pool::Sqlite { pool, writer } => {
                let turn = Arc::clone(writer).lock_owned().await;
                (Inner::Sqlite(pool.begin_with("BEGIN IMMEDIATE").await?), Some(turn))
            }
            Pool::Postgres(pool) => (Inner::Postgres(pool.begin(POSTGRES_CHANGE).await?), None),
        };
        Ok(Tx { inner, changes: true, turn: None, _writer: writer })
    }

    /// Whether the database answers, so far as one connection can tell.
    ///
    /// # Errors
    /// When it does not.
    pub async fn ping(&self) -> Result<(), StoreError> {
        match &self.pool {
            Pool::Sqlite { pool, .. } => sqlx::raw_sql("SELECT 1").execute(pool).await.map(drop)?,
            Pool::Postgres(pool) => pool.begin(POSTGRES_VIEW).await.map(drop)?,
        }
        Ok(())
    }

    /// Waits for the open transactions and closes every connection.
    pub async fn close(&self) {
        match &self.pool {
            Pool::Sqlite { pool, .. } => pool.close().await,
            Pool::Postgres(pool) => pool.close().await,
        }
    }
}

const POSTGRES_VIEW: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
// Each statement sees what was committed before it, and so what came before its turn.
const POSTGRES_CHANGE: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";

/// A transaction; dropped without [`Tx::commit`] it leaves no trace.
pub struct Tx {
    inner: Inner,
    changes: bool,
    /// The account whose turn this transaction has.
    turn: Option<AccountId>,
    _writer: Option<OwnedMutexGuard<()>>,
}

enum Inner {
    Sqlite(sqlx::Transaction<'static, Sqlite>),
    Postgres(connections::Transaction),
}

impl Tx {
    /// Makes the changes durable.
    ///
    /// # Errors
    /// When the database does not answer; then it is not known whether they are.
    pub async fn commit(self) -> Result<(), StoreError> {
        match self.inner {
            Inner::Sqlite(tx) => Ok(tx.commit().await?),
            Inner::Postgres(tx) => Ok(tx.commit().await?),
        }
    }
}

fn make_private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
    let file = std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))
}

#[cfg(test)]
mod tests;
