//! A fuzzer of two accounts: what one says is said with the other's values in it, at every place where something is said.
//!
//! Each operation takes a message of account A and puts into one of its fields a value of account B, or the twin of that
//! value, which nobody has. After both, the answers are compared: they must be the same in kind, code, size and time, or
//! A can tell what exists from what does not. Nothing that A gets may hold a value of B, and now and then B looks whether
//! anything happened to it. Messages and fields come from the `.proto` files.
//!
//! ```text
//! fuzz/rounds.rs    what is tried at once, and what differs
//! fuzz/sessions.rs  A is a device: frames of its WebSocket
//! fuzz/links.rs     A is a connector: frames of its link
//! fuzz/openings.rs  A opens a session or link with what is another's
//! fuzz/nodes.rs     A's gateway is not to be trusted: frames to the node
//! fuzz/gateways.rs  A's node is not to be trusted: frames to the gateway; and what control says to both
//! fuzz/places.rs    every field of every message
//! fuzz/report.rs    surface by surface, what was tried and found
//! ```

mod gateways;
mod links;
mod nodes;
mod openings;
mod places;
pub mod report;
mod rounds;
mod sessions;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;
use prost_reflect::Value;

use self::places::{Place, Places};
use self::report::Report;
use crate::chance::Chance;
use crate::connector::Connector;
use crate::known::{Plain, Twins};
use crate::observe::Needles;
use crate::schema::Schema;
use crate::session::Session;
use crate::stand::Stand;
use crate::tenant::Tenant;

pub use self::nodes::{Doctored, Fault};

/// Operations after which everything begins anew: tokens end, and what was opened is forgotten.
const WORLD_OPERATIONS_MAX: u64 = 200_000;
/// Operations after which B looks what happened to it.
const LOOK_OPERATIONS: u64 = 500;
/// One relay in this many, the first among them, has a node that is not to be trusted: every frame takes a hop more.
const DOCTORED_ONCE_IN: u64 = 4;
/// Findings after which a run gives up.
const FINDINGS_MAX: usize = 5;

/// What is run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Decides everything that is drawn.
    pub seed: u64,
    /// Least operations; each is one message.
    pub operations: u64,
    /// Something that is wrong on purpose.
    pub fault: Option<Fault>,
}

/// How far a run is, for whoever watches it.
#[derive(Debug, Default)]
pub struct Progress {
    operations: AtomicU64,
    findings: AtomicU64,
}

impl Progress {
    /// Messages sent, and findings.
    #[must_use]
    pub fn so_far(&self) -> (u64, u64) {
        (self.operations.load(Ordering::Relaxed), self.findings.load(Ordering::Relaxed))
    }
}

/// One side: an account with a machine that is linked and a session that has it open.
pub(crate) struct Side {
    pub(crate) tenant: Tenant,
    pub(crate) connector: Connector,
    pub(crate) session: Session,
    /// The counter of its last link.
    pub(crate) links: u64,
}

/// Two accounts at one relay.
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) stand: Stand,
    pub(crate) schema: Schema,
    pub(crate) chance: Chance,
    pub(crate) a: Side,
    pub(crate) b: Side,
    pub(crate) gateway: nodes::Gateway,
    /// A node that says whatever it is told to, where the gateway reaches that one.
    pub(crate) doctored: Option<Doctored>,
    fault: Option<Fault>,
    /// An account that only tokens know.
    pub(crate) nobody: Tenant,
    twins: Twins,
    /// Places at which a connection ended: they are tried alone.
    ends: BTreeSet<usize>,
    /// What A must not see, and what B must not.
    of_b: Needles,
    of_a: Needles,
}

/// One message with something swapped.
pub(crate) struct Operation<'a> {
    pub(crate) place: &'a Place,
    pub(crate) value: &'a Plain,
    /// Whether A's device signs what was changed.
    pub(crate) signs: bool,
    /// What stands in the other fields that say who it is for, where that is another's whole.
    pub(crate) address: Vec<(&'static str, &'a Plain)>,
}

impl Operation<'_> {
    /// What it puts there that would be recognised wherever it stands.
    pub(crate) fn put(&self) -> impl Iterator<Item = &[u8]> {
        std::iter::once(self.value).chain(self.address.iter().map(|(_, value)| *value)).filter_map(Plain::telling)
    }
}

/// Runs until enough was tried or found.
///
/// # Errors
/// When the relay itself fails.
pub async fn run(options: Options, progress: &Progress) -> anyhow::Result<Report> {
    let (mut report, mut chance, mut worlds) = (Report::default(), Chance::new(options.seed), 0_u64);
    while report.operations < options.operations && report.findings.len() < FINDINGS_MAX {
        let is_doctored = worlds % DOCTORED_ONCE_IN == 0;
        let world = World::start(&mut chance, is_doctored, options.fault).await.context("start a relay")?;
        worlds += 1;
        let left = (options.operations - report.operations).min(WORLD_OPERATIONS_MAX);
        let tried = Box::pin(world.run(left, progress)).await.with_context(|| format!("seed {}", options.seed))?;
        report.add(tried);
    }
    Ok(report)
}

impl World {
    /// Two accounts at a relay whose node may be one that is not to be trusted.
    async fn start(chance: &mut Chance, is_doctored: bool, fault: Option<Fault>) -> anyhow::Result<Self> {
        loop {
            let world = Self::assemble(chance.number(), is_doctored, fault).await?;
            // Where their machines share a stream, the node may speak for both.
            if fault.is_some() || world.doctored.as_ref().is_none_or(Doctored::keeps_apart) {
                return Ok(world);
            }
            world.stand.stop().await;
        }
    }

    async fn assemble(seed: u64, is_doctored: bool, fault: Option<Fault>) -> anyhow::Result<Self> {
        let mut chance = Chance::new(seed);
        let (a, b) = (Tenant::new(&mut chance, 1_000), Tenant::new(&mut chance, 2_000));
        let nobody = Tenant::new(&mut chance, 3_000);
        let doctored = (is_doctored || fault.is_some()).then(|| Doctored::new(fault, &a, &b));
        let stand = Stand::start_with(doctored.clone()).await?;
        let schema = Schema::load()?;
        let mut a = Side::start(&stand, &schema, a, &mut chance).await?;
        let b = Side::start(&stand, &schema, b, &mut chance).await?;
        let gateway = nodes::Gateway::start(&stand, &mut a.tenant, &mut chance).await?;
        let of_b = Needles::new(b.tenant.known.every(), a.tenant.known.every());
        let of_a = Needles::new(a.tenant.known.every(), b.tenant.known.every());
        let twins = Twins::new(chance.number());
        let ends = BTreeSet::new();
        Ok(Self { seed, stand, schema, chance, a, b, gateway, doctored, fault, nobody, twins, ends, of_b, of_a })
    }

    /// Tries that many operations, and ends. A relay that fails under way is a finding.
    async fn run(mut self, operations: u64, progress: &Progress) -> anyhow::Result<Report> {
        let places = Places::all(&self.schema, &self.a.tenant.known)?;
        let mut report = Report::of(&places.surfaces);
        let mut looked = 0;
        let mut failed = false;
        while !failed && report.operations < operations && report.findings.len() < FINDINGS_MAX {
            let (before, found) = (report.operations, report.findings.len());
            let tried = Box::pin(self.round(&places, &mut report)).await;
            let due = report.operations - looked >= LOOK_OPERATIONS || report.operations >= operations;
            let seen = match tried {
                Ok(()) if due => self.look().await.context("look at B"),
                Ok(()) => Ok(None),
                Err(error) => Err(error),
            };
            if due {
                looked = report.operations;
            }
            failed = seen.is_err();
            if let Some(found) = seen.unwrap_or_else(|error| Some(format!("{error:#}"))) {
                report.find(None, self.finding(&found));
            }
            progress.operations.fetch_add(report.operations - before, Ordering::Relaxed);
            progress.findings.fetch_add((report.findings.len() - found) as u64, Ordering::Relaxed);
        }
        self.stand.stop().await;
        Ok(report)
    }

    /// Asks B whether anything happened to it: its connector hears only its session, and its session only its connector.
    async fn look(&mut self) -> anyhow::Result<Option<String>> {
        let sign: [u8; 16] = self.chance.bytes();
        let machine_id = *self.b.tenant.machine_id.as_bytes();
        if self.b.session.ask_for_sign(&machine_id, sign).await.is_err() {
            return Ok(Some("B's session has ended".to_owned()));
        }
        loop {
            match self.b.session.next().await? {
                Err(ended) => return Ok(Some(format!("B's session ended: {ended:?}"))),
                Ok(kind) if crate::session::is_sign(&kind, &sign) => break,
                Ok(_) => {}
            }
        }
        if self.b.connector.state().ended.is_some() || self.b.connector.state().attaches != 1 {
            return Ok(Some(format!("B's link is not as it was: {:?}", self.b.connector.state())));
        }
        let (heard, got) = (self.b.session.take_log(), self.b.connector.take_log());
        for frame in heard.iter().chain(&got) {
            if let Some(leak) = self.of_a.find(frame, &[]) {
                return Ok(Some(format!("B got {} of A", self.name_of(leak))));
            }
        }
        // The sign alone; its connector was asked for that, and whether it lives.
        let asked = got.iter().filter(|frame| sessions::is_from_session(frame)).count();
        if heard.len() != 1 || asked != 1 {
            return Ok(Some(format!("B's session heard {} frames, its connector {asked}", heard.len())));
        }
        Ok(None)
    }

    fn name_of(&self, value: &[u8]) -> String {
        let sides = [&self.a.tenant, &self.b.tenant];
        let name = sides.iter().find_map(|tenant| tenant.known.name_of(value));
        name.unwrap_or("something").to_owned()
    }
}

impl Side {
    async fn start(stand: &Stand, schema: &Schema, mut tenant: Tenant, chance: &mut Chance) -> anyhow::Result<Self> {
        let connector = Connector::attach(stand, &tenant, 1).await?;
        let mut session = Session::ready(stand, &tenant, chance).await?;
        let machine_id = *tenant.machine_id.as_bytes();
        let attach = tenant.command(flydex_proto::v1::CommandKind::Attach, chance.bytes(), &session.session_id);
        session.say(&machine_id, flydex_proto::v1::device_message::Kind::Command(attach)).await?;
        session.watched().await?;
        for (name, frames) in [("SessionDown", session.take_log()), ("LinkDown", connector.take_log())] {
            let descriptor = schema.message(name)?;
            for frame in frames {
                let message = prost_reflect::DynamicMessage::decode(descriptor.clone(), frame)?;
                tenant.known.harvest(schema, &message)?;
            }
        }
        for name in ["session_id", "subject_id"] {
            tenant.known.set(name, Value::Bytes(session.session_id.clone()));
        }
        tenant.known.set("link_id", Value::Bytes(connector.link_id.clone()));
        tenant.known.note("grant", Value::String(tenant.grant(stand, flydex_domain::scope::Role::Owner)));
        tenant.known.note("credential", Value::String(tenant.credential(stand)));
        Ok(Self { tenant, connector, session, links: 1 })
    }
}
