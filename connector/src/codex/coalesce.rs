//! Joining the small pieces in which Codex streams text into fewer events. Pure: the time is a parameter.
//!
//! One coalescer serves one thread. Text of one item and field is collected until its time or size is
//! reached, until text of another item or field comes, or until something else of the thread is to be told:
//! so the order of a thread's events is that of Codex.

use std::time::{Duration, Instant};

/// The text of an item that grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    /// Of a message or a plan.
    Text,
    /// Of a reasoning.
    Summary,
    /// Of a command.
    Output,
}

/// Where text is to be appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// The turn.
    pub(super) turn_id: String,
    /// The item.
    pub(super) item_id: String,
    /// The field of the item.
    pub(super) field: Field,
}

/// Text to append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Delta {
    /// Where.
    pub(super) target: Target,
    /// What.
    pub(super) text: String,
}

/// Collects text.
#[derive(Debug)]
pub(super) struct Coalescer {
    after: Duration,
    bytes_max: usize,
    open: Option<(Delta, Instant)>,
}

impl Coalescer {
    /// Joins text that comes within `after` of its first piece, to at most `bytes_max` bytes.
    pub(super) const fn new(after: Duration, bytes_max: usize) -> Self {
        Self { after, bytes_max, open: None }
    }

    /// Takes a piece of text; gives what is to be told now.
    pub(super) fn push(&mut self, target: Target, text: &str, now: Instant) -> Vec<Delta> {
        let mut told = Vec::new();
        if self.open.as_ref().is_some_and(|(delta, _)| delta.target != target) {
            told.extend(self.flush());
        }
        let mut rest = text;
        while !rest.is_empty() {
            let (delta, _) = self
                .open
                .get_or_insert_with(|| (Delta { target: target.clone(), text: String::new() }, now + self.after));
            let room = self.bytes_max - delta.text.len();
            let mut end = rest.floor_char_boundary(room);
            if end == 0 && delta.text.is_empty() {
                end = rest.ceil_char_boundary(1);
            }
            delta.text.push_str(&rest[..end]);
            rest = &rest[end..];
            if !rest.is_empty() {
                told.extend(self.flush());
            }
        }
        told
    }

    /// What has waited long enough by `now`.
    pub(super) fn due(&mut self, now: Instant) -> Option<Delta> {
        if self.deadline().is_some_and(|deadline| deadline <= now) { self.flush() } else { None }
    }

    /// All that is collected.
    pub(super) fn flush(&mut self) -> Option<Delta> {
        self.open.take().map(|(delta, _)| delta)
    }

    /// When something will be due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.open.as_ref().map(|(_, deadline)| *deadline)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn target(item_id: &str) -> Target {
        Target { turn_id: "t".to_owned(), item_id: item_id.to_owned(), field: Field::Text }
    }

    fn start() -> Instant {
        flydex_runtime::clock::Clock::manual(0).instant()
    }

    #[test]
    fn pieces_within_the_time_are_one_event_and_later_ones_another() {
        let mut coalescer = Coalescer::new(Duration::from_millis(40), 1024);
        let now = start();
        assert_eq!(coalescer.push(target("a"), "Hel", now), []);
        assert_eq!(coalescer.push(target("a"), "lo", now + Duration::from_millis(39)), []);
        assert_eq!(coalescer.due(now + Duration::from_millis(39)), None);
        let told = coalescer.due(now + Duration::from_millis(40));
        assert_eq!(told, Some(Delta { target: target("a"), text: "Hello".to_owned() }));
        assert_eq!(coalescer.deadline(), None);
    }

    #[test]
    fn text_of_another_item_ends_the_collecting() {
        let mut coalescer = Coalescer::new(Duration::from_millis(40), 1024);
        let now = start();
        assert_eq!(coalescer.push(target("a"), "one", now), []);
        let told = coalescer.push(target("b"), "two", now);
        assert_eq!(told, [Delta { target: target("a"), text: "one".to_owned() }]);
        assert_eq!(coalescer.flush(), Some(Delta { target: target("b"), text: "two".to_owned() }));
    }

    proptest! {
        #[test]
        fn nothing_is_lost_or_reordered_and_no_event_is_too_large(
            pieces in prop::collection::vec((0_u8..3, "\\PC{0,12}", 0_u64..60), 0..40),
            bytes_max in 4_usize..24,
        ) {
            let mut coalescer = Coalescer::new(Duration::from_millis(40), bytes_max);
            let mut now = start();
            let mut told = Vec::new();
            let mut sent = Vec::new();
            for (item, text, wait) in &pieces {
                now += Duration::from_millis(*wait);
                told.extend(coalescer.due(now));
                told.extend(coalescer.push(target(&item.to_string()), text, now));
                sent.extend(text.chars().map(|letter| (item.to_string(), letter)));
                prop_assert!(coalescer.deadline().is_none_or(|deadline| deadline <= now + Duration::from_millis(40)));
            }
            told.extend(coalescer.flush());
            prop_assert!(told.iter().all(|delta| !delta.text.is_empty() && delta.text.len() <= bytes_max));
            let arrived: Vec<_> = told
                .iter()
                .flat_map(|delta| delta.text.chars().map(|letter| (delta.target.item_id.clone(), letter)))
                .collect();
            prop_assert_eq!(arrived, sent);
        }
    }
}
