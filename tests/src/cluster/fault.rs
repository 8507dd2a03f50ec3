//! What is done to a cluster while it works, by name, so that scenarios can ask for it as data.

use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::part::{Part, signal};
use super::{Cluster, Region, Store};

/// Time that a killed process stays away, as an orchestrator takes to start it again.
const AWAY: Duration = Duration::from_secs(3);
/// Time that a process stays frozen: its sockets are given up long before.
const FROZEN: Duration = Duration::from_secs(12);
/// Time that Redis, PostgreSQL or control is away.
const STORE_AWAY: Duration = Duration::from_secs(5);
/// Time between two saves of what Redis goes back to.
const SAVED_BEFORE: Duration = Duration::from_secs(3);

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A node is killed, and started again.
    KillOwner,
    /// A node is frozen, and goes on later as if nothing had been.
    FreezeOwner,
    /// A gateway is killed, and started again.
    KillGateway,
    /// A gateway is frozen, and goes on later.
    FreezeGateway,
    /// Every gateway, node and control process is replaced, one after the other.
    Roll,
    /// Something is done to the first region's Redis.
    Redis(RedisFault),
    /// PostgreSQL crashes, and starts again.
    RestartPostgres,
    /// Every control process is killed, and started again.
    StopControl,
    /// Nothing passes between clients and gateways for a while, and nobody is told.
    Dark,
    /// A node is cut off from everybody for a while, and nobody is told.
    Partition,
    /// The first region is lost: gateways, nodes and Redis.
    LoseRegion,
}

/// What is done to a Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedisFault {
    /// It is killed, and starts again with nothing.
    Kill,
    /// It forgets everything.
    Flush,
    /// It goes back to what it saved some seconds ago.
    RollBack,
    /// It does not answer for a while, and goes on.
    Freeze,
    /// The master is killed, and the sentinel makes the replica the master.
    FailOver,
}

const NAMES: [(&str, Fault); 15] = [
    ("kill-owner", Fault::KillOwner),
    ("freeze-owner", Fault::FreezeOwner),
    ("kill-gateway", Fault::KillGateway),
    ("freeze-gateway", Fault::FreezeGateway),
    ("roll", Fault::Roll),
    ("kill-redis", Fault::Redis(RedisFault::Kill)),
    ("flush-redis", Fault::Redis(RedisFault::Flush)),
    ("roll-back-redis", Fault::Redis(RedisFault::RollBack)),
    ("freeze-redis", Fault::Redis(RedisFault::Freeze)),
    ("fail-over-redis", Fault::Redis(RedisFault::FailOver)),
    ("restart-postgres", Fault::RestartPostgres),
    ("stop-control", Fault::StopControl),
    ("dark", Fault::Dark),
    ("partition", Fault::Partition),
    ("lose-region", Fault::LoseRegion),
];

impl FromStr for Fault {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let found = NAMES.iter().find(|(name, _)| *name == text);
        found.map(|(_, fault)| *fault).with_context(|| format!("there is no fault {text:?}"))
    }
}

impl Fault {
    /// Does it, and undoes it where that belongs to it.
    ///
    /// # Errors
    /// When a process cannot be reached, or does not come up again.
    pub async fn strike(self, cluster: &mut Cluster) -> anyhow::Result<()> {
        match self {
            Self::KillOwner => killed(&mut cluster.region_mut().nodes[0]).await,
            Self::FreezeOwner => frozen(&cluster.region().nodes[1]).await,
            Self::KillGateway => kill_gateway(cluster.region_mut(), 0).await,
            Self::FreezeGateway => frozen(&cluster.region().gateways[1]).await,
            Self::Roll => roll(cluster).await,
            Self::Redis(fault) => fault.strike(&mut cluster.region_mut().store).await,
            Self::RestartPostgres => {
                cluster.postgres.crash().await?;
                tokio::time::sleep(STORE_AWAY).await;
                cluster.postgres.run().await
            }
            Self::StopControl => stop_control(cluster).await,
            Self::Dark => {
                cluster.region().balancer.set_dark(true);
                tokio::time::sleep(FROZEN).await;
                cluster.region().balancer.set_dark(false);
                Ok(())
            }
            Self::Partition => {
                let island = cluster.island().context("the cluster has no island")?;
                island.cut(true).await?;
                tokio::time::sleep(FROZEN).await;
                island.cut(false).await
            }
            Self::LoseRegion => lose(cluster.region_mut()).await,
        }
    }
}

impl RedisFault {
    async fn strike(self, store: &mut Store) -> anyhow::Result<()> {
        let redis = match (self, store) {
            (Self::FailOver, Store::Sentinel(sentinel)) => return sentinel.master.kill().await,
            (Self::FailOver, Store::Alone(_)) => bail!("a failover needs sentinels"),
            (_, Store::Sentinel(_)) => bail!("this is done to a Redis alone"),
            (_, Store::Alone(redis)) => redis,
        };
        match self {
            Self::Flush => redis.ask(&["FLUSHALL"]).await.map(drop),
            Self::Freeze => {
                signal(redis.pid(), true)?;
                tokio::time::sleep(STORE_AWAY).await;
                signal(redis.pid(), false)
            }
            Self::RollBack => {
                redis.save().await?;
                tokio::time::sleep(SAVED_BEFORE).await;
                redis.kill().await?;
                redis.run().await
            }
            Self::Kill | Self::FailOver => {
                redis.kill().await?;
                tokio::time::sleep(STORE_AWAY).await;
                redis.run_empty().await
            }
        }
    }
}

async fn killed(part: &mut Part) -> anyhow::Result<()> {
    part.kill().await?;
    tokio::time::sleep(AWAY).await;
    part.start().await
}

async fn frozen(part: &Part) -> anyhow::Result<()> {
    part.freeze(true)?;
    tokio::time::sleep(FROZEN).await;
    part.freeze(false)
}

async fn kill_gateway(region: &mut Region, index: usize) -> anyhow::Result<()> {
    let Region { gateways, balancer, .. } = region;
    let gateway = &mut gateways[index];
    gateway.kill().await?;
    balancer.remove(&gateway.name);
    tokio::time::sleep(AWAY).await;
    start_gateway(region, index).await
}

async fn start_gateway(region: &mut Region, index: usize) -> anyhow::Result<()> {
    let gateway = &mut region.gateways[index];
    gateway.start().await?;
    region.balancer.put(&gateway.name, gateway.address()?, gateway.admin()?);
    Ok(())
}

async fn stop_gateway(region: &mut Region, index: usize) -> anyhow::Result<()> {
    let gateway = &mut region.gateways[index];
    region.balancer.drain(&gateway.name);
    gateway.stop().await?;
    region.balancer.remove(&gateway.name);
    Ok(())
}

/// As an orchestrator does: the spare first, so that there is never one less; at the end the spare is idle again.
async fn roll(cluster: &mut Cluster) -> anyhow::Result<()> {
    for region in &mut cluster.regions {
        for (spare, old) in pairs(&region.nodes)? {
            region.nodes[spare].start().await?;
            region.nodes[old].stop().await?;
        }
        for (spare, old) in pairs(&region.gateways)? {
            start_gateway(region, spare).await?;
            stop_gateway(region, old).await?;
        }
    }
    for control in &mut cluster.controls {
        cluster.front.drain(&control.name);
        control.stop().await?;
        cluster.front.remove(&control.name);
        control.start().await?;
        cluster.front.put(&control.name, control.address()?, control.admin()?);
    }
    Ok(())
}

/// Each step of a roll: who is started, and who ends then.
fn pairs(parts: &[Part]) -> anyhow::Result<Vec<(usize, usize)>> {
    let spare = parts.iter().position(|part| !part.runs()).context("there is no spare")?;
    let mut free = spare;
    let mut pairs = Vec::new();
    for old in (0..parts.len()).filter(|index| *index != spare) {
        pairs.push((free, old));
        free = old;
    }
    Ok(pairs)
}

async fn stop_control(cluster: &mut Cluster) -> anyhow::Result<()> {
    for control in &mut cluster.controls {
        control.kill().await?;
    }
    tokio::time::sleep(STORE_AWAY).await;
    for control in &mut cluster.controls {
        control.start().await?;
        cluster.front.put(&control.name, control.address()?, control.admin()?);
    }
    Ok(())
}

async fn lose(region: &mut Region) -> anyhow::Result<()> {
    for part in region.gateways.iter_mut().chain(&mut region.nodes).filter(|part| part.runs()) {
        region.balancer.remove(&part.name);
        part.kill().await?;
    }
    if let Store::Alone(redis) = &mut region.store {
        redis.kill().await?;
    }
    Ok(())
}
