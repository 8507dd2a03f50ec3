//! What the audit records: who asked and who approved, and never what was said.

use serde::{Deserialize, Serialize};

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
    /// A claim was redeemed.
    ClaimRedeemed,
    /// A claim ended by wrong tries.
    ClaimExhausted,
    /// A machine and a device were paired.
    MachinePaired,
    /// A machine was renamed.
    MachineRenamed,
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
}

impl AuditKind {
    /// The stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AccountCreated => "account_created",
            Self::SignedIn => "signed_in",
            Self::SignedOut => "signed_out",
            Self::SignInLinkCreated => "sign_in_link_created",
            Self::ClaimRedeemed => "claim_redeemed",
            Self::ClaimExhausted => "claim_exhausted",
            Self::MachinePaired => "machine_paired",
            Self::MachineRenamed => "machine_renamed",
            Self::MachineRevoked => "machine_revoked",
            Self::DeviceEnrolled => "device_enrolled",
            Self::DeviceRevoked => "device_revoked",
            Self::ApprovalIntent => "approval_intent",
            Self::ApprovalAnswered => "approval_answered",
            Self::CommandExecuted => "command_executed",
            Self::MachineKeyCloned => "machine_key_cloned",
        }
    }
}
