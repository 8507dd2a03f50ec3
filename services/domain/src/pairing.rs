//! Pairing without trusting the relay: what the claim secret gives, and what both sides prove with it.
//!
//! The connector makes the secret and shows it as a QR code. HKDF-SHA-256 gives three keys: one redeems the
//! claim (the control plane knows its hash only), one MACs from device to machine, one from machine to device.
//! Both MACs cover the same transcript, so both sides agree on relay, account, role and both keys, or neither
//! goes on.

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::encoding::{Label, Transcript};
use crate::id::{AccountId, ClaimId, MachineId};
use crate::key::PublicKey;
use crate::scope::Role;
use crate::secret::SecretKey;
use crate::time::UnixMillis;

/// The keys that one claim secret gives.
#[derive(Debug)]
pub struct ClaimKeys {
    /// Shown to the control plane once, by the browser; the connector gives it only its SHA-256.
    pub redeem: SecretKey,
    /// Keys the device's MAC.
    pub device_to_machine: SecretKey,
    /// Keys the machine's MAC.
    pub machine_to_device: SecretKey,
}

crate::never_implements!(ClaimKeys: std::fmt::Display, serde::Serialize, Clone);

impl ClaimKeys {
    /// Derives the keys from the secret in the QR code.
    #[must_use]
    pub fn derive(secret: &SecretKey) -> Self {
        let salt = Label::ClaimKeys.as_str().as_bytes();
        let hkdf = Hkdf::<Sha256>::new(Some(salt), secret.expose());
        let derive = |info: &str| {
            let mut key = [0; 32];
            hkdf.expand(info.as_bytes(), &mut key).expect("32 bytes are within HKDF's bound");
            SecretKey::new(key)
        };
        Self {
            redeem: derive("redeem"),
            device_to_machine: derive("device-to-machine"),
            machine_to_device: derive("machine-to-device"),
        }
    }
}

/// Everything that both sides of a pairing must agree on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairingTerms {
    /// The origin of the relay, as in the address bar: `https://host[:port]`.
    pub origin: String,
    /// The claim.
    pub claim_id: ClaimId,
    /// When the claim expires.
    pub expires_at: UnixMillis,
    /// The account that gets the machine.
    pub account_id: AccountId,
    /// The machine.
    pub machine_id: MachineId,
    /// What the device may do.
    pub role: Role,
    /// The machine's key.
    pub machine_key: PublicKey,
    /// The device's key.
    pub device_key: PublicKey,
}

impl PairingTerms {
    fn transcript(&self, label: Label) -> Transcript {
        Transcript::new(label)
            .text(&self.origin)
            .bytes(self.claim_id.as_bytes())
            .integer(self.expires_at.0)
            .bytes(self.account_id.as_bytes())
            .bytes(self.machine_id.as_bytes())
            .text(self.role.as_str())
            .text(self.machine_key.algorithm())
            .bytes(self.machine_key.as_bytes())
            .text(self.device_key.algorithm())
            .bytes(self.device_key.as_bytes())
    }

    /// The MAC over the terms under one of the claim's keys.
    #[must_use]
    pub fn mac(&self, key: &SecretKey) -> [u8; 32] {
        self.keyed(key).finalize().into_bytes().into()
    }

    /// Whether `mac` is the terms' MAC under `key`, in constant time.
    #[must_use]
    pub fn verify_mac(&self, key: &SecretKey, mac: &[u8]) -> bool {
        self.keyed(key).verify_slice(mac).is_ok()
    }

    fn keyed(&self, key: &SecretKey) -> Hmac<Sha256> {
        let mut hmac = Hmac::<Sha256>::new_from_slice(key.expose()).expect("HMAC takes keys of any length");
        hmac.update(&self.transcript(Label::Pairing).finish());
        hmac
    }

    /// The six digits that both screens show, for people to compare.
    #[must_use]
    pub fn short_code(&self) -> String {
        let hash = self.transcript(Label::PairingCode).sha256();
        let number = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]) % 1_000_000;
        format!("{:03} {:03}", number / 1000, number % 1000)
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;
    use uuid::Uuid;

    use super::*;

    fn terms() -> PairingTerms {
        PairingTerms {
            origin: "https://relay.example".to_owned(),
            claim_id: ClaimId::from_uuid(Uuid::from_u128(1)),
            expires_at: UnixMillis(1_000),
            account_id: AccountId::from_uuid(Uuid::from_u128(2)),
            machine_id: MachineId::from_uuid(Uuid::from_u128(3)),
            role: Role::Owner,
            machine_key: PublicKey::of(&SigningKey::from_bytes(&[4; 32])),
            device_key: PublicKey::of(&SigningKey::from_bytes(&[5; 32])),
        }
    }

    #[test]
    fn a_mac_holds_for_its_terms_and_its_direction_only() {
        let keys = ClaimKeys::derive(&SecretKey::new([6; 32]));
        let mac = terms().mac(&keys.device_to_machine);
        assert!(terms().verify_mac(&keys.device_to_machine, &mac));
        assert!(!terms().verify_mac(&keys.machine_to_device, &mac));
        let swapped = PairingTerms { account_id: AccountId::from_uuid(Uuid::from_u128(9)), ..terms() };
        assert!(!swapped.verify_mac(&keys.device_to_machine, &mac));
        let promoted = PairingTerms { role: Role::Viewer, ..terms() };
        assert!(!promoted.verify_mac(&keys.device_to_machine, &mac));
    }

    #[test]
    fn the_three_keys_of_a_secret_differ() {
        let keys = ClaimKeys::derive(&SecretKey::new([6; 32]));
        assert_ne!(keys.redeem, keys.device_to_machine);
        assert_ne!(keys.device_to_machine, keys.machine_to_device);
    }

    #[test]
    fn the_short_code_follows_the_terms() {
        let other = PairingTerms { machine_id: MachineId::from_uuid(Uuid::from_u128(8)), ..terms() };
        assert_eq!(terms().short_code().len(), 7);
        assert_ne!(terms().short_code(), other.short_code());
    }
}
