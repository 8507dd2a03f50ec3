//! How often an open was sent on to another node.

use flydex_domain::limits::{FORWARDS_COUNTED_FOR, FORWARDS_MAX};
use tokio::time::Instant;

/// The forwards of one session's machine or of one link; they are forgotten once a place has held for a while.
#[derive(Default)]
pub(super) struct Forwards {
    count: u8,
    last: Option<Instant>,
}

impl Forwards {
    /// Counts one more. False when that is too many.
    pub(super) fn again(&mut self) -> bool {
        if self.last.is_some_and(|last| last.elapsed() >= FORWARDS_COUNTED_FOR) {
            self.count = 0;
        }
        self.last = Some(Instant::now());
        self.count += 1;
        self.count <= FORWARDS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_third_forward_is_too_many_until_a_place_has_held() {
        let mut forwards = Forwards::default();
        assert_eq!([forwards.again(), forwards.again(), forwards.again()], [true, true, false]);
        assert!(!forwards.again());
        tokio::time::advance(FORWARDS_COUNTED_FOR).await;
        assert!(forwards.again());
    }
}
