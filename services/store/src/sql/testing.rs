//! Databases for tests, fresh each: an SQLite file, or one in the PostgreSQL that the environment names.
//!
//! `cargo xtask test` runs every test that stands on these twice, once for each database.

use std::cell::Cell;
use std::str::FromStr as _;

use sqlx::{Connection as _, PgConnection};
use tempfile::TempDir;
use uuid::Uuid;

use super::query::query;
use super::{PostgresUrl, Sql, StoreError};

/// Names a PostgreSQL (the address of a server, with a role that may make schemas) to run the tests on.
pub const POSTGRES_VARIABLE: &str = "FLYDEX_TEST_POSTGRES";

tokio::task_local! {
    static STATEMENTS: Cell<u64>;
}

/// What a future answers, and how many statements it put to a database: itself, whatever else its thread does meanwhile.
/// Who is told that there is no such row, and who that it is another's, must have cost the same.
pub async fn counting_statements<T>(future: impl Future<Output = T>) -> (T, u64) {
    let counted = async { (future.await, STATEMENTS.with(Cell::get)) };
    STATEMENTS.scope(Cell::new(0), counted).await
}

/// Counts one, if anybody does.
pub(super) fn count_statement() {
    // Nobody counts outside of `counting_statements`.
    let _ = STATEMENTS.try_with(|count| count.set(count.get() + 1));
}

/// Where a database of a test lies.
pub enum Database {
    /// A file, gone with this value.
    Sqlite(TempDir),
    /// In a server that is gone when all tests have ended.
    Postgres(PostgresUrl),
}

impl Database {
    /// A place without a schema.
    ///
    /// # Panics
    /// When the folder cannot be made or the PostgreSQL does not answer.
    pub async fn empty() -> Self {
        match std::env::var(POSTGRES_VARIABLE) {
            Ok(server) => Self::Postgres(empty_postgres(&server).await),
            Err(_) => Self::Sqlite(TempDir::new().expect("a temporary folder")),
        }
    }

    /// All that is stored: files of SQLite, rows of PostgreSQL with their bytes in hexadecimal.
    ///
    /// # Panics
    /// When it cannot be read.
    pub async fn content(&self) -> Vec<Vec<u8>> {
        match self {
            Self::Sqlite(folder) => {
                let files = std::fs::read_dir(folder.path()).expect("the folder");
                files.map(|file| std::fs::read(file.expect("an entry").path()).expect("the file")).collect()
            }
            Self::Postgres(url) => rows(url).await,
        }
    }

    /// Brings it up to date and opens it, for the first time or again.
    ///
    /// # Panics
    /// When it cannot be opened.
    pub async fn open(&self) -> Sql {
        self.try_open().await.expect("the database opens")
    }

    /// The same, where it may be refused.
    ///
    /// # Errors
    /// Why it was refused.
    pub async fn try_open(&self) -> Result<Sql, StoreError> {
        match self {
            Self::Sqlite(folder) => Sql::open_sqlite(&folder.path().join("flydex.sqlite")).await,
            Self::Postgres(url) => {
                Sql::migrate_postgres(url).await?;
                Sql::connect_postgres(url).await
            }
        }
    }
}

async fn rows(url: &PostgresUrl) -> Vec<Vec<u8>> {
    let mut connection = url.connect().await.expect("the PostgreSQL answers");
    let tables =
        sqlx::query_scalar::<_, String>("SELECT tablename::text FROM pg_tables WHERE schemaname = current_schema()");
    let mut rows = Vec::new();
    for table in tables.fetch_all(&mut connection).await.expect("the tables") {
        let text = sqlx::AssertSqlSafe(format!("SELECT row_to_json(t)::text FROM {table} t"));
        let texts = sqlx::query_scalar::<_, String>(text).fetch_all(&mut connection).await.expect("the rows");
        rows.extend(texts.into_iter().map(String::into_bytes));
    }
    rows
}

/// A schema of its own in a server's database, with nothing in it: as good as a database, and made in no time.
async fn empty_postgres(server: &str) -> PostgresUrl {
    let name = format!("test_{}", Uuid::new_v4().simple());
    let mut connection = PgConnection::connect(server).await.expect("the PostgreSQL answers");
    let create = sqlx::AssertSqlSafe(format!("CREATE SCHEMA {name}"));
    sqlx::query(create).execute(&mut connection).await.expect("a schema");
    connection.close().await.expect("closed");
    PostgresUrl::from_str(&format!("{server}?options[search_path]={name}")).expect("an address")
}

impl Sql {
    /// Runs what somebody with the database in hand would.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn tamper(&self, statement: &'static str) {
        self.try_tamper(statement).await.expect("tampered");
    }

    /// The same, where it may be refused.
    ///
    /// # Errors
    /// Why it was refused.
    pub async fn try_tamper(&self, statement: &'static str) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        query(statement).execute(&mut tx).await?;
        tx.commit().await
    }

    /// Whether it is a PostgreSQL.
    #[must_use]
    pub const fn is_postgres(&self) -> bool {
        matches!(self.pool, super::Pool::Postgres(_))
    }
}
