//! The JSON of the control plane, as the connector writes and reads it.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use flydex_domain::id::{AccountId, AuditId, ClaimId, DeviceId, LocalConnectId, MachineId};
use flydex_domain::revocation::DeviceCut;
use flydex_domain::scope::Role;
use flydex_domain::status::LocalConnectStatus;
use flydex_domain::time::UnixMillis;
use flydex_domain::token::{EncodedKey, TokenVerifier};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::spool::SpoolRecord;

/// Where an origin that a relay is known by says its API is.
#[derive(Deserialize)]
pub(super) struct Whereabouts {
    pub(super) api_origin: String,
}

/// A text that lets its holder in: never printed, compared in constant time, overwritten when it goes.
///
/// It is serialised where it goes over TLS to the control plane, over the connector's own socket, and into the paired
/// record, which only its owner may read.
#[derive(Clone, Default)]
pub struct SecretText(Zeroizing<String>);

flydex_domain::never_implements!(SecretText: fmt::Display, AsRef<str>, std::ops::Deref);

impl SecretText {
    /// Takes the text over.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text, for the one place that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl PartialEq for SecretText {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

impl Eq for SecretText {}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(redacted)")
    }
}

impl Serialize for SecretText {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

/// `POST /api/local-connect/start`.
#[derive(Debug, Serialize)]
pub struct StartRequest {
    /// The machine's key.
    pub machine_key: EncodedKey,
    /// The machine's name, for people.
    pub machine_label: String,
    /// What the device may do.
    pub role: Role,
    /// SHA-256 of the redeem key, base64url.
    pub redeem_sha256: String,
    /// This program's version.
    pub connector_version: &'static str,
    /// Of a machine that is paired already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<SecretText>,
    /// The machine's clock.
    pub timestamp_ms: UnixMillis,
    /// By the machine key, base64url.
    pub signature: String,
}

/// The answer to [`StartRequest`].
#[derive(Debug, Deserialize)]
pub struct StartAnswer {
    /// The pairing in progress.
    pub local_connect_id: LocalConnectId,
    /// The secret's public name.
    pub claim_id: ClaimId,
    /// The machine.
    pub machine_id: MachineId,
    /// Reads and reports this one pairing.
    pub token: SecretText,
    /// The server's own origin.
    pub origin: String,
    /// When the claim expires.
    pub expires_at_ms: UnixMillis,
}

/// `GET /api/local-connect/{id}`.
#[derive(Debug, Deserialize)]
pub struct LocalConnectAnswer {
    /// Where it stands.
    pub status: LocalConnectStatus,
    /// Why it ended.
    #[serde(default)]
    pub code: Option<String>,
    /// Whose account redeemed it.
    #[serde(default)]
    pub account: Option<AccountAnswer>,
    /// The device that redeemed it.
    #[serde(default)]
    pub device: Option<DeviceAnswer>,
}

/// An account, to be shown at the desk.
#[derive(Debug, Deserialize)]
pub struct AccountAnswer {
    /// Which.
    pub account_id: AccountId,
    /// Its name.
    pub name: String,
}

/// A device that wants in.
#[derive(Debug, Deserialize)]
pub struct DeviceAnswer {
    /// Its key.
    pub key: EncodedKey,
    /// Its name.
    pub label: String,
    /// Its proof that it knows the claim's secret, base64url; absent until it has given it.
    #[serde(default)]
    pub mac: Option<String>,
}

/// `POST /api/local-connect/{id}/agent-status`.
#[derive(Debug, Serialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum AgentStatus {
    /// The desk said yes.
    Confirmed {
        /// The machine's proof, base64url.
        machine_mac: String,
    },
    /// Codex answers.
    CodexReady,
    /// The desk said no.
    Refused,
    /// It cannot go on.
    Failed {
        /// Why, by the code's name.
        code: &'static str,
    },
}

/// The answer to [`AgentStatus::Confirmed`].
#[derive(Debug, Deserialize)]
pub struct ConfirmedAnswer {
    /// The account.
    pub account_id: AccountId,
    /// The machine.
    pub machine_id: MachineId,
    /// The machine's first credential.
    pub credential: SecretText,
    /// Control's public keys.
    pub token_keys: Vec<TokenKey>,
}

/// The answer to a renewal.
#[derive(Debug, Deserialize)]
pub struct CredentialAnswer {
    /// The next credential.
    pub credential: SecretText,
    /// Control's public keys.
    pub token_keys: Vec<TokenKey>,
    /// What the account took from devices that the machine said it lists.
    #[serde(default)]
    pub device_cuts: Vec<DeviceCutAnswer>,
}

/// A device that may do less than the machine may believe.
#[derive(Debug, Deserialize)]
pub struct DeviceCutAnswer {
    /// Which.
    pub device_id: DeviceId,
    /// The role that it keeps at most; none: it is removed.
    pub keeps: Option<String>,
}

impl From<DeviceCutAnswer> for DeviceCut {
    fn from(answer: DeviceCutAnswer) -> Self {
        // A role that this connector does not know is no role.
        Self { device_id: answer.device_id, keeps: answer.keeps.and_then(|role| role.parse().ok()) }
    }
}

/// One public key of control.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenKey {
    /// Its name in tokens.
    pub key_id: String,
    /// 32 bytes of Ed25519, base64url.
    pub key: String,
}

/// The verifier that holds some public keys; keys that are none are left out.
#[must_use]
pub fn verifier(keys: &[TokenKey]) -> TokenVerifier {
    let decoded = keys.iter().filter_map(|key| {
        let bytes = URL_SAFE_NO_PAD.decode(&key.key).ok()?;
        Some((key.key_id.clone(), <[u8; 32]>::try_from(bytes.as_slice()).ok()?))
    });
    TokenVerifier::new(decoded)
}

/// `POST /api/machines/{id}/audit`.
#[derive(Debug, Serialize)]
pub struct AuditUpload {
    /// What happened, oldest first.
    pub records: Vec<SpoolRecord>,
}

/// The answer to [`AuditUpload`].
#[derive(Debug, Deserialize)]
pub struct AuditAnswer {
    /// What control has durably.
    pub acknowledged: Vec<AuditId>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ErrorAnswer {
    pub(super) error: ErrorBody,
}

#[derive(Debug, Deserialize)]
pub(super) struct ErrorBody {
    pub(super) number: u32,
}
