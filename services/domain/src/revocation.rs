//! The numbered log of what no longer holds, as control streams it to gateways and nodes.

use crate::id::{AccountId, DeviceId, GrantId, MachineId, UserId};
use crate::scope::Role;
use crate::time::UnixMillis;

/// One thing that no longer holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// Every session of a user, as of the entry's time.
    User {
        /// The account.
        account_id: AccountId,
        /// The user.
        user_id: UserId,
    },
    /// One grant, and the sessions opened with it.
    Grant {
        /// The account.
        account_id: AccountId,
        /// The grant.
        grant_id: GrantId,
    },
    /// A device of an account: its sessions end, and its machines forget its key or lower its role.
    Device {
        /// The account.
        account_id: AccountId,
        /// The device.
        device_id: DeviceId,
        /// The role that it keeps at most; none: it is no device of the account any more.
        keeps: Option<Role>,
    },
    /// A machine of an account: its links and sessions end.
    Machine {
        /// The account.
        account_id: AccountId,
        /// The machine.
        machine_id: MachineId,
    },
    /// A machine whose key two computers hold: its links end, and its credentials up to a serial open none. The
    /// computer that is paired again gets a later one.
    Quarantine {
        /// The account.
        account_id: AccountId,
        /// The machine.
        machine_id: MachineId,
        /// The newest serial that does not hold.
        serial: u64,
    },
    /// What a machine's credentials up to a serial say is not so any more, such as where it may be linked: they open
    /// no link, and the machine fetches a later one.
    Superseded {
        /// The account.
        account_id: AccountId,
        /// The machine.
        machine_id: MachineId,
        /// The newest serial that does not hold.
        serial: u64,
    },
}

impl Revocation {
    /// The account that it is about.
    #[must_use]
    pub const fn account_id(&self) -> AccountId {
        match self {
            Self::User { account_id, .. }
            | Self::Grant { account_id, .. }
            | Self::Device { account_id, .. }
            | Self::Machine { account_id, .. }
            | Self::Quarantine { account_id, .. }
            | Self::Superseded { account_id, .. } => *account_id,
        }
    }
}

/// What the account takes from a device at its machines. It never gives anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeviceCut {
    /// Which device.
    pub device_id: DeviceId,
    /// The role that it keeps at most; none: it is removed.
    pub keeps: Option<Role>,
}

/// One numbered record of the log; numbers grow by one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevocationEntry {
    /// Its place in the log.
    pub number: u64,
    /// When control took it: what was signed later holds, however late the entry is read.
    pub at: UnixMillis,
    /// What it ends.
    pub revocation: Revocation,
}
