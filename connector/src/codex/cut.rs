//! Cutting texts to size, always at a character.

/// The longest beginning of `text` of at most `bytes_max` bytes, and whether something was left out.
pub(super) fn head(text: &str, bytes_max: usize) -> (&str, bool) {
    let end = text.floor_char_boundary(bytes_max);
    (&text[..end], end < text.len())
}

/// The longest beginning of `text` of at most `chars_max` characters.
pub(super) fn chars(text: &str, chars_max: usize) -> &str {
    text.char_indices().nth(chars_max).map_or(text, |(end, _)| &text[..end])
}

/// Beginning and end of `text` with a mark between, of at most `bytes_max` bytes: the end of an output says
/// how it went, the beginning what it was.
pub(super) fn middle(text: &str, bytes_max: usize) -> (String, bool) {
    const MARK: &str = "\n[…]\n";
    if text.len() <= bytes_max {
        return (text.to_owned(), false);
    }
    let room = bytes_max.saturating_sub(MARK.len());
    let begin = text.floor_char_boundary(room / 4);
    let end = text.ceil_char_boundary(text.len() - (room - room / 4));
    (format!("{}{MARK}{}", &text[..begin], &text[end..]), true)
}

/// Bytes that several texts share.
pub(super) struct Budget {
    left: usize,
    cut: bool,
}

impl Budget {
    /// A budget of that many bytes.
    pub(super) const fn new(bytes: usize) -> Self {
        Self { left: bytes, cut: false }
    }

    /// As much of the beginning of `text` as is left.
    pub(super) fn take(&mut self, text: &str) -> String {
        let (head, cut) = head(text, self.left);
        self.left -= head.len();
        self.cut |= cut;
        head.to_owned()
    }

    /// As much of `text` as is left, without its middle when it is too long.
    pub(super) fn take_ends(&mut self, text: &str) -> String {
        let (ends, cut) = middle(text, self.left);
        self.left = self.left.saturating_sub(ends.len());
        self.cut |= cut;
        ends
    }

    /// Whether something was left out so far.
    pub(super) const fn cut(&self) -> bool {
        self.cut
    }

    /// Notes that something was left out.
    pub(super) const fn note_cut(&mut self) {
        self.cut = true;
    }

    /// Whether nothing is left.
    pub(super) const fn is_spent(&self) -> bool {
        self.left == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_cut_text_is_within_its_bound_and_a_beginning_of_the_whole(text in "\\PC{0,80}", bytes_max in 0_usize..120) {
            let (head, cut) = head(&text, bytes_max);
            prop_assert!(head.len() <= bytes_max);
            prop_assert!(text.starts_with(head));
            prop_assert_eq!(cut, head.len() < text.len());
            prop_assert!(!cut || bytes_max - head.len() < 4);
        }

        #[test]
        fn the_ends_of_a_text_are_within_their_bound(text in "\\PC{0,80}", bytes_max in 16_usize..120) {
            let (ends, cut) = middle(&text, bytes_max);
            prop_assert!(ends.len() <= bytes_max);
            prop_assert_eq!(cut, text.len() > bytes_max);
            prop_assert!(cut || ends == text);
        }

        #[test]
        fn texts_that_share_a_budget_stay_within_it(texts in prop::collection::vec("\\PC{0,40}", 0..8), bytes in 0_usize..100) {
            let mut budget = Budget::new(bytes);
            let taken: Vec<String> = texts.iter().map(|text| budget.take(text)).collect();
            prop_assert!(taken.iter().map(String::len).sum::<usize>() <= bytes);
            prop_assert_eq!(budget.cut(), taken != texts);
        }
    }

    #[test]
    fn characters_are_counted_not_bytes() {
        assert_eq!(chars("äöü", 2), "äö");
        assert_eq!(chars("ab", 2), "ab");
    }
}
