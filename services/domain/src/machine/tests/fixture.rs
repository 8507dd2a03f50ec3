//! A machine, its devices and its connector as plain values.

use std::time::{Duration, Instant};

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use uuid::Uuid;

use crate::command::{
    ApprovalAnswer, CommandClass, CommandHeader, CommandKind, Decision, SignedCommand, command_transcript,
};
use crate::encoding::sha256;
use crate::epoch::Epoch;
use crate::error::ErrorCode;
use crate::id::{
    AccountId, ApprovalId, BootId, CommandId, DeviceId, Generation, GrantId, Incarnation, LinkId, MachineId, SessionId,
    UserId,
};
use crate::key::{PublicKey, sign};
use crate::limits::CREDENTIAL_LIFETIME;
use crate::machine::effect::{Dropped, Effect, Note, Subject};
use crate::machine::message::{
    Answer, ConnectorFrame, ConnectorMessage, DeviceMessage, DeviceMessageKind, Event, Input, MachineMessage,
    MachineMessageKind, MachineReport, OpenLink, OpenSession, OutcomeKind, OwnerMessage, ReceiptFacts, SignedReceipt,
    StreamVerdict, Transport,
};
use crate::machine::{Machine, Now};
use crate::placement::Cause;
use crate::scope::{MachineKey, Principal, Role};
use crate::secret::Payload;
use crate::status::MachineStatus;
use crate::stream::{StreamId, Verdict};
use crate::time::UnixMillis;
use crate::token::{EncodedKey, Grant};

pub(super) const MACHINE: u128 = 100;
pub(super) const ACCOUNT: u128 = 200;

pub(super) struct World {
    pub(super) machine: Machine,
    pub(super) now: Now,
    pub(super) epoch: Epoch,
    pub(super) link: LinkId,
    pub(super) boot: BootId,
    /// The last question to the directory, while it has no answer.
    pub(super) asked: Option<Question>,
}

/// A question to the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) floor: Epoch,
    pub(super) replacing: Option<Incarnation>,
    pub(super) cause: Cause,
}

impl World {
    /// A machine that nobody has open and that is not linked.
    pub(super) fn new() -> Self {
        Self::of_machine(MACHINE)
    }

    /// [`Self::new`], of another machine.
    pub(super) fn of_machine(number: u128) -> Self {
        let now = Now { instant: start(), unix: UnixMillis(1_000_000) };
        let machine_id = MachineId::from_uuid(Uuid::from_u128(number));
        let key = MachineKey::new(Principal::Machine { account_id: account(), machine_id }.scope(), machine_id);
        let machine = Machine::new(key, incarnation(), now);
        Self { machine, now, epoch: Epoch::ZERO, link: link(0), boot: boot(0), asked: None }
    }

    /// A machine that is linked, and one session of device 1 as owner, not yet admitted.
    pub(super) fn linked() -> Self {
        let mut world = Self::new();
        world.link_up(1, 1, 1);
        world.report(MachineStatus::CodexReady);
        world.open(1, 1, Role::Owner);
        world
    }

    pub(super) fn handle(&mut self, input: Input) -> Vec<Effect> {
        let effects = self.machine.handle(input, self.now);
        for effect in &effects {
            if let Effect::Acquire { floor, replacing, cause } = effect {
                assert_eq!(self.asked, None, "one question at a time");
                self.asked = Some(Question { floor: *floor, replacing: *replacing, cause: *cause });
            }
        }
        self.epoch = self.machine.owned().unwrap_or(self.epoch);
        effects
    }

    /// The directory answers.
    pub(super) fn answer(&mut self, answer: Answer) -> Vec<Effect> {
        assert!(self.asked.take().is_some(), "the directory was asked");
        self.handle(Input::Acquired(answer))
    }

    /// The directory, if it was asked, says that the machine is this node's; the effects go on.
    pub(super) fn owned(&mut self, mut effects: Vec<Effect>) -> Vec<Effect> {
        if let Some(asked) = self.asked {
            let kept = self.epoch > Epoch::ZERO && self.epoch >= asked.floor;
            let epoch = if kept { self.epoch } else { asked.floor.above(incarnation()) };
            effects.extend(self.answer(Answer::Owned(epoch)));
        }
        effects
    }

    pub(super) fn pass(&mut self, duration: Duration) {
        self.now.instant += duration;
        self.now.unix = self.now.unix.plus(duration);
    }

    /// Opens a session of a machine that this node owns or is given.
    pub(super) fn open(&mut self, session_number: u128, device: u8, role: Role) -> Vec<Effect> {
        let effects = self.ask_to_open(session_number, device, role, None);
        self.owned(effects)
    }

    pub(super) fn ask_to_open(
        &mut self,
        session_number: u128,
        device: u8,
        role: Role,
        replacing: Option<Incarnation>,
    ) -> Vec<Effect> {
        let grant = grant(device, role, self.now.unix.plus(Duration::from_secs(3600)));
        self.handle(Input::SessionOpened(OpenSession { session_id: session(session_number), grant, replacing }))
    }

    pub(super) fn open_link(&mut self, number: u128, counter: u64, boot_number: u8) -> Vec<Effect> {
        let open = self.open_link_of(number, counter, boot_number);
        self.handle(Input::LinkOpened(open))
    }

    pub(super) fn open_link_of(&self, number: u128, counter: u64, boot_number: u8) -> OpenLink {
        OpenLink {
            link_id: link(number),
            link_counter: counter,
            boot_id: boot(boot_number),
            transport: Transport::WebSocket,
            connector_version: "1.0.0".to_owned(),
            channel_bound: true,
            holds_until: self.now.unix.plus(CREDENTIAL_LIFETIME),
            revoked_devices: Vec::new(),
            replacing: None,
        }
    }

    /// Opens a link, acquires and attaches; returns what the last step led to.
    pub(super) fn link_up(&mut self, number: u128, counter: u64, boot_number: u8) -> Vec<Effect> {
        let effects = self.open_link(number, counter, boot_number);
        self.owned(effects);
        self.link = link(number);
        self.boot = boot(boot_number);
        self.frame_at(None, ConnectorMessage::Attached { highest: self.epoch })
    }

    pub(super) fn frame(&mut self, message: ConnectorMessage) -> Vec<Effect> {
        self.frame_at(Some(self.epoch), message)
    }

    pub(super) fn frame_at(&mut self, epoch: Option<Epoch>, message: ConnectorMessage) -> Vec<Effect> {
        let link_id = self.link;
        self.handle(Input::LinkFrame { link_id, frame: ConnectorFrame { epoch, message } })
    }

    pub(super) fn report(&mut self, status: MachineStatus) -> Vec<Effect> {
        self.frame(ConnectorMessage::Report(report(status)))
    }

    pub(super) fn send(&mut self, session_number: u128, kind: DeviceMessageKind) -> Vec<Effect> {
        let message = DeviceMessage { trace: None, kind };
        self.handle(Input::SessionMessage { session_id: session(session_number), message, deadline: None })
    }

    pub(super) fn ask(&mut self, session_number: u128, command: &SignedCommand) -> Vec<Effect> {
        self.send(session_number, DeviceMessageKind::Command(Box::new(command.clone())))
    }

    pub(super) fn receipt(&mut self, to: u128, command: &SignedCommand, outcome: OutcomeKind) -> Vec<Effect> {
        self.say(to, MachineMessageKind::Receipt(receipt(command, outcome)))
    }

    /// The connector says something to one session.
    pub(super) fn say(&mut self, to: u128, kind: MachineMessageKind) -> Vec<Effect> {
        let message = MachineMessage { trace: None, kind };
        self.frame(ConnectorMessage::ToSession { session_id: session(to), message })
    }

    pub(super) fn subscribe(&mut self, to: u128, device_number: u8, stream: u32, verdict: Verdict) -> Vec<Effect> {
        let verdict =
            StreamVerdict { command_id: command_id(9), stream_id: StreamId(stream), boot_id: self.boot, verdict };
        let device_id = device_id(device_number);
        self.frame(ConnectorMessage::Subscribed { session_id: session(to), device_id, verdict })
    }

    pub(super) fn shared(&mut self, stream: u32, seq: u64, bytes: usize) -> Vec<Effect> {
        self.frame(ConnectorMessage::SharedEvent(event(stream, seq, bytes)))
    }
}

#[expect(clippy::disallowed_methods, reason = "a monotonic instant cannot be made from nothing")]
fn start() -> Instant {
    Instant::now()
}

pub(super) fn other_account() -> AccountId {
    AccountId::from_uuid(Uuid::from_u128(ACCOUNT + 1))
}

pub(super) fn account() -> AccountId {
    AccountId::from_uuid(Uuid::from_u128(ACCOUNT))
}

pub(super) fn machine_key() -> MachineKey {
    let machine_id = MachineId::from_uuid(Uuid::from_u128(MACHINE));
    MachineKey::new(Principal::Machine { account_id: account(), machine_id }.scope(), machine_id)
}

pub(super) fn user(device: u8) -> UserId {
    UserId::from_uuid(Uuid::from_u128(u128::from(device) + 300))
}

pub(super) fn grant_id(device: u8) -> GrantId {
    GrantId::from_uuid(Uuid::from_u128(u128::from(device) + 400))
}

pub(super) fn grant(device: u8, role: Role, expires_at: UnixMillis) -> Grant {
    let device_key = EncodedKey(PublicKey::of(&device_key(device)));
    Grant { grant_id: grant_id(device), account_id: account(), user_id: user(device), role, device_key, expires_at }
}

pub(super) fn device_key(device: u8) -> SigningKey {
    SigningKey::from_bytes(&[device; 32])
}

pub(super) fn device_id(device: u8) -> DeviceId {
    PublicKey::of(&device_key(device)).device_id()
}

pub(super) fn session(number: u128) -> SessionId {
    SessionId::from_uuid(Uuid::from_u128(number))
}

pub(super) fn link(number: u128) -> LinkId {
    LinkId::from_uuid(Uuid::from_u128(number))
}

pub(super) fn boot(number: u8) -> BootId {
    BootId::from_bytes([number; 16])
}

/// Another node.
pub(super) fn other_node() -> Incarnation {
    Incarnation::from_bytes([9; 16])
}

pub(super) fn incarnation() -> Incarnation {
    Incarnation::from_bytes([7; 16])
}

pub(super) fn command_id(number: u128) -> CommandId {
    CommandId::from_uuid(Uuid::from_u128(number))
}

pub(super) fn report(status: MachineStatus) -> MachineReport {
    MachineReport { status, codex_version: "0.169.0".to_owned(), read_only: false, paused: false }
}

pub(super) fn event(stream: u32, seq: u64, bytes: usize) -> Event {
    Event { stream_id: StreamId(stream), seq, body: Payload::new(Bytes::from(vec![1; bytes])) }
}

/// A command of a device in a session, with a body that tells commands of one id apart.
pub(super) fn command(device: u8, in_session: u128, number: u128, kind: CommandKind, body: &str) -> SignedCommand {
    altered(device, in_session, number, kind, body, |_| {})
}

pub(super) fn altered(
    device: u8,
    in_session: u128,
    number: u128,
    kind: CommandKind,
    body: &str,
    alter: impl FnOnce(&mut CommandHeader),
) -> SignedCommand {
    let session_id = match kind.class() {
        CommandClass::Read => Some(session(in_session)),
        CommandClass::Effect => None,
    };
    let mut header = CommandHeader {
        command_id: command_id(number),
        account_id: account(),
        machine_id: machine_key().machine_id(),
        device_id: device_id(device),
        boot_id: boot(1),
        issued_at: UnixMillis(1_000_000),
        lifetime: Duration::from_secs(600),
        kind,
        body_sha256: sha256(body.as_bytes()),
        session_id,
        answer: None,
    };
    alter(&mut header);
    let header_bytes = Bytes::from(format!("{header:?}"));
    let signature = Bytes::copy_from_slice(&sign(&device_key(device), command_transcript(&header_bytes)));
    SignedCommand {
        header,
        header_bytes,
        body: Payload::new(Bytes::copy_from_slice(body.as_bytes())),
        signature,
        audit_receipt: None,
        assertion: None,
    }
}

/// An answer of a device to an approval.
pub(super) fn answer(device: u8, number: u128, approval: u8, decision: Decision) -> SignedCommand {
    altered(device, 0, number, CommandKind::AnswerApproval, "answer", |header| {
        header.answer = Some(ApprovalAnswer {
            approval_id: ApprovalId::from_bytes([approval; 32]),
            generation: Generation::from_bytes([1; 32]),
            decision,
        });
    })
}

pub(super) fn receipt(command: &SignedCommand, outcome: OutcomeKind) -> SignedReceipt {
    let facts = ReceiptFacts {
        device_id: command.header.device_id,
        command_id: command.header.command_id,
        command_hash: command.hash(),
        outcome,
        bulk: false,
    };
    SignedReceipt { receipt: Payload::new(Bytes::from(format!("{facts:?}"))), signature: Bytes::new(), facts }
}

// === Reading effects ===

pub(super) fn sent_to(effects: &[Effect], to: u128) -> Vec<MachineMessageKind> {
    let wanted = session(to);
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::ToSession { session_id, message } if *session_id == wanted => Some(message.kind.clone()),
            Effect::ToSession { .. }
            | Effect::SessionOpened(_)
            | Effect::EndSession { .. }
            | Effect::LinkOpened(_)
            | Effect::ToLink { .. }
            | Effect::EndLink { .. }
            | Effect::NotOwner { .. }
            | Effect::Acquire { .. }
            | Effect::Assert
            | Effect::Find
            | Effect::SetLink { .. }
            | Effect::DeviceRemoved(_)
            | Effect::Note(_) => None,
        })
        .collect()
}

pub(super) fn to_link(effects: &[Effect]) -> Vec<&OwnerMessage> {
    effects
        .iter()
        .filter_map(|effect| if let Effect::ToLink { message, .. } = effect { Some(message) } else { None })
        .collect()
}

pub(super) fn forwarded(effects: &[Effect]) -> Vec<SessionId> {
    to_link(effects)
        .into_iter()
        .filter_map(
            |message| {
                if let OwnerMessage::FromSession { session_id, .. } = message { Some(*session_id) } else { None }
            },
        )
        .collect()
}

pub(super) fn failures(effects: &[Effect], to: u128) -> Vec<ErrorCode> {
    sent_to(effects, to)
        .into_iter()
        .filter_map(|kind| if let MachineMessageKind::Failure(failure) = kind { Some(failure.code) } else { None })
        .collect()
}

pub(super) fn receipts(effects: &[Effect], to: u128) -> Vec<OutcomeKind> {
    sent_to(effects, to)
        .into_iter()
        .filter_map(
            |kind| {
                if let MachineMessageKind::Receipt(receipt) = kind { Some(receipt.facts.outcome) } else { None }
            },
        )
        .collect()
}

pub(super) fn statuses(effects: &[Effect], to: u128) -> Vec<MachineStatus> {
    sent_to(effects, to)
        .into_iter()
        .filter_map(|kind| if let MachineMessageKind::Status(notice) = kind { Some(notice.status) } else { None })
        .collect()
}

pub(super) fn events(effects: &[Effect], to: u128) -> Vec<u64> {
    sent_to(effects, to)
        .into_iter()
        .filter_map(|kind| if let MachineMessageKind::Event(event) = kind { Some(event.seq) } else { None })
        .collect()
}

pub(super) fn stream_ends(effects: &[Effect], to: u128) -> Vec<(u32, u64, ErrorCode)> {
    sent_to(effects, to)
        .into_iter()
        .filter_map(|kind| {
            if let MachineMessageKind::StreamEnd(end) = kind {
                Some((end.stream_id.0, end.last_seq, end.code))
            } else {
                None
            }
        })
        .collect()
}

pub(super) fn session_ends(effects: &[Effect]) -> Vec<(SessionId, ErrorCode)> {
    effects
        .iter()
        .filter_map(|effect| {
            if let Effect::EndSession { session_id, code, .. } = effect { Some((*session_id, *code)) } else { None }
        })
        .collect()
}

pub(super) fn link_ends(effects: &[Effect]) -> Vec<(LinkId, ErrorCode)> {
    effects
        .iter()
        .filter_map(
            |effect| {
                if let Effect::EndLink { link_id, code, .. } = effect { Some((*link_id, *code)) } else { None }
            },
        )
        .collect()
}

pub(super) fn not_owner(effects: &[Effect]) -> Vec<(Subject, Option<Incarnation>)> {
    effects
        .iter()
        .filter_map(
            |effect| {
                if let Effect::NotOwner { subject, owner } = effect { Some((*subject, *owner)) } else { None }
            },
        )
        .collect()
}

pub(super) fn drops(effects: &[Effect]) -> Vec<Dropped> {
    effects
        .iter()
        .filter_map(|effect| if let Effect::Note(Note::Dropped(reason)) = effect { Some(*reason) } else { None })
        .collect()
}
