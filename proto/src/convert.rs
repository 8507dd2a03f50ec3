//! Checked conversions between wire messages and domain types: what passes here is well formed.

use std::time::Duration;

use bytes::Bytes;
use flydex_domain::command::{
    ApprovalAnswer, BulkDescriptor, CommandHeader, CommandKind, Decision, Outcome, Receipt, SignedCommand,
};
use flydex_domain::epoch::Epoch;
use flydex_domain::error::ErrorCode;
use flydex_domain::id::MalformedId;
use flydex_domain::key::{KeyError, PublicKey};
use flydex_domain::limits::{
    PASSKEY_AUTHENTICATOR_DATA_BYTES_MAX, PASSKEY_CLIENT_DATA_BYTES_MAX, PASSKEY_CREDENTIAL_BYTES_MAX,
    PASSKEY_SIGNATURE_BYTES_MAX,
};
use flydex_domain::passkey::Assertion;
use flydex_domain::scope::Role;
use flydex_domain::secret::Payload;
use flydex_domain::status::MachineStatus;
use flydex_domain::stream::{Position, StreamId};
use flydex_domain::time::UnixMillis;
use prost::Message as _;

use crate::v1;

/// A message whose fields do not make sense together, or are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A field that must be there is not.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// An enum value that this version does not know, or that is not allowed here.
    #[error("{0} has an unknown value")]
    Unknown(&'static str),
    /// An identifier of the wrong shape.
    #[error(transparent)]
    Id(#[from] MalformedId),
    /// A public key that is not one.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The bytes inside are not the message they should be.
    #[error("{0} does not decode")]
    Undecodable(&'static str),
}

// === Keys and epochs ===

impl From<PublicKey> for v1::PublicKey {
    fn from(key: PublicKey) -> Self {
        let algorithm = match key {
            PublicKey::Ed25519(_) => v1::KeyAlgorithm::Ed25519,
            PublicKey::P256(_) => v1::KeyAlgorithm::P256,
        };
        Self { algorithm: algorithm.into(), key: Bytes::copy_from_slice(key.as_bytes()) }
    }
}

impl TryFrom<v1::PublicKey> for PublicKey {
    type Error = Malformed;

    fn try_from(key: v1::PublicKey) -> Result<Self, Malformed> {
        match key.algorithm() {
            v1::KeyAlgorithm::Ed25519 => Ok(Self::ed25519(&key.key)?),
            v1::KeyAlgorithm::P256 => Ok(Self::p256(&key.key)?),
            v1::KeyAlgorithm::Unspecified => Err(Malformed::Unknown("key algorithm")),
        }
    }
}

impl From<Epoch> for v1::Epoch {
    fn from(epoch: Epoch) -> Self {
        Self { counter: epoch.counter, incarnation: copy(epoch.incarnation.as_bytes()) }
    }
}

impl TryFrom<v1::Epoch> for Epoch {
    type Error = Malformed;

    fn try_from(epoch: v1::Epoch) -> Result<Self, Malformed> {
        Ok(Self { counter: epoch.counter, incarnation: epoch.incarnation.as_ref().try_into()? })
    }
}

// === Commands ===

impl TryFrom<v1::Command> for SignedCommand {
    type Error = Malformed;

    fn try_from(command: v1::Command) -> Result<Self, Malformed> {
        let header =
            v1::CommandHeader::decode(command.header.clone()).map_err(|_| Malformed::Undecodable("command header"))?;
        Ok(Self {
            header: header.try_into()?,
            header_bytes: command.header,
            body: Payload::new(command.body),
            signature: command.signature,
            audit_receipt: (!command.audit_receipt.is_empty()).then_some(command.audit_receipt),
            assertion: command.assertion.map(assertion).transpose()?,
        })
    }
}

impl From<&SignedCommand> for v1::Command {
    fn from(command: &SignedCommand) -> Self {
        Self {
            header: command.header_bytes.clone(),
            body: command.body.expose().clone(),
            signature: command.signature.clone(),
            audit_receipt: command.audit_receipt.clone().unwrap_or_default(),
            assertion: command.assertion.as_ref().map(|assertion| v1::PasskeyAssertion {
                credential_id: copy(&assertion.credential_id),
                authenticator_data: copy(&assertion.authenticator_data),
                client_data_json: copy(&assertion.client_data_json),
                signature: copy(&assertion.signature),
            }),
        }
    }
}

/// A passkey's word within its sizes; what it says is the machine's to judge.
fn assertion(assertion: v1::PasskeyAssertion) -> Result<Assertion, Malformed> {
    let within = assertion.credential_id.len() <= PASSKEY_CREDENTIAL_BYTES_MAX
        && assertion.authenticator_data.len() <= PASSKEY_AUTHENTICATOR_DATA_BYTES_MAX
        && assertion.client_data_json.len() <= PASSKEY_CLIENT_DATA_BYTES_MAX
        && assertion.signature.len() <= PASSKEY_SIGNATURE_BYTES_MAX;
    if !within {
        return Err(Malformed::Unknown("assertion"));
    }
    Ok(Assertion {
        credential_id: assertion.credential_id.into(),
        authenticator_data: assertion.authenticator_data.into(),
        client_data_json: assertion.client_data_json.into(),
        signature: assertion.signature.into(),
    })
}

impl TryFrom<v1::CommandHeader> for CommandHeader {
    type Error = Malformed;

    fn try_from(header: v1::CommandHeader) -> Result<Self, Malformed> {
        let kind = command_kind(header.kind())?;
        let answer = header.answer.map(ApprovalAnswer::try_from).transpose()?;
        if answer.is_some() != (kind == CommandKind::AnswerApproval) {
            return Err(Malformed::Unknown("answer"));
        }
        let session_id = if header.session_id.is_empty() { None } else { Some(header.session_id.as_ref().try_into()?) };
        Ok(Self {
            command_id: header.command_id.as_ref().try_into()?,
            account_id: header.account_id.as_ref().try_into()?,
            machine_id: header.machine_id.as_ref().try_into()?,
            device_id: header.device_id.as_ref().try_into()?,
            boot_id: header.boot_id.as_ref().try_into()?,
            issued_at: UnixMillis(header.issued_at_ms),
            lifetime: Duration::from_millis(header.lifetime_ms.into()),
            kind,
            body_sha256: header.body_sha256.as_ref().try_into().map_err(|_| Malformed::Missing("body hash"))?,
            session_id,
            answer,
        })
    }
}

impl From<&CommandHeader> for v1::CommandHeader {
    fn from(header: &CommandHeader) -> Self {
        Self {
            command_id: copy(header.command_id.as_bytes()),
            account_id: copy(header.account_id.as_bytes()),
            machine_id: copy(header.machine_id.as_bytes()),
            device_id: copy(header.device_id.as_bytes()),
            boot_id: copy(header.boot_id.as_bytes()),
            issued_at_ms: header.issued_at.0,
            lifetime_ms: u32::try_from(header.lifetime.as_millis()).unwrap_or(u32::MAX),
            kind: wire_kind(header.kind).into(),
            body_sha256: copy(&header.body_sha256),
            session_id: header.session_id.map(|session_id| copy(session_id.as_bytes())).unwrap_or_default(),
            answer: header.answer.map(Into::into),
        }
    }
}

impl TryFrom<v1::ApprovalAnswer> for ApprovalAnswer {
    type Error = Malformed;

    fn try_from(answer: v1::ApprovalAnswer) -> Result<Self, Malformed> {
        let decision = match answer.decision() {
            v1::Decision::Accept => Decision::Accept,
            v1::Decision::AcceptForSession => Decision::AcceptForSession,
            v1::Decision::Decline => Decision::Decline,
            v1::Decision::Cancel => Decision::Cancel,
            v1::Decision::Unspecified => return Err(Malformed::Unknown("decision")),
        };
        Ok(Self {
            approval_id: answer.approval_id.as_ref().try_into()?,
            generation: answer.generation.as_ref().try_into()?,
            decision,
        })
    }
}

impl From<ApprovalAnswer> for v1::ApprovalAnswer {
    fn from(answer: ApprovalAnswer) -> Self {
        let decision = match answer.decision {
            Decision::Accept => v1::Decision::Accept,
            Decision::AcceptForSession => v1::Decision::AcceptForSession,
            Decision::Decline => v1::Decision::Decline,
            Decision::Cancel => v1::Decision::Cancel,
        };
        Self {
            approval_id: copy(answer.approval_id.as_bytes()),
            generation: copy(answer.generation.as_bytes()),
            decision: decision.into(),
        }
    }
}

fn command_kind(kind: v1::CommandKind) -> Result<CommandKind, Malformed> {
    Ok(match kind {
        v1::CommandKind::Unspecified => return Err(Malformed::Unknown("command kind")),
        v1::CommandKind::Attach => CommandKind::Attach,
        v1::CommandKind::ListThreads => CommandKind::ListThreads,
        v1::CommandKind::ReadThread => CommandKind::ReadThread,
        v1::CommandKind::ListModels => CommandKind::ListModels,
        v1::CommandKind::WatchThread => CommandKind::WatchThread,
        v1::CommandKind::UnwatchThread => CommandKind::UnwatchThread,
        v1::CommandKind::StartThread => CommandKind::StartThread,
        v1::CommandKind::StartTurn => CommandKind::StartTurn,
        v1::CommandKind::Steer => CommandKind::Steer,
        v1::CommandKind::Interrupt => CommandKind::Interrupt,
        v1::CommandKind::RenameThread => CommandKind::RenameThread,
        v1::CommandKind::ArchiveThread => CommandKind::ArchiveThread,
        v1::CommandKind::UnarchiveThread => CommandKind::UnarchiveThread,
        v1::CommandKind::Review => CommandKind::Review,
        v1::CommandKind::AnswerApproval => CommandKind::AnswerApproval,
        v1::CommandKind::AnswerQuestion => CommandKind::AnswerQuestion,
        v1::CommandKind::ListDevices => CommandKind::ListDevices,
        v1::CommandKind::EndorseDevice => CommandKind::EndorseDevice,
        v1::CommandKind::PinPasskey => CommandKind::PinPasskey,
    })
}

/// The wire's word for a kind of command.
#[must_use]
pub const fn wire_kind(kind: CommandKind) -> v1::CommandKind {
    match kind {
        CommandKind::Attach => v1::CommandKind::Attach,
        CommandKind::ListThreads => v1::CommandKind::ListThreads,
        CommandKind::ReadThread => v1::CommandKind::ReadThread,
        CommandKind::ListModels => v1::CommandKind::ListModels,
        CommandKind::WatchThread => v1::CommandKind::WatchThread,
        CommandKind::UnwatchThread => v1::CommandKind::UnwatchThread,
        CommandKind::StartThread => v1::CommandKind::StartThread,
        CommandKind::StartTurn => v1::CommandKind::StartTurn,
        CommandKind::Steer => v1::CommandKind::Steer,
        CommandKind::Interrupt => v1::CommandKind::Interrupt,
        CommandKind::RenameThread => v1::CommandKind::RenameThread,
        CommandKind::ArchiveThread => v1::CommandKind::ArchiveThread,
        CommandKind::UnarchiveThread => v1::CommandKind::UnarchiveThread,
        CommandKind::Review => v1::CommandKind::Review,
        CommandKind::AnswerApproval => v1::CommandKind::AnswerApproval,
        CommandKind::AnswerQuestion => v1::CommandKind::AnswerQuestion,
        CommandKind::ListDevices => v1::CommandKind::ListDevices,
        CommandKind::EndorseDevice => v1::CommandKind::EndorseDevice,
        CommandKind::PinPasskey => v1::CommandKind::PinPasskey,
    }
}

// === Receipts and positions ===

impl From<&Receipt> for v1::Receipt {
    fn from(receipt: &Receipt) -> Self {
        let (outcome, code) = match receipt.outcome {
            Outcome::Executed => (v1::Outcome::Executed, 0),
            Outcome::Refused(code) => (v1::Outcome::Refused, u32::from(code.number())),
            Outcome::Unknown => (v1::Outcome::Unknown, 0),
        };
        Self {
            account_id: copy(receipt.account_id.as_bytes()),
            machine_id: copy(receipt.machine_id.as_bytes()),
            device_id: copy(receipt.device_id.as_bytes()),
            command_id: copy(receipt.command_id.as_bytes()),
            command_hash: copy(receipt.command_hash.as_bytes()),
            outcome: outcome.into(),
            code,
            boot_id: copy(receipt.boot_id.as_bytes()),
            generation: receipt.generation.map(|generation| copy(generation.as_bytes())).unwrap_or_default(),
            at_ms: receipt.at.0,
            as_of: receipt.as_of.map(Into::into),
            result: receipt.result.expose().clone(),
            bulk: receipt
                .bulk
                .map(|bulk| v1::BulkDescriptor { total_bytes: bulk.total_bytes, sha256: copy(&bulk.sha256) }),
        }
    }
}

impl TryFrom<v1::Receipt> for Receipt {
    type Error = Malformed;

    fn try_from(receipt: v1::Receipt) -> Result<Self, Malformed> {
        let outcome = match receipt.outcome() {
            v1::Outcome::Executed => Outcome::Executed,
            v1::Outcome::Refused => {
                Outcome::Refused(ErrorCode::from_number(receipt.code).ok_or(Malformed::Unknown("error code"))?)
            }
            v1::Outcome::Unknown => Outcome::Unknown,
            v1::Outcome::Unspecified => return Err(Malformed::Unknown("outcome")),
        };
        let generation =
            if receipt.generation.is_empty() { None } else { Some(receipt.generation.as_ref().try_into()?) };
        Ok(Self {
            account_id: receipt.account_id.as_ref().try_into()?,
            machine_id: receipt.machine_id.as_ref().try_into()?,
            device_id: receipt.device_id.as_ref().try_into()?,
            command_id: receipt.command_id.as_ref().try_into()?,
            command_hash: receipt.command_hash.as_ref().try_into()?,
            outcome,
            boot_id: receipt.boot_id.as_ref().try_into()?,
            generation,
            at: UnixMillis(receipt.at_ms),
            as_of: receipt.as_of.map(Position::try_from).transpose()?,
            result: Payload::new(receipt.result),
            bulk: receipt.bulk.map(BulkDescriptor::try_from).transpose()?,
        })
    }
}

impl TryFrom<v1::BulkDescriptor> for BulkDescriptor {
    type Error = Malformed;

    fn try_from(bulk: v1::BulkDescriptor) -> Result<Self, Malformed> {
        let sha256 = bulk.sha256.as_ref().try_into().map_err(|_| Malformed::Missing("bulk hash"))?;
        Ok(Self { total_bytes: bulk.total_bytes, sha256 })
    }
}

impl From<Position> for v1::Position {
    fn from(position: Position) -> Self {
        Self { stream_id: position.stream_id.0, boot_id: copy(position.boot_id.as_bytes()), seq: position.seq }
    }
}

impl TryFrom<v1::Position> for Position {
    type Error = Malformed;

    fn try_from(position: v1::Position) -> Result<Self, Malformed> {
        Ok(Self {
            stream_id: StreamId(position.stream_id),
            boot_id: position.boot_id.as_ref().try_into()?,
            seq: position.seq,
        })
    }
}

// === Status ===

/// The role that a device keeps at most, as it travels: empty where it keeps none.
#[must_use]
pub fn wire_kept_role(keeps: Option<Role>) -> String {
    keeps.map_or_else(String::new, |role| role.as_str().to_owned())
}

/// The role that a device keeps at most; none where the text is empty.
///
/// # Errors
/// [`Malformed::Unknown`] for a role that this version does not know.
pub fn kept_role(text: &str) -> Result<Option<Role>, Malformed> {
    if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(|_| Malformed::Unknown("role")) }
}

/// The wire's words for a machine's status: state and code.
#[must_use]
pub const fn wire_status(status: MachineStatus) -> (v1::MachineState, u32) {
    match status {
        MachineStatus::Offline => (v1::MachineState::Offline, 0),
        MachineStatus::Connecting => (v1::MachineState::Connecting, 0),
        MachineStatus::LinkUp => (v1::MachineState::LinkUp, 0),
        MachineStatus::CodexStarting => (v1::MachineState::CodexStarting, 0),
        MachineStatus::CodexReady => (v1::MachineState::CodexReady, 0),
        MachineStatus::CodexUnavailable(code) => (v1::MachineState::CodexUnavailable, code.number() as u32),
        MachineStatus::Draining => (v1::MachineState::Draining, 0),
    }
}

/// The status that a state and a code on the wire mean.
///
/// # Errors
/// [`Malformed::Unknown`] for a state or code that this version does not know.
pub fn machine_status(state: v1::MachineState, code: u32) -> Result<MachineStatus, Malformed> {
    Ok(match state {
        v1::MachineState::Unspecified => return Err(Malformed::Unknown("machine state")),
        v1::MachineState::Offline => MachineStatus::Offline,
        v1::MachineState::Connecting => MachineStatus::Connecting,
        v1::MachineState::LinkUp => MachineStatus::LinkUp,
        v1::MachineState::CodexStarting => MachineStatus::CodexStarting,
        v1::MachineState::CodexReady => MachineStatus::CodexReady,
        v1::MachineState::CodexUnavailable => {
            MachineStatus::CodexUnavailable(ErrorCode::from_number(code).ok_or(Malformed::Unknown("error code"))?)
        }
        v1::MachineState::Draining => MachineStatus::Draining,
    })
}

fn copy(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}
