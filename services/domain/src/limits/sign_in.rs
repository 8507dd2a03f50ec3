//! Passkeys, recovery codes and identity providers.

use std::time::Duration;

/// Age up to which a proof of the person is fresh: long enough to walk to the desk and back, short enough that a
/// browser left open is no key to the house.
pub const FRESH_ASSERTION_AGE_MAX: Duration = Duration::from_secs(5 * 60);
/// Life of one attempt to register or use a passkey, or to sign in at a provider: a person finds a security key in it,
/// or a password and a second factor.
pub const ATTEMPT_LIFETIME: Duration = Duration::from_secs(5 * 60);
/// Attempts under way over all accounts; each is a row of a few kilobytes.
pub const ATTEMPTS_OPEN_MAX: i64 = 10_000;
/// Attempts begun per minute and address: each costs a durable write.
pub const ATTEMPT_RATE_PER_MINUTE: u32 = 30;
/// Passkeys of one user: every phone, computer and security key that a person has, and the same again.
pub const USER_PASSKEYS_MAX: i64 = 20;
/// Identities of one user.
pub const USER_IDENTITIES_MAX: i64 = 10;
/// A passkey as it is stored, in bytes: its key, its name and its flags take under one kilobyte.
pub const PASSKEY_STORED_BYTES_MAX: usize = 16 * 1024;
/// Recovery codes that are made at once; earlier ones end.
pub const RECOVERY_CODES: usize = 10;
/// Recovery codes tried per minute and address: typed by hand, and each wrong one is a guess.
pub const RECOVERY_RATE_PER_MINUTE: u32 = 5;
/// Time that an identity provider has for one answer: a request that needs four of them ends within
/// [`API_TIMEOUT`](super::API_TIMEOUT).
pub const PROVIDER_TIMEOUT: Duration = Duration::from_secs(3);
/// An answer of an identity provider, in bytes: a document of keys and certificates takes tens of kilobytes.
pub const PROVIDER_ANSWER_BYTES_MAX: usize = 256 * 1024;
/// Age at which what a provider says of itself and its keys is fetched again.
pub const PROVIDER_METADATA_LIFETIME: Duration = Duration::from_secs(3600);
/// Shortest time between two fetches for the sake of a key that is not known: tokens with made-up keys cost one each.
pub const PROVIDER_REFETCH_INTERVAL: Duration = Duration::from_secs(30);
/// How far a provider's clock may be off.
pub const PROVIDER_SKEW_MAX: Duration = Duration::from_secs(60);
/// An authorization code or state that comes back from a provider, in bytes.
pub const PROVIDER_CODE_BYTES_MAX: usize = 4096;
