//! A region's records come back into a Redis that has forgotten them.
//!
//! Three nodes of the real service hold all machines, each with a link that a light stand-in for gateway and connector
//! opened over the real gRPC. Then the Redis is flushed; measured is the time until every record is there again, the
//! nodes' notice of the loss included. The floor writes the same records over one bare pipelined connection.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use flydex_domain::limits::NODE_STREAMS;
use flydex_domain::placement::NodeRecord;
use flydex_domain::scope::MachineKey;
use flydex_proto::v1::gateway_frame::Kind as ToNode;
use flydex_proto::v1::machine_host_client::MachineHostClient;
use flydex_proto::v1::node_frame::Kind as FromNode;
use flydex_proto::v1::{self, GatewayFrame, connector_frame, owner_frame};
use flydex_store::directory::RedisDirectory;
use flydex_store::directory::redis::{Endpoint, Keeper};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;

use super::region::{GATEWAY, REGION, Region, machine_key, wire};
use crate::run::resident_kib;

mod redis;

use redis::Redis;

/// The longest time that is asked for.
pub const TOOK_MAX: Duration = Duration::from_secs(5);
/// Nodes of the region.
const NODES: usize = 3;
/// Accounts that the machines belong to.
const ACCOUNTS: u128 = 1_000;
/// Links of one stream that open at once.
const OPENING_MAX: usize = 64;
/// Interval at which the Redis is asked how much it has.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);
/// Time that the set-up may stand still.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a rebuild took.
#[derive(Clone, Copy, Debug)]
pub struct Rebuilt {
    /// Machines with a record.
    pub machines: u32,
    /// From the flush until every record was there again.
    pub took: Duration,
    /// The same records, written by one bare pipelined connection.
    pub floor: Duration,
    /// Memory of this process for each machine, in bytes: actor, link and both ends of its gRPC.
    pub bytes_each: u64,
}

impl Rebuilt {
    /// One line.
    #[must_use]
    pub fn line(&self) -> String {
        let Self { machines, took, floor, bytes_each } = self;
        format!(
            "{machines} records back after a flush, {NODES} nodes  {took:>8.2?}  | one bare pipelined connection  \
             {floor:>8.2?}  | x{:.1}  ({bytes_each} B of memory a machine)",
            took.as_secs_f64() / floor.as_secs_f64().max(0.001),
        )
    }
}

/// Sets `machines` up, flushes, and waits.
///
/// # Errors
/// When there is no redis-server, or a record does not come back.
pub async fn run(machines: u32) -> anyhow::Result<Rebuilt> {
    let folder = tempfile::tempdir().context("make a folder")?;
    let redis = Redis::start(folder.path()).await?;
    let region = Arc::new(Region::new()?);
    let mut nodes = Vec::new();
    for number in 1..=NODES {
        let (keeper, keep) = Keeper::new(Endpoint::alone(&redis.url())?);
        tokio::spawn(keep);
        nodes.push(region.node(&format!("node-{number}"), Arc::new(RedisDirectory::new(keeper))).await?);
    }
    let before = resident_kib() * 1024;
    let streams = NODES * NODE_STREAMS;
    let mut linked = Vec::new();
    for stream in 0..streams {
        let numbers = (1..=u128::from(machines)).filter(move |number| *number as usize % streams == stream);
        let machines: Vec<_> = numbers.map(|number| machine_key(number % ACCOUNTS + 1, number)).collect();
        linked.push(tokio::spawn(link_all(region.clone(), nodes[stream % NODES].clone(), machines)));
    }
    let mut kept = Vec::new();
    for stream in linked {
        kept.push(stream.await??);
    }
    let bytes_each = (resident_kib() * 1024).saturating_sub(before) / u64::from(machines.max(1));

    let machines = machines as usize;
    let mut client = redis.connect().await?;
    client.until_linked(machines, PATIENCE).await?;
    client.ask(&["FLUSHALL"]).await?;
    let since = Instant::now();
    while client.records().await? < machines {
        ensure!(since.elapsed() < PATIENCE, "only {} of {machines} records came back", client.records().await?);
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    let took = since.elapsed();
    client.until_linked(machines, PATIENCE).await?;

    let records = client.all_records().await?;
    ensure!(records.len() == machines, "{} records, and not {machines}", records.len());
    client.ask(&["FLUSHALL"]).await?;
    // What the nodes write meanwhile would count as work of the floor.
    let alone = Redis::start(tempfile::tempdir()?.path()).await?;
    let floor = alone.connect().await?.write_all(&records).await?;
    region.shutdown.drain(Duration::from_secs(1)).await;
    let machines = u32::try_from(machines)?;
    Ok(Rebuilt { machines, took, floor, bytes_each })
}

/// Opens a link for each machine over one stream, and answers as their connectors do. The stream is up for as long as
/// what is returned.
async fn link_all(
    region: Arc<Region>,
    node: NodeRecord,
    machines: Vec<MachineKey>,
) -> anyhow::Result<mpsc::Sender<GatewayFrame>> {
    let (frames, outgoing) = mpsc::channel(2 * OPENING_MAX + 1);
    let hello = v1::GatewayHello { gateway_id: GATEWAY.to_owned(), region: REGION.to_owned() };
    frames.send(GatewayFrame { kind: Some(ToNode::Hello(hello)), ..GatewayFrame::default() }).await?;
    let mut client = MachineHostClient::new(region.dial(&node)?);
    let mut incoming = client.exchange(ReceiverStream::new(outgoing)).await?.into_inner();
    let (mut to_open, mut left) = (machines.iter(), machines.len());
    for machine in to_open.by_ref().take(OPENING_MAX) {
        frames.send(open_link(&region, *machine)).await?;
    }
    while left > 0 {
        let frame = tokio::time::timeout(PATIENCE, incoming.message()).await.context("the node does not answer")??;
        let v1::NodeFrame { account_id, machine_id, kind } = frame.context("the node ended the stream")?;
        let epoch = match kind {
            Some(FromNode::ToLink(v1::NodeToLink { frame: Some(frame), .. })) => match frame.kind {
                Some(owner_frame::Kind::Attach(_)) => frame.epoch,
                Some(_) | None => continue,
            },
            Some(FromNode::EndLink(end)) => bail!("a link was ended with {}", end.code),
            Some(FromNode::NotOwner(_)) => bail!("another node owns a machine that nobody had"),
            Some(_) | None => continue,
        };
        let attached = connector_frame::Kind::Attached(v1::Attached { highest: epoch });
        let frame = Some(v1::ConnectorFrame { epoch: None, kind: Some(attached) });
        let kind = Some(ToNode::LinkMessage(v1::LinkMessage { link_id: machine_id.clone(), frame }));
        frames.send(GatewayFrame { account_id, machine_id, deadline_ms: 0, kind }).await?;
        left -= 1;
        if let Some(machine) = to_open.next() {
            frames.send(open_link(&region, *machine)).await?;
        }
    }
    tokio::spawn(async move { while let Ok(Some(_)) = incoming.message().await {} });
    Ok(frames)
}

/// The link's id is the machine's.
fn open_link(region: &Region, machine: MachineKey) -> GatewayFrame {
    let machine_id = wire(machine.machine_id().as_bytes());
    let open = v1::OpenLink {
        link_id: machine_id.clone(),
        credential: region.credential(machine),
        link_counter: 1,
        boot_id: wire(&[1; 16]),
        transport: v1::Transport::Websocket.into(),
        connector_version: "bench".to_owned(),
        channel_bound: true,
        replacing: Bytes::new(),
    };
    let account_id = wire(machine.account_id().as_bytes());
    GatewayFrame { account_id, machine_id, deadline_ms: 0, kind: Some(ToNode::OpenLink(open)) }
}
