//! Inter-node forwarding: events from links over a gateway and a node to sessions, against bare tonic.
//!
//! Measured is all that lies between the sockets of two peers: the gateway's stream with its queue and fairness, mTLS
//! over TCP on loopback, the node's stream, mailbox and actor with credit and fan-out, and back the gateway's route
//! into a session's outbox, encoded as it would be written. The floor are frames of the same bytes that a bare service
//! of the same connections, streams, windows and mTLS turns round, with nothing looked at. It is the least there is: one task at each end of a stream makes and takes
//! what here are a task for each peer, and nothing is handed from stream to peer, as every forwarder must. Both run in one process and
//! take all of its cores, so that what one event costs in CPU time says which rate is possible; unlike the rate itself
//! that does not depend on what else the computer does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use flydex_domain::id::{LinkId, SessionId};
use flydex_domain::limits::{EVENT_WINDOW_BYTES, NODE_STREAMS};
use flydex_domain::scope::MachineKey;
use flydex_gateway::forwarding::{Peer, Way};
use flydex_proto::codec::{decode_body, split_message};
use flydex_proto::v1::gateway_frame::Kind as ToNode;
use flydex_proto::v1::{self, connector_frame, link_down, owner_frame, session_down};
use flydex_store::directory::InProcessDirectory;
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::region::{GATEWAY, REGION, Region, machine_key, wire};

mod bare;

/// Which part of the floor's rate is asked for.
pub const SHARE_MIN: f64 = 0.6;
/// Sizes of one event's content, in bytes: a word, a coalesced delta, a long item.
const EVENT_BYTES: [usize; 3] = [256, 1024, 16 * 1024];
/// Machines, dealt out to accounts; each has one link and one session.
const MACHINES: u128 = 32;
const ACCOUNTS: u128 = 8;
/// Events of one machine under way, at most.
const IN_FLIGHT_MAX: usize = 16;
/// Stretches of each, by turns.
const TURNS: usize = 5;
/// Before a stretch counts.
const WARM_UP: Duration = Duration::from_millis(300);
/// Time for set-up and for what is under way at the end.
const PATIENCE: Duration = Duration::from_secs(10);

/// What one stretch was like.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// How many passed in a second.
    pub per_second: f64,
    /// CPU time of this process for each, in microseconds.
    pub cpu_us: f64,
}

/// A pace beside that of its floor.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// Content of one event, in bytes.
    pub event_bytes: usize,
    /// Events through gateway and node.
    pub real: Pace,
    /// Frames through bare tonic.
    pub floor: Pace,
}

impl Rate {
    /// Which part of the floor's rate is possible: how much less a frame of the floor costs.
    #[must_use]
    pub fn share(&self) -> f64 {
        self.floor.cpu_us / self.real.cpu_us
    }

    /// One line.
    #[must_use]
    pub fn line(&self) -> String {
        let pace = |pace: &Pace| {
            let megabytes = pace.per_second * self.event_bytes as f64 / 1e6;
            format!("{:>7.0}/s {megabytes:>6.1} MB/s {:>6.1} us of CPU", pace.per_second, pace.cpu_us)
        };
        let (bytes, real, floor) = (self.event_bytes, pace(&self.real), pace(&self.floor));
        let rate = self.real.per_second / self.floor.per_second * 100.0;
        let share = self.share() * 100.0;
        format!(
            "events of {bytes:>5} B, link to session {real}  | bare tonic {floor}  | {share:>3.0} % by CPU, {rate:>3.0} % \
             by rate"
        )
    }
}

/// Measures each size for `seconds`, in turns with its floor; each rate is the median of its turns.
///
/// # Errors
/// When a node does not take what a gateway says, or falls behind for good.
pub async fn run(seconds: f64) -> anyhow::Result<Vec<Rate>> {
    let region = Arc::new(Region::new()?);
    let node = region.node("node-1", Arc::new(InProcessDirectory::new())).await?;
    let hello = v1::GatewayHello { gateway_id: GATEWAY.to_owned(), region: REGION.to_owned() };
    let dialling = region.clone();
    let dial = move |node: &_| dialling.dial(node).map_err(flydex_gateway::DialError::new);
    let way = Way::to(&node, &dial, hello, region.shutdown.clone()).context("dial the node")?;
    let mut pairs = Vec::new();
    for number in 1..=MACHINES {
        let machine = machine_key(number % ACCOUNTS + 1, number);
        let pair = tokio::time::timeout(PATIENCE, Pair::open(&region, &way, machine)).await;
        pairs.push(Arc::new(pair.context("the node does not answer")??));
    }
    let bare = bare::Bare::start(&region).await?;

    let turn = Duration::from_secs_f64(seconds / TURNS as f64);
    let mut rates = Vec::new();
    for event_bytes in EVENT_BYTES {
        let in_flight = IN_FLIGHT_MAX.min(EVENT_WINDOW_BYTES as usize / 2 / event_bytes);
        let (mut real, mut floor) = (Vec::new(), Vec::new());
        for _ in 0..TURNS {
            floor.push(bare.turn(event_bytes, in_flight * MACHINES as usize / NODE_STREAMS, turn).await?);
            real.push(forward(&pairs, event_bytes, in_flight, turn).await?);
        }
        rates.push(Rate { event_bytes, real: median(&real), floor: median(&floor) });
    }
    region.shutdown.drain(PATIENCE).await;
    Ok(rates)
}

fn median(paces: &[Pace]) -> Pace {
    let middle = |of: fn(&Pace) -> f64| {
        let mut all: Vec<f64> = paces.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    Pace { per_second: middle(|pace| pace.per_second), cpu_us: middle(|pace| pace.cpu_us) }
}

/// CPU time of this process, to a hundredth of a second; nothing where the system does not say.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Behind the name of the program, which may hold anything, in parentheses: 11 fields, then user and system time.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().skip(11).take(2);
    Duration::from_millis(fields.filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>() * 10)
}

/// What one stretch shares.
struct Turn {
    runs: AtomicBool,
    passed: AtomicU64,
}

impl Turn {
    fn begin() -> Arc<Self> {
        Arc::new(Self { runs: AtomicBool::new(true), passed: AtomicU64::new(0) })
    }

    fn runs(&self) -> bool {
        self.runs.load(Ordering::Relaxed)
    }

    fn count(&self) {
        self.passed.fetch_add(1, Ordering::Relaxed);
    }

    /// How it goes once it is warm; then it ends.
    async fn measure(&self, length: Duration) -> Pace {
        tokio::time::sleep(WARM_UP).await;
        let look = || (tokio::time::Instant::now(), cpu_time(), self.passed.load(Ordering::Relaxed));
        let (since, cpu_before, before) = look();
        tokio::time::sleep(length).await;
        let (until, cpu_after, after) = look();
        self.runs.store(false, Ordering::Relaxed);
        let passed = (after - before).max(1) as f64;
        let cpu = cpu_after.saturating_sub(cpu_before);
        Pace { per_second: passed / (until - since).as_secs_f64(), cpu_us: cpu.as_secs_f64() * 1e6 / passed }
    }
}

async fn forward(pairs: &[Arc<Pair>], event_bytes: usize, in_flight: usize, length: Duration) -> anyhow::Result<Pace> {
    let turn = Turn::begin();
    let tasks: Vec<_> = pairs
        .iter()
        .map(|pair| tokio::spawn(pair.clone().turn(turn.clone(), Bytes::from(vec![7; event_bytes]), in_flight)))
        .collect();
    let rate = turn.measure(length).await;
    for task in tasks {
        tokio::time::timeout(PATIENCE, task).await.context("an event was lost")???;
    }
    Ok(rate)
}

/// The link of a machine, and a session that watches it.
struct Pair {
    link: Peer,
    session: Peer,
    link_id: Bytes,
    session_id: Bytes,
    epoch: v1::Epoch,
    seq: AtomicU64,
}

impl Pair {
    async fn open(region: &Region, way: &Way, machine: MachineKey) -> anyhow::Result<Self> {
        let (link_id, session_id) = (Uuid::new_v4(), Uuid::new_v4());
        let link = way.link(machine, LinkId::from_uuid(link_id)).await.context("no stream")?;
        let link_id = wire(link_id.as_bytes());
        let boot_id = wire(&[1; 16]);
        let open = v1::OpenLink {
            link_id: link_id.clone(),
            credential: region.credential(machine),
            link_counter: 1,
            boot_id: boot_id.clone(),
            transport: v1::Transport::Websocket.into(),
            connector_version: "bench".to_owned(),
            channel_bound: true,
            replacing: Bytes::new(),
        };
        send(&link, ToNode::OpenLink(open)).await?;
        let epoch = attached(&link).await?;
        let (grant, token) = region.grant(machine);
        let session = way.session(machine, SessionId::from_uuid(session_id), &grant).await.context("no stream")?;
        let session_id = wire(session_id.as_bytes());
        let pair = Self { link, session, link_id, session_id, epoch, seq: AtomicU64::new(0) };
        let highest = Some(pair.epoch.clone());
        let link_frame =
            v1::ConnectorFrame { epoch: None, kind: Some(connector_frame::Kind::Attached(v1::Attached { highest })) };
        send(&pair.link, pair.link_message(link_frame)).await?;
        let session_id = pair.session_id.clone();
        let open = v1::OpenSession { session_id, grant: token, replacing: Bytes::new() };
        send(&pair.session, ToNode::OpenSession(open)).await?;
        // The machine is linked, which the session hears with its status.
        pair.next_message(
            |kind| matches!(kind, v1::machine_message::Kind::Status(status) if !status.boot_id.is_empty()),
        )
        .await?;
        let verdict = v1::StreamVerdict {
            command_id: wire(&[9; 16]),
            stream_id: 0,
            boot_id,
            verdict: Some(v1::stream_verdict::Verdict::ResumedFrom(0)),
        };
        let device_id = wire(grant.device_key.0.device_id().as_bytes());
        let subscribed = v1::Subscribed { session_id: pair.session_id.clone(), device_id, verdict: Some(verdict) };
        send(&pair.link, pair.frame(connector_frame::Kind::Subscribed(subscribed))).await?;
        pair.next_message(|kind| matches!(kind, v1::machine_message::Kind::Verdict(_))).await?;
        Ok(pair)
    }

    fn frame(&self, kind: connector_frame::Kind) -> ToNode {
        self.link_message(v1::ConnectorFrame { epoch: Some(self.epoch.clone()), kind: Some(kind) })
    }

    fn link_message(&self, frame: v1::ConnectorFrame) -> ToNode {
        ToNode::LinkMessage(v1::LinkMessage { link_id: self.link_id.clone(), frame: Some(frame) })
    }

    /// Reads the session's frames until one fits.
    async fn next_message(&self, fits: impl Fn(&v1::machine_message::Kind) -> bool) -> anyhow::Result<()> {
        loop {
            let (_, body) = split_message(self.session.next().await.context("the session ended")?)?;
            match decode_body::<v1::SessionDown>(body)?.kind {
                Some(session_down::Kind::FromMachine(from)) => {
                    if from.message.and_then(|message| message.kind).is_some_and(|kind| fits(&kind)) {
                        return Ok(());
                    }
                }
                Some(session_down::Kind::MachineClosed(closed)) => bail!("the machine closed with {}", closed.code),
                Some(_) | None => {}
            }
        }
    }

    /// Sends events for as long as the turn runs, and takes each at the other end.
    async fn turn(self: Arc<Self>, turn: Arc<Turn>, body: Bytes, in_flight: usize) -> anyhow::Result<()> {
        let room = Arc::new(Semaphore::new(in_flight));
        let (pair, giving, to_send) = (self.clone(), turn.clone(), room.clone());
        let event_bytes = body.len();
        let mut sender = tokio::spawn(async move {
            let mut sent = 0_u64;
            while giving.runs() {
                to_send.acquire().await?.forget();
                let seq = pair.seq.fetch_add(1, Ordering::Relaxed) + 1;
                let event = v1::Event { stream_id: 0, seq, body: body.clone() };
                send(&pair.link, pair.frame(connector_frame::Kind::SharedEvent(event))).await?;
                sent += 1;
            }
            anyhow::Ok(sent)
        });
        let (mut sent, mut taken, mut uncredited) = (None, 0_u64, 0);
        while sent.is_none_or(|sent| taken < sent) {
            let frame = tokio::select! {
                frame = self.session.next() => frame.context("the session ended")?,
                ended = &mut sender, if sent.is_none() => {
                    sent = Some(ended??);
                    continue;
                }
            };
            // The writer of a socket takes a frame as it is; only the bench asks what it is, by its size.
            if frame.len() < event_bytes {
                continue;
            }
            taken += 1;
            turn.count();
            room.add_permits(1);
            uncredited += event_bytes;
            if uncredited >= EVENT_WINDOW_BYTES as usize / 4 {
                self.credit(uncredited).await?;
                uncredited = 0;
            }
        }
        self.credit(uncredited).await
    }

    async fn credit(&self, bytes: usize) -> anyhow::Result<()> {
        let credit = v1::EventCredit { bytes: u32::try_from(bytes)? };
        let message = v1::DeviceMessage { trace: None, kind: Some(v1::device_message::Kind::EventCredit(credit)) };
        let message = v1::SessionMessage { session_id: self.session_id.clone(), message: Some(message) };
        send(&self.session, ToNode::SessionMessage(message)).await
    }
}

async fn send(peer: &Peer, kind: ToNode) -> anyhow::Result<()> {
    peer.send(kind).await.map_err(|code| anyhow::anyhow!("not sent: {code}"))
}

/// Waits until the owner asks to attach.
async fn attached(link: &Peer) -> anyhow::Result<v1::Epoch> {
    loop {
        let (_, body) = split_message(link.next().await.context("the link ended")?)?;
        if let Some(link_down::Kind::Frame(frame)) = decode_body::<v1::LinkDown>(body)?.kind
            && matches!(frame.kind, Some(owner_frame::Kind::Attach(_)))
        {
            return frame.epoch.context("an attach without an epoch");
        }
    }
}
