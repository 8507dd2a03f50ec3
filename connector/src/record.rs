//! What is kept of a pairing and of the desk's choices, as JSON in the state folder.

use flydex_domain::device::DeviceList;
use flydex_domain::error::ErrorCode;
use flydex_domain::id::{AccountId, MachineId};
use flydex_domain::key::PublicKey;
use flydex_domain::scope::Role;
use flydex_domain::time::UnixMillis;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::api::{SecretText, TokenKey};
use crate::paired::{DEVICES_FILE, DeskPolicy, FENCE_FILE, SPOOL_FILE};
use crate::regions::Regions;
use crate::rotation::ROTATION_FILE;
use crate::state::{StateDir, StateError};

/// What pairing gave, in the state folder.
pub const PAIRED_FILE: &str = "paired.json";
/// What the desk chose, in the state folder.
pub const SETTINGS_FILE: &str = "settings.json";

/// Everything that lets this machine link again without pairing again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairedRecord {
    /// The relay's origin, as it was dialled.
    pub origin: String,
    /// The account that is pinned.
    pub account_id: AccountId,
    /// Its name.
    pub account_name: String,
    /// This machine.
    pub machine_id: MachineId,
    /// Its name.
    pub machine_label: String,
    /// The newest credential.
    pub credential: SecretText,
    /// Control's public keys.
    pub token_keys: Vec<TokenKey>,
    /// Where links are opened, so that a start needs no control plane.
    pub regions: Regions,
    /// A certificate that is trusted besides the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trusted_pem: Option<String>,
    /// How often the machine key was changed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub key_counter: u64,
    /// Since when the present key is known to be in use; absent until a credential was renewed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_since: Option<UnixMillis>,
    /// The serial of the last credential with which the account said what it took from the machine's devices.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cuts_heard_with: u64,
}

const fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl PairedRecord {
    /// Reads the record; `None` when the machine is not paired.
    ///
    /// # Errors
    /// [`StateError`] when it is exposed or damaged.
    pub fn load(state: &StateDir) -> Result<Option<Self>, StateError> {
        load(state, PAIRED_FILE, "not what pairing wrote")
    }

    /// Writes the record.
    ///
    /// # Errors
    /// [`StateError::Io`] when the disk refuses.
    pub fn store(&self, state: &StateDir) -> Result<(), StateError> {
        store(state, PAIRED_FILE, self)
    }

    /// Takes the place of whatever was paired before. Unless account, machine and relay stay the same, every
    /// device key, the fence and the unsent audit of before are forgotten first.
    ///
    /// # Errors
    /// [`StateError`] when the disk refuses; what is left then trusts nobody new.
    pub fn replace(&self, state: &StateDir) -> Result<(), StateError> {
        // A record that cannot be read is no reason to keep the keys that came with it.
        let before = Self::load(state).ok().flatten();
        let same = before.is_some_and(|before| {
            before.account_id == self.account_id && before.machine_id == self.machine_id && before.origin == self.origin
        });
        if !same {
            forget_peers(state)?;
        }
        self.store(state)
    }

    /// Forgets the pairing: record, device keys, fence, unsent audit and machine key.
    ///
    /// # Errors
    /// [`StateError::Io`] when the file system refuses.
    pub fn forget(state: &StateDir) -> Result<(), StateError> {
        forget_peers(state)?;
        state.remove(PAIRED_FILE)?;
        state.remove(ROTATION_FILE)?;
        state.forget_machine_key()
    }
}

fn forget_peers(state: &StateDir) -> Result<(), StateError> {
    for name in [DEVICES_FILE, FENCE_FILE, SPOOL_FILE] {
        state.remove(name)?;
    }
    Ok(())
}

/// Why a device could not be put on the stored list.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// The list is full.
    #[error("{}", .0.message())]
    Refused(ErrorCode),
    /// The list cannot be read or written.
    #[error(transparent)]
    State(#[from] StateError),
}

/// The machine's device list as it is stored; empty when there is none.
///
/// # Errors
/// [`StateError`] when it is exposed or damaged.
pub fn load_devices(state: &StateDir) -> Result<DeviceList, StateError> {
    Ok(load(state, DEVICES_FILE, "not a device list")?.unwrap_or_default())
}

/// Puts a device on the stored list, while no connector runs on it.
///
/// # Errors
/// [`EnrolError`] when the list is full or cannot be kept.
pub fn enrol(state: &StateDir, key: PublicKey, role: Role, label: &str, now: UnixMillis) -> Result<(), EnrolError> {
    let mut devices = load_devices(state)?;
    devices.enrol(key, role, label, now).map_err(EnrolError::Refused)?;
    Ok(store(state, DEVICES_FILE, &devices)?)
}

/// Writes the device list, while no connector runs on it.
///
/// # Errors
/// [`StateError::Io`] when the disk refuses.
pub fn store_devices(state: &StateDir, devices: &DeviceList) -> Result<(), StateError> {
    store(state, DEVICES_FILE, devices)
}

/// What the desk chose. Everything is off until it is switched on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Remote control is paused.
    pub paused: bool,
    /// "Accept for this session" may be answered remotely.
    pub session_acceptance: bool,
    /// Turns may be started in threads that run without approvals and with full access.
    pub allow_unguarded: bool,
    /// An accept without control's audit receipt is refused.
    pub strict_audit: bool,
    /// Only this computer's keyboard enrols devices.
    pub enrol_at_desk_only: bool,
    /// No key that a browser holds is obeyed.
    pub refuse_browser_keys: bool,
    /// An accept of high risk carries a pinned passkey's word.
    pub passkey_for_high_risk: bool,
    /// A link whose proof does not cover its TLS connection is refused.
    pub require_channel_binding: bool,
    /// Where threads may be started.
    pub directories: Vec<Directory>,
}

/// A folder in which threads may be started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Directory {
    /// Its absolute path.
    pub path: String,
    /// What people see.
    pub label: String,
}

impl Settings {
    /// Reads the settings; the defaults when there are none.
    ///
    /// # Errors
    /// [`StateError`] when they are exposed or damaged: a guess could allow what the desk forbade.
    pub fn load(state: &StateDir) -> Result<Self, StateError> {
        Ok(load(state, SETTINGS_FILE, "not a settings file")?.unwrap_or_default())
    }

    /// Writes the settings.
    ///
    /// # Errors
    /// [`StateError::Io`] when the disk refuses.
    pub fn store(&self, state: &StateDir) -> Result<(), StateError> {
        store(state, SETTINGS_FILE, self)
    }

    /// What the core goes by.
    #[must_use]
    pub fn policy(&self) -> DeskPolicy {
        let pair = |directory: &Directory| (directory.path.clone(), directory.label.clone());
        DeskPolicy {
            paused: self.paused,
            session_acceptance: self.session_acceptance,
            strict_audit: self.strict_audit,
            require_channel_binding: self.require_channel_binding,
            enrol_at_desk_only: self.enrol_at_desk_only,
            refuse_browser_keys: self.refuse_browser_keys,
            passkey_for_high_risk: self.passkey_for_high_risk,
            directories: self.directories.iter().map(pair).collect(),
        }
    }
}

pub(crate) fn load<T: DeserializeOwned>(
    state: &StateDir,
    name: &str,
    what: &'static str,
) -> Result<Option<T>, StateError> {
    let Some(content) = state.read(name)? else {
        return Ok(None);
    };
    let damaged = |_| StateError::Unexpected { path: state.file(name), what };
    serde_json::from_slice(&content).map(Some).map_err(damaged)
}

pub(crate) fn store(state: &StateDir, name: &str, value: &impl Serialize) -> Result<(), StateError> {
    let content = serde_json::to_vec_pretty(value).map(Zeroizing::new);
    state.write(name, &content.expect("records are plain structures"))
}

#[cfg(test)]
mod tests;
