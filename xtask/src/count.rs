//! Counting what passed and failed, from what the test runners print.

use std::ops::AddAssign;

/// Passed and failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

impl std::fmt::Display for Count {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

impl Count {
    /// One thing that passed or failed.
    pub(crate) fn one(passed: bool) -> Self {
        Self { passed: u64::from(passed), failed: u64::from(!passed) }
    }

    /// Counts a run. One that failed without a failing test (it did not build) is one failure.
    pub(crate) fn of_run(succeeded: bool, output: &str) -> Self {
        let mut count = Self::default();
        for line in output.lines() {
            count += summary(&without_colours(line)).unwrap_or_default();
        }
        if !succeeded && count.failed == 0 {
            count.failed = 1;
        }
        count
    }
}

/// Reads the closing line of cargo test, cargo nextest or vitest.
fn summary(line: &str) -> Option<Count> {
    // nextest repeats, indented, what the process of a failed test wrote.
    if let Some(rest) = line.strip_prefix("test result: ") {
        return Some(numbers(rest.split_once(". ")?.1));
    }
    let line = line.trim();
    let rest = if line.starts_with("Summary [") { line.split_once(" run: ")?.1 } else { line.strip_prefix("Tests ")? };
    Some(numbers(rest))
}

fn numbers(text: &str) -> Count {
    Count {
        passed: number_before(text, "passed"),
        failed: number_before(text, "failed") + number_before(text, "timed out"),
    }
}

fn number_before(text: &str, word: &str) -> u64 {
    let before = text.split([',', ';', '|', '(']).find_map(|part| part.trim().strip_suffix(word));
    before.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
}

fn without_colours(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        if character == '\u{1b}' {
            characters.by_ref().find(char::is_ascii_alphabetic);
        } else {
            plain.push(character);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closing_lines_of_all_runners_are_read() {
        let check =
            |line: &str, passed, failed| assert_eq!(Count::of_run(true, line), Count { passed, failed }, "{line}");
        check("test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s", 3, 0);
        check("test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out", 2, 1);
        check("     Summary [   4.023s] 12 tests run: 9 passed, 3 failed, 0 skipped", 9, 3);
        check("     Summary [   4.023s] 12 tests run: 9 passed (1 slow), 2 failed, 1 timed out, 0 skipped", 9, 3);
        check(
            "\u{1b}[2m      Tests \u{1b}[22m \u{1b}[1m\u{1b}[31m1 failed\u{1b}[39m\u{1b}[22m | \u{1b}[32m20 passed\u{1b}[39m (21)",
            20,
            1,
        );
        check("    test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out", 0, 0);
        check("Tests are fine", 0, 0);
    }

    #[test]
    fn a_run_that_did_not_build_is_a_failure() {
        assert_eq!(Count::of_run(false, "error: could not compile"), Count { passed: 0, failed: 1 });
    }
}
