//! Public keys, fingerprints and signatures. Private keys never enter this crate's types except to sign.

use std::fmt;

use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};

use crate::encoding::{Label, Transcript};
use crate::id::DeviceId;

/// Length of a signature of every supported algorithm, in bytes.
pub const SIGNATURE_BYTES: usize = 64;

/// The public half of a device or machine key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum PublicKey {
    /// Ed25519 (RFC 8032), 32 bytes.
    Ed25519([u8; 32]),
}

/// Why a key or a signature was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The bytes are not a public key of that algorithm.
    #[error("malformed public key")]
    MalformedKey,
    /// The signature does not verify under that key and label.
    #[error("signature does not verify")]
    BadSignature,
}

impl PublicKey {
    /// Checks that `bytes` is an Ed25519 public key of prime order and wraps it.
    ///
    /// # Errors
    /// [`KeyError::MalformedKey`] when it is not.
    pub fn ed25519(bytes: &[u8]) -> Result<Self, KeyError> {
        let bytes: [u8; 32] = bytes.try_into().map_err(|_| KeyError::MalformedKey)?;
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| KeyError::MalformedKey)?;
        if key.is_weak() {
            return Err(KeyError::MalformedKey);
        }
        Ok(Self::Ed25519(bytes))
    }

    /// The key of an algorithm that its name tells, as fingerprints and JSON carry it.
    ///
    /// # Errors
    /// [`KeyError::MalformedKey`] when the name is unknown, or the bytes are no such key.
    pub fn parse(algorithm: &str, bytes: &[u8]) -> Result<Self, KeyError> {
        match algorithm {
            "ed25519" => Self::ed25519(bytes),
            _ => Err(KeyError::MalformedKey),
        }
    }

    /// The public half of a signing key.
    #[must_use]
    pub fn of(key: &SigningKey) -> Self {
        Self::Ed25519(key.verifying_key().to_bytes())
    }

    /// The name of the algorithm, as fingerprints and JSON carry it.
    #[must_use]
    pub const fn algorithm(&self) -> &'static str {
        match self {
            Self::Ed25519(_) => "ed25519",
        }
    }

    /// The key's bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Ed25519(bytes) => bytes,
        }
    }

    /// The fingerprint by which a device is known.
    #[must_use]
    pub fn device_id(&self) -> DeviceId {
        let transcript = Transcript::new(Label::KeyFingerprint).text(self.algorithm()).bytes(self.as_bytes());
        DeviceId::from_bytes(transcript.sha256())
    }

    /// Verifies a signature over a transcript.
    ///
    /// # Errors
    /// [`KeyError::BadSignature`] when it does not verify, [`KeyError::MalformedKey`] when the key is not one.
    pub fn verify(&self, transcript: Transcript, signature: &[u8]) -> Result<(), KeyError> {
        let signature = signature.try_into().map_err(|_| KeyError::BadSignature)?;
        match self {
            Self::Ed25519(bytes) => VerifyingKey::from_bytes(bytes)
                .map_err(|_| KeyError::MalformedKey)?
                .verify_strict(&transcript.finish(), &signature)
                .map_err(|_| KeyError::BadSignature),
        }
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({} {})", self.algorithm(), self.device_id())
    }
}

/// Signs a transcript with an Ed25519 key.
#[must_use]
pub fn sign(key: &SigningKey, transcript: Transcript) -> [u8; SIGNATURE_BYTES] {
    key.sign(&transcript.finish()).to_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    #[test]
    fn a_signature_verifies_only_under_its_own_key_and_label() {
        let signed = Transcript::new(Label::Command).text("body");
        let signature = sign(&key(1), signed.clone());
        assert_eq!(PublicKey::of(&key(1)).verify(signed.clone(), &signature), Ok(()));
        assert_eq!(PublicKey::of(&key(2)).verify(signed, &signature), Err(KeyError::BadSignature));
        let other_label = Transcript::new(Label::Receipt).text("body");
        assert_eq!(PublicKey::of(&key(1)).verify(other_label, &signature), Err(KeyError::BadSignature));
    }

    #[test]
    fn a_key_of_small_order_is_malformed() {
        assert_eq!(PublicKey::ed25519(&[0; 32]), Err(KeyError::MalformedKey));
        assert_eq!(PublicKey::ed25519(&[1; 31]), Err(KeyError::MalformedKey));
    }
}
