//! The real `flydex-server control` and `migrate` beside a real PostgreSQL: one that is not there yet, goes and comes
//! back, and one whose schema another release has changed.

use std::time::Duration;

use flydex_runtime::clock::Clock;
use flydex_runtime::mutual::authority::Authority;
use flydex_runtime::mutual::{PeerIdentity, Role};
use flydex_store::Sql;
use flydex_store::sql::PostgresUrl;
use flydex_tests::postgres::Postgres;
use flydex_tests::process::{self, Process};
use flydex_tests::wait;
use tokio::process::Command;

const WAITING: &str = "waiting for the database";
const DAY: Duration = Duration::from_secs(24 * 3600);
/// What the next release's steps could be: they add, and take nothing away.
const EXPAND: [&str; 4] = [
    "ALTER TABLE machines ADD COLUMN newer TEXT",
    "ALTER TABLE accounts ADD COLUMN newer BIGINT NOT NULL DEFAULT 0",
    "CREATE TABLE newer (account_id BYTEA NOT NULL REFERENCES accounts (account_id))",
    "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
     SELECT version + 1, 'newer', success, checksum, 0 FROM _sqlx_migrations ORDER BY version DESC LIMIT 1",
];
/// And those of the release after that: the programs before it cannot run on what is left.
const CONTRACT: &str = "UPDATE schema_needs SET step = (SELECT MAX(version) FROM _sqlx_migrations)";

#[tokio::test]
async fn control_waits_for_its_database_says_so_and_serves_when_it_comes() -> anyhow::Result<()> {
    let mut postgres = Postgres::start().await?;
    migrate(&postgres).await?;
    postgres.crash().await?;
    let control = Control::start(&postgres)?;
    control.process.must_log(WAITING, "it began before its database");
    assert_eq!(control.ready().await?, "not ready\ndatabase: it was not reached yet\nlife: still starting\n");
    wait::until("the log to say so", async || control.logs(WAITING).then_some(())).await?;
    assert!(!control.logs("db-secret"), "what is said holds no password");

    postgres.run().await?;
    control.process.says("listening on ").await?;
    control.process.says("sign in at ").await?;
    assert_eq!(control.ready().await?, "ready\n");

    postgres.crash().await?;
    control.process.may_log("error.code=\"store_unavailable\"", "its database is away");
    control.process.may_log("terminating connection", "PostgreSQL says so as it ends");
    wait::until("it to be not ready", async || (control.ready().await.ok()? != "ready\n").then_some(())).await?;
    assert_eq!(control.ready().await?, "not ready\ndatabase: it does not answer\n");
    assert_eq!(control.get("livez").await?, "alive\n", "a restart would not help");
    postgres.run().await?;
    wait::until("it to be ready", async || (control.ready().await.ok()? == "ready\n").then_some(())).await?;
    let (status, _) = control.process.stop().await?;
    assert!(status.success(), "{status}");
    Ok(())
}

#[tokio::test]
async fn control_waits_for_a_database_that_takes_connections_and_says_nothing() -> anyhow::Result<()> {
    let postgres = Postgres::start().await?;
    migrate(&postgres).await?;
    postgres.freeze()?;
    let control = Control::start(&postgres)?;
    control.process.must_log(WAITING, "its database is frozen");
    wait::until("the log to say so", async || control.logs(WAITING).then_some(())).await?;
    assert!(control.ready().await?.contains("database: it was not reached yet"));
    postgres.thaw()?;
    control.process.says("listening on ").await?;
    assert_eq!(control.ready().await?, "ready\n");
    Ok(())
}

#[tokio::test]
async fn a_control_that_waits_for_its_database_ends_when_it_is_told_to() -> anyhow::Result<()> {
    let mut postgres = Postgres::start().await?;
    postgres.crash().await?;
    let control = Control::start(&postgres)?;
    control.process.must_log(WAITING, "there is no database");
    wait::until("the log to say so", async || control.logs(WAITING).then_some(())).await?;
    let (status, _) = control.process.stop().await?;
    assert!(status.success(), "{status}");
    Ok(())
}

#[tokio::test]
async fn an_older_control_serves_on_a_schema_that_only_grew_and_refuses_one_that_lost_what_it_uses()
-> anyhow::Result<()> {
    let postgres = Postgres::start().await?;
    let empty = Control::start(&postgres)?.refused().await?;
    assert!(empty.contains("run `migrate` first"), "{empty}");
    migrate(&postgres).await?;
    let before = Control::start(&postgres)?;
    let link = before.process.says("sign in at ").await?;

    let sql = Sql::connect_postgres(&postgres.url().parse::<PostgresUrl>()?).await?;
    for statement in EXPAND {
        sql.tamper(statement).await;
    }
    // The one that runs, and one that starts now, read and write as before.
    assert_eq!(before.ready().await?, "ready\n");
    before.sign_in(&link).await?;
    let after = Control::start_with(&postgres, &["--owner-link"])?;
    let link = after.process.says("sign in at ").await?;
    after.sign_in(&link).await?;

    sql.tamper(CONTRACT).await;
    let refused = Control::start(&postgres)?.refused().await?;
    assert!(refused.contains("this one knows"), "{refused}");
    Ok(())
}

#[tokio::test]
async fn the_audit_of_a_postgresql_is_checked_and_a_record_that_was_changed_is_named() -> anyhow::Result<()> {
    let postgres = Postgres::start().await?;
    let (status, said) = verify_audit(&postgres).await?;
    assert_eq!(status, Some(1), "before there is a schema it cannot be looked at: {said}");
    migrate(&postgres).await?;
    let sql = Sql::connect_postgres(&postgres.url().parse::<PostgresUrl>()?).await?;
    let owner = super::owner(&sql).await?;
    for _ in 0..3 {
        super::append(&sql, &owner).await?;
    }
    let (status, said) = verify_audit(&postgres).await?;
    assert_eq!((status, said.as_str()), (Some(0), "the audit holds: 3 records of 1 accounts\n"));
    sql.tamper("DROP TRIGGER audit_is_never_changed ON audit").await;
    sql.tamper("UPDATE audit SET kind = 'signed_in' WHERE number = 2").await;
    let (status, said) = verify_audit(&postgres).await?;
    assert_eq!(status, Some(3), "{said}");
    let expected = format!("account {}: audit record 2 does not fit its hash; the first", owner.account_id);
    assert!(said.starts_with(&expected), "{said}");
    Ok(())
}

async fn verify_audit(postgres: &Postgres) -> anyhow::Result<(Option<i32>, String)> {
    let mut command = Command::new(process::binary("flydex-server")?);
    command.args(["audit", "verify"]).env("FLYDEX__DATABASE__URL", postgres.url());
    let output = command.output().await?;
    Ok((output.status.code(), String::from_utf8(output.stdout)?))
}

/// Brings the schema up to date as a deploy does.
async fn migrate(postgres: &Postgres) -> anyhow::Result<()> {
    let mut command = Command::new(process::binary("flydex-server")?);
    command.arg("migrate").env("FLYDEX__DATABASE__URL", postgres.url());
    let mut migrate = Process::start("migrate", &mut command)?;
    migrate.says("the database went from step 0 to step ").await?;
    assert!(migrate.ended().await?.success());
    Ok(())
}

/// A control process.
struct Control {
    process: Process,
    _folder: tempfile::TempDir,
}

impl Control {
    fn start(postgres: &Postgres) -> anyhow::Result<Self> {
        Self::start_with(postgres, &[])
    }

    fn start_with(postgres: &Postgres, arguments: &[&str]) -> anyhow::Result<Self> {
        // What asks it by HTTP here wants one, though it needs none.
        flydex_runtime::tls::install_provider();
        let folder = tempfile::tempdir()?;
        let identity = PeerIdentity { region: "eu".to_owned(), role: Role::Control, node_id: "control-1".to_owned() };
        let mutual = Authority::new()?.write(folder.path(), &identity, Clock::system().unix_millis(), DAY)?;
        let config = format!(
            "listen = \"127.0.0.1:0\"\ninternal_listen = \"127.0.0.1:0\"\npublic_origin = \"http://localhost:1\"\n\
             [database]\nurl = {:?}\n[[regions]]\nregion = \"eu\"\n[mutual]\ncertificate_file = {:?}\nkey_file = {:?}\n\
             ca_file = {:?}\n",
            postgres.url().replace("@", ":db-secret@"),
            mutual.certificate_file,
            mutual.key_file,
            mutual.ca_file,
        );
        let file = folder.path().join("control.toml");
        std::fs::write(&file, config)?;
        let mut command = Command::new(process::binary("flydex-server")?);
        command.arg("control").arg("--config").arg(&file).args(arguments).current_dir(folder.path());
        Ok(Self { process: Process::start("control", &mut command)?, _folder: folder })
    }

    /// What `/readyz` says, and that its status agrees.
    async fn ready(&self) -> anyhow::Result<String> {
        self.get("readyz").await
    }

    async fn get(&self, path: &str) -> anyhow::Result<String> {
        let admin = self.process.says("admin on ").await?;
        let answer = reqwest::get(format!("{admin}/{path}")).await?;
        let is_fine = answer.status().is_success();
        let text = answer.text().await?;
        assert_eq!(is_fine, !text.starts_with("not ready"), "{text}");
        Ok(text)
    }

    /// Signs in by a link, with which an account session is written and read.
    async fn sign_in(&self, link: &str) -> anyhow::Result<()> {
        let listening = self.process.says("listening on ").await?;
        let address = listening.split(' ').next().unwrap_or_default();
        let token = link.split_once('#').map_or("", |(_, token)| token);
        let client = reqwest::Client::new();
        let answer = client
            .post(format!("http://{address}/api/sign-in"))
            .header("origin", "http://localhost:1")
            .json(&serde_json::json!({ "token": token }))
            .send()
            .await?;
        assert!(answer.status().is_success(), "{}", answer.text().await?);
        Ok(())
    }

    fn logs(&self, text: &str) -> bool {
        self.process.lines().err.iter().any(|line| line.contains(text))
    }

    /// What it complains of before it ends by itself.
    async fn refused(mut self) -> anyhow::Result<String> {
        let status = self.process.ended().await?;
        assert_eq!(status.code(), Some(1), "it ends, and not as one whose configuration is wrong");
        Ok(self.process.lines().err.join("\n"))
    }
}
