//! The schema, as numbered steps that never change once released: the same numbers on both databases.
//!
//! A deploy rolls: the newer program's steps are run first, while the older program still serves. So a step adds what
//! the newer program wants (expand), and only a later release takes away what nobody uses any more (contract). The
//! row in `schema_needs` says which program is too old for the schema that it finds.

use std::borrow::Cow;

use sqlx::SqlSafeStr as _;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{PgConnection, SqliteConnection};

use super::StoreError;

/// A schema that this program cannot run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// Steps are missing: `migrate` has not run, or that of an older release.
    #[error("the database is at step {found} of its schema and this program needs step {wanted}: run `migrate` first")]
    Behind {
        /// The newest step that was run; zero on an empty database.
        found: i64,
        /// The newest step that this program knows.
        wanted: i64,
    },
    /// A newer program has changed the schema beyond what this one can use.
    #[error(
        "the database is at step {found} of its schema, for programs that know step {needs}; this one knows {known}"
    )]
    Ahead {
        /// The newest step that was run.
        found: i64,
        /// The oldest step that a program must know.
        needs: i64,
        /// The newest step that this program knows.
        known: i64,
    },
}

/// What a database says of its schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stand {
    /// The newest step that was run.
    pub(super) found: i64,
    /// The oldest step that a program must know.
    pub(super) needs: i64,
}

impl Stand {
    /// Whether this program may run its own steps here: only where a newer one has not taken away what it uses.
    pub(super) fn check_not_ahead(self, known: i64) -> Result<(), SchemaError> {
        let Self { found, needs } = self;
        if found > known && needs > known { Err(SchemaError::Ahead { found, needs, known }) } else { Ok(()) }
    }

    /// Whether this program may run here.
    pub(super) fn check(self, known: i64) -> Result<(), SchemaError> {
        if self.found < known {
            return Err(SchemaError::Behind { found: self.found, wanted: known });
        }
        self.check_not_ahead(known)
    }
}

/// The newest step that this program knows.
pub(super) const KNOWN: i64 = 11;

/// The file of a step, by the folder of its database.
macro_rules! step {
    ($folder:literal, $name:literal) => {
        include_str!(concat!("../../migrations/", $folder, "/", $name, ".sql"))
    };
}

/// Every step of SQLite, oldest first.
pub(super) fn of_sqlite() -> Vec<Migration> {
    steps([
        step!("sqlite", "0001_initial"),
        step!("sqlite", "0002_quarantine_and_versions"),
        step!("sqlite", "0003_turns_and_needs"),
        step!("sqlite", "0004_regions"),
        step!("sqlite", "0005_members"),
        step!("sqlite", "0006_sign_in"),
        step!("sqlite", "0007_token_keys"),
        step!("sqlite", "0008_machine_key_rotations"),
        step!("sqlite", "0009_billing"),
        step!("sqlite", "0010_region_drains"),
        step!("sqlite", "0011_strict_audit"),
    ])
}

/// Every step of PostgreSQL, oldest first.
pub(super) fn of_postgres() -> Vec<Migration> {
    steps([
        step!("postgres", "0001_initial"),
        step!("postgres", "0002_quarantine_and_versions"),
        step!("postgres", "0003_turns_and_needs"),
        step!("postgres", "0004_regions"),
        step!("postgres", "0005_members"),
        step!("postgres", "0006_sign_in"),
        step!("postgres", "0007_token_keys"),
        step!("postgres", "0008_machine_key_rotations"),
        step!("postgres", "0009_billing"),
        step!("postgres", "0010_region_drains"),
        step!("postgres", "0011_strict_audit"),
    ])
}

fn steps(texts: [&'static str; KNOWN as usize]) -> Vec<Migration> {
    let names = [
        "initial",
        "quarantine and versions",
        "turns and needs",
        "regions",
        "members",
        "sign in",
        "token keys",
        "machine key rotations",
        "billing",
        "region drains",
        "strict audit",
    ];
    let step = |(number, (name, text)): (i64, (&'static str, &'static str))| {
        Migration::new(number, Cow::Borrowed(name), MigrationType::Simple, text.into_sql_str(), false)
    };
    (1..=KNOWN).zip(names.into_iter().zip(texts)).map(step).collect()
}

/// Runs what is missing.
pub(super) async fn run_on_sqlite(connection: &mut SqliteConnection, steps: Vec<Migration>) -> Result<(), StoreError> {
    run(steps, connection).await
}

/// Runs what is missing, under a lock that only one migrator has.
pub(super) async fn run_on_postgres(connection: &mut PgConnection, steps: Vec<Migration>) -> Result<(), StoreError> {
    run(steps, connection).await
}

async fn run<C: sqlx::migrate::Migrate>(steps: Vec<Migration>, connection: &mut C) -> Result<(), StoreError> {
    let mut migrator = Migrator::with_migrations(steps);
    // A newer program's steps are no error; whether they leave room for this one is checked on their own word.
    migrator.set_ignore_missing(true);
    migrator.run_direct(None, connection, false).await.map_err(StoreError::Migration)
}

/// Both databases answer these; on SQLite `sqlite_schema` and on PostgreSQL `to_regclass` tell whether to ask.
const FOUND: &str = "SELECT COALESCE(MAX(version), 0) FROM _sqlx_migrations WHERE success";
const NEEDS: &str = "SELECT COALESCE(MAX(step), 0) FROM schema_needs";

/// How far the schema of a PostgreSQL is.
pub(super) async fn stand_of_postgres(connection: &mut PgConnection) -> Result<Stand, sqlx::Error> {
    let mut number = async |table: &'static str, text: &'static str| {
        let there = sqlx::query_scalar::<_, bool>("SELECT to_regclass($1) IS NOT NULL").bind(table);
        if !there.fetch_one(&mut *connection).await? {
            return Ok::<i64, sqlx::Error>(0);
        }
        sqlx::query_scalar(text).fetch_one(&mut *connection).await
    };
    Ok(Stand { found: number("_sqlx_migrations", FOUND).await?, needs: number("schema_needs", NEEDS).await? })
}

/// How far the schema of an SQLite file is.
pub(super) async fn stand_of_sqlite(connection: &mut SqliteConnection) -> Result<Stand, StoreError> {
    let mut number = async |table: &'static str, text: &'static str| {
        let there = sqlx::query_scalar::<_, i64>("SELECT COUNT(*) FROM sqlite_schema WHERE name = $1").bind(table);
        if there.fetch_one(&mut *connection).await? == 0 {
            return Ok::<i64, StoreError>(0);
        }
        Ok(sqlx::query_scalar(text).fetch_one(&mut *connection).await?)
    };
    Ok(Stand { found: number("_sqlx_migrations", FOUND).await?, needs: number("schema_needs", NEEDS).await? })
}
