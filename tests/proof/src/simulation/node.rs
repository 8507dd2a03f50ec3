//! Nodes with the real machine in them, the directory with the real rules, and the way that gateways find.

use std::collections::BTreeMap;
use std::time::Duration;

use flydex_domain::epoch::Epoch;
use flydex_domain::id::{Incarnation, NodeId};
use flydex_domain::limits::{ASSERT_ALL_INTERVAL, LEASE_DEAD_AFTER};
use flydex_domain::machine::Machine;
use flydex_domain::machine::effect::{Effect, Subject};
use flydex_domain::machine::message::{Answer, Input, MachineMessageKind, OpenLink, OpenSession, OwnerMessage};
use flydex_domain::placement::{
    self, Acquisition, Cause, LinkPlacement, LinkRecord, Member, NodeRecord, NodeState, OwnerRecord, Place, Reassertion,
};

use super::connector::ToConnector;
use super::device::ToDevice;
use super::{What, World, names};

const TICK_MS: u64 = 250;
/// Time after which a gateway knows that a node does not answer.
pub(super) const LOST_AFTER_MS: u64 = 1_500;
const DIRECTORY: u128 = 7;
const SETTLES_MS: u64 = 2_000;
const ASSERTS_ALL_MS: u64 = ASSERT_ALL_INTERVAL.as_millis() as u64;

pub(super) struct Node {
    pub(super) life: u128,
    pub(super) machine: Machine,
    pub(super) frozen_until: u64,
    pub(super) draining: bool,
    /// What it must tell the directory as soon as that listens.
    asserts: bool,
    heard_at: u64,
    /// The directory's life that it has asserted itself in, and when it did last.
    told: (u64, u64),
}

#[derive(Default)]
pub(super) struct Directory {
    pub(super) record: Option<OwnerRecord>,
    pub(super) before: Option<OwnerRecord>,
    pub(super) away: bool,
    pub(super) life: u64,
    pub(super) forgot_at: Option<u64>,
}

pub(super) enum ToNode {
    Input {
        at: (usize, u128),
        input: Input,
    },
    /// A gateway sends somebody who wants in; `hops` were in vain.
    Open {
        at: (usize, u128),
        opening: Opening,
        hops: u8,
    },
    Tick(usize),
    /// The gateways have noticed that this life of a node does not answer.
    Lost {
        at: (usize, u128),
    },
    /// The machine is let go and sent to a successor, of which one that goes must do without if there is none.
    HandsOver {
        at: (usize, u128),
        goes: bool,
    },
}

#[derive(Clone)]
pub(super) enum Opening {
    Session(OpenSession),
    Link(OpenLink),
}

impl Node {
    pub(super) fn stands(&self) -> String {
        let machine = &self.machine;
        let (life, owned, status, sessions) = (self.life, machine.owned(), machine.status(), machine.session_count());
        format!("node {life}: owns {owned:?}, {status:?}, {sessions} sessions, {} in flight", machine.in_flight())
    }
}

impl Directory {
    fn write(&mut self, record: OwnerRecord) {
        self.before = self.record.replace(record);
    }
}

impl World {
    pub(super) fn begin_nodes(&mut self) {
        for slot in 0..3 {
            let node = self.new_node();
            self.nodes.push(node);
            self.after(slot, What::Node(ToNode::Tick(usize::try_from(slot).unwrap_or_default())));
        }
    }

    fn new_node(&mut self) -> Node {
        let life = self.fresh_id();
        let machine = Machine::new(names::machine(), names::incarnation(life), self.now());
        let (heard_at, told) = (self.now_ms, (self.directory.life, self.now_ms));
        Node { life, machine, frozen_until: 0, draining: false, asserts: false, heard_at, told }
    }

    pub(super) fn restart_node(&mut self, slot: usize) {
        let lost = self.nodes[slot].life;
        self.nodes[slot] = self.new_node();
        let wait = self.chance.below(300);
        self.after(wait, What::Node(ToNode::Lost { at: (slot, lost) }));
    }

    // === Finding ===

    fn members(&self) -> Vec<Member> {
        let member = |node: &Node| Member {
            record: NodeRecord {
                incarnation: names::incarnation(node.life),
                node_id: node_name("node"),
                address: "https://node:1".to_owned(),
                state: if node.draining { NodeState::Draining } else { NodeState::Active },
                machines: 0,
            },
            silent_for: Duration::from_millis(self.now_ms - node.heard_at),
        };
        self.nodes.iter().map(member).collect()
    }

    /// What a gateway does with somebody who wants in.
    pub(super) fn route(&mut self, opening: Opening, hops: u8, hint: Option<Incarnation>) {
        let draws = [self.chance.draw(), self.chance.draw()];
        let members = self.members();
        let hidden = self.hidden.filter(|_| matches!(opening, Opening::Session(_)));
        let lost = |node: Incarnation| {
            hidden.is_some_and(|(life, until_ms)| names::incarnation(life) == node && self.now_ms < until_ms)
                || self
                    .nodes
                    .iter()
                    .any(|it| names::incarnation(it.life) == node && it.frozen_until > self.now_ms + 500)
                || !self.nodes.iter().any(|it| names::incarnation(it.life) == node)
        };
        let place = if let Some(hint) = hint.filter(|hint| !lost(*hint)) {
            Place::Owner(hint)
        } else if self.directory.away {
            placement::place_by_rendezvous(names::machine(), &members, lost)
        } else {
            placement::place(self.directory.record.as_ref(), &members, lost, draws)
        };
        let (node, replaces) = match place {
            Place::Owner(node) => (node, None),
            Place::Candidate { node, replacing } => (node, replacing),
            Place::Nowhere => return self.turned_away(&opening, 0),
        };
        let Some(slot) = self.nodes.iter().position(|it| names::incarnation(it.life) == node) else { return };
        let at = (slot, self.nodes[slot].life);
        let (connection, opening) = match opening {
            Opening::Session(open) => {
                (open.session_id.uuid().as_u128(), Opening::Session(OpenSession { replacing: replaces, ..open }))
            }
            Opening::Link(open) => {
                let link = open.link_id.uuid().as_u128();
                // From here on its gateway would tell that node of its end, behind the opening.
                self.link_at(link, at);
                (link, Opening::Link(OpenLink { replacing: replaces, ..open }))
            }
        };
        self.send(connection, 0, What::Node(ToNode::Open { at, opening, hops }));
    }

    fn turned_away(&mut self, opening: &Opening, link_counter: u64) {
        match opening {
            Opening::Session(open) => {
                let session = open.session_id.uuid().as_u128();
                self.send(session, 0, What::Device(ToDevice::Closed { session }));
            }
            Opening::Link(open) => {
                let link = open.link_id.uuid().as_u128();
                self.send(link, 0, What::Connector(ToConnector::Down { link, counter: link_counter }));
            }
        }
    }

    // === At a node ===

    pub(super) fn node_gets(&mut self, to: ToNode) {
        match to {
            ToNode::Tick(slot) => {
                if self.nodes[slot].frozen_until <= self.now_ms {
                    self.node_ticks(slot);
                }
                self.after(TICK_MS, What::Node(ToNode::Tick(slot)));
            }
            ToNode::Lost { at } => self.lost(at),
            ToNode::Input { at, .. } | ToNode::Open { at, .. } | ToNode::HandsOver { at, .. }
                if self.nodes[at.0].life != at.1 => {}
            to @ (ToNode::Input { at, .. } | ToNode::Open { at, .. } | ToNode::HandsOver { at, .. })
                if self.nodes[at.0].frozen_until > self.now_ms =>
            {
                let wait = self.nodes[at.0].frozen_until - self.now_ms;
                self.after(wait, What::Node(to));
            }
            ToNode::Input { at, input } => self.input(at.0, input),
            ToNode::Open { at, opening, hops } => self.opens(at, opening, hops),
            ToNode::HandsOver { at, goes } => self.hands_over(at, goes),
        }
    }

    fn hands_over(&mut self, at: (usize, u128), goes: bool) {
        let takes = |node: &&Node| node.life != at.1 && !node.draining && node.frozen_until <= self.now_ms;
        let successor = self.nodes.iter().find(takes).map(|node| names::incarnation(node.life));
        let holder = Some(names::incarnation(at.1));
        if !self.directory.away
            && let Some(record) = self.directory.record.clone().filter(|record| record.holder == holder)
        {
            self.directory.write(OwnerRecord { holder: None, ..record });
        }
        self.input(at.0, Input::Drain { successor });
        if goes {
            self.restart_node(at.0);
        } else {
            // The actor ends; whoever asks this node for the machine later starts another.
            self.nodes[at.0].machine = Machine::new(names::machine(), names::incarnation(at.1), self.now());
        }
    }

    fn opens(&mut self, at: (usize, u128), opening: Opening, hops: u8) {
        match &opening {
            Opening::Session(open) => {
                self.openings.insert(open.session_id.uuid().as_u128(), (opening.clone(), hops));
                self.input(at.0, Input::SessionOpened(open.clone()));
            }
            Opening::Link(open) => {
                self.openings.insert(open.link_id.uuid().as_u128(), (opening.clone(), hops));
                self.input(at.0, Input::LinkOpened(open.clone()));
            }
        }
    }

    fn node_ticks(&mut self, slot: usize) {
        self.input(slot, Input::Tick);
        let now = self.now();
        if self.nodes[slot].machine.is_idle(now.instant) {
            let node = names::incarnation(self.nodes[slot].life);
            self.nodes[slot].machine = Machine::new(names::machine(), node, now);
        }
        if self.directory.away {
            return;
        }
        self.nodes[slot].heard_at = self.now_ms;
        let (life, told_ms) = self.nodes[slot].told;
        if self.nodes[slot].asserts || life != self.directory.life || told_ms + ASSERTS_ALL_MS <= self.now_ms {
            self.asserts(slot);
        }
    }

    /// The owner tells the directory what it holds.
    fn asserts(&mut self, slot: usize) {
        let node = &mut self.nodes[slot];
        (node.asserts, node.told) = (false, (self.directory.life, self.now_ms));
        let Some(epoch) = node.machine.owned() else { return };
        let link = node.machine.linked().map(|(_, counter)| link_record(counter));
        let holder = Some(names::incarnation(node.life));
        match placement::reassert(self.directory.record.as_ref(), epoch, link.is_some()) {
            Reassertion::Kept => {
                let on_record = self.directory.record.as_ref().and_then(|record| record.link.clone());
                let link = placement::newer_link(on_record, link);
                self.directory.write(OwnerRecord { holder, epoch, link });
            }
            Reassertion::Lost(record) => self.answer(slot, Input::Overtaken(record)),
        }
    }

    fn answer(&mut self, slot: usize, input: Input) {
        let at = (slot, self.nodes[slot].life);
        self.send(DIRECTORY + at.1, 0, What::Node(ToNode::Input { at, input }));
    }

    pub(super) fn input(&mut self, slot: usize, input: Input) {
        let now = self.now();
        let effects = self.nodes[slot].machine.handle(input, now);
        for effect in effects {
            self.performs(slot, effect);
        }
    }

    fn performs(&mut self, slot: usize, effect: Effect) {
        let at = (slot, self.nodes[slot].life);
        match effect {
            Effect::SessionOpened(session_id) => {
                let session = session_id.uuid().as_u128();
                self.send(session, 2, What::Device(ToDevice::Opened { session, at }));
            }
            Effect::ToSession { session_id, message } => {
                self.tells_device(session_id.uuid().as_u128(), message.kind);
            }
            Effect::EndSession { session_id, .. } => {
                let session = session_id.uuid().as_u128();
                self.send(session, 0, What::Device(ToDevice::Closed { session }));
            }
            Effect::LinkOpened(_) | Effect::DeviceRemoved(_) | Effect::Note(_) => {}
            Effect::ToLink { link_id, epoch, message } => self.tells_link(at, link_id.uuid().as_u128(), epoch, message),
            Effect::EndLink { link_id, link_counter: counter, .. } => {
                let link = link_id.uuid().as_u128();
                self.send(link, 0, What::Connector(ToConnector::Down { link, counter }));
            }
            Effect::NotOwner { subject, owner } => self.sent_on(subject, owner),
            Effect::Acquire { floor, replacing, cause } => self.acquires(slot, floor, replacing, cause),
            Effect::Assert => self.nodes[slot].asserts = true,
            Effect::Find if self.directory.away => {}
            Effect::Find => self.answer(slot, Input::Found(self.directory.record.clone())),
            Effect::SetLink { link_id, counter } => {
                if self.directory.away {
                    self.nodes[slot].asserts = true;
                    return;
                }
                let placed = self.set_link(at.1, counter);
                self.answer(slot, Input::LinkPlaced { link_id, placed });
            }
        }
    }

    fn tells_device(&mut self, session: u128, kind: MachineMessageKind) {
        let lane = match &kind {
            MachineMessageKind::Status(_) => 2,
            MachineMessageKind::Verdict(_) | MachineMessageKind::Event(_) | MachineMessageKind::StreamEnd(_) => 1,
            MachineMessageKind::Progress { .. }
            | MachineMessageKind::Receipt(_)
            | MachineMessageKind::Chunk { .. }
            | MachineMessageKind::ProbeReply { .. }
            | MachineMessageKind::Failure(_) => 0,
        };
        if lane != 0 || !self.loses() {
            self.send(session, lane, What::Device(ToDevice::Message { session, kind }));
        }
    }

    fn tells_link(&mut self, at: (usize, u128), link: u128, epoch: Epoch, message: OwnerMessage) {
        let is_attach = matches!(message, OwnerMessage::Attach);
        let times = if !is_attach && self.loses() { 0 } else { 1 + usize::from(self.chance.one_in(40)) };
        for _ in 0..times {
            let message = message.clone();
            let frame = ToConnector::Frame { link, sender: at.1, epoch, message };
            self.send(link, 0, What::Connector(frame));
        }
    }

    /// A gateway is told that somebody belongs elsewhere: it forwards twice at most.
    fn sent_on(&mut self, subject: Subject, owner: Option<Incarnation>) {
        let connection = match subject {
            Subject::Session(session_id) => session_id.uuid().as_u128(),
            Subject::Link(link_id) => link_id.uuid().as_u128(),
        };
        let Some((opening, hops)) = self.openings.get(&connection).cloned() else { return };
        // A session begins anew at another node; a link is opened there over the same socket.
        match opening {
            Opening::Link(open) if hops < 2 => self.route(Opening::Link(open), hops + 1, owner),
            opening @ (Opening::Session(_) | Opening::Link(_)) => self.turned_away(&opening, 0),
        }
    }

    /// What was on its way when a node died hangs at its gateway until that notices.
    pub(super) fn is_gone(&self, at: (usize, u128)) -> bool {
        self.nodes[at.0].life != at.1
    }

    /// The gateways notice that a node does not answer; one that was frozen notices it of them when it goes on.
    fn lost(&mut self, at: (usize, u128)) {
        for session in self.sessions_at(at) {
            self.send(session, 0, What::Device(ToDevice::Closed { session }));
            let input = Input::SessionClosed(names::session(session));
            self.send(session, 0, What::Node(ToNode::Input { at, input }));
        }
        for link in self.links_at(at) {
            self.send(link, 0, What::Connector(ToConnector::Down { link, counter: 0 }));
            let input = Input::LinkClosed(names::link(link));
            self.send(link, 0, What::Node(ToNode::Input { at, input }));
        }
    }

    // === The directory ===

    fn acquires(&mut self, slot: usize, floor: Epoch, replacing: Option<Incarnation>, cause: Cause) {
        if self.directory.away {
            return self.answer(slot, Input::Acquired(Answer::Unavailable));
        }
        let asker = names::incarnation(self.nodes[slot].life);
        let settles = self.directory.forgot_at.is_some_and(|at| self.now_ms < at + SETTLES_MS);
        if settles && cause == Cause::Session && self.directory.record.is_none() {
            return self.answer(slot, Input::Acquired(Answer::Settling(Duration::from_millis(500))));
        }
        let holder = self.directory.record.as_ref().and_then(|record| record.holder);
        let dead = u64::try_from(LEASE_DEAD_AFTER.as_millis()).unwrap_or(u64::MAX);
        let leased = |node: &Node| Some(names::incarnation(node.life)) == holder && self.now_ms < node.heard_at + dead;
        let has_lease = self.nodes.iter().any(leased);
        match placement::acquire(self.directory.record.as_ref(), asker, floor, replacing, has_lease) {
            Acquisition::Owned(epoch) => {
                let link = self.directory.record.as_ref().and_then(|record| record.link.clone());
                self.directory.write(OwnerRecord { holder: Some(asker), epoch, link });
                self.answer(slot, Input::Acquired(Answer::Owned(epoch)));
            }
            Acquisition::Held(record) => self.answer(slot, Input::Acquired(Answer::Held(record.holder))),
        }
    }

    fn set_link(&mut self, life: u128, counter: u64) -> LinkPlacement {
        let holder = Some(names::incarnation(life));
        let Some(record) = self.directory.record.clone().filter(|record| record.holder == holder) else {
            return LinkPlacement::NotHeld;
        };
        let placed = placement::set_link(record.link.as_ref().map(|link| link.counter), counter);
        if placed == LinkPlacement::Newest {
            self.directory.write(OwnerRecord { link: Some(link_record(counter)), ..record });
        }
        placed
    }
}

fn link_record(counter: u64) -> LinkRecord {
    LinkRecord { counter, gateway_id: node_name("gateway") }
}

/// Who was sent where, as gateways keep it.
pub(super) type Openings = BTreeMap<u128, (Opening, u8)>;

fn node_name(name: &str) -> NodeId {
    NodeId::try_from(name.to_owned()).expect("a short name in lower case")
}
