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
use flydex_domain::id::{BootId, CommandHash, CommandId};
use flydex_domain::limits::{PEER_SILENCE_MAX, PING_INTERVAL};
use flydex_proto::codec::Lane;
use flydex_proto::v1::{self, session_up};
use futures_util::StreamExt as _;
use futures_util::future::{BoxFuture, OptionFuture};
use tokio::sync::{mpsc, watch};

use crate::account::{Account, PairedMachine};
use crate::device::Device;
use crate::line::Line;
use crate::run::World;
use crate::schedule::{Ask, Due};

mod approvals;
mod commands;
mod connection;
mod incoming;

use approvals::{Answering, Approvals};
use connection::{Connection, send};

/// Wait before a session is opened again, as the web app's; doubled with each failure in a row.
const RECONNECT_MIN: Duration = Duration::from_millis(250);
/// Longest wait before a session is opened again, as the web app's.
const RECONNECT_MAX: Duration = Duration::from_secs(30);
/// A session that lived this long starts its next reconnect from the shortest wait, as the web app's.
const STABLE_AFTER: Duration = Duration::from_secs(10);
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
    /// Its number at the machine.
    pub(crate) number: usize,
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
    /// Until when it reads nothing.
    pub(crate) slow_until: watch::Receiver<Option<Instant>>,
    /// Its network, where it has one of its own.
    pub(crate) line: Option<Arc<Line>>,
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
    /// What it answers, where it is an answer.
    answer: Option<Answering>,
}

/// What a command is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    /// The machine is to admit this session.
    Attach,
    /// The thread is to be followed.
    Watch,
    /// An approval was shown.
    Answer,
    /// The schedule wanted it.
    Load(Ask),
}

impl Asked {
    const fn new(wire: v1::Command, hash: CommandHash, due: Due, what: What) -> Self {
        let (cursor_seq, half_done, delivered, bulk_left) = (0, false, false, None);
        Self { wire, hash, due, what, cursor_seq, half_done, delivered, bulk_left, again_at: None, answer: None }
    }

    /// A verdict comes besides the receipt.
    const fn subscribes(&self) -> bool {
        match self.what {
            What::Attach | What::Watch => true,
            What::Answer | What::Load(_) => false,
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
    approvals: Approvals,
    /// The cursors of attaches and watches of this socket that are not waited for any more: their verdict may yet come.
    given_up: BTreeMap<CommandId, u64>,
    /// The machine's stream and the thread's, once they were begun.
    machine_stream: Option<Cursor>,
    thread_stream: Option<Cursor>,
    /// The life of the machine's connector that was heard of last.
    boot_id: Option<BootId>,
    /// Since when it is not usable.
    lost_at: Option<Instant>,
    /// When the socket opened on which it is to become usable.
    socket_at: Option<Instant>,
    /// It was usable once.
    was_usable: bool,
}

impl Phone {
    /// Keeps a session open until the run ends.
    pub(crate) async fn run(self) {
        let (shutdown, mut cut) = (self.world.shutdown.soft(), self.cut.clone());
        let lost_at = Some(self.world.clock.instant());
        let mut life = Life {
            phone: self,
            asked: BTreeMap::new(),
            approvals: Approvals::new(),
            given_up: BTreeMap::new(),
            machine_stream: None,
            thread_stream: None,
            boot_id: None,
            lost_at,
            socket_at: None,
            was_usable: false,
        };
        let mut failures = 0_u32;
        loop {
            let since = life.world().clock.instant();
            let served = tokio::select! {
                biased; // the stop comes first
                () = shutdown.cancelled() => return,
                Ok(()) = cut.changed() => Ok(()),
                served = Box::pin(life.session()) => served,
            };
            life.lost();
            if let Err(error) = served {
                life.count(&format!("session lost: {error}"));
            }
            if life.world().clock.instant().saturating_duration_since(since) > STABLE_AFTER {
                failures = 0;
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(backoff(failures)) => {}
            }
            failures += 1;
        }
    }
}

fn connect(phone: &Phone, eager: bool) -> impl Future<Output = anyhow::Result<Connection>> + Send + 'static {
    let opening = tokio::time::timeout(HANDSHAKE_MAX, Connection::open(phone, eager));
    async move { opening.await.context("the handshake took too long")? }
}

fn backoff(failures: u32) -> Duration {
    let wait = RECONNECT_MIN.saturating_mul(1 << failures.min(16)).min(RECONNECT_MAX);
    wait.mul_f64(0.5 + rand::random::<f64>() / 2.0)
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
            let socket_at = self.socket_at.take();
            let world = self.world();
            if self.was_usable {
                world.gap("session", lost_at, now);
                if let Some(socket_at) = socket_at {
                    let took = now.saturating_duration_since(socket_at);
                    world.figures.time(world.phase_at(lost_at), "socket to live", took);
                }
            } else {
                world.figures.time(world.phase_at(lost_at), "session opened", now.saturating_duration_since(lost_at));
            }
            self.was_usable = true;
        } else if !usable {
            self.lost_at.get_or_insert(now);
        }
        self.tell_standing();
    }

    fn tell_standing(&self) {
        let open = self.asked.values().filter(|asked| !asked.subscribes()).count() + self.approvals.waiting();
        self.phone.standing.send_replace(Standing { usable: self.lost_at.is_none(), open });
    }

    /// One socket from its opening to its end, and those that take its place.
    async fn session(&mut self) -> anyhow::Result<()> {
        let mut connection = connect(&self.phone, true).await?;
        loop {
            self.begin(&mut connection).await?;
            let mut next = None;
            connection = match self.serve(&mut connection, &mut next).await {
                Ok(opened) => opened,
                Err(error) => {
                    // The one that takes its place is on its way already.
                    let opening = next.ok_or(error)?;
                    self.lost();
                    opening.await?
                }
            };
            self.lost();
        }
    }

    /// Serves one socket until another takes its place, as the gateway asked.
    async fn serve(
        &mut self,
        connection: &mut Connection,
        next: &mut Option<BoxFuture<'static, anyhow::Result<Connection>>>,
    ) -> anyhow::Result<Connection> {
        loop {
            let slow_until = *self.phone.slow_until.borrow_and_update();
            let slow_until = slow_until.filter(|until| *until > self.world().clock.instant());
            if let Some(until) = slow_until {
                // It would not have noticed a silence.
                connection.heard_at = until;
            }
            let wake_at = self.wake_at(connection).min(slow_until.unwrap_or(connection.ping_at));
            tokio::select! {
                Ok(()) = self.phone.slow_until.changed() => {}
                message = connection.socket.next(), if slow_until.is_none() => {
                    let message = message.context("the socket closed")??;
                    connection.heard_at = self.world().clock.instant();
                    if let Some(kind) = connection::down(message)? {
                        self.take(connection, kind).await?;
                        self.answer(connection).await?;
                        self.admit(connection).await?;
                    }
                }
                Some(recorded) = self.approvals.recorded.recv() => self.accept(connection, recorded).await?,
                Some(due) = self.phone.due.recv(), if self.lost_at.is_none() => self.ask(connection, due).await?,
                () = tokio::time::sleep_until(wake_at.into()) => {
                    self.wake(connection).await?;
                    if connection.leaves(self.world().clock.instant()) {
                        *next = Some(Box::pin(connect(&self.phone, false)));
                    }
                }
                Some(opened) = OptionFuture::from(next.as_mut()) => {
                    *next = None;
                    match opened {
                        Ok(opened) => return Ok(opened),
                        Err(_) => connection.stays_until(self.world().clock.instant() + backoff(0)),
                    }
                }
            }
        }
    }

    /// A new socket serves. The machine was opened with the proof already; it most likely still lives the life that
    /// this device knows, so it is asked to admit the session without a wait for its status.
    async fn begin(&mut self, connection: &mut Connection) -> anyhow::Result<()> {
        self.forget_reads();
        self.socket_at = Some(connection.opened_at);
        connection.boot_id = self.boot_id;
        self.admit(connection).await
    }

    async fn open_machine(&mut self, connection: &mut Connection) -> anyhow::Result<()> {
        connection.open_at = None;
        connection.boot_id = None;
        let open = v1::OpenMachine { machine_id: self.machine_id() };
        send(&mut connection.socket, Lane::Control, session_up::Kind::Open(open)).await
    }

    /// Waits no more for the attaches and watches that `is_over` names.
    fn give_up(&mut self, is_over: impl Fn(&Asked) -> bool) {
        let over = self.asked.extract_if(.., |_, asked| asked.subscribes() && is_over(asked));
        self.given_up.extend(over.map(|(id, asked)| (id, asked.cursor_seq)));
    }

    fn machine_id(&self) -> Bytes {
        Bytes::copy_from_slice(self.phone.machine.machine_id.as_bytes())
    }

    /// When something is next due by time alone.
    fn wake_at(&self, connection: &Connection) -> Instant {
        let subscribed = |asked: &Asked| asked.subscribes().then(|| asked.due.intended + SUBSCRIBE_MAX);
        let listens = connection.boot_id.is_some();
        let again = |asked: &Asked| asked.again_at.filter(|_| self.may_ask_again(asked) && listens);
        let of_commands = self.asked.values().flat_map(|asked| [subscribed(asked), again(asked)]).flatten();
        let others = [connection.open_at, connection.leave_at.filter(|_| !connection.is_left)].into_iter().flatten();
        let silent_at = connection.heard_at + PEER_SILENCE_MAX;
        of_commands.chain(others).fold(silent_at.min(connection.ping_at), Instant::min)
    }

    /// Does what is due by time alone.
    async fn wake(&mut self, connection: &mut Connection) -> anyhow::Result<()> {
        let now = self.world().clock.instant();
        if now.saturating_duration_since(connection.heard_at) >= PEER_SILENCE_MAX {
            bail!("the gateway was silent");
        }
        if now >= connection.ping_at {
            connection.ping_at = now + PING_INTERVAL;
            send(&mut connection.socket, Lane::Control, session_up::Kind::Ping(v1::Ping { nonce: 1 })).await?;
        }
        if connection.open_at.is_some_and(|at| now >= at) {
            self.open_machine(connection).await?;
        }
        // The other half went down with an owner.
        let is_stuck = |asked: &Asked| now.saturating_duration_since(asked.due.intended) >= SUBSCRIBE_MAX;
        self.give_up(is_stuck);
        self.ask_again(connection, now).await?;
        self.admit(connection).await
    }
}

fn code_name(number: u32) -> &'static str {
    flydex_domain::error::ErrorCode::from_number(number).map_or("an unknown code", |code| code.name())
}
