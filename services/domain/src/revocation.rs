//! The numbered log of what no longer holds, as control streams it to gateways and nodes.

use crate::id::{AccountId, DeviceId, GrantId, MachineId, UserId};

/// One thing that no longer holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// Every session of a user, as of now.
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
    /// A device of an account: its sessions end, and its machines forget its key.
    Device {
        /// The account.
        account_id: AccountId,
        /// The device.
        device_id: DeviceId,
    },
    /// A machine of an account: its links and sessions end.
    Machine {
        /// The account.
        account_id: AccountId,
        /// The machine.
        machine_id: MachineId,
    },
}

/// One numbered record of the log; numbers grow by one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevocationEntry {
    /// Its place in the log.
    pub number: u64,
    /// What it ends.
    pub revocation: Revocation,
}
