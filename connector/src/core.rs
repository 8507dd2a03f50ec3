//! The core: one task owns the machine's state and performs what the gate rules.
//!
//! ```text
//! link ─► LinkEvent ─► owner.rs ─► command.rs ─► gate ─► reads.rs, effects.rs ─► Codex ─► Done ─► receipt.rs ─► outbox
//! codex ─► CodexEvent ─► watch.rs, approvals.rs, questions.rs ─► rings ─► outbox
//! ```
//!
//! Nothing here waits for Codex, the journal or a link: work is handed to tasks and comes back as [`Done`] or
//! [`Written`]. The two exceptions are the fence and the device list, which change rarely and are made durable
//! before anything else is looked at.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use flydex_domain::device::DeviceList;
use flydex_domain::id::{ApprovalId, BootId, SessionId};
use flydex_domain::journal::{Journal, Key};
use flydex_domain::limits::{CODEX_ASKS_MAX, CORE_QUEUE_MAX, MACHINE_COMMANDS_IN_FLIGHT_MAX};
use flydex_domain::stream::Rings;
use flydex_domain::time::UnixMillis;
use flydex_runtime::clock::Clock;
use flydex_runtime::lifecycle::Shutdown;
use tokio::sync::{mpsc, watch as channel};

use crate::codex::{AnswerOutcome, CodexEvent, CodexHandle, CodexStatus, Refused, ThreadId, TurnId, WatchId};
use crate::epoch::Fence;
use crate::journal::{JournalWriter, WriteToken, Written};
use crate::paired::{CoreStatus, DeskPolicy, DeskRequest, Entropy, LinkStatus, PairedState};
use crate::spool::Spool;
use crate::storage::Storage;

mod approvals;
mod audit;
mod bulk;
mod command;
mod config;
mod desk;
mod devices;
mod effects;
mod kind;
mod owner;
pub mod port;
mod proof;
mod questions;
mod reads;
mod receipt;
mod serve;
mod trace;
mod watch;

pub use config::CoreConfig;
pub use owner::{LinkEvent, LinkNumber};

use approvals::Approvals;
use bulk::Bulk;
use command::InFlight;
use devices::DeviceChange;
use effects::{Act, Waiting};
use owner::{ActiveLink, Session, WaitingLink};
use port::CodexPort;
use questions::Questions;
use reads::Reads;
use receipt::Asked;
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

/// What a task has done.
enum Done {
    Executed(Key, Result<flydex_agent_proto::v1::CommandResult, Refused>),
    WatchRefused(WatchId, Refused),
    ApprovalAnswered(Key, ApprovalId, AnswerOutcome),
    QuestionAnswered(Key, ApprovalId, AnswerOutcome),
    RecordedFirst(Asked, Box<Act>, bool),
    Proof(Key, Result<Option<TurnId>, Refused>),
    Devices(Key, Box<DeviceChange>),
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
    approval_lifetime: Duration,
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
            approval_lifetime: config.approval_lifetime,
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
