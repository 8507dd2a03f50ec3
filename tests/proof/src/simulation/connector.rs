//! The connector: the real fence, gate and journal over a disk that loses what it was not yet told to keep.

use std::collections::BTreeMap;

use bytes::Bytes;
use flydex_domain::command::{CommandClass, Outcome, SignedCommand};
use flydex_domain::device::DeviceList;
use flydex_domain::epoch::{Attach, Epoch, attach};
use flydex_domain::error::ErrorCode;
use flydex_domain::gate::{Arrival, Known, Remembered, Ruling, Situation, rule};
use flydex_domain::id::{DeviceId, SessionId};
use flydex_domain::invariant::Event;
use flydex_domain::journal::{Begun, HEADER, Journal, Record, Settled, encode, replay};
use flydex_domain::key::PublicKey;
use flydex_domain::ledger::CommandKey;
use flydex_domain::machine::message::{
    self, ConnectorFrame, ConnectorMessage, DeviceMessage, DeviceMessageKind, Failure, Input, MachineMessage,
    MachineMessageKind, MachineReport, OpenLink, OwnerMessage, ReceiptFacts, SignedReceipt, Stage, StreamVerdict,
    Transport,
};
use flydex_domain::scope::Role;
use flydex_domain::secret::Payload;
use flydex_domain::status::MachineStatus;
use flydex_domain::stream::{StreamId, Verdict};
use flydex_domain::time::UnixMillis;

use super::device::key;
use super::node::{Opening, ToNode};
use super::{What, World, names};
use crate::model::Protection;

mod disk;

const TICK_MS: u64 = 300;
/// Time after which a link on which no owner attached is given up.
const ATTACH_WAIT_MS: u64 = 3_000;
/// Silence after which a gateway ends a link.
const LINK_DEAD_AFTER_MS: u64 = 8_000;

pub(super) struct Connector {
    devices: DeviceList,
    /// Survives a crash.
    disk: Disk,
    life: Life,
    links: BTreeMap<u128, Link>,
}

struct Disk {
    highest: Epoch,
    link_counter: u64,
    journal: Vec<u8>,
    boots: u128,
}

/// What ends with a crash.
#[derive(Default)]
struct Life {
    active: Option<(u128, Epoch)>,
    sessions: BTreeMap<SessionId, DeviceId>,
    journal: Journal,
    unsynced: Vec<(Record, Then)>,
    in_flight: BTreeMap<CommandKey, (SignedCommand, SessionId)>,
    last_seq: u64,
}

/// What goes on when a record is on disk.
#[derive(Clone)]
enum Then {
    Act(CommandKey),
    Tell(Box<SignedCommand>, SessionId, Outcome),
    Nothing,
}

struct Link {
    at: Option<(usize, u128)>,
    opened_ms: u64,
}

pub(super) enum ToConnector {
    Tick,
    Frame {
        link: u128,
        sender: u128,
        epoch: Epoch,
        message: OwnerMessage,
    },
    Down {
        link: u128,
        counter: u64,
    },
    /// The disk has what it was given.
    Sync {
        boot: u128,
    },
    /// Codex does a command.
    Act {
        boot: u128,
        key: CommandKey,
    },
    /// Codex says what became of it.
    Outcome {
        boot: u128,
        key: CommandKey,
        outcome: Outcome,
    },
}

impl Connector {
    pub(super) fn new() -> Self {
        let mut devices = DeviceList::default();
        for device in 1..=2 {
            let listed = devices.enrol(PublicKey::of(&names::device_key(device)), Role::Owner, "phone", UnixMillis(0));
            listed.expect("there is room for two");
        }
        let disk = Disk { highest: Epoch::ZERO, link_counter: 0, journal: HEADER.to_vec(), boots: 1 };
        Self { devices, disk, life: Life::default(), links: BTreeMap::new() }
    }

    pub(super) fn stands(&self) -> String {
        let links: Vec<_> = self.links.iter().map(|(link, state)| (link, state.at)).collect();
        let (life, boot) = (&self.life, self.disk.boots);
        let (sessions, in_flight) = (life.sessions.keys(), life.in_flight.len());
        format!("connector life {boot}: links {links:?}, active {:?}, {sessions:?}, {in_flight} in flight", life.active)
    }
}

impl World {
    pub(super) fn begin_connector(&mut self) {
        self.after(5, What::Connector(ToConnector::Tick));
    }

    pub(super) fn link_at(&mut self, link: u128, at: (usize, u128)) {
        if let Some(link) = self.connector.links.get_mut(&link) {
            link.at = Some(at);
        }
    }

    pub(super) fn links_at(&self, node: (usize, u128)) -> Vec<u128> {
        self.connector.links.iter().filter(|(_, link)| link.at == Some(node)).map(|(link, _)| *link).collect()
    }

    /// The links break. Their gateways notice at once, or by the silence, and tell the nodes.
    pub(super) fn cut_links(&mut self) {
        for (link, state) in std::mem::take(&mut self.connector.links) {
            if let Some(at) = state.at {
                let half_open = self.chance.one_in(4);
                let wait = if half_open { LINK_DEAD_AFTER_MS } else { self.chance.below(100) };
                let input = Input::LinkClosed(names::link(link));
                self.send_later(link, 0, wait, What::Node(ToNode::Input { at, input }));
            }
        }
        (self.connector.life.active, self.connector.life.sessions) = (None, BTreeMap::new());
    }

    /// The connector dies and begins again: the disk keeps what was synced and perhaps the head of what was not.
    pub(super) fn crash_connector(&mut self, journal_lost: bool) {
        self.cut_links();
        let unsynced: Vec<u8> = self.connector.life.unsynced.iter().flat_map(|(record, _)| encode(record)).collect();
        let survives = self.chance.index(unsynced.len() + 1);
        let disk = &mut self.connector.disk;
        disk.journal.extend(&unsynced[..survives]);
        if journal_lost {
            disk.journal = HEADER.to_vec();
        }
        disk.boots += 1;
        let mut life = Life::default();
        match replay(&disk.journal) {
            Ok(replayed) => {
                disk.journal.truncate(usize::try_from(replayed.whole_bytes).unwrap_or_default());
                life.journal = replayed.journal;
            }
            Err(damage) => self.say(&format!("the journal is damaged by a torn tail: {damage}")),
        }
        self.connector.life = life;
        let boot = self.connector.disk.boots;
        self.say(&format!("the connector begins life {boot}, journal lost: {journal_lost}"));
    }

    pub(super) fn connector_gets(&mut self, to: ToConnector) {
        let life = self.connector.disk.boots;
        match to {
            ToConnector::Tick => {
                self.connector_ticks();
                let wait = TICK_MS / 2 + self.chance.below(TICK_MS);
                self.after(wait, What::Connector(ToConnector::Tick));
            }
            ToConnector::Frame { link, sender, epoch, message } => self.owner_says(link, sender, epoch, message),
            ToConnector::Down { link, counter } => self.link_is_down(link, counter),
            ToConnector::Sync { boot } if boot == life => self.synced(),
            ToConnector::Act { boot, key } if boot == life => self.acts(key),
            ToConnector::Outcome { boot, key, outcome } if boot == life => self.has_outcome(key, outcome),
            ToConnector::Sync { .. } | ToConnector::Act { .. } | ToConnector::Outcome { .. } => {}
        }
    }

    fn connector_ticks(&mut self) {
        let gone: Vec<u128> = self
            .connector
            .links
            .iter()
            .filter_map(|(link, state)| Some((*link, state.at?)))
            .filter(|(_, at)| self.is_gone(*at))
            .map(|(link, _)| link)
            .collect();
        for link in gone {
            self.link_is_down(link, 0);
        }
        let (now_ms, connector) = (self.now_ms, &self.connector);
        let active = connector.life.active.map(|(link, _)| link);
        let stale: Vec<u128> = connector
            .links
            .iter()
            .filter(|(link, state)| Some(**link) != active && now_ms > state.opened_ms + ATTACH_WAIT_MS)
            .map(|(link, _)| *link)
            .collect();
        for link in stale {
            if let Some(Link { at: Some(at), .. }) = self.connector.links.remove(&link) {
                self.send(link, 0, What::Node(ToNode::Input { at, input: Input::LinkClosed(names::link(link)) }));
            }
        }
        if self.connector.links.is_empty() {
            self.open_link();
        } else if self.connector.life.active.is_some() && self.chance.one_in(3) {
            self.shares_event();
        }
    }

    pub(super) fn open_link(&mut self) {
        let link = self.fresh_id();
        let disk = &mut self.connector.disk;
        disk.link_counter += 1;
        let open = OpenLink {
            link_id: names::link(link),
            link_counter: disk.link_counter,
            boot_id: names::boot(disk.boots),
            transport: Transport::WebSocket,
            connector_version: "1".to_owned(),
            channel_bound: true,
            holds_until: UnixMillis(u64::MAX / 2),
            revoked_devices: Vec::new(),
            replacing: None,
        };
        self.connector.links.insert(link, Link { at: None, opened_ms: self.now_ms });
        self.route(Opening::Link(open), 0, None);
    }

    fn link_is_down(&mut self, link: u128, counter: u64) {
        self.connector.links.remove(&link);
        let disk = &mut self.connector.disk;
        disk.link_counter = disk.link_counter.max(counter);
        if self.connector.life.active.is_some_and(|(active, _)| active == link) {
            (self.connector.life.active, self.connector.life.sessions) = (None, BTreeMap::new());
        }
    }

    fn tells_owner(&mut self, link: u128, epoch: Option<Epoch>, message: ConnectorMessage) {
        let Some(at) = self.connector.links.get(&link).and_then(|link| link.at) else { return };
        let lane = match &message {
            ConnectorMessage::Subscribed { .. }
            | ConnectorMessage::Unsubscribed { .. }
            | ConnectorMessage::SharedEvent(_) => 1,
            ConnectorMessage::ToSession { .. } => 2,
            ConnectorMessage::Attached { .. }
            | ConnectorMessage::Stale { .. }
            | ConnectorMessage::Report(_)
            | ConnectorMessage::DeviceRemoved(_) => 3,
        };
        // A lane loses nothing but with its connection; commands and their answers are lost here all the same.
        if lane != 2 || !self.loses() {
            let input = Input::LinkFrame { link_id: names::link(link), frame: ConnectorFrame { epoch, message } };
            self.send(link, lane, What::Node(ToNode::Input { at, input }));
        }
    }

    fn say_to(&mut self, session_id: SessionId, kind: MachineMessageKind) {
        if let Some((link, epoch)) = self.connector.life.active {
            let message = MachineMessage { trace: None, kind };
            self.tells_owner(link, Some(epoch), ConnectorMessage::ToSession { session_id, message });
        }
    }

    fn shares_event(&mut self) {
        let Some((link, epoch)) = self.connector.life.active else { return };
        self.connector.life.last_seq += 1;
        let body = Payload::new(Bytes::from_static(b"event"));
        let event = message::Event { stream_id: StreamId::MACHINE, seq: self.connector.life.last_seq, body };
        self.tells_owner(link, Some(epoch), ConnectorMessage::SharedEvent(event));
    }

    // === The owner ===

    fn owner_says(&mut self, link: u128, sender: u128, epoch: Epoch, message: OwnerMessage) {
        let open = self.connector.links.contains_key(&link);
        if matches!(message, OwnerMessage::Attach) {
            if open {
                self.attach(link, epoch);
            }
            return;
        }
        let current = self.connector.life.active == Some((link, epoch));
        if !current && self.has(Protection::Fence) {
            let highest = self.connector.disk.highest;
            if open && epoch < highest {
                self.tells_owner(link, Some(epoch), ConnectorMessage::Stale { highest });
            }
            return;
        }
        self.record(Event::Obeyed { epoch, sender: Some(names::incarnation(sender)) });
        match message {
            OwnerMessage::FromSession { session_id, device_id, role, message } => {
                self.session_says(session_id, device_id, role, message);
            }
            OwnerMessage::SessionGone(session_id) => {
                self.connector.life.sessions.remove(&session_id);
            }
            OwnerMessage::Attach | OwnerMessage::RemoveDevice(_) => {}
        }
    }

    fn attach(&mut self, link: u128, asked: Epoch) {
        let ruling = attach(self.connector.disk.highest, asked);
        match ruling {
            Attach::Accept(epoch) => {
                self.connector.disk.highest = epoch;
                self.attached(link, epoch);
            }
            Attach::Continue => self.attached(link, asked),
            Attach::Stale { highest } => self.tells_owner(link, Some(asked), ConnectorMessage::Stale { highest }),
            Attach::Absurd => {}
        }
    }

    fn attached(&mut self, link: u128, epoch: Epoch) {
        self.record(Event::Attached(epoch));
        if self.connector.life.active != Some((link, epoch)) {
            self.connector.life.sessions.clear();
        }
        self.connector.life.active = Some((link, epoch));
        self.tells_owner(link, Some(epoch), ConnectorMessage::Attached { highest: epoch });
        let status = MachineStatus::CodexReady;
        let report = MachineReport { status, codex_version: "1".to_owned(), read_only: false, paused: false };
        self.tells_owner(link, Some(epoch), ConnectorMessage::Report(report));
    }

    // === Commands ===

    fn session_says(&mut self, session_id: SessionId, device_id: DeviceId, role: Role, message: DeviceMessage) {
        let DeviceMessageKind::Command(command) = message.kind else { return };
        let situation = Situation {
            browser_keys_refused: false,
            account_id: names::account(),
            machine_id: names::machine().machine_id(),
            boot_id: if self.has(Protection::Boot) {
                names::boot(self.connector.disk.boots)
            } else {
                command.header.boot_id
            },
            now: self.unix(),
            paused: false,
            journal_writable: true,
            has_room: true,
            low_water: self.connector.life.journal.low_water(),
        };
        let admitted_as = self.connector.life.sessions.get(&session_id).copied();
        let arrival =
            Arrival { command: &command, session_id, session_device_id: device_id, account_role: role, admitted_as };
        let remembered = self.recall(&command);
        let ruling = rule(&situation, &self.connector.devices, &arrival, || remembered);
        match ruling {
            Ruling::Turned(code) => {
                let failure = Failure {
                    code,
                    command_id: Some(command.header.command_id),
                    retry_after: std::time::Duration::ZERO,
                };
                self.say_to(session_id, MachineMessageKind::Failure(failure));
            }
            Ruling::Repeat(Known::UnderWay) => {
                if let Some(in_flight) = self.connector.life.in_flight.get_mut(&key(&command)) {
                    in_flight.1 = session_id;
                }
            }
            Ruling::Repeat(Known::Settled(outcome)) => self.tell(&command, session_id, outcome),
            Ruling::Repeat(Known::LeftOpen) | Ruling::Unknown => self.tell(&command, session_id, Outcome::Unknown),
            Ruling::Refused(code) => self.refuse(&command, session_id, code),
            Ruling::Pass(_) => match command.header.kind.class() {
                CommandClass::Read => self.admit(&command, session_id),
                CommandClass::Effect => self.begin(*command, session_id),
            },
        }
    }

    fn recall(&self, command: &SignedCommand) -> Option<Remembered> {
        if !self.has(Protection::Journal) {
            return None;
        }
        let key = (command.header.device_id, command.header.command_id);
        let mut remembered = self.connector.life.journal.get(&key)?.remembered();
        if remembered.state == Known::LeftOpen && !self.has(Protection::Unknown) {
            remembered.state = Known::Settled(Outcome::Refused(ErrorCode::Internal));
        }
        Some(remembered)
    }

    fn admit(&mut self, command: &SignedCommand, session_id: SessionId) {
        let Some((link, epoch)) = self.connector.life.active else { return };
        let device_id = command.header.device_id;
        self.connector.life.sessions.insert(session_id, device_id);
        let verdict = StreamVerdict {
            command_id: command.header.command_id,
            stream_id: StreamId::MACHINE,
            boot_id: names::boot(self.connector.disk.boots),
            verdict: Verdict::Gap { as_of: self.connector.life.last_seq },
        };
        self.tells_owner(link, Some(epoch), ConnectorMessage::Subscribed { session_id, device_id, verdict });
        self.tell(command, session_id, Outcome::Executed);
    }

    fn begin(&mut self, command: SignedCommand, session_id: SessionId) {
        let key = key(&command);
        let header = &command.header;
        let record = Record::Begun(Begun {
            key: (header.device_id, header.command_id),
            hash: command.hash(),
            kind: header.kind,
            issued_at: header.issued_at,
            at: self.unix(),
            thread_id: String::new(),
        });
        let command_id = header.command_id;
        self.connector.life.in_flight.insert(key, (command, session_id));
        if !self.has(Protection::AckAfterJournal) {
            self.say_to(session_id, MachineMessageKind::Progress { command_id, stage: Stage::Delivered });
        }
        self.write(record, Then::Act(key));
    }

    fn refuse(&mut self, command: &SignedCommand, session_id: SessionId, code: ErrorCode) {
        let outcome = Outcome::Refused(code);
        if command.header.kind.class() == CommandClass::Effect && code != ErrorCode::CommandIdReused {
            let record = self.settled(command, outcome);
            self.write(record, Then::Nothing);
        }
        self.tell(command, session_id, outcome);
    }

    fn settled(&self, command: &SignedCommand, outcome: Outcome) -> Record {
        Record::Settled(Settled {
            key: (command.header.device_id, command.header.command_id),
            hash: command.hash(),
            outcome,
            issued_at: command.header.issued_at,
            at: self.unix(),
            ids: Vec::new(),
        })
    }

    fn tell(&mut self, command: &SignedCommand, session_id: SessionId, outcome: Outcome) {
        let facts = ReceiptFacts {
            device_id: command.header.device_id,
            command_id: command.header.command_id,
            command_hash: command.hash(),
            outcome: outcome.into(),
            bulk: false,
        };
        let receipt = SignedReceipt { receipt: Payload::new(Bytes::new()), signature: Bytes::new(), facts };
        self.say_to(session_id, MachineMessageKind::Receipt(receipt));
    }
}
