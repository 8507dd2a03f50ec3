//! What the audit records: who asked and who approved, and never what was said; and the chain that holds it.
//!
//! Each account has its own chain. A record's hash covers the record and the hash before it, the first one a
//! value that names the account. A record that is changed, removed, moved or brought from another account
//! breaks the chain at that place; the head, kept beside the records, shows a cut tail.

pub mod check;
pub mod export;
pub mod head;

use serde::{Deserialize, Serialize};

use crate::command::Decision;
use crate::encoding::{Label, Transcript};
use crate::error::ErrorCode;
use crate::id::{AccountId, ApprovalId, AuditId, CommandHash, CommandId, DeviceId, Generation, MachineId, UserId};
use crate::time::UnixMillis;

/// The closed list of audited events. Names are stable: they are stored and exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuditKind {
    /// An account was made with its first owner.
    AccountCreated,
    /// A user signed in.
    SignedIn,
    /// An account session was ended by a person.
    SignedOut,
    /// A sign-in link was made.
    SignInLinkCreated,
    /// A user added a passkey.
    PasskeyAdded,
    /// A user removed a passkey.
    PasskeyRemoved,
    /// A passkey's counter went back: two authenticators hold its key.
    PasskeyCloned,
    /// A user proved anew who they are, with a passkey.
    PresenceAsserted,
    /// A user made recovery codes; earlier ones ended.
    RecoveryCodesCreated,
    /// A user signed in with a recovery code.
    RecoveryCodeUsed,
    /// A user was linked with an identity of a provider.
    IdentityLinked,
    /// A user's link with an identity was removed.
    IdentityUnlinked,
    /// A user ended all of their account sessions.
    SignedOutEverywhere,
    /// A claim was redeemed.
    ClaimRedeemed,
    /// A claim ended by wrong tries.
    ClaimExhausted,
    /// A machine and a device were paired.
    MachinePaired,
    /// A machine was renamed.
    MachineRenamed,
    /// A machine was kept in one region, or let go anywhere again.
    MachineRegionPinned,
    /// A machine was revoked.
    MachineRevoked,
    /// A device was enrolled.
    DeviceEnrolled,
    /// A device was revoked.
    DeviceRevoked,
    /// A device is about to accept an approval.
    ApprovalIntent,
    /// A machine reports what became of an answer.
    ApprovalAnswered,
    /// A machine reports a command that acted.
    CommandExecuted,
    /// Two connectors used one machine key.
    MachineKeyCloned,
    /// A user made an invitation.
    MemberInvited,
    /// A user took an invitation back.
    InvitationRevoked,
    /// The user is a member from now on.
    MemberJoined,
    /// A user changed the role of the one whom the next record names.
    MemberRoleChanged,
    /// The user may do more from now on.
    MemberPromoted,
    /// The user may do less from now on.
    MemberDemoted,
    /// A user removed the one whom the next record names.
    MemberRemoved,
    /// The user is no member any more.
    MemberLeft,
    /// The user went on in another account, in the same browser.
    AccountSwitched,
    /// A machine's key was followed by another, by the machine's own word.
    MachineKeyRotated,
    /// From now on an approval acts only with control's receipt.
    StrictAuditBegun,
    /// From now on a machine may record an approval itself when control is away.
    StrictAuditEnded,
}

impl AuditKind {
    /// Every kind.
    pub const ALL: &'static [Self] = &[
        Self::AccountCreated,
        Self::SignedIn,
        Self::SignedOut,
        Self::SignInLinkCreated,
        Self::PasskeyAdded,
        Self::PasskeyRemoved,
        Self::PasskeyCloned,
        Self::PresenceAsserted,
        Self::RecoveryCodesCreated,
        Self::RecoveryCodeUsed,
        Self::IdentityLinked,
        Self::IdentityUnlinked,
        Self::SignedOutEverywhere,
        Self::ClaimRedeemed,
        Self::ClaimExhausted,
        Self::MachinePaired,
        Self::MachineRenamed,
        Self::MachineRegionPinned,
        Self::MachineRevoked,
        Self::DeviceEnrolled,
        Self::DeviceRevoked,
        Self::ApprovalIntent,
        Self::ApprovalAnswered,
        Self::CommandExecuted,
        Self::MachineKeyCloned,
        Self::MemberInvited,
        Self::InvitationRevoked,
        Self::MemberJoined,
        Self::MemberRoleChanged,
        Self::MemberPromoted,
        Self::MemberDemoted,
        Self::MemberRemoved,
        Self::MemberLeft,
        Self::AccountSwitched,
        Self::MachineKeyRotated,
        Self::StrictAuditBegun,
        Self::StrictAuditEnded,
    ];

    /// The kind with that stable name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }

    /// The stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AccountCreated => "account_created",
            Self::SignedIn => "signed_in",
            Self::SignedOut => "signed_out",
            Self::SignInLinkCreated => "sign_in_link_created",
            Self::PasskeyAdded => "passkey_added",
            Self::PasskeyRemoved => "passkey_removed",
            Self::PasskeyCloned => "passkey_cloned",
            Self::PresenceAsserted => "presence_asserted",
            Self::RecoveryCodesCreated => "recovery_codes_created",
            Self::RecoveryCodeUsed => "recovery_code_used",
            Self::IdentityLinked => "identity_linked",
            Self::IdentityUnlinked => "identity_unlinked",
            Self::SignedOutEverywhere => "signed_out_everywhere",
            Self::ClaimRedeemed => "claim_redeemed",
            Self::ClaimExhausted => "claim_exhausted",
            Self::MachinePaired => "machine_paired",
            Self::MachineRenamed => "machine_renamed",
            Self::MachineRegionPinned => "machine_region_pinned",
            Self::MachineRevoked => "machine_revoked",
            Self::DeviceEnrolled => "device_enrolled",
            Self::DeviceRevoked => "device_revoked",
            Self::ApprovalIntent => "approval_intent",
            Self::ApprovalAnswered => "approval_answered",
            Self::CommandExecuted => "command_executed",
            Self::MachineKeyCloned => "machine_key_cloned",
            Self::MemberInvited => "member_invited",
            Self::InvitationRevoked => "invitation_revoked",
            Self::MemberJoined => "member_joined",
            Self::MemberRoleChanged => "member_role_changed",
            Self::MemberPromoted => "member_promoted",
            Self::MemberDemoted => "member_demoted",
            Self::MemberRemoved => "member_removed",
            Self::MemberLeft => "member_left",
            Self::AccountSwitched => "account_switched",
            Self::MachineKeyRotated => "machine_key_rotated",
            Self::StrictAuditBegun => "strict_audit_begun",
            Self::StrictAuditEnded => "strict_audit_ended",
        }
    }
}

/// What a machine says became of a command, without the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuditOutcome {
    /// It took effect.
    Executed,
    /// It did not and will not.
    Refused,
    /// It may or may not have.
    Unknown,
}

impl AuditOutcome {
    /// The stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Executed => "executed",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
        }
    }

    /// The outcome with that stable name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Executed, Self::Refused, Self::Unknown].into_iter().find(|outcome| outcome.name() == name)
    }
}

/// One thing that happened: ids, codes and times only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// Names the record; repeats of one upload carry the same.
    pub audit_id: AuditId,
    /// What happened.
    pub kind: AuditKind,
    /// When, by the clock of who reports it.
    pub at: UnixMillis,
    /// Whether the machine acted first and reported afterwards, because control did not answer.
    pub deferred: bool,
    /// The user who acted.
    pub user_id: Option<UserId>,
    /// The machine it is about.
    pub machine_id: Option<MachineId>,
    /// The device it is about or came from.
    pub device_id: Option<DeviceId>,
    /// The approval that was answered.
    pub approval_id: Option<ApprovalId>,
    /// The life of Codex that asked.
    pub generation: Option<Generation>,
    /// The command.
    pub command_id: Option<CommandId>,
    /// Its exact bytes.
    pub command_hash: Option<CommandHash>,
    /// The answer.
    pub decision: Option<Decision>,
    /// What became of it.
    pub outcome: Option<AuditOutcome>,
    /// Why it was refused.
    pub code: Option<ErrorCode>,
    /// The network address it came from, as a hash keyed by the server.
    pub address_hash: Option<[u8; 32]>,
}

impl AuditEntry {
    /// An entry that names nothing yet but what happened and when.
    #[must_use]
    pub const fn new(audit_id: AuditId, kind: AuditKind, at: UnixMillis) -> Self {
        Self {
            audit_id,
            kind,
            at,
            deferred: false,
            user_id: None,
            machine_id: None,
            device_id: None,
            approval_id: None,
            generation: None,
            command_id: None,
            command_hash: None,
            decision: None,
            outcome: None,
            code: None,
            address_hash: None,
        }
    }
}

/// The place of the newest record of an account's chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainHead {
    /// How many records there are; the newest has this number.
    pub number: u64,
    /// The newest record's hash.
    pub hash: [u8; 32],
}

impl ChainHead {
    /// The chain of an account before its first record.
    #[must_use]
    pub fn start(account_id: AccountId) -> Self {
        Self { number: 0, hash: Transcript::new(Label::AuditRecord).bytes(account_id.as_bytes()).sha256() }
    }

    /// The chain after one more entry.
    #[must_use]
    pub fn append(&self, account_id: AccountId, entry: &AuditEntry) -> Self {
        let number = self.number + 1;
        Self { number, hash: record_hash(account_id, number, &self.hash, entry) }
    }
}

/// A record as it is stored or exported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRecord {
    /// Its place, from 1.
    pub number: u64,
    /// What happened.
    pub entry: AuditEntry,
    /// The hash of the record before it.
    pub previous_hash: [u8; 32],
    /// Its own hash.
    pub hash: [u8; 32],
}

/// Where a chain does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// A record is missing, repeated or moved.
    #[error("audit record {expected} is not where it belongs")]
    OutOfPlace {
        /// The number that belongs here.
        expected: u64,
    },
    /// A record was changed, or the one before it was.
    #[error("audit record {number} does not fit its hash")]
    Altered {
        /// The record.
        number: u64,
    },
    /// The chain ends elsewhere than its head says.
    #[error("the audit ends at record {found} and its head says otherwise")]
    HeadMismatch {
        /// The last record that is there.
        found: u64,
    },
    /// A record is not of its documented form.
    #[error("audit record {number} cannot be read")]
    Unreadable {
        /// The number that belongs here.
        number: u64,
    },
    /// The chain holds, and is not the one that a head was kept of.
    #[error("the audit was rewritten at record {number} or before: it is not the one that the kept head is of")]
    Rewritten {
        /// The record of the kept head.
        number: u64,
    },
    /// The chain holds, and is shorter than a head that was kept of it.
    #[error("the audit was cut: it ends at record {found}, and the kept head is of record {kept}")]
    CutShort {
        /// The last record that is there.
        found: u64,
        /// The record of the kept head.
        kept: u64,
    },
}

impl ChainError {
    /// The number of the first record that does not fit.
    #[must_use]
    pub const fn number(self) -> u64 {
        match self {
            Self::OutOfPlace { expected } => expected,
            Self::Altered { number } | Self::Unreadable { number } | Self::Rewritten { number } => number,
            Self::HeadMismatch { found } | Self::CutShort { found, .. } => found + 1,
        }
    }
}

/// Checks the whole chain of an account against its head.
///
/// # Errors
/// The first place at which it does not hold.
pub fn verify_chain<'records>(
    account_id: AccountId,
    records: impl IntoIterator<Item = &'records AuditRecord>,
    head: &ChainHead,
) -> Result<(), ChainError> {
    let mut at = ChainHead::start(account_id);
    for record in records {
        at = verify_next(account_id, &at, record)?;
    }
    if at == *head { Ok(()) } else { Err(ChainError::HeadMismatch { found: at.number }) }
}

/// Checks one record against the chain before it and gives the chain after it.
///
/// # Errors
/// [`ChainError::OutOfPlace`] or [`ChainError::Altered`].
pub fn verify_next(account_id: AccountId, before: &ChainHead, record: &AuditRecord) -> Result<ChainHead, ChainError> {
    let after = before.append(account_id, &record.entry);
    if record.number != after.number {
        return Err(ChainError::OutOfPlace { expected: after.number });
    }
    if record.previous_hash != before.hash || record.hash != after.hash {
        return Err(ChainError::Altered { number: record.number });
    }
    Ok(after)
}

fn record_hash(account_id: AccountId, number: u64, previous_hash: &[u8; 32], entry: &AuditEntry) -> [u8; 32] {
    let text = |name: Option<&'static str>| name.map(str::as_bytes);
    Transcript::new(Label::AuditRecord)
        .bytes(account_id.as_bytes())
        .integer(number)
        .bytes(previous_hash)
        .bytes(entry.audit_id.as_bytes())
        .text(entry.kind.name())
        .integer(entry.at.0)
        .integer(u64::from(entry.deferred))
        .optional(entry.user_id.as_ref().map(|id| id.as_bytes().as_slice()))
        .optional(entry.machine_id.as_ref().map(|id| id.as_bytes().as_slice()))
        .optional(entry.device_id.as_ref().map(|id| id.as_bytes().as_slice()))
        .optional(entry.approval_id.as_ref().map(|id| id.as_bytes().as_slice()))
        .optional(entry.generation.as_ref().map(|id| id.as_bytes().as_slice()))
        .optional(entry.command_id.as_ref().map(|id| id.as_bytes().as_slice()))
        .optional(entry.command_hash.as_ref().map(|hash| hash.as_bytes().as_slice()))
        .optional(text(entry.decision.map(Decision::name)))
        .optional(text(entry.outcome.map(AuditOutcome::name)))
        .optional(text(entry.code.map(ErrorCode::name)))
        .optional(entry.address_hash.as_ref().map(<[u8; 32]>::as_slice))
        .sha256()
}

#[cfg(test)]
mod tests;
