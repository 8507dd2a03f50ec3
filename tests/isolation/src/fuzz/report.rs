//! What a run has tried and found, surface by surface.

use std::fmt;
use std::time::Duration;

use crate::times::{Class, Times};

/// Something that can be said, and to whom.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Surface {
    /// What is said, down to the last choice in it.
    pub what: String,
    /// From whom to whom.
    pub hop: &'static str,
}

/// What is known of one surface.
#[derive(Clone, Debug, Default)]
struct Tally {
    operations: u64,
    findings: u64,
    times: Times,
}

/// What came of a run.
#[derive(Debug, Default)]
pub struct Report {
    /// Messages sent.
    pub operations: u64,
    /// What should not be.
    pub findings: Vec<String>,
    rows: Vec<(Surface, Tally)>,
    /// Findings that no single surface is known to have led to.
    astray: u64,
}

impl Report {
    /// Nothing tried yet.
    #[must_use]
    pub fn of(surfaces: &[Surface]) -> Self {
        let rows = surfaces.iter().map(|surface| (surface.clone(), Tally::default())).collect();
        Self { rows, ..Self::default() }
    }

    /// Notes messages.
    pub fn count(&mut self, surface: usize, operations: u64) {
        self.operations += operations;
        if let Some((_, tally)) = self.rows.get_mut(surface) {
            tally.operations += operations;
        }
    }

    /// Notes how long the answers took: to a value of B, and to one that nobody has.
    pub fn time(&mut self, surface: usize, forbidden: Duration, absent: Duration) {
        if let Some((_, tally)) = self.rows.get_mut(surface) {
            tally.times.note(forbidden, absent);
        }
    }

    /// Notes what should not be, and what led to it where that is known.
    pub fn find(&mut self, surface: Option<usize>, finding: String) {
        self.findings.push(finding);
        match surface.and_then(|surface| self.rows.get_mut(surface)) {
            Some((_, tally)) => tally.findings += 1,
            None => self.astray += 1,
        }
    }

    /// Notes every surface whose times tell what exists. Only where nothing else ran beside it does that mean anything.
    pub fn judge_times(&mut self) {
        for (surface, tally) in &mut self.rows {
            if let Class::Different(difference) = tally.times.class() {
                let (forbidden, absent) = difference.medians;
                tally.findings += 1;
                self.findings.push(format!(
                    "{surface}: times tell what exists: {:.1} % slower than their twins, {forbidden} ns to {absent} ns",
                    difference.slower * 100.0,
                ));
            }
        }
    }

    /// How many surfaces have times that could be compared.
    #[must_use]
    pub fn timed(&self) -> usize {
        self.rows.iter().filter(|(_, tally)| tally.times.class() != Class::Unknown).count()
    }

    /// Adds what another run has tried and found of the same surfaces.
    pub fn add(&mut self, other: Self) {
        self.operations += other.operations;
        self.findings.extend(other.findings);
        self.astray += other.astray;
        if self.rows.is_empty() {
            self.rows = other.rows;
            return;
        }
        for ((_, tally), (_, more)) in self.rows.iter_mut().zip(other.rows) {
            tally.operations += more.operations;
            tally.findings += more.findings;
            tally.times.add(&more.times);
        }
    }

    /// Surfaces without and with findings. One that was never tried has not passed.
    #[must_use]
    pub fn verdicts(&self) -> (usize, usize) {
        let passed = self.rows.iter().filter(|(_, tally)| tally.findings == 0 && tally.operations > 0).count();
        (passed, self.rows.len() - passed + usize::from(self.astray > 0))
    }
}

impl fmt::Display for Surface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.what, self.hop)
    }
}

/// A table of all surfaces, and how many passed.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, hop) = (widest(&self.rows, |row| &row.what), widest(&self.rows, |row| row.hop));
        writeln!(f, "{:what$} | {:hop$} | operations | findings", "surface", "hop")?;
        for (surface, tally) in &self.rows {
            let (operations, findings) = (tally.operations, tally.findings);
            writeln!(f, "{:what$} | {:hop$} | {operations:>10} | {findings:>8}", surface.what, surface.hop)?;
        }
        if self.astray > 0 {
            writeln!(f, "{:what$} | {:hop$} | {:>10} | {:>8}", "what B is told", "any", "", self.astray)?;
        }
        let (passed, failed) = self.verdicts();
        write!(f, "{passed} passed, {failed} failed")
    }
}

fn widest(rows: &[(Surface, Tally)], of: impl Fn(&Surface) -> &str) -> usize {
    rows.iter().map(|(surface, _)| of(surface).len()).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn surfaces() -> [Surface; 2] {
        ["open", "close"].map(|what| Surface { what: what.to_owned(), hop: "a to b" })
    }

    #[test]
    fn a_surface_passes_when_it_was_tried_and_nothing_was_found() {
        let mut report = Report::of(&surfaces());
        assert_eq!(report.verdicts(), (0, 2));
        report.count(0, 4);
        report.count(1, 6);
        assert_eq!((report.verdicts(), report.operations), ((2, 0), 10));
        report.find(Some(1), "a leak".to_owned());
        report.find(None, "B heard something".to_owned());
        assert_eq!(report.verdicts(), (1, 2));
        assert!(report.to_string().ends_with("1 passed, 2 failed"), "{report}");
    }

    #[test]
    fn times_that_differ_are_a_finding_of_their_surface_over_all_runs_together() {
        let mut all = Report::default();
        for _ in 0..2 {
            let mut report = Report::of(&surfaces());
            for _ in 0..crate::times::SAMPLES_MIN / 2 {
                report.time(1, Duration::from_micros(9), Duration::from_micros(5));
            }
            report.count(0, 1);
            report.count(1, 1);
            assert_eq!(report.timed(), 0);
            all.add(report);
        }
        assert_eq!(all.timed(), 1);
        all.judge_times();
        assert_eq!(all.verdicts(), (1, 1));
        assert!(all.findings[0].contains("times tell what exists"), "{:?}", all.findings);
    }
}
