//! Passkeys that the machine itself verifies: a person, not only a browser, says yes to what is of high risk.
//!
//! A passkey is pinned right after the desk's yes to its device. From then on an accept may have to carry a WebAuthn
//! assertion whose challenge is the hash of the command ([`verify`]; WebAuthn level 3, section 7.2). It holds against
//! code that uses a device key unseen; it does not hold against a web app that shows one thing and asks for another.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::VerifyingKey as Ed25519Key;
use p256::ecdsa::signature::Verifier as _;
use p256::ecdsa::{Signature as Es256Signature, VerifyingKey as Es256Key};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;

use crate::encoding::{base64url, sha256};
use crate::error::ErrorCode;
use crate::id::CommandHash;
use crate::limits::PASSKEY_CREDENTIAL_BYTES_MAX;

/// A passkey that a machine pinned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Passkey {
    /// By which the browser finds it; at most 1,023 bytes.
    #[serde(with = "base64url")]
    pub credential_id: Vec<u8>,
    /// Its public key.
    pub key: PasskeyKey,
}

/// The public key of a passkey.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PasskeyKey {
    /// P-256 with SHA-256 (COSE -7): an uncompressed point.
    Es256(#[serde(with = "base64url")] [u8; 65]),
    /// Ed25519 (COSE -8).
    Ed25519(#[serde(with = "base64url")] [u8; 32]),
}

/// Algorithms of passkeys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasskeyAlgorithm {
    /// P-256 with SHA-256.
    Es256,
    /// Ed25519.
    Ed25519,
}

impl Passkey {
    /// Checks a passkey before it is pinned.
    ///
    /// # Errors
    /// `bad_request` when the key is none of its algorithm, or the id is empty or too long.
    pub fn new(credential_id: &[u8], algorithm: PasskeyAlgorithm, key: &[u8]) -> Result<Self, ErrorCode> {
        if credential_id.is_empty() || credential_id.len() > PASSKEY_CREDENTIAL_BYTES_MAX {
            return Err(ErrorCode::BadRequest);
        }
        let malformed = |()| ErrorCode::BadRequest;
        let key = match algorithm {
            PasskeyAlgorithm::Es256 => {
                let key: [u8; 65] = key.try_into().map_err(|_| malformed(()))?;
                Es256Key::from_sec1_bytes(&key).map_err(|_| malformed(()))?;
                PasskeyKey::Es256(key)
            }
            PasskeyAlgorithm::Ed25519 => {
                let key: [u8; 32] = key.try_into().map_err(|_| malformed(()))?;
                let point = Ed25519Key::from_bytes(&key).map_err(|_| malformed(()))?;
                if point.is_weak() {
                    return Err(malformed(()));
                }
                PasskeyKey::Ed25519(key)
            }
        };
        Ok(Self { credential_id: credential_id.to_vec(), key })
    }
}

/// What a browser gave: a WebAuthn assertion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assertion {
    /// Which passkey.
    pub credential_id: Vec<u8>,
    /// What the authenticator says.
    pub authenticator_data: Vec<u8>,
    /// What the browser says.
    pub client_data_json: Vec<u8>,
    /// Over both.
    pub signature: Vec<u8>,
}

/// The flag of a person's presence.
const FLAG_PRESENT: u8 = 0x01;
/// The flag of a person who proved to be the right one.
const FLAG_VERIFIED: u8 = 0x04;
/// Hash of the relying party, flags, and a counter.
const AUTHENTICATOR_DATA_BYTES_MIN: usize = 37;

/// What matters of the client data; a later browser may say more.
#[derive(Deserialize)]
struct ClientData {
    #[serde(rename = "type")]
    kind: String,
    challenge: String,
    origin: String,
    #[serde(rename = "crossOrigin", default)]
    cross_origin: bool,
    #[serde(rename = "topOrigin", default)]
    top_origin: Option<String>,
}

/// Whether the assertion is the pinned passkey's word on exactly that command, with its person present and verified,
/// given on a page of `origin` (`https://host[:port]`).
///
/// # Errors
/// `passkey_invalid`; nothing tells which part does not hold.
pub fn verify(passkey: &Passkey, assertion: &Assertion, origin: &str, command: CommandHash) -> Result<(), ErrorCode> {
    let holds = is_of(passkey, assertion)
        && client_says(&assertion.client_data_json, origin, command)
        && authenticator_says(&assertion.authenticator_data, origin)
        && is_signed(&passkey.key, assertion);
    if holds { Ok(()) } else { Err(ErrorCode::PasskeyInvalid) }
}

fn is_of(passkey: &Passkey, assertion: &Assertion) -> bool {
    passkey.credential_id.ct_eq(&assertion.credential_id).into()
}

fn client_says(json: &[u8], origin: &str, command: CommandHash) -> bool {
    let Ok(client) = serde_json::from_slice::<ClientData>(json) else { return false };
    let challenge = URL_SAFE_NO_PAD.encode(command.as_bytes());
    client.kind == "webauthn.get"
        && client.challenge == challenge
        && client.origin == origin
        && !client.cross_origin
        && client.top_origin.is_none()
}

fn authenticator_says(data: &[u8], origin: &str) -> bool {
    let Some(host) = host_of(origin) else { return false };
    if data.len() < AUTHENTICATOR_DATA_BYTES_MIN {
        return false;
    }
    let flags = data[32];
    data[..32] == sha256(host.as_bytes()) && flags & FLAG_PRESENT != 0 && flags & FLAG_VERIFIED != 0
}

/// The name of the relying party: the origin's host, without scheme and port.
fn host_of(origin: &str) -> Option<&str> {
    let (_, rest) = origin.split_once("://")?;
    let host = rest.rsplit_once(':').map_or(rest, |(host, _)| host);
    (!host.is_empty()).then_some(host)
}

fn is_signed(key: &PasskeyKey, assertion: &Assertion) -> bool {
    let mut signed = assertion.authenticator_data.clone();
    signed.extend_from_slice(&sha256(&assertion.client_data_json));
    match key {
        PasskeyKey::Es256(key) => {
            let (Ok(key), Ok(signature)) =
                (Es256Key::from_sec1_bytes(key), Es256Signature::from_der(&assertion.signature))
            else {
                return false;
            };
            key.verify(&signed, &signature).is_ok()
        }
        PasskeyKey::Ed25519(key) => {
            let (Ok(key), Ok(signature)) =
                (Ed25519Key::from_bytes(key), ed25519_dalek::Signature::from_slice(&assertion.signature))
            else {
                return false;
            };
            key.verify_strict(&signed, &signature).is_ok()
        }
    }
}

#[cfg(test)]
mod tests;
