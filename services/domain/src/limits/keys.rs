//! How long keys live, and how long two of them hold side by side.

use std::time::Duration;

use super::{CREDENTIAL_LIFETIME, GRANT_LIFETIME, TOKEN_SKEW_MAX};

/// Time for which control's next signing key is told before it signs: longer than a credential lives, with which
/// machines learn keys, and longer than gateways and nodes let anybody in without news.
pub const TOKEN_KEY_TOLD_BEFORE: Duration = Duration::from_secs(CREDENTIAL_LIFETIME.as_secs() + 3600);
/// Shortest such time that may be asked for: control processes look for keys, and followers hear of them.
pub const TOKEN_KEY_TOLD_BEFORE_MIN: Duration = Duration::from_secs(3);
/// Time for which tokens of a key are taken after another signs: the longest of them lives as long.
pub const TOKEN_KEY_OVERLAP: Duration = Duration::from_secs(
    (if CREDENTIAL_LIFETIME.as_secs() > GRANT_LIFETIME.as_secs() { CREDENTIAL_LIFETIME } else { GRANT_LIFETIME })
        .as_secs()
        + TOKEN_SKEW_MAX.as_secs(),
);
/// Age at which control makes its next signing key by itself: four times a year.
pub const TOKEN_KEY_ROTATED_AFTER: Duration = Duration::from_secs(90 * 24 * 3600);
/// Interval at which control processes look for signing keys that another made, well within the shortest lead.
pub const TOKEN_KEYS_LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Signing keys that are kept: several years of them. A credential that an older one signed is not renewed.
pub const TOKEN_KEYS_MAX: usize = 16;

/// Age at which a machine changes its key by itself: four times a year.
pub const MACHINE_KEY_ROTATED_AFTER: Duration = Duration::from_secs(90 * 24 * 3600);
/// Time for which a machine may use the key before, unless it has used the next: as long as the last credential that names
/// it lives.
pub const MACHINE_KEY_OVERLAP: Duration = CREDENTIAL_LIFETIME;
/// Time after a change in which the machine uses its next key and so gives the one before up: its link by the next key is
/// there by then, and none is cut that still serves.
pub const MACHINE_KEY_USED_AFTER: Duration = Duration::from_secs(15);
/// Changes of key that are kept of a machine: fifteen years of them. A device that was away for more pairs again.
pub const MACHINE_KEY_ROTATIONS_MAX: i64 = 60;
