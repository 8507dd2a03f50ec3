//! Commands on their way to the machine, and receipts on their way back.
//!
//! The actor checks everything that it can (signature, account, machine, device, session, role, bounds); the
//! connector checks again, and only its check counts. What the actor refuses is told as a `failure`, which is
//! advice: a receipt is final, and only the machine signs one.
//!
//! **Approvals are single use here as well.** While an answer to an approval is in flight, another command that
//! answers the same approval is told `machine_busy` and when to ask again; it is not told `already_answered`,
//! because the first one may yet be refused. Once the first has its receipt the later one is forwarded like any
//! command, and the machine's own receipt tells its sender who answered, how and when.

use std::time::Duration;

use crate::command::{CommandClass, SignedCommand};
use crate::error::ErrorCode;
use crate::id::SessionId;
use crate::ledger::{Asked, CommandKey, InFlight, Received};
use crate::limits::{ACTOR_BUSY_RETRY_AFTER, ACTOR_COMMAND_WAIT, HAND_OVER_WAIT};
use crate::machine::effect::{Dropped, Effect, Note};
use crate::machine::message::{
    DeviceMessage, DeviceMessageKind, Failure, MachineMessage, MachineMessageKind, OwnerMessage, SignedReceipt, Stage,
    Trace,
};
use crate::machine::sessions::{Session, dropped};
use crate::machine::{Effects, Machine, Now, to_session};
use crate::scope::MachineKey;

impl Machine {
    pub(super) fn session_message(
        &mut self,
        session_id: SessionId,
        message: DeviceMessage,
        deadline: Option<Duration>,
        now: Now,
        effects: &mut Effects,
    ) {
        let Some(session) = self.sessions.get_mut(&session_id) else {
            effects.push(dropped(Dropped::UnknownSession));
            return;
        };
        let trace = message.trace;
        match &message.kind {
            DeviceMessageKind::Command(command) => {
                let asked = match admissible(self.key, session_id, session, command) {
                    Ok(()) => self.command(session_id, command, trace, deadline, now, effects),
                    Err(code) => Err((code, Duration::ZERO)),
                };
                match asked {
                    Ok(Forward::Yes) => {
                        effects.push(Effect::Note(Note::CommandForwarded(command.header.kind)));
                        let command_id = command.header.command_id;
                        self.forward(session_id, message, effects);
                        let kind = MachineMessageKind::Progress { command_id, stage: Stage::Accepted };
                        effects.push(to_session(session_id, trace, kind));
                    }
                    Ok(Forward::No) => {}
                    Err((code, retry_after)) => {
                        let failure = Failure { code, command_id: Some(command.header.command_id), retry_after };
                        self.fail(session_id, trace, failure, effects);
                    }
                }
            }
            DeviceMessageKind::EventCredit(bytes) => session.credited(*bytes),
            DeviceMessageKind::BulkCredit { .. } => self.forward(session_id, message, effects),
            DeviceMessageKind::Probe { .. } => {
                if self.online() {
                    self.forward(session_id, message, effects);
                } else {
                    let code = ErrorCode::MachineOffline;
                    let failure = Failure { code, command_id: None, retry_after: Duration::ZERO };
                    self.fail(session_id, trace, failure, effects);
                }
            }
        }
    }

    /// Decides on a command that may be asked: forward it, answer it, or refuse it with advice.
    fn command(
        &mut self,
        session_id: SessionId,
        command: &SignedCommand,
        trace: Option<Trace>,
        deadline: Option<Duration>,
        now: Now,
        effects: &mut Effects,
    ) -> Result<Forward, (ErrorCode, Duration)> {
        let header = &command.header;
        let key = CommandKey { device_id: header.device_id, command_id: header.command_id };
        let hash = command.hash();
        match self.ledger.ask(key, hash, session_id, self.online()) {
            Asked::Reused => return Err((ErrorCode::CommandIdReused, Duration::ZERO)),
            Asked::InFlight(stage) => {
                let kind = MachineMessageKind::Progress { command_id: header.command_id, stage };
                effects.push(to_session(session_id, trace, kind));
                return Ok(Forward::No);
            }
            Asked::Answered(receipt) => {
                effects.push(Effect::Note(Note::RepeatAnswered));
                effects.push(to_session(session_id, trace, MachineMessageKind::Receipt(receipt)));
                return Ok(Forward::No);
            }
            Asked::Full if self.online() => return Err((ErrorCode::MachineBusy, ACTOR_BUSY_RETRY_AFTER)),
            Asked::Full | Asked::Forward => {}
        }
        if !self.online() {
            return Err((ErrorCode::MachineOffline, Duration::ZERO));
        }
        if self.draining {
            return Err((ErrorCode::Moving, HAND_OVER_WAIT));
        }
        let taken = |answer: crate::command::ApprovalAnswer| {
            self.ledger.answer_in_flight(answer.approval_id, answer.generation)
        };
        if header.answer.is_some_and(taken) {
            return Err((ErrorCode::MachineBusy, ACTOR_BUSY_RETRY_AFTER));
        }
        let wait = deadline.map_or(ACTOR_COMMAND_WAIT, |deadline| deadline.min(ACTOR_COMMAND_WAIT));
        let entry = InFlight {
            hash,
            class: header.kind.class(),
            via: session_id,
            target: session_id,
            stage: Stage::Accepted,
            deadline: now.instant + wait,
            answer: header.answer,
            trace,
        };
        self.ledger.forwarded(key, entry);
        Ok(Forward::Yes)
    }

    /// A message of the connector for one session.
    pub(super) fn machine_message(&mut self, session_id: SessionId, message: MachineMessage, effects: &mut Effects) {
        let MachineMessage { trace, kind } = message;
        let trace = trace.or_else(|| self.trace_of(session_id, &kind));
        match kind {
            MachineMessageKind::Receipt(receipt) => self.receipt(session_id, receipt, trace, effects),
            MachineMessageKind::Progress { command_id, stage } => {
                let target = self.ledger.progress(session_id, command_id, stage).unwrap_or(session_id);
                self.pass(target, MachineMessage { trace, kind }, effects);
            }
            MachineMessageKind::Event(event) => self.replayed_event(session_id, &event, trace, effects),
            MachineMessageKind::Chunk { .. }
            | MachineMessageKind::ProbeReply { .. }
            | MachineMessageKind::Failure(_) => self.pass(session_id, MachineMessage { trace, kind }, effects),
            MachineMessageKind::Status(_) | MachineMessageKind::Verdict(_) | MachineMessageKind::StreamEnd(_) => {
                effects.push(dropped(Dropped::Unexpected));
            }
        }
    }

    /// The trace of the command that a message without one answers.
    fn trace_of(&self, session_id: SessionId, kind: &MachineMessageKind) -> Option<Trace> {
        let command_id = match kind {
            MachineMessageKind::Progress { command_id, .. } | MachineMessageKind::Chunk { command_id, .. } => {
                *command_id
            }
            MachineMessageKind::Receipt(receipt) => receipt.facts.command_id,
            MachineMessageKind::Failure(failure) => failure.command_id?,
            MachineMessageKind::Status(_)
            | MachineMessageKind::Verdict(_)
            | MachineMessageKind::Event(_)
            | MachineMessageKind::ProbeReply { .. }
            | MachineMessageKind::StreamEnd(_) => return None,
        };
        let device_id = self.sessions.get(&session_id)?.device_id();
        self.ledger.trace(CommandKey { device_id, command_id })
    }

    /// Tells a session of a failure on the way.
    fn fail(&self, session_id: SessionId, trace: Option<Trace>, failure: Failure, effects: &mut Effects) {
        if !self.sessions.contains_key(&session_id) {
            return;
        }
        effects.push(Effect::Note(Note::CommandFailed(failure.code)));
        effects.push(to_session(session_id, trace, MachineMessageKind::Failure(failure)));
    }

    /// [`Self::fail`] for a command that was forwarded.
    pub(super) fn fail_known(&self, key: CommandKey, asker: SessionId, code: ErrorCode, effects: &mut Effects) {
        let failure = Failure { code, command_id: Some(key.command_id), retry_after: Duration::ZERO };
        self.fail(asker, self.ledger.trace(key), failure, effects);
    }

    fn receipt(&mut self, named: SessionId, receipt: SignedReceipt, trace: Option<Trace>, effects: &mut Effects) {
        let target = match self.ledger.receipt(&receipt) {
            Received::Settled(target) => target,
            Received::Late => named,
            Received::Mismatch => {
                effects.push(dropped(Dropped::HashMismatch));
                return;
            }
        };
        effects.push(Effect::Note(Note::ReceiptSeen(receipt.facts.outcome)));
        let Some(session) = self.sessions.get(&target) else {
            effects.push(dropped(Dropped::UnknownSession));
            return;
        };
        if session.device_id() != receipt.facts.device_id {
            effects.push(dropped(Dropped::ForeignDevice));
            return;
        }
        self.pass(target, MachineMessage { trace, kind: MachineMessageKind::Receipt(receipt) }, effects);
    }

    fn pass(&self, session_id: SessionId, message: MachineMessage, effects: &mut Effects) {
        if self.sessions.contains_key(&session_id) {
            effects.push(Effect::ToSession { session_id, message });
        } else {
            effects.push(dropped(Dropped::UnknownSession));
        }
    }

    fn forward(&mut self, session_id: SessionId, message: DeviceMessage, effects: &mut Effects) {
        let online = self.online();
        let Some(session) = self.sessions.get_mut(&session_id) else { return };
        session.known_to_connector |= online;
        let (device_id, role) = (session.device_id(), session.grant.role);
        self.to_link(OwnerMessage::FromSession { session_id, device_id, role, message }, effects);
    }

    fn online(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.attached().is_some())
    }
}

enum Forward {
    Yes,
    No,
}

/// Whether this session may ask this command of this machine at all.
fn admissible(
    machine: MachineKey,
    session_id: SessionId,
    session: &Session,
    command: &SignedCommand,
) -> Result<(), ErrorCode> {
    let header = &command.header;
    if header.account_id != machine.account_id() {
        return Err(ErrorCode::WrongAccount);
    }
    if header.machine_id != machine.machine_id() {
        return Err(ErrorCode::WrongMachine);
    }
    command.verify(&session.grant.device_key.0)?;
    if session.grant.role < header.kind.least_role() {
        return Err(ErrorCode::Forbidden);
    }
    match header.kind.class() {
        CommandClass::Read if header.session_id != Some(session_id) => Err(ErrorCode::NotAdmitted),
        CommandClass::Read | CommandClass::Effect => Ok(()),
    }
}
