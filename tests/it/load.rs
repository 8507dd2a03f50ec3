//! The generator of load against a relay: what it measures must be sound before anybody believes its figures.

use std::fs::File;
use std::io::BufReader;

use flydex_loadtest::figures::Cause;
use flydex_loadtest::record;
use flydex_loadtest::run::{self, Options};
use flydex_loadtest::scenario::Scenario;
use flydex_store::sql::Sql;
use flydex_tests::account;
use flydex_tests::server::Server;

#[tokio::test(flavor = "multi_thread")]
async fn a_small_load_runs_clean() -> anyhow::Result<()> {
    flydex_runtime::tls::install_provider();
    let scenario = Scenario::parse(include_str!("../../loadtest/scenarios/small.toml"))?;
    let server = Server::start().await?;
    let mut sign_in = Vec::new();
    for _ in 0..scenario.fleet.accounts {
        let sql = Sql::open_sqlite(&server.data().join("flydex.sqlite")).await?;
        sign_in.push(account::create(sql, server.origin()).await?);
    }
    let folder = tempfile::tempdir()?;
    let history = folder.path().join("history.ndjson");
    let origin = server.origin().to_owned();
    let options = Options { origin, sign_in, record: Some(history.clone()), ..Options::default() };
    let report = run::run(scenario, &options).await?;

    let table = report.table();
    assert_eq!(report.verdict.violations, Vec::<String>::new(), "{table}");
    assert_eq!(report.verdict.unanswered, 0, "{table}");
    // A machine that builds and tests at once may be late; everything else that voids a run is a defect.
    assert!(report.void.iter().all(|void| void.cause == Cause::Lag), "{table}");
    assert!(
        report.phases.iter().flat_map(|phase| phase.counts.keys()).all(|what| !what.starts_with("refused")),
        "{table}"
    );
    for kind in
        ["answer: list_threads", "answer: start_turn", "delivered: start_turn", "event", "floor: bare forwarder"]
    {
        assert!(report.timed(kind) > 0, "{kind}: {table}");
    }
    assert!(report.verdict.accepted > 0 && report.counted("approval: recorded at control") > 0, "{table}");
    assert!(report.timed("link gap") >= 2 && report.timed("session gap") >= 4, "{table}");
    let read = record::check(BufReader::new(File::open(history)?))?;
    assert_eq!((read.lines, read.broken), (report.verdict.lines, 0));
    assert_eq!(read.accepted, report.verdict.accepted);
    Ok(())
}
