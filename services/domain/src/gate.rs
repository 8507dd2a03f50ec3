//! The machine's own gate: who may do what. Everything before it is advice; what it says happens (INV-KEY,
//! INV-ONCE, INV-FINAL).
//!
//! The checks run in one order, and the order matters:
//!
//! 1. *Is this word really the device's?* Account, machine, list, session, signature, body, admission. Until all
//!    of it holds nobody has asked anything: the answer is [`Ruling::Turned`], which the machine does not sign.
//!    A signed refusal here would let a relay that replays a header with a broken signature obtain the machine's
//!    word that an executed command was refused.
//! 2. *Was it asked before?* A repeat is answered with what is known, whatever has changed since.
//! 3. *May it happen now?* Life of the connector, low water, lifetime, role, pause, journal, room. Here a refusal
//!    is final, signed, and remembered.

use std::time::Duration;

use crate::command::{CommandClass, CommandHeader, CommandKind, Decision, Outcome, SignedCommand};
use crate::device::{DeviceList, Holder};
use crate::error::ErrorCode;
use crate::id::{AccountId, BootId, CommandHash, DeviceId, MachineId, SessionId};
use crate::limits::{COMMAND_LIFETIME_MAX, COMMAND_SKEW_MAX};
use crate::scope::Role;
use crate::time::UnixMillis;

pub mod approval;

/// The machine as the gate sees it at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Situation {
    /// The account that was pinned at pairing.
    pub account_id: AccountId,
    /// This machine.
    pub machine_id: MachineId,
    /// This life of the connector.
    pub boot_id: BootId,
    /// The machine's clock.
    pub now: UnixMillis,
    /// The desk paused remote control.
    pub paused: bool,
    /// The desk obeys no key that a browser holds.
    pub browser_keys_refused: bool,
    /// Effects can be journalled.
    pub journal_writable: bool,
    /// There is room for another command.
    pub has_room: bool,
    /// Effects signed at or before this time may have been forgotten.
    pub low_water: UnixMillis,
}

/// A command as it arrived.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// What was signed.
    pub command: &'a SignedCommand,
    /// The session that brought it.
    pub session_id: SessionId,
    /// The device of that session, by the account's grant.
    pub session_device_id: DeviceId,
    /// The account's word on the user.
    pub account_role: Role,
    /// As which device the machine itself admitted the session.
    pub admitted_as: Option<DeviceId>,
}

/// What the machine remembers of a (device, command id).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// What exactly was asked.
    pub hash: CommandHash,
    /// What became of it.
    pub state: Known,
}

/// What became of a remembered command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// It is under way in this life of the connector; its receipt will follow.
    UnderWay,
    /// An earlier life of the connector began it and left no outcome.
    LeftOpen,
    /// The outcome.
    Settled(Outcome),
}

/// What the gate says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// Not proven to be the device's word: told as a failure, not signed, not remembered.
    Turned(ErrorCode),
    /// Asked before, with the same hash.
    Repeat(Known),
    /// Final, signed and remembered: it does not and will not happen. A reused id is refused but not remembered,
    /// for its first use stands.
    Refused(ErrorCode),
    /// Final and signed: it may have happened in another life of the connector.
    Unknown,
    /// It may happen, as this role.
    Pass(Role),
}

/// Rules on a command. `recall` looks up what the machine remembers of the command's (device, id).
#[must_use]
pub fn rule(
    situation: &Situation,
    devices: &DeviceList,
    arrival: &Arrival<'_>,
    recall: impl FnOnce() -> Option<Remembered>,
) -> Ruling {
    let role = match authenticate(situation, devices, arrival) {
        Ok(role) => role,
        Err(code) => return Ruling::Turned(code),
    };
    let header = &arrival.command.header;
    let forgettable = may_be_forgotten(situation, header);
    if let Some(ruling) = asked_before(recall(), arrival.command.hash(), forgettable) {
        return ruling;
    }
    match timely(situation, header).and_then(|()| permitted(situation, header, role)) {
        Ok(()) => Ruling::Pass(role),
        Err(code) => Ruling::Refused(code),
    }
}

/// The second question: what is said to a command that was, or may have been, asked before. None: it was not.
///
/// `forgettable`: it is an effect whose trace may be lost, since it was signed for another life of the connector, or
/// at or before low water. That alone keeps INV-ONCE where a journal is lost.
#[must_use]
pub fn asked_before(remembered: Option<Remembered>, hash: CommandHash, forgettable: bool) -> Option<Ruling> {
    match remembered {
        Some(remembered) if remembered.hash == hash => Some(Ruling::Repeat(remembered.state)),
        Some(_) => Some(Ruling::Refused(ErrorCode::CommandIdReused)),
        None => forgettable.then_some(Ruling::Unknown),
    }
}

fn authenticate(situation: &Situation, devices: &DeviceList, arrival: &Arrival<'_>) -> Result<Role, ErrorCode> {
    let header = &arrival.command.header;
    if header.account_id != situation.account_id {
        return Err(ErrorCode::WrongAccount);
    }
    if header.machine_id != situation.machine_id {
        return Err(ErrorCode::WrongMachine);
    }
    let Some(device) = devices.get(&header.device_id) else {
        let removed = devices.is_removed(&header.device_id);
        return Err(if removed { ErrorCode::DeviceRevoked } else { ErrorCode::DeviceNotEnrolled });
    };
    if arrival.session_device_id != header.device_id {
        return Err(ErrorCode::NotAdmitted);
    }
    arrival.command.verify(&device.key.0)?;
    if situation.browser_keys_refused && device.holder == Holder::Browser {
        return Err(ErrorCode::BrowserKeysRefused);
    }
    bound_to_session(header, arrival)?;
    Ok(device.role.min(arrival.account_role))
}

fn bound_to_session(header: &CommandHeader, arrival: &Arrival<'_>) -> Result<(), ErrorCode> {
    if header.kind != CommandKind::Attach && arrival.admitted_as != Some(header.device_id) {
        return Err(ErrorCode::NotAdmitted);
    }
    match (header.kind.class(), header.session_id) {
        (CommandClass::Read, Some(session_id)) if session_id == arrival.session_id => Ok(()),
        (CommandClass::Read, _) => Err(ErrorCode::NotAdmitted),
        (CommandClass::Effect, None) => Ok(()),
        (CommandClass::Effect, Some(_)) => Err(ErrorCode::BadRequest),
    }
}

/// An effect that is not remembered and may have been: signed for another life, or below low water.
fn may_be_forgotten(situation: &Situation, header: &CommandHeader) -> bool {
    match header.kind.class() {
        CommandClass::Read => false,
        CommandClass::Effect => header.boot_id != situation.boot_id || header.issued_at <= situation.low_water,
    }
}

fn timely(situation: &Situation, header: &CommandHeader) -> Result<(), ErrorCode> {
    if header.boot_id != situation.boot_id {
        return Err(ErrorCode::WrongBoot);
    }
    if header.lifetime > COMMAND_LIFETIME_MAX {
        return Err(ErrorCode::LifetimeTooLong);
    }
    if header.issued_at > situation.now.plus(COMMAND_SKEW_MAX) {
        return Err(ErrorCode::CommandNotYetValid);
    }
    if situation.now > expires_at(header).plus(COMMAND_SKEW_MAX) {
        return Err(ErrorCode::CommandExpired);
    }
    Ok(())
}

fn permitted(situation: &Situation, header: &CommandHeader, role: Role) -> Result<(), ErrorCode> {
    if role < header.kind.least_role() {
        return Err(ErrorCode::RoleInsufficient);
    }
    let acts = match header.kind.class() {
        CommandClass::Read => false,
        CommandClass::Effect => true,
    };
    if acts && situation.paused {
        return Err(ErrorCode::RemotePaused);
    }
    if acts && !situation.journal_writable && !only_stops(header) {
        return Err(ErrorCode::JournalUnavailable);
    }
    if !situation.has_room && !only_stops(header) {
        return Err(ErrorCode::MachineBusy);
    }
    Ok(())
}

/// Whether a command can only stop something: it works without a journal.
#[must_use]
pub fn only_stops(header: &CommandHeader) -> bool {
    match (header.kind, header.answer.map(|answer| answer.decision)) {
        (CommandKind::Interrupt, _) | (CommandKind::AnswerApproval, Some(Decision::Decline | Decision::Cancel)) => true,
        (
            CommandKind::Attach
            | CommandKind::ListThreads
            | CommandKind::ReadThread
            | CommandKind::ListModels
            | CommandKind::WatchThread
            | CommandKind::UnwatchThread
            | CommandKind::StartThread
            | CommandKind::StartTurn
            | CommandKind::Steer
            | CommandKind::RenameThread
            | CommandKind::ArchiveThread
            | CommandKind::UnarchiveThread
            | CommandKind::Review
            | CommandKind::AnswerApproval
            | CommandKind::AnswerQuestion
            | CommandKind::ListDevices
            | CommandKind::EndorseDevice
            | CommandKind::PinPasskey,
            _,
        ) => false,
    }
}

/// The end of a command's lifetime, before skew.
fn expires_at(header: &CommandHeader) -> UnixMillis {
    header.issued_at.plus(header.lifetime.min(Duration::from_secs(u64::from(u32::MAX))))
}

#[cfg(test)]
mod tests;
