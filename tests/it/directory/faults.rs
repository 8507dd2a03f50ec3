//! A Redis that is away, slow, forgetful, in the past, a replica, loading, or a cluster.

use flydex_domain::id::NodeId;
use flydex_domain::placement::{LinkRecord, OwnerRecord, Reassertion};
use flydex_store::directory::redis::Endpoint;
use flydex_store::directory::{Acquire, Acquired, Cause, Directory, DirectoryError, Holding, conformance};
use flydex_tests::redis::Redis;
use flydex_tests::wait;
use rustix::process::{Pid, Signal, kill_process};

use super::{Connected, LEASE, connect, dial};

#[tokio::test]
async fn while_redis_is_away_answers_come_at_once_and_afterwards_it_serves_again() -> anyhow::Result<()> {
    let mut redis = Redis::start().await?;
    let connected = connect(Endpoint::alone(&redis.url())?).await?;
    let machine = conformance::machine();
    let epoch = conformance::own(&connected.directory, machine, conformance::node()).await;
    redis.save().await?;
    redis.kill().await?;
    down(&connected).await?;
    assert_eq!(connected.directory.find(machine).await, Err(DirectoryError::Unavailable));
    redis.run().await?;
    wait::within("the connection", connected.keeper.up()).await?;
    assert_eq!(connected.directory.find(machine).await?.map(|record| record.epoch), Some(epoch));
    Ok(())
}

#[tokio::test]
async fn a_redis_that_was_away_at_the_start_is_found_when_it_comes() -> anyhow::Result<()> {
    let mut redis = Redis::start().await?;
    redis.kill().await?;
    let connected = dial(Endpoint::alone(&redis.url())?);
    assert_eq!(connected.directory.members().await, Err(DirectoryError::Unavailable));
    redis.run_empty().await?;
    wait::within("the connection", connected.keeper.up()).await?;
    conformance::check(&connected.directory).await;
    Ok(())
}

#[tokio::test]
async fn the_first_request_of_a_process_waits_for_its_first_try() -> anyhow::Result<()> {
    let redis = Redis::start().await?;
    let connected = dial(Endpoint::alone(&redis.url())?);
    assert!(connected.directory.members().await.is_ok());
    Ok(())
}

#[tokio::test]
async fn a_flushed_redis_has_another_life_and_holders_assert_themselves_before_sessions_are_placed()
-> anyhow::Result<()> {
    let redis = Redis::start().await?;
    let connected = connect(Endpoint::alone(&redis.url())?).await?;
    let directory = &connected.directory;
    let (machine, holder, other) = (conformance::machine(), conformance::node(), conformance::node());
    let before = directory.renew(conformance::record(holder), 1).await?;
    let epoch = conformance::own(directory, machine, holder).await;
    redis.ask(&["FLUSHALL"]).await?;
    let after = directory.renew(conformance::record(holder), 2).await?;
    assert!(!after.continuous);
    assert_ne!(after.life, before.life);
    let session = Acquire { cause: Cause::Session, ..conformance::acquire(machine, other) };
    let Acquired::Settling(wait) = directory.acquire(session).await? else {
        panic!("a session was placed before the owner had spoken");
    };
    assert!(!wait.is_zero() && wait <= LEASE, "{wait:?}");
    let holding = Holding { machine, epoch, link: None };
    assert_eq!(directory.reassert(vec![holding]).await, Ok(vec![Reassertion::Kept]));
    directory.renew(conformance::record(holder), 3).await?;
    let record = OwnerRecord { holder: Some(holder), epoch, link: None };
    assert_eq!(directory.find(machine).await, Ok(Some(record)));
    Ok(())
}

#[tokio::test]
async fn a_connector_that_is_there_is_placed_even_while_the_directory_settles() -> anyhow::Result<()> {
    let redis = Redis::start().await?;
    let connected = connect(Endpoint::alone(&redis.url())?).await?;
    let directory = &connected.directory;
    directory.renew(conformance::record(conformance::node()), 1).await?;
    conformance::own(directory, conformance::machine(), conformance::node()).await;
    let session =
        Acquire { cause: Cause::Session, ..conformance::acquire(conformance::machine(), conformance::node()) };
    assert!(matches!(directory.acquire(session).await?, Acquired::Settling(_)));
    wait::until("the directory to settle", async || {
        matches!(directory.acquire(session).await, Ok(Acquired::Decided(_))).then_some(())
    })
    .await
}

#[tokio::test]
async fn a_redis_that_went_back_in_time_is_noticed_and_brought_forward() -> anyhow::Result<()> {
    let mut redis = Redis::start().await?;
    let connected = connect(Endpoint::alone(&redis.url())?).await?;
    let directory = &connected.directory;
    let (machine, first, second) = (conformance::machine(), conformance::node(), conformance::node());
    directory.renew(conformance::record(second), 1).await?;
    let old = conformance::own(directory, machine, first).await;
    redis.save().await?;
    let new = conformance::own(directory, machine, second).await;
    for beat in 2..6 {
        directory.renew(conformance::record(second), beat).await?;
    }
    redis.kill().await?;
    down(&connected).await?;
    redis.run().await?;
    wait::within("the connection", connected.keeper.up()).await?;
    assert_eq!(directory.find(machine).await?.map(|record| record.epoch), Some(old));
    assert!(!directory.renew(conformance::record(second), 6).await?.continuous);
    let link = Some(LinkRecord { counter: 1, gateway_id: NodeId::try_from("gateway-1".to_owned())? });
    let holding = |epoch| vec![Holding { machine, epoch, link: link.clone() }];
    assert_eq!(directory.reassert(holding(new)).await, Ok(vec![Reassertion::Kept]));
    let record = OwnerRecord { holder: Some(second), epoch: new, link: link.clone() };
    assert_eq!(directory.reassert(holding(old)).await, Ok(vec![Reassertion::Lost(record)]));
    Ok(())
}

#[tokio::test]
async fn a_redis_that_does_not_answer_in_time_is_unavailable_and_then_serves_again() -> anyhow::Result<()> {
    let redis = Redis::start().await?;
    let connected = connect(Endpoint::alone(&redis.url())?).await?;
    signal(&redis, Signal::STOP)?;
    let found = connected.directory.find(conformance::machine());
    assert_eq!(wait::within("an answer", found).await?, Err(DirectoryError::Unavailable));
    signal(&redis, Signal::CONT)?;
    serves(&connected).await
}

#[tokio::test]
async fn a_master_that_became_a_replica_is_given_up() -> anyhow::Result<()> {
    let (redis, other) = (Redis::start().await?, Redis::start().await?);
    let connected = connect(Endpoint::alone(&redis.url())?).await?;
    redis.ask(&["REPLICAOF", "127.0.0.1", &other.port().to_string()]).await?;
    let asked = connected.directory.acquire(conformance::acquire(conformance::machine(), conformance::node()));
    assert_eq!(asked.await, Err(DirectoryError::Unavailable));
    down(&connected).await?;
    redis.ask(&["REPLICAOF", "NO", "ONE"]).await?;
    serves(&connected).await
}

#[tokio::test]
async fn a_redis_that_loads_is_waited_for() -> anyhow::Result<()> {
    let mut redis = Redis::start().await?;
    redis.ask(&["DEBUG", "POPULATE", "2000"]).await?;
    redis.save().await?;
    redis.kill().await?;
    // 2,000 keys at a millisecond each.
    let mut slow =
        Redis::start_from(&redis, &["--key-load-delay", "1000", "--loading-process-events-interval-bytes", "1024"])
            .await?;
    let connected = dial(Endpoint::alone(&slow.url())?);
    assert_eq!(connected.directory.members().await, Err(DirectoryError::Unavailable));
    serves(&connected).await?;
    slow.kill().await
}

#[tokio::test]
async fn a_redis_cluster_is_refused() -> anyhow::Result<()> {
    let redis = Redis::start_with(&["--cluster-enabled", "yes"]).await?;
    let connected = connect(Endpoint::alone(&redis.url())?).await?;
    assert_eq!(connected.directory.find(conformance::machine()).await, Err(DirectoryError::Unavailable));
    Ok(())
}

#[tokio::test]
async fn an_address_is_never_repeated() {
    let wrong = Endpoint::alone("redis://user:hunter2@[nowhere").expect_err("the address is malformed");
    assert!(!format!("{wrong} {wrong:?}").contains("hunter2"));
    let right = Endpoint::alone("redis://user:hunter2@localhost:6379").expect("the address is well formed");
    assert!(!format!("{right:?}").contains("hunter2"));
}

/// Asks until a request fails, which is when the loss is noticed.
async fn down(connected: &Connected) -> anyhow::Result<()> {
    wait::until("the loss of the connection", async || {
        let asked = connected.directory.members().await;
        (asked == Err(DirectoryError::Unavailable) && !connected.keeper.is_up()).then_some(())
    })
    .await
}

async fn serves(connected: &Connected) -> anyhow::Result<()> {
    wait::until("the directory to serve again", async || {
        let node = conformance::node();
        connected.directory.acquire(conformance::acquire(conformance::machine(), node)).await.ok().map(drop)
    })
    .await
}

fn signal(redis: &Redis, signal: Signal) -> anyhow::Result<()> {
    let pid = redis.pid().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    Ok(kill_process(pid.expect("the Redis runs"), signal)?)
}
