//! The control plane's database: SQLite through one bounded pool, migrated when it is opened.
//!
//! Every statement is portable SQL (`$1` placeholders, compare-and-set, no row locks), so that its text serves
//! another database too. All of them run in a transaction: [`Sql::read`] for a consistent view, [`Sql::write`] for
//! a change. What belongs to an account is reached through an [`AccountScope`](flydex_domain::scope::AccountScope)
//! only, and a foreign row is as missing as one that never was. The few lookups before there is an account (a
//! token's hash, a claim's id) say so in their documentation.

mod account_sessions;
mod accounts;
mod audit;
mod devices;
mod local_connects;
mod machines;
mod migrations;
mod revocations;
mod row;
mod settings;
mod sign_in_links;

use std::path::Path;
use std::sync::Arc;

use flydex_domain::limits::{SQL_BUSY_TIMEOUT, SQL_CONNECTIONS_MAX};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Sqlite, SqliteConnection};
use tokio::sync::{Mutex, OwnedMutexGuard};

pub use self::account_sessions::{AccountSession, SignedIn};
pub use self::accounts::{Account, User};
pub use self::devices::Device;
pub use self::local_connects::{BrowserSide, LocalConnect};
pub use self::machines::{Machine, NewMachine};
pub use self::sign_in_links::SignInLink;

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
#[derive(Clone, Debug)]
pub struct Sql {
    pool: SqlitePool,
    // SQLite has one writer: waiting here in turn is fairer than its busy polling.
    writer: Arc<Mutex<()>>,
}

impl Sql {
    /// Opens or makes the database file, readable by its owner only, and brings its schema up to date.
    ///
    /// # Errors
    /// When the file cannot be used, or holds something newer than this program knows.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
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
        migrations::run(&pool).await.map_err(StoreError::Migration)?;
        Ok(Self { pool, writer: Arc::default() })
    }

    /// Begins a consistent view.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn read(&self) -> Result<Tx, StoreError> {
        Ok(Tx { inner: self.pool.begin().await?, _turn: None })
    }

    /// Begins a change; nothing of it stays unless [`Tx::commit`] returns.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn write(&self) -> Result<Tx, StoreError> {
        let turn = Arc::clone(&self.writer).lock_owned().await;
        Ok(Tx { inner: self.pool.begin_with("BEGIN IMMEDIATE").await?, _turn: Some(turn) })
    }

    /// Whether the database answers, so far as one connection can tell.
    ///
    /// # Errors
    /// When it does not.
    pub async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT 1").execute(&self.pool).await?;
        Ok(())
    }

    /// Waits for the open transactions and closes every connection.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// A transaction; dropped without [`Tx::commit`] it leaves no trace.
pub struct Tx {
    inner: sqlx::Transaction<'static, Sqlite>,
    _turn: Option<OwnedMutexGuard<()>>,
}

impl Tx {
    /// Makes the changes durable.
    ///
    /// # Errors
    /// When the database does not answer; then it is not known whether they are.
    pub async fn commit(self) -> Result<(), StoreError> {
        Ok(self.inner.commit().await?)
    }

    fn connection(&mut self) -> &mut SqliteConnection {
        &mut self.inner
    }
}

fn make_private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
    let file = std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))
}

#[cfg(test)]
mod tests;
