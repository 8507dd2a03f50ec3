//! One query text for both databases: it is bound once, run on whichever a transaction is on, and read alike.

use std::future::Future;
use std::time::Duration;

use flydex_domain::limits::POSTGRES_ANSWER_TIMEOUT;
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;

use super::{Inner, StoreError, Tx};

/// A statement and what is bound to its `$1`, `$2`, ….
pub(super) struct Query {
    text: &'static str,
    values: Vec<Value>,
}

/// The three types of the schema, each of which may be absent.
pub(super) enum Value {
    Bytes(Option<Vec<u8>>),
    Text(Option<String>),
    Integer(Option<i64>),
}

/// A row of either database.
pub(super) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

/// How many rows a statement touched.
pub(super) struct Done(u64);

impl Done {
    pub(super) const fn rows_affected(&self) -> u64 {
        self.0
    }
}

/// Begins a statement.
pub(super) const fn query(text: &'static str) -> Query {
    Query { text, values: Vec::new() }
}

/// The same values bound to a statement of one driver.
macro_rules! bound {
    ($query:expr) => {{
        #[cfg(any(test, feature = "conformance"))]
        super::testing::count_statement();
        $query.values.into_iter().fold(sqlx::query($query.text), |query, value| match value {
            Value::Bytes(bytes) => query.bind(bytes),
            Value::Text(text) => query.bind(text),
            Value::Integer(integer) => query.bind(integer),
        })
    }};
}

impl Query {
    pub(super) fn bind(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self
    }

    pub(super) async fn execute(self, tx: &mut Tx) -> Result<Done, StoreError> {
        Ok(Done(match &mut tx.inner {
            Inner::Sqlite(tx) => bound!(self).execute(&mut **tx).await?.rows_affected(),
            Inner::Postgres(tx) => {
                let answer = in_time(bound!(self).execute(tx.ask()?)).await;
                tx.heard(answer)?.rows_affected()
            }
        }))
    }

    /// The one row, or [`StoreError::NotFound`].
    pub(super) async fn fetch_one(self, tx: &mut Tx) -> Result<Row, StoreError> {
        self.fetch_optional(tx).await?.ok_or(StoreError::NotFound)
    }

    pub(super) async fn fetch_optional(self, tx: &mut Tx) -> Result<Option<Row>, StoreError> {
        Ok(match &mut tx.inner {
            Inner::Sqlite(tx) => bound!(self).fetch_optional(&mut **tx).await?.map(Row::Sqlite),
            Inner::Postgres(tx) => {
                let answer = in_time(bound!(self).fetch_optional(tx.ask()?)).await;
                tx.heard(answer)?.map(Row::Postgres)
            }
        })
    }

    pub(super) async fn fetch_all(self, tx: &mut Tx) -> Result<Vec<Row>, StoreError> {
        Ok(match &mut tx.inner {
            Inner::Sqlite(tx) => bound!(self).fetch_all(&mut **tx).await?.into_iter().map(Row::Sqlite).collect(),
            Inner::Postgres(tx) => {
                let answer = in_time(bound!(self).fetch_all(tx.ask()?)).await;
                tx.heard(answer)?.into_iter().map(Row::Postgres).collect()
            }
        })
    }
}

/// Waits for PostgreSQL no longer than it may take: one that fell silent holds nobody up for the life of a socket.
pub(super) async fn in_time<T>(answer: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    within(POSTGRES_ANSWER_TIMEOUT, answer).await
}

/// The same with a bound of its own.
pub(super) async fn within<T>(
    bound: Duration,
    answer: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    let silent = |_| sqlx::Error::Io(std::io::ErrorKind::TimedOut.into());
    tokio::time::timeout(bound, answer).await.map_err(silent)?
}

impl Row {
    pub(super) fn bytes(&self, column: &'static str) -> Result<Option<&[u8]>, StoreError> {
        let bytes = match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        };
        Ok(bytes?)
    }

    pub(super) fn text(&self, column: &'static str) -> Result<Option<&str>, StoreError> {
        let text = match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        };
        Ok(text?)
    }

    pub(super) fn integer(&self, column: &'static str) -> Result<Option<i64>, StoreError> {
        let integer = match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        };
        Ok(integer?)
    }
}

impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Self {
        Self::Bytes(Some(bytes.to_vec()))
    }
}

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(Some(bytes))
    }
}

impl From<Option<Vec<u8>>> for Value {
    fn from(bytes: Option<Vec<u8>>) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(Some(text.to_owned()))
    }
}

impl From<&String> for Value {
    fn from(text: &String) -> Self {
        Self::Text(Some(text.clone()))
    }
}

impl From<Option<String>> for Value {
    fn from(text: Option<String>) -> Self {
        Self::Text(text)
    }
}

impl From<&Option<String>> for Value {
    fn from(text: &Option<String>) -> Self {
        Self::Text(text.clone())
    }
}

impl From<Option<&str>> for Value {
    fn from(text: Option<&str>) -> Self {
        Self::Text(text.map(str::to_owned))
    }
}

impl From<i64> for Value {
    fn from(integer: i64) -> Self {
        Self::Integer(Some(integer))
    }
}

impl From<Option<i64>> for Value {
    fn from(integer: Option<i64>) -> Self {
        Self::Integer(integer)
    }
}
