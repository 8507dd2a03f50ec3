//! The schema, as numbered steps that never change once released.

use std::borrow::Cow;

use sqlx::SqlSafeStr as _;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::sqlite::SqlitePool;

pub(super) async fn run(pool: &SqlitePool) -> Result<(), MigrateError> {
    let initial = include_str!("../../migrations/sqlite/0001_initial.sql").into_sql_str();
    let steps = vec![Migration::new(1, Cow::Borrowed("initial"), MigrationType::Simple, initial, false)];
    Migrator::with_migrations(steps).run(pool).await
}
