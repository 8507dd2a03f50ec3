//! The fault suite in a bounded form: a small fleet on a whole cluster of real processes. What devices asked and were
//! told and what machines did is judged; figures are left to `cargo xtask cluster check`.

use flydex_loadtest::figures::Report;
use flydex_tests::cluster::region;
use flydex_tests::cluster::suite::Trial;

async fn survives(name: &str) -> anyhow::Result<Report> {
    flydex_runtime::tls::install_provider();
    let report = Trial::named(name)?.run(true, None).await?;
    let table = report.table();
    assert_eq!(report.verdict.violations, Vec::<String>::new(), "{table}");
    assert_eq!(report.verdict.unanswered, 0, "{table}");
    assert_eq!(report.unsettled(), 0, "{table}");
    assert!(report.verdict.acted > 0 && report.verdict.seen > 0, "{table}");
    assert!(report.verdict.accepted > 0 && report.counted("approval: refused") > 0, "{table}");
    Ok(report)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_and_a_frozen_owner_lose_and_repeat_nothing() -> anyhow::Result<()> {
    survives("owner").await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_and_a_frozen_gateway_lose_and_repeat_nothing() -> anyhow::Result<()> {
    survives("gateway").await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_killed_flushed_and_rolled_back_loses_and_repeats_nothing() -> anyhow::Result<()> {
    survives("redis").await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_database_and_control_away_lose_and_repeat_nothing() -> anyhow::Result<()> {
    survives("control").await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_of_every_process_loses_and_repeats_nothing() -> anyhow::Result<()> {
    survives("roll").await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_of_redis_loses_and_repeats_nothing() -> anyhow::Result<()> {
    survives("sentinel").await.map(drop)
}

/// Only root can take a node's network away.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_cut_off_loses_and_repeats_nothing() -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    survives("partition").await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_goes_dark_loses_and_repeats_nothing() -> anyhow::Result<()> {
    survives("dark").await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_goes_on_without_a_gap_when_the_region_of_its_machine_is_lost() -> anyhow::Result<()> {
    flydex_runtime::tls::install_provider();
    region::lost().await.map(drop)
}
