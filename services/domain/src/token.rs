//! Signed words of the control plane: tickets, grants, machine credentials and audit receipts.
//!
//! Each is a PASETO v4.public token (Ed25519) whose implicit assertion names its kind, so a token of one kind
//! never verifies as another, and whose footer names the signing key, so keys can rotate.

pub mod schedule;

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use pasetors::keys::{AsymmetricPublicKey, AsymmetricSecretKey};
use pasetors::token::UntrustedToken;
use pasetors::version4::{PublicToken, V4};
use pasetors::{Public, token::TrustedToken};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::ErrorCode;
use crate::id::{
    AccountId, ApprovalId, AuditId, CommandHash, CommandId, DeviceId, Generation, GrantId, MachineId, TicketId, UserId,
};
use crate::key::PublicKey;
use crate::limits::TOKEN_SKEW_MAX;
use crate::scope::Role;
use crate::time::UnixMillis;

/// Why a token was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Malformed, of another kind, signed by an unknown key, or altered.
    #[error("token does not verify")]
    Invalid,
    /// Past its end.
    #[error("token has expired")]
    Expired,
    /// Nobody can say whether it still holds: what is known of the control plane is missing or too old.
    #[error("keys or revocations are missing or too old")]
    Stale,
}

impl TokenError {
    /// What the peer is told: that this passes, or `otherwise`, which says what is wrong with the token.
    #[must_use]
    pub const fn code(self, otherwise: ErrorCode) -> ErrorCode {
        match self {
            Self::Invalid | Self::Expired => otherwise,
            Self::Stale => ErrorCode::ControlUnreachable,
        }
    }
}

/// Claims that a token can carry.
pub trait Claims: Serialize + DeserializeOwned {
    /// The implicit assertion: which kind of token this is.
    const KIND: &'static str;

    /// When the token ends.
    fn expires_at(&self) -> UnixMillis;

    /// When the token is refused and what was opened with it ends: its end, and the skew that clocks may have.
    fn holds_until(&self) -> UnixMillis {
        self.expires_at().plus(TOKEN_SKEW_MAX)
    }
}

/// A single-use pass to open a session in one region.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ticket {
    /// Which ticket; spent once.
    pub ticket_id: TicketId,
    /// The only region that takes it.
    pub region: String,
    /// The user's account.
    pub account_id: AccountId,
    /// The user.
    pub user_id: UserId,
    /// What the account lets the user do.
    pub role: Role,
    /// The device key that must prove itself.
    pub device_id: DeviceId,
    /// The end of its minute.
    pub expires_at: UnixMillis,
}

/// Who a session is, for owners that verify it on their own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// Which grant; revocable.
    pub grant_id: GrantId,
    /// The user's account.
    pub account_id: AccountId,
    /// The user.
    pub user_id: UserId,
    /// What the account lets the user do.
    pub role: Role,
    /// The device key of the session, base64url.
    pub device_key: EncodedKey,
    /// The end of its day.
    pub expires_at: UnixMillis,
}

/// What the control plane says of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineCredential {
    /// The account it is paired to.
    pub account_id: AccountId,
    /// The machine.
    pub machine_id: MachineId,
    /// The key that must prove itself.
    pub machine_key: EncodedKey,
    /// Grows with each renewal; a used one that returns is a cloned key.
    pub serial: u64,
    /// The only region that may serve it, when the account pins one.
    pub region_pin: Option<String>,
    /// The account lets nothing be accepted that control has not recorded first. Said only where it is so: a connector
    /// that does not know the word then takes no credential of such an account, and every other.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub strict_audit: bool,
    /// When it was issued; it is renewed at half-life.
    pub issued_at: UnixMillis,
    /// The end of its day.
    pub expires_at: UnixMillis,
}

/// Control's word that the intent to accept an approval is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditReceipt {
    /// The record.
    pub audit_id: AuditId,
    /// The account.
    pub account_id: AccountId,
    /// The machine that asked.
    pub machine_id: MachineId,
    /// The device that accepts.
    pub device_id: DeviceId,
    /// The approval.
    pub approval_id: ApprovalId,
    /// The life of Codex that asked.
    pub generation: Generation,
    /// The command that carries the accept.
    pub command_id: CommandId,
    /// Its exact bytes.
    pub command_hash: CommandHash,
    /// The end of its use.
    pub expires_at: UnixMillis,
}

macro_rules! claims {
    ($($name:ident = $kind:literal;)*) => {
        $(impl Claims for $name {
            const KIND: &'static str = $kind;

            fn expires_at(&self) -> UnixMillis {
                self.expires_at
            }
        })*
    };
}

claims! {
    Ticket = "flydex/v1/ticket";
    Grant = "flydex/v1/grant";
    MachineCredential = "flydex/v1/machine-credential";
    AuditReceipt = "flydex/v1/audit-receipt";
}

/// A public key as JSON carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodedKey(pub PublicKey);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyJson {
    algorithm: String,
    key: String,
}

impl Serialize for EncodedKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use base64::Engine as _;
        let key = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(self.0.as_bytes());
        KeyJson { algorithm: self.0.algorithm().to_owned(), key }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for EncodedKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use base64::Engine as _;
        use serde::de::Error as _;
        let json = KeyJson::deserialize(deserializer)?;
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(json.key).map_err(D::Error::custom)?;
        PublicKey::parse(&json.algorithm, &bytes).map(Self).map_err(D::Error::custom)
    }
}

/// The control plane's signing key and its name.
pub struct TokenSigner {
    key_id: String,
    secret: AsymmetricSecretKey<V4>,
    public: [u8; 32],
}

crate::never_implements!(TokenSigner: std::fmt::Debug, std::fmt::Display, Serialize, Clone);

impl TokenSigner {
    /// Takes a 32-byte seed made by the caller.
    ///
    /// # Panics
    /// Never: every 32-byte seed is an Ed25519 key.
    #[must_use]
    pub fn from_seed(key_id: &str, seed: &crate::secret::SecretKey) -> Self {
        let signing = ed25519_dalek::SigningKey::from_bytes(seed.expose());
        let pair = zeroize::Zeroizing::new(signing.to_keypair_bytes());
        let secret = AsymmetricSecretKey::from(&*pair).expect("a seed and its public key are a key pair");
        Self { key_id: key_id.to_owned(), secret, public: signing.verifying_key().to_bytes() }
    }

    /// Signs claims into a token.
    ///
    /// # Panics
    /// Never: claims are plain structures, and the key was checked when it was made.
    #[must_use]
    pub fn sign<C: Claims>(&self, claims: &C) -> String {
        let payload = serde_json::to_vec(claims).expect("claims are plain structures");
        PublicToken::sign(&self.secret, &payload, Some(self.key_id.as_bytes()), Some(C::KIND.as_bytes()))
            .expect("the payload is not empty and the key is a key")
    }

    /// The name and public half, as verifiers load them.
    #[must_use]
    pub fn public(&self) -> (String, [u8; 32]) {
        (self.key_id.clone(), self.public)
    }
}

/// The control plane's public keys, as gateways, nodes and connectors hold them. Clones share them, so that keys
/// rotate without a restart.
#[derive(Clone, Debug, Default)]
pub struct TokenVerifier {
    known: Arc<ArcSwap<Known>>,
}

#[derive(Clone, Debug, Default)]
struct Known {
    keys: BTreeMap<String, [u8; 32]>,
    stale: bool,
}

impl TokenVerifier {
    /// Holds the named Ed25519 public keys.
    #[must_use]
    pub fn new(keys: impl IntoIterator<Item = (String, [u8; 32])>) -> Self {
        let verifier = Self::default();
        verifier.replace(keys);
        verifier
    }

    /// Knows no key yet, and says [`TokenError::Stale`] until [`TokenVerifier::set_stale`] says otherwise.
    #[must_use]
    pub fn unknowing() -> Self {
        let verifier = Self::default();
        verifier.set_stale(true);
        verifier
    }

    /// Holds these keys from now on, in place of all before.
    pub fn replace(&self, keys: impl IntoIterator<Item = (String, [u8; 32])>) {
        let keys: BTreeMap<_, _> = keys.into_iter().collect();
        self.known.rcu(|known| Known { keys: keys.clone(), stale: known.stale });
    }

    /// Says whether keys and revocations are too old to let anybody new in.
    pub fn set_stale(&self, stale: bool) {
        self.known.rcu(|known| Known { keys: known.keys.clone(), stale });
    }

    /// Whether nobody new is let in.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.known.load().stale
    }

    /// The keys, to hand them on, by name.
    #[must_use]
    pub fn keys(&self) -> Vec<(String, [u8; 32])> {
        self.known.load().keys.iter().map(|(key_id, key)| (key_id.clone(), *key)).collect()
    }

    /// Whether a key of that name is held: it is not, once it was withdrawn.
    #[must_use]
    pub fn holds(&self, key_id: &str) -> bool {
        self.known.load().keys.contains_key(key_id)
    }

    /// Verifies a token of one kind at a given time.
    ///
    /// # Errors
    /// Each [`TokenError`].
    pub fn verify<C: Claims>(&self, token: &str, now: UnixMillis) -> Result<C, TokenError> {
        let known = self.known.load();
        if known.stale {
            return Err(TokenError::Stale);
        }
        let untrusted = UntrustedToken::<Public, V4>::try_from(token).map_err(|_| TokenError::Invalid)?;
        let key_id = std::str::from_utf8(untrusted.untrusted_footer()).map_err(|_| TokenError::Invalid)?;
        let key = known.keys.get(key_id).ok_or(TokenError::Invalid)?;
        let key = AsymmetricPublicKey::<V4>::from(key).map_err(|_| TokenError::Invalid)?;
        let trusted: TrustedToken =
            PublicToken::verify(&key, &untrusted, Some(key_id.as_bytes()), Some(C::KIND.as_bytes()))
                .map_err(|_| TokenError::Invalid)?;
        let claims: C = serde_json::from_str(trusted.payload()).map_err(|_| TokenError::Invalid)?;
        if now >= claims.holds_until() {
            return Err(TokenError::Expired);
        }
        Ok(claims)
    }
}

/// The name of the key that a token says it is signed with; whether it is, [`TokenVerifier::verify`] tells.
#[must_use]
pub fn signer_of(token: &str) -> Option<String> {
    let untrusted = UntrustedToken::<Public, V4>::try_from(token).ok()?;
    std::str::from_utf8(untrusted.untrusted_footer()).ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::secret::SecretKey;

    fn signer(seed: u8) -> TokenSigner {
        TokenSigner::from_seed("k1", &SecretKey::new([seed; 32]))
    }

    fn ticket() -> Ticket {
        Ticket {
            ticket_id: TicketId::from_uuid(Uuid::from_u128(1)),
            region: "local".to_owned(),
            account_id: AccountId::from_uuid(Uuid::from_u128(2)),
            user_id: UserId::from_uuid(Uuid::from_u128(3)),
            role: Role::Owner,
            device_id: DeviceId::from_bytes([4; 32]),
            expires_at: UnixMillis(60_000),
        }
    }

    #[test]
    fn a_key_is_held_until_others_take_its_place_and_a_token_names_it() {
        let verifier = TokenVerifier::new([signer(1).public()]);
        let name = signer_of(&signer(1).sign(&ticket())).expect("a name");
        assert_eq!((name.as_str(), verifier.holds(&name)), ("k1", true));
        verifier.replace([TokenSigner::from_seed("k2", &SecretKey::new([2; 32])).public()]);
        assert_eq!((verifier.holds("k1"), verifier.holds("k2")), (false, true));
        assert_eq!(signer_of("v4.public.AAAA"), None);
    }

    #[test]
    fn a_token_verifies_under_its_key_until_it_expires() {
        let verifier = TokenVerifier::new([signer(1).public()]);
        let token = signer(1).sign(&ticket());
        assert_eq!(verifier.verify::<Ticket>(&token, UnixMillis(59_999)), Ok(ticket()));
        let late = UnixMillis(60_000).plus(TOKEN_SKEW_MAX);
        assert_eq!(verifier.verify::<Ticket>(&token, late), Err(TokenError::Expired));
    }

    #[test]
    fn keys_rotate_under_every_clone() {
        let verifier = TokenVerifier::new([signer(1).public()]);
        let clone = verifier.clone();
        let token = signer(1).sign(&ticket());
        verifier.replace([signer(2).public()]);
        assert_eq!(clone.verify::<Ticket>(&token, UnixMillis(0)), Err(TokenError::Invalid));
        assert_eq!(clone.verify::<Ticket>(&signer(2).sign(&ticket()), UnixMillis(0)), Ok(ticket()));
        assert_eq!(clone.keys(), [signer(2).public()]);
    }

    #[test]
    fn who_knows_nothing_or_too_old_things_asks_to_come_again() {
        let verifier = TokenVerifier::unknowing();
        verifier.replace([signer(1).public()]);
        let token = signer(1).sign(&ticket());
        let refused = verifier.verify::<Ticket>(&token, UnixMillis(0)).unwrap_err();
        assert_eq!(refused.code(ErrorCode::TicketInvalid), ErrorCode::ControlUnreachable);
        verifier.set_stale(false);
        assert_eq!(verifier.verify::<Ticket>(&token, UnixMillis(0)), Ok(ticket()));
        assert_eq!(TokenError::Invalid.code(ErrorCode::TicketInvalid), ErrorCode::TicketInvalid);
    }

    #[test]
    fn a_token_of_another_key_or_kind_is_invalid() {
        let verifier = TokenVerifier::new([signer(1).public()]);
        let forged = signer(2).sign(&ticket());
        assert_eq!(verifier.verify::<Ticket>(&forged, UnixMillis(0)), Err(TokenError::Invalid));
        let token = signer(1).sign(&ticket());
        assert_eq!(verifier.verify::<Grant>(&token, UnixMillis(0)), Err(TokenError::Invalid));
        assert_eq!(verifier.verify::<Ticket>("v4.public.AAAA", UnixMillis(0)), Err(TokenError::Invalid));
    }
}
