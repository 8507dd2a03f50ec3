//! The role `migrate`: brings the schema of the database up to date, and ends.

use std::path::PathBuf;

use anyhow::Context as _;
use flydex_store::StoreError;
use flydex_store::sql::{PostgresUrl, Sql};
use serde::{Deserialize, Serialize};

use crate::cluster::{BadField, Secret, secret};

/// Where the database is: a PostgreSQL by its address, or an SQLite file.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct DatabaseConfig {
    /// `postgres://user:password@host:port/database`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<Secret>,
    /// A file that holds the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url_file: Option<PathBuf>,
    /// A file of SQLite in place of PostgreSQL, for one control process alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sqlite_file: Option<PathBuf>,
}

/// The configuration of `migrate`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct MigrateConfig {
    /// The database. Needed.
    pub database: DatabaseConfig,
}

impl DatabaseConfig {
    /// Opens the database, after waiting for a PostgreSQL that is not there yet.
    ///
    /// # Errors
    /// [`BadField`] for a value that cannot be used; a schema that this program cannot run on.
    pub async fn open(&self) -> anyhow::Result<Sql> {
        match self.sqlite_file()? {
            Some(file) => Sql::open_sqlite(file).await,
            None => Sql::connect_postgres(&self.postgres()?).await,
        }
        .context("open the database")
    }

    /// Whether it names none.
    pub(crate) fn is_empty(&self) -> bool {
        self.url.is_none() && self.url_file.is_none() && self.sqlite_file.is_none()
    }

    /// Opens the database to look at it, after waiting for a PostgreSQL that is not there yet.
    ///
    /// # Errors
    /// [`BadField`] for a value that cannot be used; a schema that this program cannot read.
    pub(crate) async fn look(&self) -> anyhow::Result<Sql> {
        match self.sqlite_file()? {
            Some(file) => Sql::look_at_sqlite(file).await,
            None => Sql::connect_postgres(&self.postgres()?).await,
        }
        .context("open the database")
    }

    fn sqlite_file(&self) -> Result<Option<&PathBuf>, BadField> {
        if self.sqlite_file.is_some() && (self.url.is_some() || self.url_file.is_some()) {
            return Err(BadField::new("database.sqlite_file", "set it or database.url, not both"));
        }
        Ok(self.sqlite_file.as_ref())
    }

    fn postgres(&self) -> Result<PostgresUrl, BadField> {
        let url = secret::secret("database.url", self.url.as_ref(), self.url_file.as_deref())?;
        let url = secret::expose(&url);
        // The driver takes any scheme, and would wait for such a server for ever.
        if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err(BadField::new("database.url", StoreError::Address));
        }
        url.parse().map_err(|error| BadField::new("database.url", error))
    }
}

/// Migrates and says what it did.
///
/// # Errors
/// [`BadField`] for a value that cannot be used; a step that failed, of which nothing stays.
pub async fn run(config: MigrateConfig, say: impl Fn(&str)) -> anyhow::Result<()> {
    if let Some(file) = config.database.sqlite_file()? {
        Sql::open_sqlite(file).await.context("migrate the database")?.close().await;
        say("the database is up to date");
        return Ok(());
    }
    let (before, after) = Sql::migrate_postgres(&config.database.postgres()?).await.context("migrate the database")?;
    say(&if before == after {
        format!("the database is up to date at step {after}")
    } else {
        format!("the database went from step {before} to step {after}")
    });
    Ok(())
}
