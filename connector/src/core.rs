//! The core: one task owns the machine's state and performs what the gate rules.
//!
//! ```text
//! link ─► LinkEvent ─► owner.rs ─► command.rs ─► gate ─► journal ─► Codex ─► Done ─► receipt.rs ─► outbox
//! codex ─► CodexEvent ─► watch.rs, approvals.rs, questions.rs ─► rings ─► outbox
//! ```
//!
//! Nothing here waits for Codex, the journal or a link: work is handed to tasks and comes back as [`Done`] or
//! [`Written`]. The two exceptions are the fence and the device list, which change rarely and are made durable
//! before anything else is looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use flydex_domain::command::Outcome;
use flydex_domain::device::DeviceList;
use flydex_domain::epoch::Epoch;
use flydex_domain::error::ErrorCode;
use flydex_domain::id::{ApprovalId, BootId, DeviceId, SessionId};
use flydex_domain::journal::{Journal, Key};
use flydex_domain::limits::{
    CODEX_ASKS_MAX, CORE_QUEUE_MAX, CORE_TICK, JOURNAL_BYTES_MAX, JOURNAL_EVICT_INTERVAL, JOURNAL_RETRY_AFTER,
    MACHINE_COMMANDS_IN_FLIGHT_MAX,
};
use flydex_domain::stream::{Position, Rings, StreamId};
use flydex_domain::time::UnixMillis;
use flydex_proto::v1;
use flydex_runtime::clock::Clock;
use flydex_runtime::lifecycle::Shutdown;
use tokio::sync::{mpsc, watch as channel};

use crate::codex::{
    AnswerOutcome, CodexEvent, CodexHandle, CodexStatus, Refused, Resolution, ThreadId, TurnId, WatchId,
};
use crate::epoch::Fence;
use crate::journal::{JournalWriter, Write, WriteToken, Written};
use crate::outbox::Outbox;
use crate::paired::{CoreStatus, DeskPolicy, DeskRequest, Entropy, LinkStatus, PairedState, Transport};
use crate::spool::Spool;
use crate::storage::Storage;

mod approvals;
mod audit;
mod bulk;
mod command;
mod config;
mod desk;
mod owner;
pub mod port;
mod questions;
mod reads;
mod receipt;
mod trace;
mod watch;

pub use config::CoreConfig;

use approvals::Approvals;
use bulk::Bulk;
use command::Act;
use owner::WaitingLink;
use port::CodexPort;
use questions::Questions;
use reads::Reads;
use receipt::{Answer, Asked};
use watch::{Followed, PendingWatch, WatchAsk};

/// Why the core cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] crate::journal::OpenError),
    /// The device list cannot be read, or is not what was written: a guess could obey a removed device.
    #[error("open the device list")]
    Devices(#[source] io::Error),
}

/// Runs the core and its links until the process stops.
///
/// # Errors
/// Each [`Error`], before anything has begun.
pub async fn run(
    config: CoreConfig,
    codex: CodexHandle,
    events: mpsc::Receiver<CodexEvent>,
    clock: Clock,
    shutdown: Shutdown,
) -> Result<(), Error> {
    let (links_tx, links) = mpsc::channel(CORE_QUEUE_MAX);
    let link_config = crate::link::Config::of(&config);
    let core = Core::new(config, codex, clock.clone(), shutdown.clone())?;
    crate::link::start(link_config, links_tx, clock, &shutdown);
    core.serve(events, links).await;
    Ok(())
}

/// Runs the core on links that the caller brings.
///
/// # Errors
/// Each [`Error`], before anything has begun.
pub async fn run_with_links<P: CodexPort>(
    config: CoreConfig,
    codex: P,
    events: mpsc::Receiver<CodexEvent>,
    links: mpsc::Receiver<LinkEvent>,
    clock: Clock,
    shutdown: Shutdown,
) -> Result<(), Error> {
    Core::new(config, codex, clock, shutdown)?.serve(events, links).await;
    Ok(())
}

/// Names a link within this life of the connector.
pub type LinkNumber = u64;

/// What links bring.
#[expect(clippy::large_enum_variant, reason = "events are moved once, from a link to the core")]
pub enum LinkEvent {
    /// A link is open.
    Up {
        /// Which.
        link: LinkNumber,
        /// Its outgoing queue.
        outbox: Outbox,
        /// What carries it.
        transport: Transport,
    },
    /// A frame of an owner.
    Frame {
        /// Over which link.
        link: LinkNumber,
        /// The frame.
        frame: v1::OwnerFrame,
    },
    /// A link has ended, or none could be opened.
    Down {
        /// Which.
        link: LinkNumber,
        /// Why.
        code: Option<ErrorCode>,
    },
}

/// The link over which the owner has attached.
struct ActiveLink {
    number: LinkNumber,
    outbox: Outbox,
    transport: Transport,
    epoch: Epoch,
}

/// A session that the machine admitted.
struct Session {
    device_id: DeviceId,
    streams: BTreeSet<StreamId>,
}

/// A command between the gate and its receipt.
struct InFlight {
    asked: Asked,
    as_of: Option<Position>,
    /// The command's, open until its outcome is known.
    _span: tracing::Span,
}

impl InFlight {
    fn new(asked: Asked, as_of: Option<Position>) -> Self {
        Self { asked, as_of, _span: tracing::Span::current() }
    }
}

/// What goes on when a record is durable.
enum Waiting {
    Begin { asked: Asked, only_stops: bool, act: Act },
    Settle { asked: Asked, outcome: Outcome, answer: Answer },
    Rewrite,
    Nobody,
}

/// What a task has done.
enum Done {
    Executed(Key, Result<flydex_agent_proto::v1::CommandResult, Refused>),
    WatchRefused(WatchId, Refused),
    ApprovalAnswered(Key, ApprovalId, AnswerOutcome),
    QuestionAnswered(Key, ApprovalId, AnswerOutcome),
    RecordedFirst(Asked, Box<Act>, bool),
    Proof(Key, Result<Option<TurnId>, Refused>),
}

/// The machine's state; owned by one task.
struct Core<P> {
    paired: PairedState,
    boot_id: BootId,
    connector_version: String,
    entropy: Entropy,
    clock: Clock,
    shutdown: Shutdown,
    port: P,
    codex: CodexStatus,
    policy: DeskPolicy,
    draining: bool,

    devices: DeviceList,
    device_storage: Arc<Mutex<Box<dyn Storage>>>,
    fence: Fence,
    spool: Spool,
    journal: Journal,
    journal_writable: bool,
    journal_retry_at: Option<Instant>,
    journal_evict_at: Instant,
    writer: JournalWriter,
    waiting: BTreeMap<WriteToken, Waiting>,
    numbers: u64,

    link: Option<ActiveLink>,
    waiting_links: BTreeMap<LinkNumber, WaitingLink>,
    link_status: LinkStatus,
    sessions: BTreeMap<SessionId, Session>,
    in_flight: BTreeMap<Key, InFlight>,
    reads: Reads,
    bulk: Bulk,
    rings: Rings,
    threads: BTreeMap<ThreadId, Followed>,
    pending_watches: BTreeMap<WatchId, PendingWatch>,
    approvals: Approvals,
    questions: Questions,

    watch_tx: mpsc::Sender<WatchAsk>,
    done_tx: mpsc::Sender<Done>,
    done_rx: mpsc::Receiver<Done>,
    written_rx: mpsc::Receiver<Written>,
    desk: mpsc::Receiver<DeskRequest>,
    status: channel::Sender<Option<CoreStatus>>,
}

impl<P: CodexPort> Core<P> {
    fn new(mut config: CoreConfig, port: P, clock: Clock, shutdown: Shutdown) -> Result<Self, Error> {
        let journal = crate::journal::open(config.journal.as_mut())?;
        let devices = load_devices(config.devices.as_mut()).map_err(Error::Devices)?;
        let (done_tx, done_rx) = mpsc::channel(CORE_QUEUE_MAX);
        let (written_tx, written_rx) = mpsc::channel(CORE_QUEUE_MAX);
        let (watch_tx, watch_rx) = mpsc::channel(CODEX_ASKS_MAX);
        let writer = JournalWriter::start(config.journal, written_tx, &shutdown);
        shutdown.spawn(watch::run(port.clone(), watch_rx, done_tx.clone()));
        let policy = config.paired.policy.borrow().clone();
        Ok(Self {
            codex: port.current(),
            policy,
            draining: false,
            devices,
            device_storage: Arc::new(Mutex::new(config.devices)),
            fence: config.fence,
            spool: config.spool,
            journal,
            journal_writable: true,
            journal_retry_at: None,
            journal_evict_at: clock.instant(),
            writer,
            waiting: BTreeMap::new(),
            numbers: 0,
            link: None,
            waiting_links: BTreeMap::new(),
            link_status: LinkStatus::Down(None),
            sessions: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            reads: Reads::default(),
            bulk: Bulk::default(),
            rings: Rings::new(config.boot_id),
            threads: BTreeMap::new(),
            pending_watches: BTreeMap::new(),
            approvals: Approvals::default(),
            questions: Questions::default(),
            watch_tx,
            done_tx,
            done_rx,
            written_rx,
            desk: config.desk,
            status: config.status,
            paired: config.paired,
            boot_id: config.boot_id,
            connector_version: config.connector_version,
            entropy: config.entropy,
            clock,
            shutdown,
            port,
        })
    }

    async fn serve(mut self, mut events: mpsc::Receiver<CodexEvent>, mut links: mpsc::Receiver<LinkEvent>) {
        let (soft, hard) = (self.shutdown.soft(), self.shutdown.hard());
        let mut policy = self.paired.policy.clone();
        let mut tick = tokio::time::interval(CORE_TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.publish_status();
        loop {
            let bulk_taken = self.bulk_taken();
            tokio::select! {
                // What ends waits comes before what begins work; the tick last, since nothing depends on it at once.
                biased;
                () = hard.cancelled() => break,
                () = soft.cancelled(), if !self.draining => self.begin_drain(),
                Some(written) = self.written_rx.recv() => self.journal_written(written),
                Some(done) = self.done_rx.recv() => self.done(done),
                Ok(()) = policy.changed() => {
                    let policy = policy.borrow_and_update().clone();
                    self.policy_changed(policy);
                }
                Some(request) = self.desk.recv() => self.desk_request(request).await,
                Some(event) = events.recv() => self.codex_event(event),
                Some(event) = links.recv() => self.link_event(event).await,
                () = bulk_taken => self.pump_bulk(),
                _ = tick.tick() => self.tick(),
            }
            if self.draining && self.in_flight.is_empty() && self.waiting.is_empty() {
                break;
            }
        }
        self.close().await;
    }

    /// Completes when the link has taken a bulk frame, while more is to be sent.
    fn bulk_taken(&self) -> impl Future<Output = ()> + use<P> {
        let outbox = self.link.as_ref().map(|link| link.outbox.clone()).filter(|_| !self.bulk.is_empty());
        let taken = outbox.map(|outbox| outbox.bulk_taken());
        async move {
            match taken {
                Some(taken) => taken.await,
                None => std::future::pending().await,
            }
        }
    }

    fn begin_drain(&mut self) {
        tracing::info!("the connector is going away");
        self.draining = true;
        self.send_report();
    }

    /// Lets the links write what is queued, then ends them.
    async fn close(&mut self) {
        let links: Vec<_> = self.waiting_links.values().map(|waiting| waiting.outbox.clone()).collect();
        if let Some(link) = self.link.take() {
            let hard = self.shutdown.hard();
            tokio::select! {
                () = link.outbox.drained() => {}
                () = hard.cancelled() => {}
            }
            link.outbox.close(ErrorCode::GoingAway);
        }
        for outbox in links {
            outbox.close(ErrorCode::GoingAway);
        }
    }

    fn codex_event(&mut self, event: CodexEvent) {
        match event {
            CodexEvent::Status(status) => self.codex_changed(status),
            CodexEvent::Machine(event) => {
                if let Some(kind) = event.kind {
                    self.machine_event(kind);
                }
            }
            CodexEvent::Watched { watch_id, thread_id: _, outcome } => self.watched(watch_id, outcome),
            CodexEvent::Thread { thread_id, event } => self.thread_event(thread_id, &event),
            CodexEvent::ApprovalAsked(asked) => self.approval_asked(asked),
            CodexEvent::QuestionAsked(asked) => self.question_asked(asked),
            CodexEvent::RequestResolved { key, how } => self.request_resolved(&key, how),
            CodexEvent::ThreadLost { thread_id } => self.thread_lost(thread_id, ErrorCode::CodexUnavailable),
        }
    }

    fn request_resolved(&mut self, key: &crate::codex::RequestKey, how: Resolution) {
        self.approval_resolved(key, how);
        self.question_resolved(key, how);
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Executed(key, result) => self.executed(key, result),
            Done::WatchRefused(watch_id, refused) => self.watch_refused(watch_id, &refused),
            Done::ApprovalAnswered(key, approval_id, outcome) => self.approval_answered(key, approval_id, outcome),
            Done::QuestionAnswered(key, question_id, outcome) => self.question_answered(key, question_id, outcome),
            Done::RecordedFirst(asked, act, durable) => self.recorded_first(asked, *act, durable),
            Done::Proof(key, found) => self.proof(key, found),
        }
    }

    fn journal_written(&mut self, written: Written) {
        if !written.durable {
            self.set_journal_writable(false);
        }
        for token in written.tokens {
            if let Some(waiting) = self.waiting.remove(&token) {
                self.written(waiting, written.durable);
            }
        }
    }

    fn set_journal_writable(&mut self, writable: bool) {
        if self.journal_writable != writable {
            tracing::warn!(journal.writable = writable, "the command journal changed its state");
        }
        self.journal_writable = writable;
        self.journal_retry_at = (!writable).then(|| self.clock.instant() + JOURNAL_RETRY_AFTER);
        self.publish_status();
    }

    fn tick(&mut self) {
        self.renew_expired_approvals();
        self.forget_idle_threads();
        self.pump_bulk();
        let now = self.clock.instant();
        let retry = self.journal_retry_at.is_some_and(|at| now >= at);
        let is_due = now >= self.journal_evict_at || self.journal.live_bytes() > JOURNAL_BYTES_MAX;
        if is_due {
            self.journal_evict_at = now + JOURNAL_EVICT_INTERVAL;
        }
        if (is_due && self.journal.evict(self.now())) || retry {
            self.journal_retry_at = None;
            self.rewrite_journal();
        }
    }

    fn rewrite_journal(&mut self) {
        let token = self.next_number();
        if self.writer.send(Write::Rewrite { content: self.journal.rewritten(), token }) {
            self.waiting.insert(token, Waiting::Rewrite);
        } else {
            self.set_journal_writable(false);
        }
    }

    fn now(&self) -> UnixMillis {
        UnixMillis(self.clock.unix_millis())
    }

    fn next_number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// Runs a task that tells what it has done. Their number is bounded by the commands in flight.
    fn spawn(&self, task: impl Future<Output = Done> + Send + 'static) {
        let done = self.done_tx.clone();
        debug_assert!(self.in_flight.len() <= 2 * MACHINE_COMMANDS_IN_FLIGHT_MAX);
        self.shutdown.spawn(async move {
            // The core is gone only when the process ends.
            let _ = done.send(task.await).await;
        });
    }
}

fn load_devices(storage: &mut dyn Storage) -> io::Result<DeviceList> {
    let content = storage.load()?;
    if content.is_empty() {
        return Ok(DeviceList::default());
    }
    Ok(serde_json::from_slice(&content)?)
}

#[cfg(test)]
#[expect(
    clippy::wildcard_enum_match_arm,
    clippy::result_large_err,
    reason = "a script looks for one kind of frame and passes over the others"
)]
mod tests;
