//! Sessions: each a device that keeps a socket open, watches a thread, and asks when its schedule says so.
//!
//! A phone behaves as the web app does. A command is kept until the machine's signed word on it; after a break an
//! effect is asked for again with the same bytes, and a read anew, since it belongs to its session. Streams are
//! resumed by cursor.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use flydex_domain::id::{BootId, CommandHash, CommandId, SessionId};
use flydex_domain::key::sign;
use flydex_domain::limits::{PEER_SILENCE_MAX, PING_INTERVAL};
use flydex_domain::proof;
use flydex_proto::codec::{Lane, VERSION, VERSION_MIN, decode_body, encode_message, split_message};
use flydex_proto::v1::{self, session_down, session_up};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::sync::{mpsc, watch};
use tokio_tungstenite::tungstenite::Message;

use crate::account::{Account, PairedMachine};
use crate::device::Device;
use crate::dial::{self, Socket};
use crate::run::World;
use crate::schedule::{Ask, Due};

mod commands;
mod incoming;

/// How often a phone looks whether something is to be asked again.
const TICK: Duration = Duration::from_millis(20);
/// Wait before a session is opened again; doubled with each failure in a row.
const RECONNECT_MIN: Duration = Duration::from_millis(50);
/// Longest wait before a session is opened again.
const RECONNECT_MAX: Duration = Duration::from_secs(2);
/// Time that an attach or a watch has to give both its receipt and its verdict, before it is asked anew.
const SUBSCRIBE_MAX: Duration = Duration::from_secs(5);
/// Time that a handshake may take.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// What a phone is given.
pub(crate) struct Phone {
    /// The run.
    pub(crate) world: Arc<World>,
    /// Who it is signed in as.
    pub(crate) account: Account,
    /// Its key.
    pub(crate) device: Arc<Device>,
    /// The machine that it is paired with.
    pub(crate) machine: PairedMachine,
    /// Where sessions are opened.
    pub(crate) entrance: Entrance,
    /// Which thread it watches.
    pub(crate) thread_id: String,
    /// What it asks, and when.
    pub(crate) due: mpsc::Receiver<Due>,
    /// Counted up to break its socket.
    pub(crate) cut: watch::Receiver<u64>,
    /// How it stands.
    pub(crate) standing: watch::Sender<Standing>,
}

/// Where sessions are opened.
#[derive(Clone)]
pub(crate) struct Entrance {
    pub(crate) region: String,
    pub(crate) url: String,
    pub(crate) tls: Arc<rustls::ClientConfig>,
}

/// How a phone stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// The machine admitted it, and it watches its thread.
    pub(crate) usable: bool,
    /// Commands without a final word.
    pub(crate) open: usize,
}

impl Standing {
    /// Nothing is left to wait for.
    pub(crate) const fn is_settled(&self) -> bool {
        self.usable && self.open == 0
    }
}

/// A command on its way.
struct Asked {
    wire: v1::Command,
    hash: CommandHash,
    due: Due,
    what: What,
    /// The number after which an attach or a watch resumes.
    cursor_seq: u64,
    /// Of an attach or a watch: its receipt or its verdict has come.
    half_done: bool,
    /// Its device was told that the machine has it.
    delivered: bool,
    /// The pieces of its answer that are still to come.
    bulk_left: Option<u32>,
    /// When to send it again, after a failure on the way.
    again_at: Option<Instant>,
}

/// What a command is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    /// The machine is to admit this session.
    Attach,
    /// The thread is to be followed.
    Watch,
    /// The schedule wanted it.
    Load(Ask),
}

impl Asked {
    /// A verdict comes besides the receipt.
    const fn subscribes(&self) -> bool {
        match self.what {
            What::Attach | What::Watch => true,
            What::Load(_) => false,
        }
    }
}

/// A stream as far as it was seen.
#[derive(Clone)]
struct Cursor {
    stream_id: u32,
    boot_id: Bytes,
    seq: u64,
    live: bool,
}

/// What outlives a socket.
struct Life {
    phone: Phone,
    asked: BTreeMap<CommandId, Asked>,
    /// The machine's stream and the thread's, once they were begun.
    machine_stream: Option<Cursor>,
    thread_stream: Option<Cursor>,
    /// Since when it is not usable.
    lost_at: Option<Instant>,
    /// It was usable once.
    was_usable: bool,
}

/// What ends with a socket.
struct Connection {
    socket: Socket,
    session_id: SessionId,
    boot_id: Option<BootId>,
    /// When the machine is to be opened again after it was closed.
    open_at: Option<Instant>,
    /// When to go elsewhere, as the gateway asked.
    leave_at: Option<Instant>,
    heard_at: Instant,
    ping_at: Instant,
}

impl Phone {
    /// Keeps a session open until the run ends.
    pub(crate) async fn run(self) {
        let (shutdown, mut cut) = (self.world.shutdown.soft(), self.cut.clone());
        let lost_at = Some(self.world.clock.instant());
        let mut life = Life {
            phone: self,
            asked: BTreeMap::new(),
            machine_stream: None,
            thread_stream: None,
            lost_at,
            was_usable: false,
        };
        let mut failures = 0_u32;
        loop {
            let served = tokio::select! {
                biased; // the stop comes first
                () = shutdown.cancelled() => return,
                Ok(()) = cut.changed() => Ok(()),
                served = Box::pin(life.session(&mut failures)) => served,
            };
            life.lost();
            if let Err(error) = served {
                life.count(&format!("session lost: {error}"));
            }
            let wait = RECONNECT_MIN.saturating_mul(1 << failures.min(6)).min(RECONNECT_MAX);
            failures += 1;
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(wait.mul_f64(0.5 + rand::random::<f64>() / 2.0)) => {}
            }
        }
    }
}

impl Life {
    fn world(&self) -> &World {
        &self.phone.world
    }

    fn count(&self, what: &str) {
        let world = self.world();
        world.figures.count(world.phase_at(world.clock.instant()), what);
    }

    /// What was live is not any more.
    fn lost(&mut self) {
        let now = self.world().clock.instant();
        self.lost_at.get_or_insert(now);
        for stream in [&mut self.machine_stream, &mut self.thread_stream].into_iter().flatten() {
            stream.live = false;
        }
        self.tell_standing();
    }

    /// Looks whether the session has become usable.
    fn settle(&mut self) {
        let live = |stream: &Option<Cursor>| stream.as_ref().is_some_and(|stream| stream.live);
        let usable = live(&self.machine_stream) && live(&self.thread_stream);
        let now = self.world().clock.instant();
        if usable && let Some(lost_at) = self.lost_at.take() {
            let kind = if self.was_usable { "session gap" } else { "session opened" };
            let world = self.world();
            world.figures.time(world.phase_at(lost_at), kind, now.saturating_duration_since(lost_at));
            self.was_usable = true;
        } else if !usable {
            self.lost_at.get_or_insert(now);
        }
        self.tell_standing();
    }

    fn tell_standing(&self) {
        let open = self.asked.values().filter(|asked| matches!(asked.what, What::Load(_))).count();
        self.phone.standing.send_replace(Standing { usable: self.lost_at.is_none(), open });
    }

    /// One socket from its opening to its end.
    async fn session(&mut self, failures: &mut u32) -> anyhow::Result<()> {
        let opened = tokio::time::timeout(HANDSHAKE_MAX, self.open()).await;
        let mut connection = opened.context("the handshake took too long")??;
        *failures = 0;
        self.forget_reads();
        self.open_machine(&mut connection).await?;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                message = connection.socket.next() => {
                    let message = message.context("the socket closed")??;
                    connection.heard_at = self.world().clock.instant();
                    match message {
                        Message::Binary(bytes) => {
                            let (_, body) = split_message(bytes)?;
                            let down: v1::SessionDown = decode_body(body)?;
                            self.take(&mut connection, down.kind.context("an empty message came")?).await?;
                        }
                        Message::Close(_) => bail!("the socket closed"),
                        Message::Text(_) => bail!("a text message came"),
                        Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
                    }
                }
                Some(due) = self.phone.due.recv(), if self.lost_at.is_none() => self.ask(&mut connection, due).await?,
                _ = tick.tick() => self.tick(&mut connection).await?,
            }
        }
    }

    async fn open(&self) -> anyhow::Result<Connection> {
        let Phone { account, device, entrance, world, .. } = &self.phone;
        let (ticket, grant) = account.ticket(device, &entrance.region).await.context("no ticket")?;
        let mut socket = dial::session(&entrance.url, account.origin(), &entrance.tls).await?;
        let hello = v1::SessionHello {
            version: VERSION,
            version_min: VERSION_MIN,
            capabilities: Vec::new(),
            ticket: ticket.clone(),
            grant,
            device_key: Some(device.public_key().into()),
            client: "loadtest".to_owned(),
        };
        send(&mut socket, Lane::Control, session_up::Kind::Hello(hello)).await?;
        let session_down::Kind::Challenge(challenge) = receive(&mut socket).await? else { bail!("no challenge came") };
        let nonce = challenge.nonce.as_ref().try_into().context("the nonce is not 32 bytes")?;
        let transcript = proof::session(nonce, &ticket, &challenge.gateway_id, account.origin());
        let signature = Bytes::copy_from_slice(&sign(device.key(), transcript));
        send(&mut socket, Lane::Control, session_up::Kind::Proof(v1::SessionProof { signature })).await?;
        let session_down::Kind::Welcome(welcome) = receive(&mut socket).await? else { bail!("no welcome came") };
        let session_id = welcome.session_id.as_ref().try_into()?;
        let now = world.clock.instant();
        Ok(Connection {
            socket,
            session_id,
            boot_id: None,
            open_at: None,
            leave_at: None,
            heard_at: now,
            ping_at: now + PING_INTERVAL,
        })
    }

    async fn open_machine(&mut self, connection: &mut Connection) -> anyhow::Result<()> {
        connection.open_at = None;
        connection.boot_id = None;
        let open = v1::OpenMachine { machine_id: self.machine_id() };
        send(&mut connection.socket, Lane::Control, session_up::Kind::Open(open)).await
    }

    fn machine_id(&self) -> Bytes {
        Bytes::copy_from_slice(self.phone.machine.machine_id.as_bytes())
    }

    /// Does what is due by time alone.
    async fn tick(&mut self, connection: &mut Connection) -> anyhow::Result<()> {
        let now = self.world().clock.instant();
        if now.saturating_duration_since(connection.heard_at) > PEER_SILENCE_MAX {
            bail!("the gateway was silent");
        }
        if connection.leave_at.is_some_and(|at| now >= at) {
            bail!("the gateway goes away");
        }
        if now >= connection.ping_at {
            connection.ping_at = now + PING_INTERVAL;
            send(&mut connection.socket, Lane::Control, session_up::Kind::Ping(v1::Ping { nonce: 1 })).await?;
        }
        if connection.open_at.is_some_and(|at| now >= at) {
            self.open_machine(connection).await?;
        }
        // The other half went down with an owner.
        let is_stuck = |asked: &Asked| now.saturating_duration_since(asked.due.intended) > SUBSCRIBE_MAX;
        self.asked.retain(|_, asked| !(asked.subscribes() && is_stuck(asked)));
        self.ask_again(connection, now).await?;
        self.admit(connection).await
    }
}

/// Sends one message on a lane.
async fn send(socket: &mut Socket, lane: Lane, kind: session_up::Kind) -> anyhow::Result<()> {
    let frame = encode_message(lane, &v1::SessionUp { kind: Some(kind) })?;
    Ok(socket.send(Message::Binary(frame)).await?)
}

/// The next message of a handshake.
async fn receive(socket: &mut Socket) -> anyhow::Result<session_down::Kind> {
    loop {
        match socket.next().await.context("the socket closed")?? {
            Message::Binary(bytes) => {
                let (_, body) = split_message(bytes)?;
                let down: v1::SessionDown = decode_body(body)?;
                if let Some(session_down::Kind::End(end)) = &down.kind {
                    bail!("the session ended with {}", code_name(end.code));
                }
                return down.kind.context("an empty message came");
            }
            Message::Close(_) => bail!("the socket closed"),
            Message::Text(_) => bail!("a text message came"),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
        }
    }
}

fn code_name(number: u32) -> &'static str {
    flydex_domain::error::ErrorCode::from_number(number).map_or("an unknown code", |code| code.name())
}
