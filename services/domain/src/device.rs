//! The machine's own device list: whom it obeys (INV-KEY).
//!
//! Only the desk, or an enrolled owner device by an endorsement, puts a device on the list or raises its role. The
//! relay can take rights away and never gives any. A removed device leaves a tombstone, so that nothing but a new
//! yes at the desk brings it back.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::ErrorCode;
use crate::id::DeviceId;
use crate::key::PublicKey;
use crate::limits::{DEVICE_LIST_MAX, DEVICE_TOMBSTONES_MAX, LABEL_CHARS_MAX, PASSKEY_PIN_WINDOW};
use crate::passkey::Passkey;
use crate::scope::Role;
use crate::time::UnixMillis;
use crate::token::EncodedKey;

/// A device that the machine knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Its key.
    pub key: EncodedKey,
    /// What it may do at most.
    pub role: Role,
    /// Its name, for people; at most 64 characters.
    pub label: String,
    /// When the desk said yes, or an owner device's endorsement was taken.
    pub enrolled_at: UnixMillis,
    /// The owner device that endorsed it; absent on what was enrolled at the desk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub introducer: Option<Introducer>,
    /// What holds the key.
    #[serde(default)]
    pub holder: Holder,
    /// The passkey that the machine asks its person for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passkey: Option<Passkey>,
}

/// What holds a device's key, by the desk's word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Holder {
    /// A browser, with code that the web app's origin serves.
    #[default]
    Browser,
    /// A program whose key was typed in at the desk.
    Program,
}

/// Who vouched for a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Introducer {
    /// The owner device.
    pub device_id: DeviceId,
    /// By which the new device knows the machine; the machine cannot read it.
    #[serde(with = "crate::encoding::base64url")]
    pub mac: [u8; 32],
}

impl Device {
    /// The fingerprint by which it is known.
    #[must_use]
    pub fn device_id(&self) -> DeviceId {
        self.key.0.device_id()
    }
}

/// The list as it is kept: at most 64 devices and 1,024 tombstones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "ListJson", into = "ListJson")]
pub struct DeviceList {
    version: u64,
    devices: BTreeMap<DeviceId, Device>,
    tombstones: BTreeMap<DeviceId, UnixMillis>,
}

impl DeviceList {
    /// Grows with every change.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// Every device, in the order of their ids.
    pub fn devices(&self) -> impl Iterator<Item = &Device> {
        self.devices.values()
    }

    /// The device with that id.
    #[must_use]
    pub fn get(&self, device_id: &DeviceId) -> Option<&Device> {
        self.devices.get(device_id)
    }

    /// Whether the device was listed and then removed.
    #[must_use]
    pub fn is_removed(&self, device_id: &DeviceId) -> bool {
        self.tombstones.contains_key(device_id)
    }

    /// What a device may do when the account says `account_role`: the lesser of the two.
    #[must_use]
    pub fn effective_role(&self, device_id: &DeviceId, account_role: Role) -> Option<Role> {
        self.devices.get(device_id).map(|device| device.role.min(account_role))
    }

    /// Whether there is no room for another device.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.devices.len() >= DEVICE_LIST_MAX
    }

    /// Every tombstone and its time, in the order of the ids.
    pub fn removed(&self) -> impl Iterator<Item = (&DeviceId, UnixMillis)> {
        self.tombstones.iter().map(|(device_id, removed_at)| (device_id, *removed_at))
    }

    /// Lists a browser's device, or changes a listed one, after a yes at the desk. Its tombstone is lifted.
    ///
    /// # Errors
    /// `device_list_full` when there is no room for another one.
    pub fn enrol(&mut self, key: PublicKey, role: Role, label: &str, now: UnixMillis) -> Result<DeviceId, ErrorCode> {
        self.put(key, role, label, now, None, Holder::Browser)
    }

    /// Lists a program's key that was typed in at the desk.
    ///
    /// # Errors
    /// `device_list_full` when there is no room for another one.
    pub fn trust(&mut self, key: PublicKey, role: Role, label: &str, now: UnixMillis) -> Result<DeviceId, ErrorCode> {
        self.put(key, role, label, now, None, Holder::Program)
    }

    /// Lists a device that an owner device endorsed. A tombstone is no business of an endorsement.
    ///
    /// # Errors
    /// `device_revoked`, or `device_list_full` when there is no room for another one.
    pub fn enrol_endorsed(
        &mut self,
        key: PublicKey,
        role: Role,
        label: &str,
        introducer: Introducer,
        now: UnixMillis,
    ) -> Result<DeviceId, ErrorCode> {
        if self.is_removed(&key.device_id()) {
            return Err(ErrorCode::DeviceRevoked);
        }
        let before = self.devices.get(&key.device_id()).cloned();
        let holder = before.as_ref().map_or(Holder::Browser, |device| device.holder);
        let device_id = self.put(key, role, label, now, Some(introducer), holder)?;
        if let (Some(before), Some(device)) = (before, self.devices.get_mut(&device_id)) {
            device.passkey = before.passkey;
        }
        Ok(device_id)
    }

    fn put(
        &mut self,
        key: PublicKey,
        role: Role,
        label: &str,
        now: UnixMillis,
        introducer: Option<Introducer>,
        holder: Holder,
    ) -> Result<DeviceId, ErrorCode> {
        let device_id = key.device_id();
        if !self.devices.contains_key(&device_id) && self.is_full() {
            return Err(ErrorCode::DeviceListFull);
        }
        let label = label.chars().filter(|character| !character.is_control()).take(LABEL_CHARS_MAX).collect();
        self.tombstones.remove(&device_id);
        let device = Device { key: EncodedKey(key), role, label, enrolled_at: now, introducer, holder, passkey: None };
        self.devices.insert(device_id, device);
        self.version += 1;
        Ok(device_id)
    }

    /// Pins the passkey of a device: once, and soon after the desk's yes. A device that another one endorsed pins
    /// none, or whoever holds an owner's device key could bring a passkey of his own.
    ///
    /// # Errors
    /// `device_not_enrolled` or `passkey_not_pinnable`.
    pub fn pin_passkey(&mut self, device_id: &DeviceId, passkey: Passkey, now: UnixMillis) -> Result<(), ErrorCode> {
        let device = self.devices.get_mut(device_id).ok_or(ErrorCode::DeviceNotEnrolled)?;
        let until = device.enrolled_at.plus(PASSKEY_PIN_WINDOW);
        if device.introducer.is_some() || device.passkey.is_some() || now < device.enrolled_at || now >= until {
            return Err(ErrorCode::PasskeyNotPinnable);
        }
        device.passkey = Some(passkey);
        self.version += 1;
        Ok(())
    }

    /// Removes a device and leaves a tombstone. False when it is not listed.
    pub fn remove(&mut self, device_id: &DeviceId, now: UnixMillis) -> bool {
        if self.devices.remove(device_id).is_none() {
            return false;
        }
        self.tombstones.insert(*device_id, now);
        if self.tombstones.len() > DEVICE_TOMBSTONES_MAX {
            let oldest = self.tombstones.iter().min_by_key(|(_, removed_at)| **removed_at).map(|(id, _)| *id);
            if let Some(oldest) = oldest {
                self.tombstones.remove(&oldest);
            }
        }
        self.version += 1;
        true
    }

    /// Lowers a device's role; a role that is not lower changes nothing. False when nothing changed.
    pub fn reduce(&mut self, device_id: &DeviceId, role: Role) -> bool {
        let Some(device) = self.devices.get_mut(device_id) else {
            return false;
        };
        if role >= device.role {
            return false;
        }
        device.role = role;
        self.version += 1;
        true
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListJson {
    version: u64,
    devices: Vec<Device>,
    tombstones: BTreeMap<DeviceId, UnixMillis>,
}

impl From<DeviceList> for ListJson {
    fn from(list: DeviceList) -> Self {
        Self { version: list.version, devices: list.devices.into_values().collect(), tombstones: list.tombstones }
    }
}

/// A stored list that no machine wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedList {
    /// More devices or tombstones than the bounds allow.
    #[error("the device list is over its bounds")]
    OverBound,
    /// A device twice, or one that also has a tombstone.
    #[error("the device list names a device twice")]
    Ambiguous,
}

impl TryFrom<ListJson> for DeviceList {
    type Error = MalformedList;

    fn try_from(json: ListJson) -> Result<Self, MalformedList> {
        if json.devices.len() > DEVICE_LIST_MAX || json.tombstones.len() > DEVICE_TOMBSTONES_MAX {
            return Err(MalformedList::OverBound);
        }
        let mut devices = BTreeMap::new();
        for device in json.devices {
            let device_id = device.device_id();
            if json.tombstones.contains_key(&device_id) || devices.insert(device_id, device).is_some() {
                return Err(MalformedList::Ambiguous);
            }
        }
        Ok(Self { version: json.version, devices, tombstones: json.tombstones })
    }
}

#[cfg(test)]
mod tests;
