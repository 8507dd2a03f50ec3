//! How a person proves who they are, how long that counts as fresh, and the form of recovery codes.
//!
//! An account session shows that a browser signed in once. What enrols, deletes or promotes needs more: a proof of the
//! person that is minutes old. For a user with a passkey that is an assertion of it; for one without it is the
//! sign-in itself, so that a stolen cookie alone is not enough for either.

use std::fmt;
use std::str::FromStr;

use subtle::ConstantTimeEq as _;

use crate::encoding::{Label, Transcript};
use crate::limits::{FRESH_ASSERTION_AGE_MAX, TOKEN_SKEW_MAX};
use crate::time::UnixMillis;

/// How a sign-in proved the person. Names are stable: they are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SignInMethod {
    /// The link that the server itself printed for its owner.
    OwnerLink,
    /// A one-time link that a signed-in browser made.
    Link,
    /// A passkey, with user verification.
    Passkey,
    /// A recovery code.
    RecoveryCode,
    /// An identity at a provider.
    Identity,
}

impl SignInMethod {
    const ALL: [Self; 5] = [Self::OwnerLink, Self::Link, Self::Passkey, Self::RecoveryCode, Self::Identity];

    /// The stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::OwnerLink => "owner_link",
            Self::Link => "link",
            Self::Passkey => "passkey",
            Self::RecoveryCode => "recovery_code",
            Self::Identity => "identity",
        }
    }

    /// The method with that stable name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.name() == name)
    }

    /// Whether it stands for a passkey's assertion. The owner link and a recovery code do: they are for who lost the
    /// passkeys, who must be able to add one. A link and a provider do not: who stole a browser can make the one,
    /// and is often signed in at the other.
    #[must_use]
    pub const fn asserts_presence(self) -> bool {
        match self {
            Self::OwnerLink | Self::Passkey | Self::RecoveryCode => true,
            Self::Link | Self::Identity => false,
        }
    }
}

/// What an account session knows of when its person was last there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Presence {
    /// When the session began.
    pub signed_in_at: UnixMillis,
    /// When the person last asserted a passkey in it, or proved as much.
    pub asserted_at: Option<UnixMillis>,
}

impl Presence {
    /// When the proof stops being fresh; nothing where there is none that counts.
    #[must_use]
    pub fn fresh_until(&self, has_passkeys: bool) -> Option<UnixMillis> {
        let signed_in = if has_passkeys { None } else { Some(self.signed_in_at) };
        self.asserted_at.max(signed_in).map(|at| at.plus(FRESH_ASSERTION_AGE_MAX))
    }

    /// Whether the proof is fresh. One from the future, beyond what servers' clocks differ by, is not.
    #[must_use]
    pub fn is_fresh(&self, has_passkeys: bool, now: UnixMillis) -> bool {
        self.fresh_until(has_passkeys)
            .is_some_and(|until| now <= until && until <= now.plus(FRESH_ASSERTION_AGE_MAX + TOKEN_SKEW_MAX))
    }
}

/// Bytes of a recovery code that name its row; they are looked up, and no secret.
const SELECTOR_BYTES: usize = 5;
/// Bytes of a recovery code in all: the other ten, 80 bits, are the secret.
pub const RECOVERY_CODE_BYTES: usize = 15;
/// Characters of a recovery code, five bits each.
const RECOVERY_CODE_CHARS: usize = RECOVERY_CODE_BYTES * 8 / 5;
/// Characters between two dashes.
const GROUP_CHARS: usize = 4;
/// Crockford's base 32: no letter that a person takes for a digit.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// A one-time code that signs a user in who lost their passkeys. Never printed but once, to the user.
#[derive(Clone, zeroize::ZeroizeOnDrop)]
pub struct RecoveryCode([u8; RECOVERY_CODE_BYTES]);

crate::never_implements!(RecoveryCode: std::fmt::Display, serde::Serialize, AsRef<[u8]>);

impl PartialEq for RecoveryCode {
    fn eq(&self, other: &Self) -> bool {
        subtle::ConstantTimeEq::ct_eq(&self.0[..], &other.0[..]).into()
    }
}

impl Eq for RecoveryCode {}

/// A text that is no recovery code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed recovery code")]
pub struct MalformedRecoveryCode;

impl RecoveryCode {
    /// The code of random bytes.
    #[must_use]
    pub const fn new(random: [u8; RECOVERY_CODE_BYTES]) -> Self {
        Self(random)
    }

    /// The part that its row is found by.
    #[must_use]
    pub fn selector(&self) -> &[u8] {
        &self.0[..SELECTOR_BYTES]
    }

    /// What is stored in its place.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        Transcript::new(Label::RecoveryCode).bytes(&self.0).sha256()
    }

    /// Whether it is the code that was stored, in a time that does not depend on where they differ.
    #[must_use]
    pub fn is_stored_as(&self, hash: &[u8; 32]) -> bool {
        self.hash().ct_eq(hash).into()
    }

    /// The text that the user is shown.
    #[must_use]
    pub fn expose(&self) -> String {
        let value = self.0.iter().fold(0_u128, |value, byte| value << 8 | u128::from(*byte));
        let mut text = String::with_capacity(RECOVERY_CODE_CHARS + RECOVERY_CODE_CHARS / GROUP_CHARS);
        for place in 0..RECOVERY_CODE_CHARS {
            if place > 0 && place % GROUP_CHARS == 0 {
                text.push('-');
            }
            let digit = value >> (5 * (RECOVERY_CODE_CHARS - 1 - place)) & 31;
            text.push(char::from(ALPHABET[usize::try_from(digit).unwrap_or_default()]));
        }
        text
    }
}

impl fmt::Debug for RecoveryCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecoveryCode(redacted)")
    }
}

impl FromStr for RecoveryCode {
    type Err = MalformedRecoveryCode;

    /// Reads what a person typed: either case, with or without dashes and spaces, `o` for 0 and `i` or `l` for 1.
    fn from_str(text: &str) -> Result<Self, MalformedRecoveryCode> {
        let mut value = 0_u128;
        let mut digits = 0;
        for byte in text.bytes().filter(|byte| !matches!(byte, b'-' | b' ')) {
            let byte = match byte.to_ascii_lowercase() {
                b'o' => b'0',
                b'i' | b'l' => b'1',
                other => other,
            };
            let digit = ALPHABET.iter().position(|known| *known == byte).ok_or(MalformedRecoveryCode)?;
            digits += 1;
            if digits > RECOVERY_CODE_CHARS {
                return Err(MalformedRecoveryCode);
            }
            value = value << 5 | u128::try_from(digit).map_err(|_| MalformedRecoveryCode)?;
        }
        if digits != RECOVERY_CODE_CHARS {
            return Err(MalformedRecoveryCode);
        }
        let bytes = value.to_be_bytes();
        let mut code = [0; RECOVERY_CODE_BYTES];
        code.copy_from_slice(&bytes[bytes.len() - RECOVERY_CODE_BYTES..]);
        Ok(Self(code))
    }
}

/// What lets a user in, beside links that other people make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaysIn {
    /// Their passkeys.
    pub passkeys: u64,
    /// Their identities at the provider that the server is set up with.
    pub identities: u64,
    /// Their recovery codes that are not used.
    pub recovery_codes: u64,
}

impl WaysIn {
    /// Whether a passkey may go: another one, an identity or a recovery code must be left.
    #[must_use]
    pub const fn can_lose_passkey(&self) -> bool {
        self.passkeys > 1 || self.identities > 0 || self.recovery_codes > 0
    }

    /// Whether an identity may go. Recovery codes are no way in that lasts: a passkey or another identity must be
    /// left, unless there are codes to add one with.
    #[must_use]
    pub const fn can_lose_identity(&self) -> bool {
        self.passkeys > 0 || self.identities > 1 || self.recovery_codes > 0
    }
}

#[cfg(test)]
mod tests;
