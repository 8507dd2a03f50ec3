//! Machines: the real connector's core and links, many in one process, each with its files in memory and the stub in
//! place of Codex.
//!
//! The core, its gate, its journal and its links are the connector's own. What is left out is the desk: the yes to
//! every pairing is given here, and further devices are put on the machine's list as if the desk had said yes.
//!
//! A machine takes about half a MiB of a debug build, pairing and TLS included, most of it in its link; it was kept
//! the real one all the same, since what is slimmer would not be what is measured. The report names the figure.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use ed25519_dalek::SigningKey;
use flydex_connector::api::{Api, SecretText, TokenKey, verifier};
use flydex_connector::core::{CoreConfig, LinkEvent, run_with_links};
use flydex_connector::epoch::Fence;
use flydex_connector::link;
use flydex_connector::outbox::Outbox;
use flydex_connector::pair::{PairError, Pairing, PairingRequest, Proposal};
use flydex_connector::paired::{CoreStatus, DeskPolicy, DeskRequest, Entropy, LinkStatus, PairedState, RegionEndpoint};
use flydex_connector::spool::{Spool, SpoolRecord};
use flydex_domain::audit::AuditKind;
use flydex_domain::device::DeviceList;
use flydex_domain::epoch::Epoch;
use flydex_domain::error::ErrorCode;
use flydex_domain::id::{BootId, MachineId};
use flydex_domain::journal::{self, Journal};
use flydex_domain::key::PublicKey;
use flydex_domain::limits::{CODEX_EVENTS_MAX, CORE_QUEUE_MAX, DESK_REQUESTS_MAX};
use flydex_domain::scope::Role;
use flydex_domain::time::UnixMillis;
use serde::Deserialize;
use tokio::sync::{mpsc, watch};

use crate::account::{Account, PairedMachine};
use crate::device::Device;
use crate::line::Line;
use crate::record::{AuditedAt, Entry};
use crate::run::World;
use crate::schedule::Due;

mod memory;
mod port;
mod questions;

pub(crate) use port::{stamped, thread};

use memory::Memory;
use port::StubPort;

/// Wait before a pairing is tried again that the relay's rates held up.
const PAIRING_WAIT: Duration = Duration::from_secs(3);
/// Tries of one pairing: the rates let twenty a minute through from one address.
const PAIRING_TRIES_MAX: u32 = 1_000;

/// What stands before the JSON of a line of the audit spool: its checksum and a blank.
const SPOOL_CRC_BYTES: usize = 9;

/// A machine that runs.
pub(crate) struct Machine {
    /// What its devices know of it.
    pub(crate) paired: PairedMachine,
    /// Its devices, one for each session.
    pub(crate) devices: Vec<Arc<Device>>,
    /// Its network, where it has one of its own.
    pub(crate) line: Option<Arc<Line>>,
    link: Arc<Mutex<Option<Outbox>>>,
    status: watch::Receiver<Option<CoreStatus>>,
    _desk: mpsc::Sender<DeskRequest>,
    _watches: Watches,
}

type Watches = (watch::Sender<SecretText>, watch::Sender<Vec<RegionEndpoint>>, watch::Sender<DeskPolicy>);

impl Machine {
    /// Pairs a machine and starts its connector.
    ///
    /// # Errors
    /// When the relay refuses.
    pub(crate) async fn start(
        world: &Arc<World>,
        api: &Api,
        account: &Account,
        (line, regions): (Option<Arc<Line>>, Vec<RegionEndpoint>),
        due: mpsc::Receiver<Due>,
    ) -> anyhow::Result<Self> {
        let key = SigningKey::from_bytes(&rand::random());
        let sessions = world.scenario.fleet.sessions_per_machine;
        let devices: Vec<_> = (0..sessions).map(|_| Arc::new(Device::new())).collect();
        let first = devices.first().context("a machine without sessions")?;
        let (proposal, credential, token_keys, machine_id) = pair(world, api, account, &key, first).await?;
        let paired = PairedMachine { account_id: proposal.account_id(), machine_id, machine_key: PublicKey::of(&key) };
        let (credential_tx, credential) = watch::channel(credential);
        let (regions_tx, regions) = watch::channel(regions);
        let (policy_tx, policy) = watch::channel(DeskPolicy::default());
        let state = PairedState {
            origin: api.origin().as_str().to_owned(),
            account_id: paired.account_id,
            account_name: proposal.account_name,
            machine_id,
            machine_label: "load".to_owned(),
            machine_key: watch::channel(Arc::new(key)).1,
            credential,
            verifier: watch::channel(Arc::new(verifier(&token_keys))).1,
            regions,
            policy,
        };
        let (link, status, desk) = connect(world, state, &devices, due)?;
        let _watches = (credential_tx, regions_tx, policy_tx);
        Ok(Self { paired, devices, line, link, status, _desk: desk, _watches })
    }

    /// Waits until its owner has attached.
    pub(crate) async fn attached(&self) -> anyhow::Result<()> {
        self.status.clone().wait_for(is_attached).await.context("the connector ended").map(drop)
    }

    /// Breaks its link, as a network does.
    pub(crate) fn cut(&self) {
        let link = self.link.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(link) = link {
            link.close(ErrorCode::ServerUnreachable);
        }
    }
}

fn is_attached(status: &Option<CoreStatus>) -> bool {
    status.is_some_and(|status| matches!(status.link, LinkStatus::Attached(_)))
}

async fn pair(
    world: &World,
    api: &Api,
    account: &Account,
    key: &SigningKey,
    device: &Device,
) -> anyhow::Result<(Proposal, SecretText, Vec<TokenKey>, MachineId)> {
    let request =
        PairingRequest { machine_key: key, machine_label: "load".to_owned(), role: Role::Owner, credential: None };
    for _ in 0..PAIRING_TRIES_MAX {
        let pairing = match Pairing::start(api.clone(), request.clone(), world.clock.clone(), &Entropy::system()).await
        {
            Ok(pairing) => pairing,
            Err(PairError::Api(error)) if error.code() == ErrorCode::RateLimited => {
                tokio::time::sleep(PAIRING_WAIT).await;
                continue;
            }
            Err(error) => return Err(error).context("start a pairing"),
        };
        account.redeem(pairing.url().expose(), device, "load").await?;
        let proposal = pairing.proposal().await.context("look at a pairing")?;
        let enrolment = loop {
            match pairing.confirm(&proposal).await {
                Err(PairError::Api(error)) if error.code() == ErrorCode::RateLimited => {
                    tokio::time::sleep(PAIRING_WAIT).await;
                }
                confirmed => break confirmed.context("confirm a pairing")?,
            }
        };
        return Ok((proposal, enrolment.credential, enrolment.token_keys, enrolment.machine_id));
    }
    anyhow::bail!("the relay's rates held a pairing up too long")
}

type Connected = (Arc<Mutex<Option<Outbox>>>, watch::Receiver<Option<CoreStatus>>, mpsc::Sender<DeskRequest>);

/// Starts core, links and stub.
fn connect(
    world: &Arc<World>,
    paired: PairedState,
    devices: &[Arc<Device>],
    due: mpsc::Receiver<Due>,
) -> anyhow::Result<Connected> {
    let machine_id = paired.machine_id;
    let now = UnixMillis(world.clock.unix_millis());
    let mut list = DeviceList::default();
    for device in devices {
        list.enrol(device.public_key(), Role::Owner, "load", now).map_err(|code| anyhow::anyhow!("enrol: {code}"))?;
    }
    let (desk_tx, desk) = mpsc::channel(DESK_REQUESTS_MAX);
    let (status_tx, status) = watch::channel(None);
    let fence = Fence::open(Box::new(heard_fence(world, machine_id)))?;
    let config = CoreConfig {
        paired,
        boot_id: BootId::from_bytes(rand::random()),
        connector_version: env!("CARGO_PKG_VERSION").to_owned(),
        entropy: Entropy::system(),
        journal: Box::new(heard_journal(world, machine_id)),
        devices: Box::new(Memory::with(serde_json::to_vec(&list)?)),
        fence: fence.clone(),
        spool: Spool::open(Box::new(heard_spool(world, machine_id)))?,
        approval_lifetime: Duration::from_secs_f64(world.scenario.stub.approval_seconds),
        desk,
        status: status_tx,
        region_report: watch::Sender::default(),
    };
    let (events_tx, events) = mpsc::channel(CODEX_EVENTS_MAX);
    let port = StubPort::new(world.clone(), machine_id, fence, events_tx);
    let (tap_tx, tap) = mpsc::channel(CORE_QUEUE_MAX);
    let (links_tx, links) = mpsc::channel(CORE_QUEUE_MAX);
    let (clock, shutdown) = (world.clock.clone(), &world.shutdown);
    let current = Arc::new(Mutex::new(None));
    link::start(link::Config::of(&config), tap_tx, clock.clone(), shutdown);
    shutdown.spawn(hold_link(tap, links_tx, current.clone()));
    shutdown.spawn(port.clone().tell(due));
    shutdown.spawn(measure_gaps(world.clone(), status.clone()));
    let core = run_with_links(config, port, events, links, clock, shutdown.clone());
    shutdown.spawn(async move {
        // It starts from files that were just made.
        let _ = Box::pin(core).await;
    });
    Ok((current, status, desk_tx))
}

/// The fence's file tells each epoch that was attached to, once it is durable.
fn heard_fence(world: &Arc<World>, machine_id: MachineId) -> Memory {
    #[derive(Deserialize)]
    struct Kept {
        highest: Epoch,
    }
    let (world, mut before) = (world.clone(), Epoch::ZERO);
    Memory::heard_by(move |bytes| {
        let Ok(Kept { highest }) = serde_json::from_slice(bytes) else { return };
        if highest != before {
            before = highest;
            world.recorder.take(world.now_us(), machine_id, Entry::Attached { epoch: highest });
        }
    })
}

/// The journal's file tells each command, once it is durable.
fn heard_journal(world: &Arc<World>, machine_id: MachineId) -> Memory {
    let world = world.clone();
    Memory::heard_by(move |bytes| {
        let mut whole = Journal::default().rewritten();
        whole.extend_from_slice(bytes);
        let replayed = journal::replay(&whole).or_else(|_| journal::replay(bytes));
        let Ok(replayed) = replayed else { return };
        world.recorder.journalled(world.now_us(), machine_id, &replayed.journal);
    })
}

/// The audit spool's file tells each accept that was recorded before it acts, once it is durable.
fn heard_spool(world: &Arc<World>, machine_id: MachineId) -> Memory {
    let world = world.clone();
    Memory::heard_by(move |bytes| {
        for line in bytes.split(|byte| *byte == b'\n') {
            let Some((_, json)) = line.split_at_checked(SPOOL_CRC_BYTES) else { continue };
            let Ok(record) = serde_json::from_slice::<SpoolRecord>(json) else { continue };
            if let (AuditKind::ApprovalIntent, Some(id)) = (record.kind, record.command_id) {
                world.recorder.audited(world.now_us(), machine_id, id, AuditedAt::Machine);
            }
        }
    })
}

/// Passes on what links bring, and keeps the newest link at hand, to break it.
async fn hold_link(
    mut tap: mpsc::Receiver<LinkEvent>,
    links: mpsc::Sender<LinkEvent>,
    current: Arc<Mutex<Option<Outbox>>>,
) {
    while let Some(event) = tap.recv().await {
        if let LinkEvent::Up { outbox, .. } = &event {
            *current.lock().unwrap_or_else(PoisonError::into_inner) = Some(outbox.clone());
        }
        if links.send(event).await.is_err() {
            return;
        }
    }
}

/// Measures the time from the loss of a link until an owner has attached again.
async fn measure_gaps(world: Arc<World>, mut status: watch::Receiver<Option<CoreStatus>>) {
    while status.wait_for(is_attached).await.is_ok() {
        if status.wait_for(|status| !is_attached(status)).await.is_err() {
            return;
        }
        let lost = world.clock.instant();
        if status.wait_for(is_attached).await.is_err() {
            return;
        }
        world.gap("link", lost, world.clock.instant());
    }
}
