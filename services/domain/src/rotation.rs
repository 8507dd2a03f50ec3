//! A machine's change of keys: the old key says which one comes next, and the next one that it is there.
//!
//! Whoever enrolled with a machine follows the statements from the key that it knows, each signed by the key before, and
//! believes nobody else about a new one: what the relay adds, leaves out or makes up leads nowhere.

use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};

use crate::encoding::{Label, Transcript};
use crate::id::{AccountId, MachineId};
use crate::key::{KeyError, PublicKey, SIGNATURE_BYTES, sign};
use crate::time::UnixMillis;
use crate::token::EncodedKey;

/// A statement that one key of a machine follows on another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRotation {
    /// The number of the statement, from 1 on: each is greater than the one before.
    pub counter: u64,
    /// The key until then.
    pub old_key: EncodedKey,
    /// The key from then on.
    pub new_key: EncodedKey,
    /// When, by the machine's clock.
    pub at_ms: UnixMillis,
    /// By the old key.
    pub old_signature: EncodedSignature,
    /// By the new key, so that nobody claims a key that is another's.
    pub new_signature: EncodedSignature,
}

/// Why a chain of statements leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// A statement follows on the known key and does not hold.
    #[error("a change of the machine's key does not hold")]
    Forged,
    /// It leads back, or its numbers do not rise.
    #[error("the changes of the machine's key are not in order")]
    Disordered,
}

impl KeyRotation {
    /// Makes the statement.
    #[must_use]
    pub fn make(of: (AccountId, MachineId), counter: u64, at: UnixMillis, old: &SigningKey, new: &SigningKey) -> Self {
        let (old_key, new_key) = (EncodedKey(PublicKey::of(old)), EncodedKey(PublicKey::of(new)));
        let nothing = EncodedSignature([0; SIGNATURE_BYTES]);
        let statement = Self { counter, old_key, new_key, at_ms: at, old_signature: nothing, new_signature: nothing };
        let transcript = statement.transcript(of);
        Self {
            old_signature: EncodedSignature(sign(old, transcript.clone())),
            new_signature: EncodedSignature(sign(new, transcript)),
            ..statement
        }
    }

    /// Checks both signatures, for that machine of that account.
    ///
    /// # Errors
    /// [`KeyError`] when one does not verify.
    pub fn verify(&self, of: (AccountId, MachineId)) -> Result<(), KeyError> {
        if !self.old_key.0.is_machine_key() || !self.new_key.0.is_machine_key() {
            return Err(KeyError::MalformedKey);
        }
        let transcript = self.transcript(of);
        self.old_key.0.verify(transcript.clone(), &self.old_signature.0)?;
        self.new_key.0.verify(transcript, &self.new_signature.0)
    }

    /// The bytes that both keys sign.
    #[must_use]
    pub fn transcript(&self, (account_id, machine_id): (AccountId, MachineId)) -> Transcript {
        Transcript::new(Label::KeyRotation)
            .bytes(account_id.as_bytes())
            .bytes(machine_id.as_bytes())
            .text(self.old_key.0.algorithm())
            .bytes(self.old_key.0.as_bytes())
            .text(self.new_key.0.algorithm())
            .bytes(self.new_key.0.as_bytes())
            .integer(self.at_ms.0)
            .integer(self.counter)
    }
}

/// The newest key that a known one leads to; the known one itself where nothing follows on it.
///
/// # Errors
/// [`ChainError`]; the known key then stays the only one to believe.
pub fn newest(
    known: PublicKey,
    of: (AccountId, MachineId),
    statements: &[KeyRotation],
) -> Result<PublicKey, ChainError> {
    let (mut key, mut counter) = (known, 0);
    while let Some(statement) = statements.iter().find(|statement| statement.old_key.0 == key) {
        statement.verify(of).map_err(|_| ChainError::Forged)?;
        if statement.counter <= counter {
            return Err(ChainError::Disordered);
        }
        (key, counter) = (statement.new_key.0, statement.counter);
    }
    Ok(key)
}

/// A signature as JSON carries it: base64url.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodedSignature(pub [u8; SIGNATURE_BYTES]);

impl Serialize for EncodedSignature {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use base64::Engine as _;
        serializer.serialize_str(&base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl<'de> Deserialize<'de> for EncodedSignature {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use base64::Engine as _;
        use serde::de::Error as _;
        let text = String::deserialize(deserializer)?;
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).map_err(D::Error::custom)?;
        Ok(Self(bytes.try_into().map_err(|_| D::Error::custom("a signature is 64 bytes"))?))
    }
}

#[cfg(test)]
mod tests;
