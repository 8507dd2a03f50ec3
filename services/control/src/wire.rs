//! Small types of the JSON bodies: bytes as base64url, keys, labels.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use flydex_domain::error::ErrorCode;
use flydex_domain::limits::{LABEL_CHARS_MAX, VERSION_TEXT_BYTES_MAX};
use flydex_domain::token::TokenVerifier;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

/// Bytes of a fixed length, as base64url without padding.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Base64<const LENGTH: usize>(pub(crate) [u8; LENGTH]);

impl<const LENGTH: usize> Serialize for Base64<LENGTH> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl<'de, const LENGTH: usize> Deserialize<'de> for Base64<LENGTH> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        decode(&text).map(Self).ok_or_else(|| D::Error::custom("malformed bytes"))
    }
}

/// Reads bytes of a fixed length from base64url without padding.
pub(crate) fn decode<const LENGTH: usize>(text: &str) -> Option<[u8; LENGTH]> {
    // Longer text is refused before it is decoded.
    if text.len() > LENGTH * 2 {
        return None;
    }
    URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()
}

/// A public key, as the API describes it; [`flydex_domain::token::EncodedKey`] reads and writes it.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it only describes the shape in the API's document")]
pub(crate) struct PublicKeyJson {
    /// `ed25519`; of a device also `p256`.
    algorithm: String,
    /// 32 bytes, or the uncompressed point of 65 bytes, base64url.
    key: String,
}

/// A statement that one key of a machine follows on another; [`flydex_domain::rotation::KeyRotation`] reads and writes
/// it.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it only describes the shape in the API's document")]
pub(crate) struct KeyRotationJson {
    /// From 1 on; each is greater than the one before.
    counter: u64,
    old_key: PublicKeyJson,
    new_key: PublicKeyJson,
    /// By the machine's clock.
    at_ms: u64,
    /// By the old key, 64 bytes, base64url.
    old_signature: String,
    /// By the new key, 64 bytes, base64url.
    new_signature: String,
}

/// A public key that tokens are verified with.
#[derive(Serialize, ToSchema)]
pub(crate) struct TokenKey {
    key_id: String,
    #[schema(value_type = String)]
    key: Base64<32>,
}

/// The keys of a verifier.
pub(crate) fn token_keys(verifier: &TokenVerifier) -> Vec<TokenKey> {
    verifier.keys().into_iter().map(|(key_id, key)| TokenKey { key_id, key: Base64(key) }).collect()
}

/// A name that a person gave: trimmed, 1 to 64 characters, none of them a control character.
pub(crate) fn label(text: &str) -> Result<String, ErrorCode> {
    let text = text.trim();
    let fits = !text.is_empty() && text.chars().count() <= LABEL_CHARS_MAX;
    if !fits || text.chars().any(char::is_control) {
        return Err(ErrorCode::BadRequest);
    }
    Ok(text.to_owned())
}

/// A version that a program reports of itself: at most 64 bytes, and none that does more than print.
pub(crate) fn version(text: &str) -> Result<String, ErrorCode> {
    let fits = text.len() <= VERSION_TEXT_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    if fits { Ok(text.to_owned()) } else { Err(ErrorCode::BadRequest) }
}
