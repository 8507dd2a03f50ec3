//! Who is asking, and which account they may reach (INV-SCOPE).
//!
//! A [`Principal`] comes only from an authenticator. An [`AccountScope`] comes only from a [`Principal`], and
//! every lookup takes one, so there is no way to ask for a row or an actor without naming whose it must be.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::{AccountId, DeviceId, MachineId, UserId};

/// What a user or device may do within an account. Ordered: each role includes the ones below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Reads.
    Viewer,
    /// Reads, writes and answers approvals.
    Operator,
    /// All of that, and enrols devices, renames and revokes.
    Owner,
}

impl Role {
    /// The name as JSON, tickets and transcripts carry it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Owner => "owner",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown role")]
pub struct UnknownRole;

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        match text {
            "viewer" => Ok(Self::Viewer),
            "operator" => Ok(Self::Operator),
            "owner" => Ok(Self::Owner),
            _ => Err(UnknownRole),
        }
    }
}

/// An authenticated asker. Built by authenticators only, after they verified the proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    /// A user with an account session.
    User {
        /// Their account.
        account_id: AccountId,
        /// Who they are.
        user_id: UserId,
        /// What they may do.
        role: Role,
    },
    /// A device with a session: a user, and the key that proves it.
    Device {
        /// The user's account.
        account_id: AccountId,
        /// The user.
        user_id: UserId,
        /// What the user may do.
        role: Role,
        /// The key that signed the proof.
        device_id: DeviceId,
    },
    /// A connector that proved its machine key.
    Machine {
        /// The account it is pinned to.
        account_id: AccountId,
        /// The machine.
        machine_id: MachineId,
    },
}

impl Principal {
    /// The account that every lookup on behalf of this principal is confined to.
    #[must_use]
    pub const fn scope(&self) -> AccountScope {
        match self {
            Self::User { account_id, .. } | Self::Device { account_id, .. } | Self::Machine { account_id, .. } => {
                AccountScope(*account_id)
            }
        }
    }
}

/// Permission to look inside one account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountScope(AccountId);

impl AccountScope {
    /// The account.
    #[must_use]
    pub const fn account_id(self) -> AccountId {
        self.0
    }
}

/// A machine within an account: the only key under which machine state is kept anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MachineKey {
    account_id: AccountId,
    machine_id: MachineId,
}

impl MachineKey {
    /// Names a machine inside the scope of the asker.
    #[must_use]
    pub const fn new(scope: AccountScope, machine_id: MachineId) -> Self {
        Self { account_id: scope.0, machine_id }
    }

    /// The account half.
    #[must_use]
    pub const fn account_id(&self) -> AccountId {
        self.account_id
    }

    /// The machine half.
    #[must_use]
    pub const fn machine_id(&self) -> MachineId {
        self.machine_id
    }
}
