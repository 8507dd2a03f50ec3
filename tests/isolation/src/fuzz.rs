//! A fuzzer of two accounts: what one says is said with the other's values in it, at every place where something is said.
//!
//! Each operation takes a message of account A and puts into one of its fields a value of account B, or the twin of that
//! value, which nobody has. After both, the answers are compared: they must be the same in kind, code and size, or A can
//! tell what exists from what does not. Nothing that A gets may hold a value of B, and now and then B looks whether
//! anything happened to it. Messages and fields come from the `.proto` files.
//!
//! ```text
//! fuzz/sessions.rs  A is a device: frames of its WebSocket
//! fuzz/links.rs     A is a connector: frames of its link
//! fuzz/nodes.rs     A's gateway is not to be trusted: frames to the node
//! ```

mod links;
mod nodes;
mod places;
mod sessions;

use std::time::Duration;

use anyhow::Context as _;
use flydex_runtime::clock::Clock;
use prost_reflect::Value;

use self::places::{Place, Places};
use crate::chance::Chance;
use crate::connector::Connector;
use crate::known::{Plain, Twins};
use crate::observe::{Needles, Seen};
use crate::schema::Schema;
use crate::session::Session;
use crate::stand::Stand;
use crate::tenant::{Tenant, copy};

pub use self::nodes::{Doctored, Fault};

/// Pairs after which everything begins anew: tokens end, and what was opened is forgotten.
const WORLD_PAIRS_MAX: u64 = 20_000;
/// Pairs after which B looks what happened to it.
const LOOK_PAIRS: u64 = 200;
/// Findings after which a run gives up.
const FINDINGS_MAX: usize = 5;
/// Pairs below which their times say nothing.
const TIMED_PAIRS_MIN: u64 = 100_000;
/// How far from a half the share of slower pairs may be.
const TIME_SKEW_MAX: f64 = 0.02;
/// How often answers must differ from the same beginning to be told apart.
const CONFIRMATIONS: usize = 2;
/// How far the clock moves with each operation, so that what a session may open comes back.
const STEP: Duration = Duration::from_millis(200);

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

/// What came of it.
#[derive(Debug, Default)]
pub struct Report {
    /// Messages sent.
    pub operations: u64,
    /// How often a value of B took longer than its twin, and how many pairs differed in time at all.
    pub slower: (u64, u64),
    /// What should not be.
    pub findings: Vec<String>,
}

impl Report {
    /// The share of pairs in which the value of B took longer than its twin: a half where time tells nothing.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a share for people")]
    pub fn time_skew(&self) -> f64 {
        if self.slower.1 == 0 { 0.5 } else { self.slower.0 as f64 / self.slower.1 as f64 }
    }

    /// Whether time tells nothing that many pairs could show. Which came first is drawn, so that load falls on both.
    #[must_use]
    pub fn time_is_alike(&self) -> bool {
        self.slower.1 < TIMED_PAIRS_MIN || (self.time_skew() - 0.5).abs() <= TIME_SKEW_MAX
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
    pub(crate) stand: Stand,
    pub(crate) schema: Schema,
    pub(crate) chance: Chance,
    pub(crate) a: Side,
    pub(crate) b: Side,
    pub(crate) gateway: nodes::Gateway,
    twins: Twins,
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
}

/// Runs until enough was tried or found.
///
/// # Errors
/// When the relay itself fails.
pub async fn run(options: Options) -> anyhow::Result<Report> {
    let (mut report, mut chance) = (Report::default(), Chance::new(options.seed));
    while report.operations < options.operations && report.findings.len() < FINDINGS_MAX {
        let mut world = World::start(chance.number(), options.fault).await.context("start a relay")?;
        let places = Places::all(&world.schema, &world.a.tenant.known)?;
        for pair in 1..=WORLD_PAIRS_MAX {
            let tried = world.pair(&places, &mut report).await;
            let tried = tried.with_context(|| format!("pair {pair} of seed {}", options.seed))?;
            if let Some(finding) = tried {
                report.findings.push(format!("seed {}, pair {pair}: {finding}", options.seed));
            }
            if pair % LOOK_PAIRS == 0 || report.operations >= options.operations {
                let found = world.look().await.with_context(|| format!("look at pair {pair}"))?;
                report.findings.extend(found.map(|found| format!("seed {}, by pair {pair}: {found}", options.seed)));
            }
            if report.operations >= options.operations || report.findings.len() >= FINDINGS_MAX {
                break;
            }
        }
        world.stand.stop().await;
    }
    Ok(report)
}

impl World {
    async fn start(seed: u64, fault: Option<Fault>) -> anyhow::Result<Self> {
        let mut chance = Chance::new(seed);
        let (a, b) = (Tenant::new(&mut chance, 1_000), Tenant::new(&mut chance, 2_000));
        let stand = Stand::start_with(fault.map(|fault| Doctored::new(fault, &a, &b))).await?;
        let schema = Schema::load()?;
        let mut a = Side::start(&stand, &schema, a, &mut chance).await?;
        let b = Side::start(&stand, &schema, b, &mut chance).await?;
        let gateway = nodes::Gateway::start(&stand, &mut a.tenant, &mut chance).await?;
        let of_b = Needles::new(b.tenant.known.every(), a.tenant.known.every());
        let of_a = Needles::new(a.tenant.known.every(), b.tenant.known.every());
        let twins = Twins::new(chance.number());
        Ok(Self { stand, schema, chance, a, b, gateway, twins, of_b, of_a })
    }

    /// Tries a value of B and its twin in one place.
    async fn pair(&mut self, places: &Places, report: &mut Report) -> anyhow::Result<Option<String>> {
        let Some(place) = self.chance.one_of(&places.all) else { anyhow::bail!("nothing can be said") };
        let Some(value) = self.value_for(place) else { return Ok(None) };
        let twin = self.twins.of(&value);
        let signs = !self.chance.once_in(4);
        let twin_first = self.chance.once_in(2);
        let (first, second) = if twin_first { (&twin, &value) } else { (&value, &twin) };
        let say = || format!("{place}: {value:?} or {twin:?}");
        let (of_first, first_took) = self.try_one(&Operation { place, value: first, signs }).await.with_context(say)?;
        let (of_second, second_took) =
            self.try_one(&Operation { place, value: second, signs }).await.with_context(say)?;
        report.operations += 2;
        for found in [&of_first, &of_second] {
            if let Err(leak) = found {
                return Ok(Some(format!("{place}: A saw {leak} of B")));
            }
        }
        if first_took != second_took {
            report.slower.0 += u64::from((first_took > second_took) != twin_first);
            report.slower.1 += 1;
        }
        // A number is larger or smaller than others, and an epoch moves the machine on; what is compared are names.
        let named =
            matches!(value, Plain::Bytes(_) | Plain::Text(_)) && !place.is_token() && !place.is_within("highest");
        if place.lasts() {
            self.refresh(place).await?;
        }
        if named && of_first != of_second {
            return self.differs(place, &value, &twin, signs).await;
        }
        Ok(None)
    }

    /// Whether answers that differed still do where everything before is the same: what was said earlier may have been
    /// the reason.
    async fn differs(
        &mut self,
        place: &Place,
        value: &Plain,
        twin: &Plain,
        signs: bool,
    ) -> anyhow::Result<Option<String>> {
        let mut last = None;
        for _ in 0..CONFIRMATIONS {
            self.refresh(place).await?;
            let (of_value, _) = self.try_one(&Operation { place, value, signs }).await?;
            self.refresh(place).await?;
            let (of_twin, _) = self.try_one(&Operation { place, value: twin, signs }).await?;
            if of_value == of_twin {
                return Ok(None);
            }
            last = Some(format!("{of_value:?}\n  {of_twin:?}"));
        }
        self.refresh(place).await?;
        Ok(last.map(|last| format!("{place}: answers tell what exists\n  {last}")))
    }

    /// Opens anew what A speaks on.
    async fn refresh(&mut self, place: &Place) -> anyhow::Result<()> {
        match place.root() {
            "SessionUp" => self.renew_session().await,
            "LinkUp" => self.renew_link().await,
            _ => self.renew_gateway().await,
        }
    }

    /// A value of B for a place: one of the same name, rarely another that looks like it.
    fn value_for(&mut self, place: &Place) -> Option<Plain> {
        let theirs = self.b.tenant.known.all(place.name());
        let ours = self.a.tenant.known.all(place.name());
        let mut choice: Vec<Plain> = theirs.iter().filter(|value| !ours.contains(value)).cloned().collect();
        if choice.is_empty() || (self.chance.once_in(16) && !place.is_token()) {
            let like = ours.first().or(theirs.first());
            let like = like.map_or(Plain::Bytes(copy(&[0; 16])), Clone::clone);
            let ours: Vec<Plain> = self.a.tenant.known.every().collect();
            let others = self.b.tenant.known.every().filter(|value| value.is_like(&like) && !ours.contains(value));
            choice.extend(others);
        }
        let fits = |value: &Plain| Value::from(value.clone()).is_valid(&place.kind());
        choice.retain(fits);
        self.chance.one_of(&choice).cloned()
    }

    /// Does it, and says what came of it and how long that took; or what A saw that is B's.
    async fn try_one(&mut self, operation: &Operation<'_>) -> anyhow::Result<(Result<Vec<Seen>, String>, Duration)> {
        self.stand.clock.advance(STEP);
        let clock = Clock::system();
        let began = clock.instant();
        let (frames, mut seen) = match operation.place.root() {
            "SessionUp" => self.by_session(operation).await?,
            "LinkUp" => self.by_link(operation).await?,
            _ => self.by_gateway(operation).await?,
        };
        let took = clock.instant().saturating_duration_since(began);
        let mut frames_seen = Vec::new();
        for (descriptor, frame) in frames {
            if let Some(leak) = self.of_b.find(&frame, operation.value.telling()) {
                return Ok((Err(self.name_of(leak)), took));
            }
            frames_seen.push(Seen::of(&descriptor, frame)?);
        }
        // What comes beside an end races with it.
        if seen.is_empty() {
            seen = frames_seen;
        }
        // Lanes have no order between them.
        seen.sort();
        Ok((Ok(seen), took))
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
            if let Some(leak) = self.of_a.find(frame, None) {
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
        tenant.known.set("session_id", Value::Bytes(session.session_id.clone()));
        tenant.known.set("link_id", Value::Bytes(connector.link_id.clone()));
        tenant.known.note("grant", Value::String(tenant.grant(stand, flydex_domain::scope::Role::Owner)));
        tenant.known.note("credential", Value::String(tenant.credential(stand)));
        Ok(Self { tenant, connector, session, links: 1 })
    }
}
