//! Finds many texts in one pass: each position is looked up by the eight bytes that begin there.
//!
//! A log of a cluster at TRACE is megabytes, and what is looked for is thousands of forms; one search after another
//! would take minutes. An automaton of Aho and Corasick would do the same in one more dependency.

use std::collections::{BTreeSet, HashMap};

/// Bytes of a beginning; no form is shorter.
const BEGINNING: usize = 8;
/// Bits of the filter before the table: few positions of a text that holds nothing pass it.
const FILTER_BITS: usize = 1 << 20;

/// The forms of all that was planted.
#[derive(Default)]
pub(super) struct Index {
    /// Bit by hash of a beginning.
    filter: Vec<u64>,
    by_beginning: HashMap<u64, Vec<(Vec<u8>, usize)>>,
}

impl Index {
    /// Puts a form in, under a number of the caller's. Forms that are too short are left out.
    pub(super) fn put(&mut self, form: Vec<u8>, number: usize) {
        let Some(beginning) = form.first_chunk() else { return };
        let beginning = u64::from_le_bytes(*beginning);
        self.filter.resize(FILTER_BITS / 64, 0);
        let (word, bit) = place(beginning);
        self.filter[word] |= bit;
        self.by_beginning.entry(beginning).or_default().push((form, number));
    }

    /// The numbers whose forms stand in these bytes.
    pub(super) fn found_in(&self, bytes: &[u8]) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        if self.filter.is_empty() || bytes.len() < BEGINNING {
            return found;
        }
        // Shifted along: the eight bytes that end at this position.
        let mut beginning = 0;
        for (at, byte) in bytes.iter().enumerate() {
            beginning = beginning >> 8 | u64::from(*byte) << 56;
            let (word, bit) = place(beginning);
            if self.filter[word] & bit != 0
                && at + 1 >= BEGINNING
                && let Some(forms) = self.by_beginning.get(&beginning)
            {
                let rest = &bytes[at + 1 - BEGINNING..];
                found.extend(forms.iter().filter(|(form, _)| rest.starts_with(form)).map(|(_, number)| *number));
            }
        }
        found
    }
}

fn place(beginning: u64) -> (usize, u64) {
    // The multiplier is 2^64 over the golden ratio: its upper bits depend on every byte.
    let hash = (beginning.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 44) as usize;
    (hash / 64, 1 << (hash % 64))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_finds_what_a_plain_search_finds(
            forms in prop::collection::vec(prop::collection::vec(0_u8..3, 8..12), 0..20),
            text in prop::collection::vec(0_u8..3, 0..300),
        ) {
            let mut index = Index::default();
            for (number, form) in forms.iter().enumerate() {
                index.put(form.clone(), number);
            }
            let plain = forms.iter().enumerate().filter(|(_, form)| text.windows(form.len()).any(|window| window == &form[..]));
            prop_assert_eq!(index.found_in(&text), plain.map(|(number, _)| number).collect());
        }
    }
}
