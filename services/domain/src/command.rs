//! Commands of devices and receipts of machines: the signed words that everything else carries.
//!
//! A signature covers the header's exact bytes as they travelled, so nothing is re-encoded before it is
//! verified; the body is bound by its hash in the header. `proto` turns bytes into these values and back.

use std::time::Duration;

use bytes::Bytes;

use crate::encoding::{Label, Transcript, sha256};
use crate::error::ErrorCode;
use crate::id::{AccountId, ApprovalId, BootId, CommandHash, CommandId, DeviceId, Generation, MachineId, SessionId};
use crate::key::{KeyError, PublicKey};
use crate::passkey::Assertion;
use crate::scope::Role;
use crate::secret::Payload;
use crate::time::UnixMillis;

/// The closed list of what a device can ask of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CommandKind {
    /// Admit this session and watch the machine stream.
    Attach,
    /// A page of threads.
    ListThreads,
    /// A page of a thread's history.
    ReadThread,
    /// The models that Codex offers.
    ListModels,
    /// Watch a thread's stream.
    WatchThread,
    /// Stop watching a thread's stream.
    UnwatchThread,
    /// Start a thread in an allowed folder.
    StartThread,
    /// Start a turn.
    StartTurn,
    /// Add to a running turn.
    Steer,
    /// Stop a running turn.
    Interrupt,
    /// Rename a thread.
    RenameThread,
    /// Archive a thread.
    ArchiveThread,
    /// Restore an archived thread.
    UnarchiveThread,
    /// Start a review.
    Review,
    /// Answer an approval.
    AnswerApproval,
    /// Answer questions that Codex asks.
    AnswerQuestion,
    /// The machine's own list of devices.
    ListDevices,
    /// Vouch for another device's key.
    EndorseDevice,
    /// Pin the passkey that the machine will ask for.
    PinPasskey,
}

/// How a kind of command is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CommandClass {
    /// Bound to a session, remembered in memory only.
    Read,
    /// Journalled before it acts.
    Effect,
}

impl CommandKind {
    /// Every kind.
    pub const ALL: [Self; 19] = [
        Self::Attach,
        Self::ListThreads,
        Self::ReadThread,
        Self::ListModels,
        Self::WatchThread,
        Self::UnwatchThread,
        Self::StartThread,
        Self::StartTurn,
        Self::Steer,
        Self::Interrupt,
        Self::RenameThread,
        Self::ArchiveThread,
        Self::UnarchiveThread,
        Self::Review,
        Self::AnswerApproval,
        Self::AnswerQuestion,
        Self::ListDevices,
        Self::EndorseDevice,
        Self::PinPasskey,
    ];

    /// The name in metrics, audit and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Attach => "attach",
            Self::ListThreads => "list_threads",
            Self::ReadThread => "read_thread",
            Self::ListModels => "list_models",
            Self::WatchThread => "watch_thread",
            Self::UnwatchThread => "unwatch_thread",
            Self::StartThread => "start_thread",
            Self::StartTurn => "start_turn",
            Self::Steer => "steer",
            Self::Interrupt => "interrupt",
            Self::RenameThread => "rename_thread",
            Self::ArchiveThread => "archive_thread",
            Self::UnarchiveThread => "unarchive_thread",
            Self::Review => "review",
            Self::AnswerApproval => "answer_approval",
            Self::AnswerQuestion => "answer_question",
            Self::ListDevices => "list_devices",
            Self::EndorseDevice => "endorse_device",
            Self::PinPasskey => "pin_passkey",
        }
    }

    /// Whether it acts or reads.
    #[must_use]
    pub const fn class(self) -> CommandClass {
        match self {
            Self::Attach
            | Self::ListThreads
            | Self::ReadThread
            | Self::ListModels
            | Self::WatchThread
            | Self::UnwatchThread
            | Self::ListDevices => CommandClass::Read,
            Self::StartThread
            | Self::StartTurn
            | Self::Steer
            | Self::Interrupt
            | Self::RenameThread
            | Self::ArchiveThread
            | Self::UnarchiveThread
            | Self::Review
            | Self::AnswerApproval
            | Self::AnswerQuestion
            | Self::EndorseDevice
            | Self::PinPasskey => CommandClass::Effect,
        }
    }

    /// The least role that may send it.
    #[must_use]
    pub const fn least_role(self) -> Role {
        match (self, self.class()) {
            (Self::EndorseDevice, _) => Role::Owner,
            (_, CommandClass::Read) => Role::Viewer,
            (_, CommandClass::Effect) => Role::Operator,
        }
    }
}

/// An answer to an approval.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Decision {
    /// Do it, this once.
    Accept,
    /// Do it, and the same again in this thread; only where the desk allows it.
    AcceptForSession,
    /// Do not do it, and go on.
    Decline,
    /// Do not do it, and stop the turn.
    Cancel,
}

impl Decision {
    /// The decision with that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Accept, Self::AcceptForSession, Self::Decline, Self::Cancel]
            .into_iter()
            .find(|decision| decision.name() == name)
    }

    /// The name in audit and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::AcceptForSession => "accept_for_session",
            Self::Decline => "decline",
            Self::Cancel => "cancel",
        }
    }

    /// Whether the answer lets something happen, and so must be audited first.
    #[must_use]
    pub const fn is_accept(self) -> bool {
        match self {
            Self::Accept | Self::AcceptForSession => true,
            Self::Decline | Self::Cancel => false,
        }
    }
}

/// The part of an approval's answer that the relay may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ApprovalAnswer {
    /// Which approval.
    pub approval_id: ApprovalId,
    /// The life of Codex that asked.
    pub generation: Generation,
    /// The answer.
    pub decision: Decision,
}

/// What a device signed, except the body, which it binds by hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandHeader {
    /// Made by the device; unique per device.
    pub command_id: CommandId,
    /// The account whose machine is meant.
    pub account_id: AccountId,
    /// The machine that is meant.
    pub machine_id: MachineId,
    /// The fingerprint of the key that signed.
    pub device_id: DeviceId,
    /// The life of the connector that is meant.
    pub boot_id: BootId,
    /// When it was signed, by the device's clock.
    pub issued_at: UnixMillis,
    /// How long it may wait.
    pub lifetime: Duration,
    /// What it asks.
    pub kind: CommandKind,
    /// SHA-256 of the body.
    pub body_sha256: [u8; 32],
    /// The session a read belongs to; absent on effects, which outlive sessions.
    pub session_id: Option<SessionId>,
    /// Present on, and only on, an answer to an approval.
    pub answer: Option<ApprovalAnswer>,
}

/// A command as it travels: header bytes, their meaning, the body and the signature.
#[derive(Clone, Debug)]
pub struct SignedCommand {
    /// The meaning of `header_bytes`.
    pub header: CommandHeader,
    /// What was signed.
    pub header_bytes: Bytes,
    /// Content for the machine; its hash is in the header.
    pub body: Payload,
    /// The device's signature over the header bytes.
    pub signature: Bytes,
    /// Control's word that an accept was audited; not covered by the device's signature.
    pub audit_receipt: Option<String>,
    /// A passkey's word on this command's hash; not covered by the device's signature.
    pub assertion: Option<Assertion>,
}

impl SignedCommand {
    /// The hash by which repeats, receipts and audit records name this command.
    #[must_use]
    pub fn hash(&self) -> CommandHash {
        CommandHash::from_bytes(command_transcript(&self.header_bytes).sha256())
    }

    /// Verifies the device's signature and that the body is the signed one.
    ///
    /// # Errors
    /// `device_not_enrolled` when `key` is not the named device's, `signature_invalid`, or `body_mismatch`.
    pub fn verify(&self, key: &PublicKey) -> Result<(), ErrorCode> {
        if key.device_id() != self.header.device_id {
            return Err(ErrorCode::DeviceNotEnrolled);
        }
        key.verify(command_transcript(&self.header_bytes), &self.signature)
            .map_err(|_: KeyError| ErrorCode::SignatureInvalid)?;
        if sha256(self.body.expose()) != self.header.body_sha256 {
            return Err(ErrorCode::BodyMismatch);
        }
        Ok(())
    }
}

/// The transcript that a device signs.
#[must_use]
pub fn command_transcript(header_bytes: &[u8]) -> Transcript {
    Transcript::new(Label::Command).bytes(header_bytes)
}

/// The transcript that a machine signs for a receipt.
#[must_use]
pub fn receipt_transcript(receipt_bytes: &[u8]) -> Transcript {
    Transcript::new(Label::Receipt).bytes(receipt_bytes)
}

/// The final word on a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Codex accepted it (effects), or the answer follows (reads).
    Executed,
    /// It did not and will not happen.
    Refused(ErrorCode),
    /// It may or may not have happened.
    Unknown,
}

/// What a machine says about a command, and signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The account the machine is pinned to.
    pub account_id: AccountId,
    /// The machine that signs.
    pub machine_id: MachineId,
    /// Whose command.
    pub device_id: DeviceId,
    /// Which command.
    pub command_id: CommandId,
    /// What exactly was asked.
    pub command_hash: CommandHash,
    /// What became of it.
    pub outcome: Outcome,
    /// The life of the connector that answers.
    pub boot_id: BootId,
    /// The life of Codex at that time; absent while none is attached.
    pub generation: Option<Generation>,
    /// The machine's clock.
    pub at: UnixMillis,
    /// The position in a stream at which the answer holds.
    pub as_of: Option<crate::stream::Position>,
    /// Small content of the answer (`agent.proto` `CommandResult`).
    pub result: Payload,
    /// Length and SHA-256 of a large answer on the bulk lane, instead of `result`.
    pub bulk: Option<BulkDescriptor>,
}

/// What a large answer will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BulkDescriptor {
    /// Bytes in all.
    pub total_bytes: u32,
    /// SHA-256 of all bytes.
    pub sha256: [u8; 32],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_viewer_may_read_only_operators_act_and_only_owners_endorse() {
        for kind in CommandKind::ALL {
            let expected = match (kind, kind.class()) {
                (CommandKind::EndorseDevice, _) => Role::Owner,
                (_, CommandClass::Read) => Role::Viewer,
                (_, CommandClass::Effect) => Role::Operator,
            };
            assert_eq!(kind.least_role(), expected, "{}", kind.name());
        }
    }
}
