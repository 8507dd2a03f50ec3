//! Bytes that must not be printed: payloads on their way through the relay, and key material.
//!
//! Whatever holds such bytes says so where it is declared: [`never_implements!`](crate::never_implements) refuses to
//! compile once its type can be printed or serialised.

use std::fmt;

use bytes::Bytes;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroize;

/// Refuses to compile when a type implements one of the traits, which would let it be printed or serialised.
///
/// It works by inference: with the trait the type has two ways to one name, and the compiler does not choose.
#[macro_export]
macro_rules! never_implements {
    ($type:ty: $($forbidden:path),+ $(,)?) => {
        $(const _: fn() = || {
            trait Way<Marker> {
                fn only() {}
            }
            struct Second;
            impl<Any: ?Sized> Way<()> for Any {}
            impl<Any: ?Sized + $forbidden> Way<Second> for Any {}
            let _ = <$type as Way<_>>::only;
        };)+
    };
}

/// Opaque content of a user: it can be moved on, and nothing else.
///
/// It has no `Display`, its `Debug` shows the length only, and it cannot be serialised by accident.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Payload(Bytes);

never_implements!(Payload: fmt::Display, serde::Serialize, AsRef<[u8]>, AsRef<str>);

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

/// Key material of 32 bytes: never printed, compared in constant time, overwritten when it goes.
#[derive(Clone, zeroize::ZeroizeOnDrop)]
pub struct SecretKey([u8; 32]);

never_implements!(SecretKey: fmt::Display, serde::Serialize, Copy, AsRef<[u8]>);

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

impl PartialEq for SecretKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for SecretKey {}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_equal_by_their_bytes() {
        let key = SecretKey::new([7; 32]);
        assert_eq!(key, key.clone());
        let mut other = [7; 32];
        other[31] = 8;
        assert_ne!(key, SecretKey::new(other));
    }

    #[test]
    fn debug_output_shows_no_content() {
        let payload = Payload::new(Bytes::from_static(b"rm -rf /"));
        assert_eq!(format!("{payload:?}"), "Payload(8 bytes)");
        assert_eq!(format!("{:?}", SecretKey::new([7; 32])), "SecretKey(redacted)");
    }
}
