//! Pages of history: byte-bounded, newest first, with cursors of our own.
//!
//! Codex pages by turns, whose size has no bound; here a page may end within a turn. Codex's own cursors never
//! leave the machine: a cursor here is a number that means something to this connector only.

use std::collections::BTreeMap;

use flydex_agent_proto::v1;
use flydex_domain::limits::{EVENT_BODY_BYTES_MAX, PAGE_BYTES_MAX, PAGE_CURSORS_MAX};
use prost::Message as _;

use super::api::ThreadId;

/// A place from which a page goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In the list of threads: Codex's cursor.
    Threads(String),
    /// In a thread's history.
    History {
        /// Which thread: a cursor of one is none of another.
        thread_id: ThreadId,
        /// Codex's cursor of the page that holds the place; none for the newest.
        cursor: Option<String>,
        /// Where in that page; its beginning when absent.
        rest: Option<Rest>,
    },
}

/// The part of a turn that is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rest {
    /// The turn.
    pub(super) turn_id: String,
    /// How many of its items, from the first, are left.
    pub(super) items: usize,
}

/// The places that were given out.
#[derive(Debug, Default)]
pub(super) struct Cursors {
    next: u64,
    places: BTreeMap<u64, Place>,
}

impl Cursors {
    /// A cursor for a place; the oldest is forgotten when there are too many.
    pub(super) fn give(&mut self, place: Place) -> String {
        self.next += 1;
        self.places.insert(self.next, place);
        if self.places.len() > PAGE_CURSORS_MAX {
            self.places.pop_first();
        }
        self.next.to_string()
    }

    /// The place of a cursor.
    pub(super) fn place(&self, cursor: &str) -> Option<&Place> {
        self.places.get(&cursor.parse().ok()?)
    }
}

/// Bytes of a page that are left to what wraps it: ids, cursor, and the message around the page.
const WRAPPING_BYTES: usize = 1024;

/// Fills a page with turns, newest first.
pub(super) struct Page {
    bytes_left: usize,
    turns: Vec<v1::Turn>,
}

/// Whether more fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Filled {
    /// The turn is in the page, whole.
    Whole,
    /// The page is full; this is left of the turn.
    Full(Rest),
}

impl Page {
    /// An empty page of at most `bytes_max` bytes, within what a page may have and one item may need.
    pub(super) fn new(bytes_max: u32) -> Self {
        let bytes_max = usize::try_from(bytes_max).unwrap_or(PAGE_BYTES_MAX);
        let bytes_max = if bytes_max == 0 { PAGE_BYTES_MAX } else { bytes_max };
        Self { bytes_left: bytes_max.clamp(EVENT_BODY_BYTES_MAX, PAGE_BYTES_MAX) - WRAPPING_BYTES, turns: Vec::new() }
    }

    /// Adds the next older turn, or as many of its last items as fit.
    pub(super) fn add(&mut self, mut turn: v1::Turn) -> Filled {
        let items = std::mem::take(&mut turn.items);
        let frame = turn.encoded_len() + 64;
        if frame > self.bytes_left {
            return Filled::Full(Rest { turn_id: turn.id, items: items.len() });
        }
        self.bytes_left -= frame;
        let mut left = items.len();
        for item in items.iter().rev() {
            let bytes = item.encoded_len() + 8;
            if bytes > self.bytes_left {
                break;
            }
            self.bytes_left -= bytes;
            left -= 1;
        }
        let turn_id = turn.id.clone();
        turn.items = items.into_iter().skip(left).collect();
        if left == 0 {
            self.turns.push(turn);
            return Filled::Whole;
        }
        if !turn.items.is_empty() {
            self.turns.push(turn);
        }
        Filled::Full(Rest { turn_id, items: left })
    }

    /// The page, oldest turn first.
    pub(super) fn finish(mut self, thread_id: ThreadId, older_cursor: String) -> v1::HistoryPage {
        self.turns.reverse();
        v1::HistoryPage { thread_id: thread_id.to_string(), turns: self.turns, older_cursor }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn turn(id: usize, sizes: &[usize]) -> v1::Turn {
        let item = |(index, size): (usize, &usize)| v1::Item {
            id: format!("{id}/{index}"),
            kind: Some(v1::item::Kind::AgentMessage(v1::AgentMessage { text: "x".repeat(*size) })),
            ..Default::default()
        };
        v1::Turn { id: id.to_string(), items: sizes.iter().enumerate().map(item).collect(), ..Default::default() }
    }

    fn wrapped_len(page: &v1::HistoryPage) -> usize {
        let kind = v1::command_result::Kind::HistoryPage(page.clone());
        v1::CommandResult { kind: Some(kind) }.encoded_len()
    }

    proptest! {
        #[test]
        fn pages_give_every_item_once_in_order_and_within_the_bound(
            turns in prop::collection::vec(prop::collection::vec(0_usize..96 * 1024, 0..6), 1..8),
        ) {
            let thread_id = ThreadId::from_uuid(Uuid::from_u128(1));
            let all: Vec<v1::Turn> = turns.iter().enumerate().map(|(id, sizes)| turn(id, sizes)).collect();
            let mut seen = Vec::new();
            let mut queue: Vec<v1::Turn> = all.clone();
            let mut pages = 0;
            while !queue.is_empty() {
                pages += 1;
                prop_assert!(pages < 100);
                let mut page = Page::new(0);
                while let Some(next) = queue.pop() {
                    if let Filled::Full(rest) = page.add(next.clone()) {
                        let mut next = next;
                        next.items.truncate(rest.items);
                        queue.push(next);
                        break;
                    }
                }
                let page = page.finish(thread_id, String::new());
                prop_assert!(wrapped_len(&page) <= PAGE_BYTES_MAX);
                let ids: Vec<String> = page.turns.iter().flat_map(|t| t.items.iter().map(|i| i.id.clone())).collect();
                seen.splice(0..0, ids);
            }
            let expected: Vec<String> = all.iter().flat_map(|t| t.items.iter().map(|i| i.id.clone())).collect();
            prop_assert_eq!(seen, expected);
        }
    }

    #[test]
    fn a_cursor_is_known_until_too_many_came_after_it() {
        let mut cursors = Cursors::default();
        let first = cursors.give(Place::Threads("codex".to_owned()));
        assert_eq!(cursors.place(&first), Some(&Place::Threads("codex".to_owned())));
        for _ in 0..PAGE_CURSORS_MAX {
            cursors.give(Place::Threads(String::new()));
        }
        assert_eq!(cursors.place(&first), None);
        assert_eq!(cursors.place("nonsense"), None);
    }
}
