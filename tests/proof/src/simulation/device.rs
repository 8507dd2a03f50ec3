//! A device: a session that it opens again whenever it breaks, and an outbox that it asks until it is answered.

use flydex_domain::command::{CommandKind, SignedCommand};
use flydex_domain::id::{BootId, SessionId};
use flydex_domain::invariant::{Event, Word};
use flydex_domain::ledger::CommandKey;
use flydex_domain::machine::message::{
    DeviceMessage, DeviceMessageKind, Input, MachineMessageKind, OpenSession, OutcomeKind, Stage,
};
use flydex_domain::stream::Verdict;

use super::node::{Opening, ToNode};
use super::{FAULTS_UNTIL, What, World, names};

const TICK_MS: u64 = 400;
const COMMANDS_MAX: usize = 6;
/// Time after which a session that never opened is given up.
const OPEN_WAIT_MS: u64 = 3_000;

pub(super) struct Device {
    number: u8,
    session: Option<Session>,
    outbox: Vec<SignedCommand>,
    asked: usize,
}

struct Session {
    id: u128,
    /// The slot and life of the node where it is open.
    at: Option<(usize, u128)>,
    since_ms: u64,
    boot: Option<BootId>,
    attached_to: Option<BootId>,
}

pub(super) enum ToDevice {
    Tick(usize),
    Opened { session: u128, at: (usize, u128) },
    Closed { session: u128 },
    Message { session: u128, kind: MachineMessageKind },
}

impl Device {
    pub(super) const fn new(number: u8) -> Self {
        Self { number, session: None, outbox: Vec::new(), asked: 0 }
    }

    pub(super) fn stands(&self) -> String {
        let session = self.session.as_ref().map(|session| (session.id, session.at, session.boot, session.attached_to));
        format!("device {}: session {session:?}, {} unanswered", self.number, self.outbox.len())
    }

    pub(super) const fn asked(&self) -> usize {
        self.asked
    }

    pub(super) const fn is_done(&self) -> bool {
        self.outbox.is_empty()
    }
}

impl World {
    pub(super) fn begin_devices(&mut self) {
        for device in 0..self.devices.len() {
            let wait = self.chance.below(TICK_MS);
            self.after(wait, What::Device(ToDevice::Tick(device)));
        }
    }

    fn device_of(&self, session: u128) -> Option<usize> {
        self.devices.iter().position(|device| device.session.as_ref().is_some_and(|open| open.id == session))
    }

    /// Which sessions are open, or opening, at a node.
    pub(super) fn sessions_at(&self, node: (usize, u128)) -> Vec<u128> {
        let sessions = self.devices.iter().filter_map(|device| device.session.as_ref());
        sessions.filter(|session| session.at == Some(node)).map(|session| session.id).collect()
    }

    pub(super) fn device_gets(&mut self, to: ToDevice) {
        match to {
            ToDevice::Tick(device) => {
                self.device_ticks(device);
                let wait = TICK_MS / 2 + self.chance.below(TICK_MS);
                self.after(wait, What::Device(ToDevice::Tick(device)));
            }
            ToDevice::Opened { session, at } => {
                if let Some(device) = self.device_of(session)
                    && let Some(open) = &mut self.devices[device].session
                {
                    open.at = Some(at);
                }
            }
            ToDevice::Closed { session } => {
                if let Some(device) = self.device_of(session) {
                    self.devices[device].session = None;
                }
            }
            ToDevice::Message { session, kind } => {
                if let Some(device) = self.device_of(session) {
                    self.device_hears(device, session, kind);
                }
            }
        }
    }

    fn device_ticks(&mut self, index: usize) {
        let now_ms = self.now_ms;
        let device = &mut self.devices[index];
        let Some(session) = &device.session else { return self.open_session(index) };
        let (id, at, boot) = (session.id, session.at, session.boot);
        let Some(at) = at else {
            if now_ms > session.since_ms + OPEN_WAIT_MS {
                device.session = None;
            }
            return;
        };
        if self.is_gone(at) {
            self.devices[index].session = None;
            return;
        }
        let session_attached_to = self.devices[index].session.as_ref().and_then(|session| session.attached_to);
        let Some(boot) = boot else { return };
        if session_attached_to != Some(boot) || self.chance.one_in(12) {
            let number = self.fresh_id();
            let device = &mut self.devices[index];
            if let Some(session) = &mut device.session {
                session.attached_to = Some(boot);
            }
            let number_of = device.number;
            let unix = self.unix();
            let attach = names::command(number_of, number, CommandKind::Attach, boot, unix, names::session(id));
            return self.device_asks(id, at, attach);
        }
        let room = self.devices[index].asked < COMMANDS_MAX && self.now_ms < FAULTS_UNTIL + 3_000;
        if room && self.chance.one_in(2) {
            let (number, unix) = (self.fresh_id(), self.unix());
            let session_id = names::session(id);
            let device = &mut self.devices[index];
            let command = names::command(device.number, number, CommandKind::StartTurn, boot, unix, session_id);
            device.asked += 1;
            device.outbox.push(command.clone());
            self.record(Event::Asked(key(&command), command.hash()));
            self.device_asks(id, at, command);
        }
        for command in self.devices[index].outbox.clone() {
            if self.chance.one_in(3) {
                self.device_asks(id, at, command);
            }
        }
    }

    fn open_session(&mut self, index: usize) {
        let id = self.fresh_id();
        let device = &mut self.devices[index];
        device.session = Some(Session { id, at: None, since_ms: self.now_ms, boot: None, attached_to: None });
        let grant = names::grant(device.number);
        let open = OpenSession { session_id: names::session(id), grant, replacing: None };
        self.route(Opening::Session(open), 0, None);
    }

    fn device_asks(&mut self, session: u128, at: (usize, u128), command: SignedCommand) {
        let times = if self.loses() { 0 } else { 1 + usize::from(self.chance.one_in(40)) };
        for _ in 0..times {
            let kind = DeviceMessageKind::Command(Box::new(command.clone()));
            let message = DeviceMessage { trace: None, kind };
            let session_id = names::session(session);
            let input = Input::SessionMessage { session_id, message, deadline: None };
            self.send(session, 0, What::Node(ToNode::Input { at, input }));
        }
    }

    fn device_hears(&mut self, index: usize, session: u128, kind: MachineMessageKind) {
        let session_id: SessionId = names::session(session);
        if let MachineMessageKind::Failure(failure) = &kind {
            self.say(&format!("device {} hears {:?}", index + 1, failure.code));
        }
        match kind {
            MachineMessageKind::Status(status) => {
                if let Some(session) = &mut self.devices[index].session {
                    session.boot = status.boot_id;
                    if status.boot_id.is_none() {
                        session.attached_to = None;
                    }
                }
            }
            MachineMessageKind::Progress { command_id, stage: Stage::Delivered } => {
                let command = self.devices[index].outbox.iter().find(|it| it.header.command_id == command_id).cloned();
                if let Some(command) = command {
                    self.record(Event::Told(key(&command), command.hash(), Word::Delivered));
                }
            }
            MachineMessageKind::Receipt(receipt) => {
                let outbox = &mut self.devices[index].outbox;
                let before = outbox.len();
                outbox.retain(|it| it.header.command_id != receipt.facts.command_id);
                let word = match receipt.facts.outcome {
                    OutcomeKind::Executed => Word::Executed,
                    OutcomeKind::Refused => Word::Refused,
                    OutcomeKind::Unknown => Word::Unknown,
                };
                let facts = receipt.facts;
                let asked = CommandKey { device_id: facts.device_id, command_id: facts.command_id };
                if before > self.devices[index].outbox.len() {
                    self.record(Event::Told(asked, facts.command_hash, word));
                }
            }
            MachineMessageKind::Verdict(verdict) => {
                let (Verdict::Resumed { from: last } | Verdict::Gap { as_of: last }) = verdict.verdict;
                self.record(Event::Watches(session_id, verdict.stream_id, last));
            }
            MachineMessageKind::Event(event) => self.record(Event::Seen(session_id, event.stream_id, event.seq)),
            MachineMessageKind::StreamEnd(end) => {
                self.record(Event::Ended(session_id, end.stream_id));
                if let Some(session) = &mut self.devices[index].session {
                    session.attached_to = None;
                }
            }
            MachineMessageKind::Failure(_) => {
                // Perhaps the connector does not know this session any more.
                if let Some(session) = &mut self.devices[index].session {
                    session.attached_to = None;
                }
            }
            MachineMessageKind::Progress { stage: Stage::Accepted, .. }
            | MachineMessageKind::Chunk { .. }
            | MachineMessageKind::ProbeReply { .. } => {}
        }
    }
}

pub(super) fn key(command: &SignedCommand) -> CommandKey {
    CommandKey { device_id: command.header.device_id, command_id: command.header.command_id }
}
