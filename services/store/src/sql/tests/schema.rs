use super::super::migrations::{self, KNOWN};
use super::*;

const NEWER: &str = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
     SELECT version + 1, 'newer', success, checksum, 0 FROM _sqlx_migrations ORDER BY version DESC LIMIT 1";

#[test]
fn both_databases_have_the_same_steps() {
    let steps = |steps: Vec<sqlx::migrate::Migration>| {
        steps.into_iter().map(|step| (step.version, step.description)).collect::<Vec<_>>()
    };
    assert_eq!(steps(migrations::of_sqlite()), steps(migrations::of_postgres()));
}

#[tokio::test]
async fn a_newer_schema_is_run_on_for_as_long_as_it_says_that_it_may_be() {
    let base = Base::with_records(3).await;
    base.tamper(&[NEWER]).await;
    let sql = base.database.try_open().await.expect("an older program runs on a schema that only grew");
    sql.close().await;
    base.tamper(&["UPDATE schema_needs SET step = (SELECT MAX(version) FROM _sqlx_migrations)"]).await;
    let refused = base.database.try_open().await.expect_err("what this program uses is gone");
    let expected = SchemaError::Ahead { found: KNOWN + 1, needs: KNOWN + 1, known: KNOWN };
    assert!(matches!(refused, StoreError::Schema(error) if error == expected), "{refused:?}");
    let newer = KNOWN + 1;
    assert_eq!(
        expected.to_string(),
        format!(
            "the database is at step {newer} of its schema, for programs that know step {newer}; this one knows {KNOWN}"
        )
    );
}
