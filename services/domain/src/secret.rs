//! Bytes that must not be printed: payloads on their way through the relay, and key material.

use std::fmt;

use bytes::Bytes;
use zeroize::Zeroize;

/// Opaque content of a user: it can be moved on, and nothing else.
///
/// It has no `Display`, its `Debug` shows the length only, and it cannot be serialised by accident.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Payload(Bytes);

impl Payload {
    /// Wraps content as it entered the process.
    #[must_use]
    pub const fn new(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// How long the content is, in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no content.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes the content out, to hash it, to verify it or to send it on.
    #[must_use]
    pub fn expose(&self) -> &Bytes {
        &self.0
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.0.len())
    }
}

/// Key material of 32 bytes: never printed, overwritten when it goes.
#[derive(Clone, PartialEq, Eq, zeroize::ZeroizeOnDrop)]
pub struct SecretKey([u8; 32]);

impl SecretKey {
    /// Takes key material over.
    #[must_use]
    pub fn new(mut bytes: [u8; 32]) -> Self {
        let key = Self(bytes);
        bytes.zeroize();
        key
    }

    /// The key material, for the one computation that needs it.
    #[must_use]
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_shows_no_content() {
        let payload = Payload::new(Bytes::from_static(b"rm -rf /"));
        assert_eq!(format!("{payload:?}"), "Payload(8 bytes)");
        assert_eq!(format!("{:?}", SecretKey::new([7; 32])), "SecretKey(redacted)");
    }
}
