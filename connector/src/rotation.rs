//! The machine's key on disk, and its change to another, whichever step a crash or a lost answer leaves it at.
//!
//! ```text
//! key-rotation.json   the next key and the statement that it follows: written before control is asked
//! control             takes the statement; the same one again gets the same answer
//! paired.json         the first credential that names the next key: written when control has answered
//! machine-key.pem     the next key; then key-rotation.json goes
//! ```
//!
//! The credential in `paired.json` says which key is the machine's. So a key that no credential names yet is only asked
//! for again, and one that a credential names is put in its place at the next start.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::SigningKey;
use flydex_domain::key::PublicKey;
use flydex_domain::rotation::KeyRotation;
use flydex_domain::time::UnixMillis;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::api::SecretText;
use crate::credential;
use crate::paired::Entropy;
use crate::record::{self, PairedRecord};
use crate::state::{StateDir, StateError};

/// A change of key that is not over, in the state folder.
pub const ROTATION_FILE: &str = "key-rotation.json";

/// A change of key that control has not answered yet.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pending {
    /// The seed of the next key, base64url.
    seed: SecretText,
    /// What both keys sign.
    pub statement: KeyRotation,
}

impl Pending {
    /// Makes the next key and states that it follows, durably.
    ///
    /// # Errors
    /// [`StateError`] when it cannot be kept; nothing has changed then.
    pub fn begin(
        state: &StateDir,
        record: &PairedRecord,
        key: &SigningKey,
        entropy: &Entropy,
        now: UnixMillis,
    ) -> Result<Self, StateError> {
        let seed = Zeroizing::new(entropy.bytes::<32>());
        let of = (record.account_id, record.machine_id);
        let statement = KeyRotation::make(of, record.key_counter + 1, now, key, &SigningKey::from_bytes(&seed));
        let pending = Self { seed: SecretText::new(URL_SAFE_NO_PAD.encode(*seed)), statement };
        record::store(state, ROTATION_FILE, &pending)?;
        Ok(pending)
    }

    /// The one that was begun and is not over, if it is of this machine and its present key.
    ///
    /// # Errors
    /// [`StateError`] when the file is exposed or damaged.
    pub fn load(state: &StateDir, record: &PairedRecord, key: &SigningKey) -> Result<Option<Self>, StateError> {
        let pending: Option<Self> = record::load(state, ROTATION_FILE, "not a change of the machine's key")?;
        let of = (record.account_id, record.machine_id);
        let fits =
            |pending: &Self| pending.statement.verify(of).is_ok() && pending.statement.old_key.0 == PublicKey::of(key);
        Ok(pending.filter(fits))
    }

    /// The next key.
    ///
    /// # Errors
    /// [`StateError::Unexpected`] when it is not the one that the statement names.
    pub fn next_key(&self, state: &StateDir) -> Result<SigningKey, StateError> {
        let damaged = || StateError::Unexpected { path: state.file(ROTATION_FILE), what: "not the key that it names" };
        let seed = URL_SAFE_NO_PAD.decode(self.seed.expose()).map(Zeroizing::new).map_err(|_| damaged())?;
        let seed: &[u8; 32] = seed.as_slice().try_into().map_err(|_| damaged())?;
        let key = SigningKey::from_bytes(seed);
        if PublicKey::of(&key) == self.statement.new_key.0 { Ok(key) } else { Err(damaged()) }
    }

    /// Puts the next key in its place: control has answered, and the credential that names it is stored.
    ///
    /// # Errors
    /// [`StateError`] when the disk refuses; the next start does it then.
    pub fn finish(&self, state: &StateDir) -> Result<SigningKey, StateError> {
        let key = self.next_key(state)?;
        state.replace_machine_key(&key)?;
        state.remove(ROTATION_FILE)?;
        Ok(key)
    }

    /// Gives it up: control will not take it, and has not.
    ///
    /// # Errors
    /// [`StateError::Io`] when the file system refuses.
    pub fn abandon(state: &StateDir) -> Result<(), StateError> {
        state.remove(ROTATION_FILE)
    }
}

/// The key that the stored credential names, after ending what a crash left of a change; `None` when there is no key.
///
/// # Errors
/// [`StateError`] when a file is exposed or damaged, or cannot be written.
pub fn settled_key(state: &StateDir, record: &PairedRecord) -> Result<Option<SigningKey>, StateError> {
    let present = state.existing_machine_key()?;
    let pending: Option<Pending> = record::load(state, ROTATION_FILE, "not a change of the machine's key")?;
    let (Some(key), Some(pending)) = (&present, &pending) else { return Ok(present) };
    let next = pending.statement.new_key.0;
    if PublicKey::of(key) != next && credential::named_key(record) == Some(next) {
        return pending.finish(state).map(Some);
    }
    if Pending::load(state, record, key)?.is_none() {
        Pending::abandon(state)?;
    }
    Ok(present)
}

#[cfg(test)]
mod tests;
