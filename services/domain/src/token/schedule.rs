//! When each of control's signing keys signs, and until when tokens that it signed are taken.
//!
//! A key is told to everybody a day before it signs: by then every live link has renewed its credential, and with it
//! learnt the key, and every gateway or node that has not heard of it is too stale to let anybody in. The key before
//! is taken for as long as the longest of its tokens lives. So a change of keys refuses nobody.

use std::time::Duration;

use crate::limits::{TOKEN_KEY_OVERLAP, TOKEN_KEY_ROTATED_AFTER};
use crate::time::UnixMillis;

/// A signing key's place in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduledKey {
    /// Its name, as in the footer of a token.
    pub key_id: String,
    /// Its public half, Ed25519.
    pub public: [u8; 32],
    /// When it was made, and told from.
    pub made_at: UnixMillis,
    /// When it begins to sign.
    pub signs_from: UnixMillis,
    /// When its tokens are not taken any more; absent as long as no key comes after it.
    pub verifies_until: Option<UnixMillis>,
}

impl ScheduledKey {
    /// Whether tokens that it signed are taken.
    #[must_use]
    pub fn verifies(&self, now: UnixMillis) -> bool {
        self.verifies_until.is_none_or(|until| now < until)
    }
}

/// How a key takes the place of the ones before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Time from now until the new key signs.
    pub lead: Duration,
    /// Whether the keys before are known to others: none of their tokens is taken once the new key signs.
    pub compromised: bool,
}

impl Change {
    /// When the new key begins to sign.
    #[must_use]
    pub fn signs_from(self, now: UnixMillis) -> UnixMillis {
        now.plus(self.lead)
    }

    /// When the keys before stop being taken.
    #[must_use]
    pub fn older_until(self, now: UnixMillis) -> UnixMillis {
        let signs_from = self.signs_from(now);
        if self.compromised { signs_from } else { signs_from.plus(TOKEN_KEY_OVERLAP) }
    }
}

/// The key that signs: the latest one that was made and has begun to. One that was on its way when another overtook
/// it never signs.
#[must_use]
pub fn signing(keys: &[ScheduledKey], now: UnixMillis) -> Option<&ScheduledKey> {
    keys.iter()
        .filter(|key| key.signs_from <= now && key.verifies(now))
        .max_by_key(|key| (key.made_at, key.signs_from, &key.key_id))
}

/// Whether it is time for another key: the newest is old, and none is on its way.
#[must_use]
pub fn is_due(keys: &[ScheduledKey], now: UnixMillis) -> bool {
    let newest = keys.iter().filter(|key| key.verifies_until.is_none()).map(|key| key.made_at).max();
    newest.is_none_or(|made_at| now.since(made_at) >= TOKEN_KEY_ROTATED_AFTER)
}

#[cfg(test)]
mod tests;
