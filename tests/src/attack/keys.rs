//! Keys that are stolen, copied, restored from a backup, lost, left behind or withdrawn.

use super::Attack;

pub mod lost;
pub mod moved;
pub mod p256;
pub mod signing;
pub mod stolen;

/// Every attack on keys.
#[must_use]
pub fn attacks() -> Vec<Attack> {
    [lost::ATTACKS, moved::ATTACKS, p256::ATTACKS, signing::ATTACKS, stolen::ATTACKS].concat()
}
