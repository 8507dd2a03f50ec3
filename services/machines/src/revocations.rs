//! What no longer holds, for as long as a token that says otherwise may live.
//!
//! A token lives for a day, so a revocation is kept for a day. Past the bound the oldest goes, and from then on
//! every token issued before it is refused: forgetting never lets anybody in.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use flydex_domain::error::ErrorCode;
use flydex_domain::id::{AccountId, DeviceId, GrantId, MachineId, UserId};
use flydex_domain::limits::{CREDENTIAL_LIFETIME, GRANT_LIFETIME, NODE_REVOCATIONS_MAX, TOKEN_SKEW_MAX};
use flydex_domain::revocation::{DeviceCut, Revocation};
use flydex_domain::scope::{MachineKey, Role};
use flydex_domain::time::UnixMillis;
use flydex_domain::token::{Grant, MachineCredential};

/// The revocations that a node has heard of.
#[derive(Debug)]
pub(crate) struct Revocations {
    records: Mutex<Records>,
    max: usize,
}

#[derive(Debug, Default)]
struct Records {
    users: BTreeMap<(AccountId, UserId), UnixMillis>,
    grants: BTreeMap<(AccountId, GrantId), UnixMillis>,
    devices: BTreeMap<(AccountId, DeviceId), RevokedDevice>,
    machines: BTreeMap<(AccountId, MachineId), UnixMillis>,
    /// The newest serial that does not hold, beside the time.
    quarantined: BTreeMap<(AccountId, MachineId), (UnixMillis, u64)>,
    /// The same of credentials that are not up to date.
    superseded: BTreeMap<(AccountId, MachineId), (UnixMillis, u64)>,
    oldest: VecDeque<(UnixMillis, Revocation)>,
    floor: Option<UnixMillis>,
}

#[derive(Debug)]
struct RevokedDevice {
    at: UnixMillis,
    /// The role that it keeps at most; none: it is removed.
    keeps: Option<Role>,
    removed_by: BTreeSet<MachineId>,
}

impl Default for Revocations {
    fn default() -> Self {
        Self::with_bound(NODE_REVOCATIONS_MAX)
    }
}

impl Revocations {
    fn with_bound(max: usize) -> Self {
        Self { records: Mutex::default(), max }
    }

    /// Takes a revocation that took hold `at` a time, however much later it is heard of.
    pub(crate) fn record(&self, revocation: &Revocation, at: UnixMillis, now: UnixMillis) {
        let mut records = self.records();
        match revocation {
            Revocation::User { account_id, user_id } => {
                records.users.insert((*account_id, *user_id), at);
            }
            Revocation::Grant { account_id, grant_id } => {
                records.grants.insert((*account_id, *grant_id), at);
            }
            Revocation::Device { account_id, device_id, keeps } => {
                // What was taken stays taken: the least of all that was said counts.
                let before = records.devices.get(&(*account_id, *device_id)).map(|device| device.keeps);
                let keeps = before.map_or(*keeps, |before| before.min(*keeps));
                let device = RevokedDevice { at, keeps, removed_by: BTreeSet::new() };
                records.devices.insert((*account_id, *device_id), device);
            }
            Revocation::Machine { account_id, machine_id } => {
                records.machines.insert((*account_id, *machine_id), at);
            }
            Revocation::Quarantine { account_id, machine_id, serial } => {
                records.quarantined.insert((*account_id, *machine_id), (at, *serial));
            }
            Revocation::Superseded { account_id, machine_id, serial } => {
                records.superseded.insert((*account_id, *machine_id), (at, *serial));
            }
        }
        records.oldest.push_back((at, revocation.clone()));
        records.forget_outlived(now);
        while records.oldest.len() > self.max {
            let Some((at, oldest)) = records.oldest.pop_front() else { break };
            records.floor = records.floor.max(Some(at));
            records.forget(&oldest, at);
        }
    }

    /// Why a grant that verifies does not hold.
    pub(crate) fn refuse_grant(&self, grant: &Grant) -> Option<ErrorCode> {
        let records = self.records();
        let issued_at = grant.expires_at.minus(GRANT_LIFETIME);
        let account_id = grant.account_id;
        if records.grants.contains_key(&(account_id, grant.grant_id)) {
            return Some(ErrorCode::GrantInvalid);
        }
        let device = records.devices.get(&(account_id, grant.device_key.0.device_id()));
        if let Some(device) = device.filter(|device| issued_at <= device.at) {
            let keeps_a_role = device.keeps.is_some();
            return Some(if keeps_a_role { ErrorCode::GrantInvalid } else { ErrorCode::DeviceRevoked });
        }
        let user = records.users.get(&(account_id, grant.user_id)).copied();
        user.max(records.floor).is_some_and(|at| issued_at <= at).then_some(ErrorCode::GrantInvalid)
    }

    /// Why a machine's credential that verifies does not hold.
    pub(crate) fn refuse_credential(&self, credential: &MachineCredential) -> Option<ErrorCode> {
        let records = self.records();
        let machine = records.machines.get(&(credential.account_id, credential.machine_id)).copied();
        if machine.is_some_and(|at| credential.issued_at <= at) {
            return Some(ErrorCode::MachineRevoked);
        }
        let quarantined = records.quarantined.get(&(credential.account_id, credential.machine_id));
        if quarantined.is_some_and(|(_, serial)| credential.serial <= *serial) {
            return Some(ErrorCode::MachineKeyCloned);
        }
        let superseded = records.superseded.get(&(credential.account_id, credential.machine_id));
        if superseded.is_some_and(|(_, serial)| credential.serial <= *serial) {
            return Some(ErrorCode::CredentialInvalid);
        }
        records.floor.is_some_and(|at| credential.issued_at <= at).then_some(ErrorCode::CredentialInvalid)
    }

    /// The devices that a machine has yet to remove, or to lower: cut after its credential was issued, and not
    /// acknowledged since. A machine that was paired later never knew them.
    pub(crate) fn to_remove(&self, credential: &MachineCredential) -> Vec<DeviceCut> {
        let records = self.records();
        let account = (credential.account_id, DeviceId::from_bytes([0; 32]))
            ..=(credential.account_id, DeviceId::from_bytes([u8::MAX; 32]));
        records
            .devices
            .range(account)
            .filter(|(_, device)| credential.issued_at <= device.at)
            .filter(|(_, device)| !device.removed_by.contains(&credential.machine_id))
            .map(|((_, device_id), device)| DeviceCut { device_id: *device_id, keeps: device.keeps })
            .collect()
    }

    /// Notes that a machine has cut a device. An answer to an earlier, lesser cut is none to this one.
    pub(crate) fn removed(&self, machine: MachineKey, cut: DeviceCut) {
        let mut records = self.records();
        let device = records.devices.get_mut(&(machine.account_id(), cut.device_id));
        if let Some(device) = device.filter(|device| cut.keeps <= device.keeps) {
            device.removed_by.insert(machine.machine_id());
        }
    }

    fn records(&self) -> MutexGuard<'_, Records> {
        // A half-made change leaves at worst a record that outlives its place in the queue.
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Records {
    fn forget_outlived(&mut self, now: UnixMillis) {
        let lifetime = GRANT_LIFETIME.max(CREDENTIAL_LIFETIME) + TOKEN_SKEW_MAX;
        while let Some((at, oldest)) = self.oldest.front().cloned()
            && at.plus(lifetime) <= now
        {
            self.oldest.pop_front();
            self.forget(&oldest, at);
        }
    }

    /// Drops one record, unless the same thing was revoked again since.
    fn forget(&mut self, revocation: &Revocation, at: UnixMillis) {
        match revocation {
            Revocation::User { account_id, user_id } => forget(&mut self.users, &(*account_id, *user_id), at),
            Revocation::Grant { account_id, grant_id } => forget(&mut self.grants, &(*account_id, *grant_id), at),
            Revocation::Machine { account_id, machine_id } => {
                forget(&mut self.machines, &(*account_id, *machine_id), at);
            }
            Revocation::Quarantine { account_id, machine_id, serial } => {
                let key = (*account_id, *machine_id);
                if self.quarantined.get(&key) == Some(&(at, *serial)) {
                    self.quarantined.remove(&key);
                }
            }
            Revocation::Superseded { account_id, machine_id, serial } => {
                let key = (*account_id, *machine_id);
                if self.superseded.get(&key) == Some(&(at, *serial)) {
                    self.superseded.remove(&key);
                }
            }
            Revocation::Device { account_id, device_id, .. } => {
                let key = (*account_id, *device_id);
                if self.devices.get(&key).is_some_and(|device| device.at == at) {
                    self.devices.remove(&key);
                }
            }
        }
    }
}

fn forget<K: Ord>(records: &mut BTreeMap<K, UnixMillis>, key: &K, at: UnixMillis) {
    if records.get(key) == Some(&at) {
        records.remove(key);
    }
}

#[cfg(test)]
mod tests;
