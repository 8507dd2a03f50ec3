//! A master and a replica under a sentinel: the directory follows a failover by itself.

use flydex_store::directory::redis::Endpoint;
use flydex_store::directory::{Directory, conformance};
use flydex_tests::redis::{MASTER_NAME, Sentinel};
use flydex_tests::wait;

use super::{connect, dial};

#[tokio::test]
async fn the_directory_conforms_under_a_sentinel_before_and_after_a_failover() -> anyhow::Result<()> {
    let mut sentinel = Sentinel::start().await?;
    let endpoint = Endpoint::sentinel(&[sentinel.url()], MASTER_NAME, "redis://unused")?;
    let connected = connect(endpoint).await?;
    conformance::check(&connected.directory).await;
    let machine = conformance::machine();
    let epoch = conformance::own(&connected.directory, machine, conformance::node()).await;
    sentinel.replica.in_step_with(&sentinel.master).await?;
    sentinel.master.kill().await?;
    wait::until("the replica to be promoted and followed", async || {
        let node = conformance::node();
        connected.directory.acquire(conformance::acquire(conformance::machine(), node)).await.ok()
    })
    .await?;
    assert_eq!(connected.directory.find(machine).await?.map(|record| record.epoch), Some(epoch));
    conformance::check(&connected.directory).await;
    Ok(())
}

#[tokio::test]
async fn one_sentinel_that_is_away_does_not_matter() -> anyhow::Result<()> {
    let sentinel = Sentinel::start().await?;
    let away = "redis://127.0.0.1:1".to_owned();
    let connected = connect(Endpoint::sentinel(&[away, sentinel.url()], MASTER_NAME, "redis://unused")?).await?;
    conformance::own(&connected.directory, conformance::machine(), conformance::node()).await;
    Ok(())
}

#[tokio::test]
async fn a_master_that_the_sentinel_does_not_know_is_not_reached() -> anyhow::Result<()> {
    let sentinel = Sentinel::start().await?;
    let connected = dial(Endpoint::sentinel(&[sentinel.url()], "somebody-else", "redis://unused")?);
    assert!(connected.directory.members().await.is_err());
    assert!(!connected.keeper.is_up());
    Ok(())
}
