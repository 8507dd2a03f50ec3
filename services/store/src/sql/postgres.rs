//! PostgreSQL: where it is, waiting for it, and bringing its schema up to date.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use flydex_domain::error::ErrorCode;
use flydex_domain::limits::{
    POSTGRES_IDLE_IN_CHANGE_MAX, POSTGRES_KEEPALIVE_IDLE, POSTGRES_KEEPALIVE_INTERVAL, POSTGRES_KEEPALIVE_PROBES,
    POSTGRES_RETRY_INTERVAL, POSTGRES_STATEMENT_TIMEOUT, POSTGRES_WAITING_SAID_INTERVAL,
};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{Connection as _, PgConnection};
use tokio::time::Instant;

use super::connections::Connections;
use super::migrations::{self, KNOWN, Stand};
use super::query::in_time;
use super::{Pool, Sql, StoreError};

/// Where a PostgreSQL is and how to sign in there. What is shown of it holds no password.
///
/// `postgres://user:password@host:port/database`. To a host that is not this one the connection is encrypted and
/// the certificate verified unless the address says `?sslmode=…` itself; `?sslrootcert=…` names a file of the
/// authorities to trust in place of the public ones.
#[derive(Clone)]
pub struct PostgresUrl(Box<PgConnectOptions>);

impl FromStr for PostgresUrl {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        // The driver's own error might repeat a part of the address.
        let options = PgConnectOptions::from_str(text).map_err(|_| StoreError::Address)?;
        let host = options.get_host();
        let here = options.get_socket().is_some()
            || host.starts_with('/')
            || host == "localhost"
            || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        let says = ["sslmode=", "ssl-mode="].iter().any(|key| text.contains(key));
        Ok(Self(Box::new(if here || says { options } else { options.ssl_mode(PgSslMode::VerifyFull) })))
    }
}

#[cfg(any(test, feature = "conformance"))]
impl PostgresUrl {
    /// A connection of its own, for tests that look behind the scenes.
    pub(super) async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        PgConnection::connect_with(&self.0).await
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgresUrl({self})")
    }
}

impl fmt::Display for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(options) = self;
        let database = options.get_database().unwrap_or_default();
        write!(f, "postgres://{}:{}/{database}", options.get_host(), options.get_port())
    }
}

impl Sql {
    /// Opens a PostgreSQL whose schema `migrate` has brought up to date. While it cannot be reached this waits and
    /// says so, for as long as it takes: a control plane that starts before its database is no failure.
    ///
    /// # Errors
    /// [`StoreError::Schema`] when the schema is not one that this program can run on.
    pub async fn connect_postgres(url: &PostgresUrl) -> Result<Self, StoreError> {
        let (_, stand) = reach(url).await?;
        stand.check(KNOWN)?;
        Ok(Self { pool: Pool::Postgres(Connections::new(bounded(url))) })
    }

    /// Brings the schema of a PostgreSQL up to date, after waiting for it as [`Sql::connect_postgres`] does. Of two
    /// that do so at once the second waits for the first. The newest step before and after.
    ///
    /// # Errors
    /// [`StoreError::Schema`] when a newer program has left no room for this one; [`StoreError::Migration`] when a
    /// step fails, and then nothing of it stays.
    pub async fn migrate_postgres(url: &PostgresUrl) -> Result<(i64, i64), StoreError> {
        let (mut connection, before) = reach(url).await?;
        before.check_not_ahead(KNOWN)?;
        // A step may take its time, and so may the migrator that came first.
        sqlx::query("SET statement_timeout = 0").execute(&mut connection).await?;
        migrations::run_on_postgres(&mut connection, migrations::of_postgres()).await?;
        let after = migrations::stand_of_postgres(&mut connection).await?;
        connection.close().await?;
        Ok((before.found, after.found))
    }
}

/// What PostgreSQL itself ends, so that a process that is stuck or gone holds nobody up.
fn bounded(url: &PostgresUrl) -> PgConnectOptions {
    let millis = |duration: Duration| duration.as_millis().to_string();
    let seconds = |duration: Duration| duration.as_secs().to_string();
    url.0.as_ref().clone().application_name("flydex").options([
        ("statement_timeout", millis(POSTGRES_STATEMENT_TIMEOUT)),
        ("idle_in_transaction_session_timeout", millis(POSTGRES_IDLE_IN_CHANGE_MAX)),
        ("tcp_keepalives_idle", seconds(POSTGRES_KEEPALIVE_IDLE)),
        ("tcp_keepalives_interval", seconds(POSTGRES_KEEPALIVE_INTERVAL)),
        ("tcp_keepalives_count", POSTGRES_KEEPALIVE_PROBES.to_string()),
    ])
}

/// Connects and asks how far the schema is, however long it takes until there is an answer.
async fn reach(url: &PostgresUrl) -> Result<(PgConnection, Stand), StoreError> {
    let options = bounded(url);
    let mut said: Option<Instant> = None;
    for attempt in 1_u64.. {
        let error = match in_time(look(&options)).await {
            Ok(reached) => {
                if said.is_some() {
                    tracing::info!(attempt, "database reached");
                }
                return Ok(reached);
            }
            Err(error) => error,
        };
        if said.is_none_or(|said| said.elapsed() >= POSTGRES_WAITING_SAID_INTERVAL) {
            said = Some(Instant::now());
            let code = ErrorCode::StoreUnavailable.name();
            tracing::warn!(error.code = code, error = %error, attempt, "waiting for the database");
        }
        tokio::time::sleep(POSTGRES_RETRY_INTERVAL).await;
    }
    Err(StoreError::Unavailable(sqlx::Error::PoolTimedOut))
}

async fn look(options: &PgConnectOptions) -> Result<(PgConnection, Stand), sqlx::Error> {
    let mut connection = PgConnection::connect_with(options).await?;
    let stand = migrations::stand_of_postgres(&mut connection).await?;
    Ok((connection, stand))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_of_an_address_holds_no_password() {
        let url: PostgresUrl = "postgres://role:pass-6b1f@db.example:6543/flydex".parse().unwrap();
        assert_eq!(url.to_string(), "postgres://db.example:6543/flydex");
        assert_eq!(format!("{url:?}"), "PostgresUrl(postgres://db.example:6543/flydex)");
        for wrong in ["postgres://role:pass-6b1f@db.example:port/flydex", "pass-6b1f", "postgres://x?sslmode=pass-6b1f"]
        {
            let error = wrong.parse::<PostgresUrl>().unwrap_err();
            assert!(matches!(error, StoreError::Address));
            assert!(!format!("{error} {error:?}").contains("pass-6b1f"), "{error:?}");
        }
    }

    #[tokio::test]
    async fn what_is_shown_of_a_database_holds_no_password() {
        let url: PostgresUrl = "postgres://role:pass-6b1f@127.0.0.1:1/flydex".parse().unwrap();
        let sql = Sql { pool: Pool::Postgres(Connections::new(bounded(&url))) };
        assert_eq!(format!("{sql:?}"), "Sql(PostgreSQL)");
        let error = sql.ping().await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)));
        assert!(!format!("{error} {error:?}").contains("pass-6b1f"), "{error:?}");
    }

    #[test]
    fn another_host_is_verified_unless_the_address_says_otherwise() {
        let mode = |text: &str| format!("{:?}", text.parse::<PostgresUrl>().unwrap().0.get_ssl_mode());
        assert_eq!(mode("postgres://role@db.example/flydex"), "VerifyFull");
        assert_eq!(mode("postgres://role@10.0.0.1/flydex"), "VerifyFull");
        assert_eq!(mode("postgres://role@db.example/flydex?sslmode=disable"), "Disable");
        for here in ["127.0.0.1", "[::1]", "localhost"] {
            assert_eq!(mode(&format!("postgres://role@{here}/flydex")), "Prefer", "{here}");
        }
    }
}
