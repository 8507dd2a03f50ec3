//! What a pairing shows and gives: the address to scan, the device that proved itself, and what the yes brought.

use std::fmt;

use flydex_domain::id::{AccountId, MachineId};
use flydex_domain::key::PublicKey;
use flydex_domain::limits::LABEL_CHARS_MAX;
use flydex_domain::pairing::PairingTerms;
use flydex_domain::scope::Role;
use zeroize::Zeroizing;

use crate::api::{SecretText, TokenKey};

/// The address in the QR code. Its fragment is the secret: it is shown, and never logged.
pub struct PairingUrl(pub(super) Zeroizing<String>);

flydex_domain::never_implements!(PairingUrl: fmt::Display, serde::Serialize, Clone, AsRef<str>);

impl PairingUrl {
    /// The whole address, for the desk's own screen.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PairingUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PairingUrl(redacted)")
    }
}

/// A device whose proof holds, for the desk to say yes or no to.
#[derive(Clone, Debug)]
pub struct Proposal {
    pub(super) terms: PairingTerms,
    /// The account's name, fit to be printed.
    pub account_name: String,
    /// The device's name, fit to be printed.
    pub device_label: String,
    /// The six digits that both screens show.
    pub short_code: String,
}

impl Proposal {
    /// The account that gets the machine.
    #[must_use]
    pub const fn account_id(&self) -> AccountId {
        self.terms.account_id
    }

    /// The device's key.
    #[must_use]
    pub const fn device_key(&self) -> PublicKey {
        self.terms.device_key
    }

    /// What the device may do.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.terms.role
    }
}

/// What a confirmed pairing gave.
#[derive(Debug)]
pub struct Enrolment {
    /// The account that is pinned.
    pub account_id: AccountId,
    /// This machine.
    pub machine_id: MachineId,
    /// The machine's credential.
    pub credential: SecretText,
    /// Control's public keys.
    pub token_keys: Vec<TokenKey>,
}

/// A name from elsewhere as it may stand on the desk's screen: one short line, and nothing that steers a
/// terminal or turns the reading direction.
#[must_use]
pub fn printable(text: &str) -> String {
    let steers = |character: char| {
        character.is_control()
            || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    text.chars().filter(|character| !steers(*character)).take(LABEL_CHARS_MAX).collect()
}
