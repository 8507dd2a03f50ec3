//! Checked conversions of what control tells gateways and nodes: keys, and the revocation log.

use bytes::Bytes;
use flydex_domain::id::{AccountId, DeviceId, GrantId, MachineId, UserId};
use flydex_domain::revocation::{Revocation, RevocationEntry};
use flydex_domain::time::UnixMillis;

use crate::convert::{Malformed, kept_role, wire_kept_role};
use crate::v1;
use crate::v1::revocation_record::Kind;

/// The named public keys of a message: at least one, and each 32 bytes.
///
/// # Errors
/// [`Malformed`] when there is none or one is not a key.
pub fn token_keys(message: v1::TokenKeys) -> Result<Vec<(String, [u8; 32])>, Malformed> {
    if message.keys.is_empty() {
        return Err(Malformed::Missing("token key"));
    }
    let key = |key: v1::TokenKey| {
        let bytes = key.key.as_ref().try_into().map_err(|_| Malformed::Undecodable("token key"))?;
        Ok((key.key_id, bytes))
    };
    message.keys.into_iter().map(key).collect()
}

/// Named public keys as they travel.
#[must_use]
pub fn wire_token_keys(keys: &[(String, [u8; 32])]) -> v1::TokenKeys {
    let key =
        |(key_id, key): &(String, [u8; 32])| v1::TokenKey { key_id: key_id.clone(), key: Bytes::copy_from_slice(key) };
    v1::TokenKeys { keys: keys.iter().map(key).collect() }
}

impl From<&RevocationEntry> for v1::RevocationRecord {
    fn from(entry: &RevocationEntry) -> Self {
        let account_id = entry.revocation.account_id();
        let kind = match &entry.revocation {
            Revocation::User { user_id, .. } => Kind::UserId(copy(user_id.as_bytes())),
            Revocation::Grant { grant_id, .. } => Kind::GrantId(copy(grant_id.as_bytes())),
            Revocation::Device { device_id, .. } => Kind::DeviceId(copy(device_id.as_bytes())),
            Revocation::Machine { machine_id, .. } => Kind::MachineId(copy(machine_id.as_bytes())),
            Revocation::Quarantine { machine_id, serial, .. } => {
                Kind::Quarantine(v1::Quarantine { machine_id: copy(machine_id.as_bytes()), serial: *serial })
            }
            Revocation::Superseded { machine_id, serial, .. } => {
                Kind::Superseded(v1::Superseded { machine_id: copy(machine_id.as_bytes()), serial: *serial })
            }
        };
        let device_keeps = match &entry.revocation {
            Revocation::Device { keeps, .. } => wire_kept_role(*keeps),
            Revocation::User { .. }
            | Revocation::Grant { .. }
            | Revocation::Machine { .. }
            | Revocation::Quarantine { .. }
            | Revocation::Superseded { .. } => String::new(),
        };
        let account_id = copy(account_id.as_bytes());
        Self { number: entry.number, account_id, at_ms: entry.at.0, kind: Some(kind), device_keeps }
    }
}

impl TryFrom<v1::RevocationRecord> for RevocationEntry {
    type Error = Malformed;

    fn try_from(record: v1::RevocationRecord) -> Result<Self, Malformed> {
        let account_id = AccountId::try_from(record.account_id.as_ref())?;
        let revocation = match record.kind.ok_or(Malformed::Missing("revocation"))? {
            Kind::UserId(id) => Revocation::User { account_id, user_id: UserId::try_from(id.as_ref())? },
            Kind::GrantId(id) => Revocation::Grant { account_id, grant_id: GrantId::try_from(id.as_ref())? },
            Kind::DeviceId(id) => Revocation::Device {
                account_id,
                device_id: DeviceId::try_from(id.as_ref())?,
                // A role that this version does not know is none.
                keeps: kept_role(&record.device_keeps).unwrap_or_default(),
            },
            Kind::MachineId(id) => Revocation::Machine { account_id, machine_id: MachineId::try_from(id.as_ref())? },
            Kind::Quarantine(quarantine) => Revocation::Quarantine {
                account_id,
                machine_id: MachineId::try_from(quarantine.machine_id.as_ref())?,
                serial: quarantine.serial,
            },
            Kind::Superseded(superseded) => Revocation::Superseded {
                account_id,
                machine_id: MachineId::try_from(superseded.machine_id.as_ref())?,
                serial: superseded.serial,
            },
        };
        Ok(Self { number: record.number, at: UnixMillis(record.at_ms), revocation })
    }
}

fn copy(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

#[cfg(test)]
mod tests {
    use flydex_domain::scope::Role;

    use super::*;

    fn account() -> AccountId {
        AccountId::try_from([1; 16].as_slice()).unwrap()
    }

    fn machine() -> MachineId {
        MachineId::try_from([2; 16].as_slice()).unwrap()
    }

    #[test]
    fn every_kind_of_revocation_comes_back_as_it_was_sent() {
        let account_id = account();
        let revocations = [
            Revocation::User { account_id, user_id: UserId::try_from([3; 16].as_slice()).unwrap() },
            Revocation::Grant { account_id, grant_id: GrantId::try_from([4; 16].as_slice()).unwrap() },
            Revocation::Device { account_id, device_id: DeviceId::from_bytes([5; 32]), keeps: None },
            Revocation::Device { account_id, device_id: DeviceId::from_bytes([5; 32]), keeps: Some(Role::Viewer) },
            Revocation::Machine { account_id, machine_id: machine() },
            Revocation::Quarantine { account_id, machine_id: machine(), serial: 7 },
            Revocation::Superseded { account_id, machine_id: machine(), serial: 8 },
        ];
        for (number, revocation) in (1..).zip(revocations) {
            let entry = RevocationEntry { number, at: UnixMillis(1_000 + number), revocation };
            assert!(RevocationEntry::try_from(v1::RevocationRecord::from(&entry)) == Ok(entry));
        }
    }

    #[test]
    fn a_record_without_a_kind_or_with_a_short_id_is_malformed() {
        let entry = RevocationEntry {
            number: 1,
            at: UnixMillis(1),
            revocation: Revocation::Machine { account_id: account(), machine_id: machine() },
        };
        let record = v1::RevocationRecord::from(&entry);
        let of_no_kind = v1::RevocationRecord { kind: None, ..record.clone() };
        assert_eq!(RevocationEntry::try_from(of_no_kind), Err(Malformed::Missing("revocation")));
        let of_short_id = v1::RevocationRecord { kind: Some(Kind::DeviceId(copy(&[1; 16]))), ..record };
        assert!(matches!(RevocationEntry::try_from(of_short_id), Err(Malformed::Id(_))));
    }

    #[test]
    fn keys_are_taken_whole_or_not_at_all() {
        let keys = vec![("a".to_owned(), [1; 32]), ("b".to_owned(), [2; 32])];
        assert_eq!(token_keys(wire_token_keys(&keys)), Ok(keys.clone()));
        assert!(token_keys(wire_token_keys(&[])).is_err());
        let mut message = wire_token_keys(&keys);
        message.keys[1].key = copy(&[2; 31]);
        assert!(token_keys(message).is_err());
    }
}
