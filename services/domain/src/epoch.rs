//! Fencing: the epoch of an ownership, and the connector's rule for accepting one (INV-FENCE).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::Incarnation;
use crate::invariant::rises;
use crate::limits::EPOCH_JUMP_MAX;

/// The fencing number of one ownership of a machine, ordered by counter and then by incarnation.
///
/// The incarnation makes two independent mints of one counter unequal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch {
    /// Grows with every change of owner.
    pub counter: u64,
    /// The life of the node that owns.
    pub incarnation: Incarnation,
}

impl Epoch {
    /// Below every epoch that a node mints.
    pub const ZERO: Self = Self { counter: 0, incarnation: Incarnation::from_bytes([0; 16]) };

    /// The epoch that `incarnation` mints above everything it has heard of.
    #[must_use]
    pub fn above(self, incarnation: Incarnation) -> Self {
        Self { counter: self.counter.saturating_add(1), incarnation }
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.counter, self.incarnation)
    }
}

/// What the connector answers to an owner that wants to attach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attach {
    /// A new owner: store the epoch durably, then accept it.
    Accept(Epoch),
    /// The same owner over a new link: nothing to store.
    Continue,
    /// Not above the highest epoch seen; the asker must drop its state.
    Stale {
        /// The highest epoch that this machine has attached to.
        highest: Epoch,
    },
    /// Further above the highest epoch than [`EPOCH_JUMP_MAX`] allows.
    Absurd,
}

/// Decides on an attach to `asked` by a connector that has durably seen `highest`.
#[must_use]
pub fn attach(highest: Epoch, asked: Epoch) -> Attach {
    if asked == highest {
        return Attach::Continue;
    }
    if asked < highest {
        return Attach::Stale { highest };
    }
    if asked.counter.saturating_sub(highest.counter) > EPOCH_JUMP_MAX {
        return Attach::Absurd;
    }
    debug_assert_eq!(rises(highest, asked), Ok(()));
    Attach::Accept(asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(counter: u64, tag: u8) -> Epoch {
        Epoch { counter, incarnation: Incarnation::from_bytes([tag; 16]) }
    }

    #[test]
    fn the_greater_epoch_wins_and_a_lesser_one_is_told_the_highest() {
        assert_eq!(attach(epoch(4, 1), epoch(5, 1)), Attach::Accept(epoch(5, 1)));
        assert_eq!(attach(epoch(4, 1), epoch(4, 2)), Attach::Accept(epoch(4, 2)));
        assert_eq!(attach(epoch(4, 2), epoch(4, 1)), Attach::Stale { highest: epoch(4, 2) });
        assert_eq!(attach(epoch(4, 1), epoch(4, 1)), Attach::Continue);
    }

    #[test]
    fn an_epoch_from_the_far_future_is_absurd() {
        assert_eq!(attach(epoch(4, 1), epoch(5 + EPOCH_JUMP_MAX, 1)), Attach::Absurd);
    }
}
