//! Bytes in JSON as base64url without padding, for `#[serde(with = "…")]`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize as _, Deserializer, Serializer};

/// Writes bytes.
///
/// # Errors
/// The serialiser's.
pub fn serialize<S: Serializer>(bytes: impl AsRef<[u8]>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&URL_SAFE_NO_PAD.encode(bytes))
}

/// Reads bytes of the wanted kind.
///
/// # Errors
/// When it is no base64url, or another number of bytes.
pub fn deserialize<'de, D: Deserializer<'de>, B: TryFrom<Vec<u8>>>(deserializer: D) -> Result<B, D::Error> {
    use serde::de::Error as _;
    let text = String::deserialize(deserializer)?;
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(D::Error::custom)?;
    B::try_from(bytes).map_err(|_| D::Error::custom("wrong number of bytes"))
}
