//! Public keys, fingerprints and signatures. Private keys never enter this crate's types except to sign.

use std::fmt;

use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use p256::ecdsa::signature::Verifier as _;
use p256::ecdsa::{Signature as P256Signature, SigningKey as P256SigningKey, VerifyingKey as P256VerifyingKey};

use crate::encoding::{Label, Transcript};
use crate::id::DeviceId;

/// Length of a signature of every supported algorithm, in bytes.
pub const SIGNATURE_BYTES: usize = 64;

/// Length of a P-256 public key, in bytes: the mark of an uncompressed point, and its two coordinates.
pub const P256_KEY_BYTES: usize = 65;

/// The first byte of an uncompressed point: no other form is taken, so that a key has one fingerprint.
const UNCOMPRESSED: u8 = 4;

/// The public half of a device or machine key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum PublicKey {
    /// Ed25519 (RFC 8032), 32 bytes.
    Ed25519([u8; 32]),
    /// ECDSA over P-256 with SHA-256, for browsers without Ed25519: the point uncompressed (SEC 1), 65 bytes. Machines
    /// have no such keys.
    P256([u8; P256_KEY_BYTES]),
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

    /// Checks that `bytes` is a point of P-256 in its one form and wraps it.
    ///
    /// # Errors
    /// [`KeyError::MalformedKey`] when it is not: another length or form, not on the curve, or at infinity.
    pub fn p256(bytes: &[u8]) -> Result<Self, KeyError> {
        let bytes: [u8; P256_KEY_BYTES] = bytes.try_into().map_err(|_| KeyError::MalformedKey)?;
        if bytes[0] != UNCOMPRESSED {
            return Err(KeyError::MalformedKey);
        }
        P256VerifyingKey::from_sec1_bytes(&bytes).map_err(|_| KeyError::MalformedKey)?;
        Ok(Self::P256(bytes))
    }

    /// The key of an algorithm that its name tells, as fingerprints and JSON carry it.
    ///
    /// # Errors
    /// [`KeyError::MalformedKey`] when the name is unknown, or the bytes are no such key.
    pub fn parse(algorithm: &str, bytes: &[u8]) -> Result<Self, KeyError> {
        match algorithm {
            "ed25519" => Self::ed25519(bytes),
            "p256" => Self::p256(bytes),
            _ => Err(KeyError::MalformedKey),
        }
    }

    /// The public half of a P-256 signing key.
    ///
    /// # Panics
    /// Never: an uncompressed point has 65 bytes.
    #[must_use]
    pub fn of_p256(key: &P256SigningKey) -> Self {
        let point = key.verifying_key().to_sec1_point(false);
        Self::P256(point.as_bytes().try_into().expect("an uncompressed point has 65 bytes"))
    }

    /// Whether it is of the kind that machines have.
    #[must_use]
    pub const fn is_machine_key(&self) -> bool {
        match self {
            Self::Ed25519(_) => true,
            Self::P256(_) => false,
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
            Self::P256(_) => "p256",
        }
    }

    /// The key's bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Ed25519(bytes) => bytes,
            Self::P256(bytes) => bytes,
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
        let signature: &[u8; SIGNATURE_BYTES] = signature.try_into().map_err(|_| KeyError::BadSignature)?;
        match self {
            Self::Ed25519(bytes) => VerifyingKey::from_bytes(bytes)
                .map_err(|_| KeyError::MalformedKey)?
                .verify_strict(&transcript.finish(), &ed25519_dalek::Signature::from_bytes(signature))
                .map_err(|_| KeyError::BadSignature),
            Self::P256(bytes) => {
                let key = P256VerifyingKey::from_sec1_bytes(bytes).map_err(|_| KeyError::MalformedKey)?;
                let signature = P256Signature::from_slice(signature).map_err(|_| KeyError::BadSignature)?;
                // Of the two signatures that hold for one message, the lower alone is taken.
                if signature.normalize_s() != signature {
                    return Err(KeyError::BadSignature);
                }
                key.verify(&transcript.finish(), &signature).map_err(|_| KeyError::BadSignature)
            }
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

/// Signs a transcript with a P-256 key: r and s of 32 bytes each, s the lower of the two that hold.
#[must_use]
pub fn sign_p256(key: &P256SigningKey, transcript: Transcript) -> [u8; SIGNATURE_BYTES] {
    let signature: P256Signature = key.sign(&transcript.finish());
    signature.normalize_s().to_bytes().into()
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

    fn p256_key(seed: u8) -> P256SigningKey {
        P256SigningKey::from_slice(&[seed; 32]).unwrap()
    }

    /// The other signature that holds for the same message: s taken from the order of the curve.
    fn mirrored(signature: &[u8; SIGNATURE_BYTES]) -> [u8; SIGNATURE_BYTES] {
        let signature = P256Signature::from_slice(signature).unwrap();
        P256Signature::from_scalars(signature.r(), -signature.s()).unwrap().to_bytes().into()
    }

    #[test]
    fn a_p256_signature_verifies_in_its_one_form_only() {
        let signed = Transcript::new(Label::Command).text("body");
        let key = PublicKey::of_p256(&p256_key(1));
        let signature = sign_p256(&p256_key(1), signed.clone());
        assert_eq!(key.verify(signed.clone(), &signature), Ok(()));
        let refused = |signature: &[u8]| assert_eq!(key.verify(signed.clone(), signature), Err(KeyError::BadSignature));
        refused(&mirrored(&signature));
        refused(&sign_p256(&p256_key(2), signed.clone()));
        refused(&sign(&self::key(1), signed.clone()));
        refused(&[0; SIGNATURE_BYTES]);
        refused(&[u8::MAX; SIGNATURE_BYTES]);
        refused(&signature[..SIGNATURE_BYTES - 1]);
        refused(&[&[0x30, 0x44, 2, 0x20], &signature[..32], &[2, 0x20], &signature[32..]].concat());
        assert!(key.verify(Transcript::new(Label::Receipt).text("body"), &signature).is_err());
    }

    #[test]
    fn a_p256_key_has_one_form_and_is_on_the_curve() {
        let key = PublicKey::of_p256(&p256_key(1));
        assert_eq!(PublicKey::p256(key.as_bytes()), Ok(key));
        assert_eq!(PublicKey::parse("p256", key.as_bytes()), Ok(key));
        let compressed = p256_key(1).verifying_key().to_sec1_point(true);
        let mut off_the_curve = *<&[u8; P256_KEY_BYTES]>::try_from(key.as_bytes()).unwrap();
        off_the_curve[P256_KEY_BYTES - 1] ^= 1;
        let mut hybrid = *<&[u8; P256_KEY_BYTES]>::try_from(key.as_bytes()).unwrap();
        hybrid[0] = 6 | (hybrid[P256_KEY_BYTES - 1] & 1);
        let infinity = [0; 1];
        let cases: [&[u8]; 7] = [
            compressed.as_bytes(),
            &off_the_curve,
            &hybrid,
            &infinity,
            &[4; P256_KEY_BYTES],
            &[0; P256_KEY_BYTES],
            &[],
        ];
        for bytes in cases {
            assert_eq!(PublicKey::p256(bytes), Err(KeyError::MalformedKey), "{bytes:?}");
        }
        // The base point of secp256k1 is on another curve.
        let other_curve = "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798\
                           483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8";
        let digits = other_curve.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
        let point: Vec<u8> =
            std::iter::once(4).chain(digits.map(|pair| u8::from_str_radix(pair, 16).unwrap())).collect();
        assert_eq!(PublicKey::p256(&point), Err(KeyError::MalformedKey));
        assert_eq!(PublicKey::parse("p384", key.as_bytes()), Err(KeyError::MalformedKey));
        assert_eq!(PublicKey::parse("ed25519", key.as_bytes()), Err(KeyError::MalformedKey));
    }

    #[test]
    fn keys_of_two_algorithms_never_have_one_fingerprint() {
        assert_ne!(PublicKey::of(&key(1)).device_id(), PublicKey::of_p256(&p256_key(1)).device_id());
    }

    #[test]
    fn a_key_of_small_order_is_malformed() {
        assert_eq!(PublicKey::ed25519(&[0; 32]), Err(KeyError::MalformedKey));
        assert_eq!(PublicKey::ed25519(&[1; 31]), Err(KeyError::MalformedKey));
    }
}
