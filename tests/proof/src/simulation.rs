//! The real state machines under one seeded scheduler: three nodes, a directory, a connector with a journal, and
//! devices that ask until they are answered.
//!
//! Time is virtual and all chance comes from the seed, so a seed is a history. Connections keep order within a lane,
//! delay, break, lose and repeat; nodes die and freeze; the directory forgets, rolls back and goes away; the connector
//! dies and loses what its disk had not yet. After [`FAULTS_UNTIL`] nothing fails any more, and every command that was
//! asked must get a final answer. Each event goes through `flydex_domain::invariant`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use flydex_domain::invariant::{Broken, Checker, Event};
use flydex_domain::machine::Now;
use flydex_domain::time::UnixMillis;

use crate::model::Protection;

mod chance;
mod connector;
mod device;
mod faults;
mod names;
mod node;
#[cfg(test)]
mod tests;

use chance::Chance;
use connector::Connector;
use device::Device;
use node::{Directory, Node};

/// Virtual milliseconds after which nothing fails any more.
pub const FAULTS_UNTIL: u64 = 12_000;
/// Virtual milliseconds after which every command must have its answer.
const ENDS_AT: u64 = 200_000;
const BEGINS_AT: u64 = 1_000_000_000;

/// How a seed ended.
#[derive(Debug)]
pub struct Run {
    /// The seed.
    pub seed: u64,
    /// What went wrong, if anything.
    pub failure: Option<String>,
    /// Commands that were asked.
    pub asked: usize,
    /// Everything that happened, one line each.
    pub trace: String,
}

/// Something that will happen.
enum What {
    Node(node::ToNode),
    Connector(connector::ToConnector),
    Device(device::ToDevice),
    Fault(faults::Fault),
}

/// The one scheduler and everything under it.
struct World {
    chance: Chance,
    now_ms: u64,
    start: Instant,
    next: u64,
    agenda: BTreeMap<(u64, u64), What>,
    /// When the last message of a lane arrives: none overtakes it.
    lanes: BTreeMap<(u128, u8), u64>,
    nodes: Vec<Node>,
    directory: Directory,
    connector: Connector,
    devices: Vec<Device>,
    checker: Checker,
    broken: Option<Broken>,
    trace: String,
    without: Option<Protection>,
    ids: u128,
    openings: node::Openings,
    /// A life of a node that the gateway of the sessions does not reach, and until when.
    hidden: Option<(u128, u64)>,
}

/// Runs one seed, perhaps without one protection.
#[must_use]
pub fn run(seed: u64, without: Option<Protection>) -> Run {
    let mut world = World::new(seed, without);
    while world.broken.is_none() && world.now_ms < ENDS_AT && !world.is_done() {
        let Some(((at, _), what)) = world.agenda.pop_first() else { break };
        world.now_ms = at;
        world.happens(what);
    }
    world.say_how_it_stands();
    let unanswered = world.checker.unanswered();
    let failure = match world.broken {
        Some(broken) => Some(broken.to_string()),
        None if unanswered.is_empty() => None,
        None => Some(format!("without a final answer: {unanswered:?}")),
    };
    Run { seed, failure, asked: world.devices.iter().map(Device::asked).sum(), trace: world.trace }
}

impl World {
    fn new(seed: u64, without: Option<Protection>) -> Self {
        #[expect(clippy::disallowed_methods, reason = "an instant cannot be made from nothing; only differences count")]
        let start = Instant::now();
        let mut world = Self {
            chance: Chance::new(seed),
            now_ms: 0,
            start,
            next: 0,
            agenda: BTreeMap::new(),
            lanes: BTreeMap::new(),
            nodes: Vec::new(),
            directory: Directory::default(),
            connector: Connector::new(),
            devices: (1..=2).map(Device::new).collect(),
            checker: Checker::default(),
            broken: None,
            trace: String::new(),
            without,
            ids: 1000,
            openings: BTreeMap::new(),
            hidden: None,
        };
        world.begin_nodes();
        world.begin_connector();
        world.begin_devices();
        world.plan_faults();
        world
    }

    fn is_done(&self) -> bool {
        self.now_ms > FAULTS_UNTIL + 5_000 && self.devices.iter().all(Device::is_done)
    }

    fn happens(&mut self, what: What) {
        match what {
            What::Node(to) => self.node_gets(to),
            What::Connector(to) => self.connector_gets(to),
            What::Device(to) => self.device_gets(to),
            What::Fault(fault) => self.fails(fault),
        }
    }

    fn has(&self, protection: Protection) -> bool {
        self.without != Some(protection)
    }

    fn now(&self) -> Now {
        Now { instant: self.start + Duration::from_millis(self.now_ms), unix: self.unix() }
    }

    fn unix(&self) -> UnixMillis {
        UnixMillis(BEGINS_AT + self.now_ms)
    }

    fn fresh_id(&mut self) -> u128 {
        self.ids += 1;
        self.ids
    }

    /// Lets something happen after a time.
    fn after(&mut self, wait_ms: u64, what: What) {
        self.next += 1;
        self.agenda.insert((self.now_ms + wait_ms, self.next), what);
    }

    /// Sends over a lane of a connection, behind what was sent before.
    fn send(&mut self, connection: u128, lane: u8, what: What) {
        self.send_later(connection, lane, 0, what);
    }

    /// [`Self::send`], after a time.
    fn send_later(&mut self, connection: u128, lane: u8, wait_ms: u64, what: What) {
        let at_most = if self.chance.one_in(20) { 400 } else { 30 };
        let delay = wait_ms + 1 + self.chance.below(at_most);
        let last = self.lanes.entry((connection, lane)).or_default();
        *last = (*last).max(self.now_ms + delay);
        let at = *last;
        self.next += 1;
        self.agenda.insert((at, self.next), what);
    }

    /// Whether a message is lost, in the time in which things fail.
    fn loses(&mut self) -> bool {
        self.now_ms < FAULTS_UNTIL && self.chance.one_in(60)
    }

    fn record(&mut self, event: Event) {
        self.say(&format!("{event:?}"));
        if let Err(broken) = self.checker.see(&event) {
            self.broken.get_or_insert(broken);
            self.say(&format!("BROKEN {broken}"));
        }
    }

    fn say_how_it_stands(&mut self) {
        let mut lines = vec![format!("directory {:?}", self.directory.record), self.connector.stands()];
        lines.extend(self.nodes.iter().map(Node::stands));
        lines.extend(self.devices.iter().map(Device::stands));
        for line in lines {
            self.say(&line);
        }
    }

    fn say(&mut self, line: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.trace, "{:>7} {line}", self.now_ms);
    }
}
