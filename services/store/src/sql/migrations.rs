//! The schema, as numbered steps that never change once released.

use std::borrow::Cow;

use sqlx::SqlSafeStr as _;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::sqlite::SqlitePool;

pub(super) async fn run(pool: &SqlitePool) -> Result<(), MigrateError> {
    Migrator::with_migrations(steps()).run(pool).await
}

/// Every step, oldest first.
pub(super) fn steps() -> Vec<Migration> {
    let texts = [
        ("initial", include_str!("../../migrations/sqlite/0001_initial.sql")),
        ("quarantine and versions", include_str!("../../migrations/sqlite/0002_quarantine_and_versions.sql")),
    ];
    let step = |(number, (name, text)): (i64, (&'static str, &'static str))| {
        Migration::new(number, Cow::Borrowed(name), MigrationType::Simple, text.into_sql_str(), false)
    };
    (1..).zip(texts).map(step).collect()
}
