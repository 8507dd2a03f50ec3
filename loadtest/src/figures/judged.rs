//! Figures beside what they must be.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::{Phase, UNSETTLED};
use crate::record::Verdict;
use crate::scenario::{Bound, Scenario};

/// What stands for all that a user would see fail.
const ERRORS: &str = "errors";
/// What the names of such counts begin with.
const ERROR_KINDS: [&str; 6] = ["failed", "refused", "unknown", "machine closed", "stream ended", "session lost"];
/// Where a rule of every run stands, in place of a phase.
const WHOLE_RUN: &str = "whole run";

/// One thing that had to be so.
#[derive(Clone, Debug, Serialize)]
pub struct Judgement {
    /// In which phase.
    pub phase: String,
    /// What.
    pub what: String,
    /// What it must be.
    pub bound: String,
    /// What it is.
    pub figure: String,
    /// Whether it is so.
    pub holds: bool,
}

impl fmt::Display for Judgement {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { phase, what, bound, figure, holds } = self;
        let word = if *holds { "holds " } else { "MISSED" };
        write!(to, "{word} {phase:<24} {what:<40} {figure:>12}   must be {bound}")
    }
}

/// Judges every phase by its bounds, and the whole run by what holds of any.
pub(super) fn judge(phases: &[Phase], scenario: &Scenario, verdict: &Verdict) -> Vec<Judgement> {
    let unsettled = phases.iter().filter_map(|phase| phase.counts.get(UNSETTLED)).sum();
    let mut judgements = vec![
        at_most(WHOLE_RUN, "invariants broken", verdict.broken, 0),
        at_most(WHOLE_RUN, "effects without a final word", verdict.unanswered, 0),
        at_most(WHOLE_RUN, UNSETTLED, unsettled, 0),
    ];
    // The first of the figures' phases is the set-up.
    for (phase, wanted) in phases.iter().skip(1).zip(&scenario.phases) {
        for (kind, bound) in &wanted.must {
            judgements.extend(phase.judge(kind, bound));
        }
    }
    judgements
}

impl Phase {
    fn judge(&self, kind: &str, bound: &Bound) -> Vec<Judgement> {
        let times = self.all_times(kind);
        let count = times.as_ref().map_or(0, Histogram::len) + self.all_counts(kind);
        let at = |quantile| times.as_ref().map(|times| Duration::from_micros(times.value_at_quantile(quantile)));
        let quantiles = [("p50", 0.5, bound.p50_ms), ("p99", 0.99, bound.p99_ms), ("max", 1.0, bound.max_ms)];
        let mut judgements: Vec<_> = quantiles
            .into_iter()
            .filter_map(|(name, quantile, most_ms)| {
                let most = Duration::from_secs_f64(most_ms? / 1_000.0);
                Some(no_longer(&self.name, &format!("{kind} {name}"), at(quantile), most))
            })
            .collect();
        judgements.extend(bound.least.map(|least| at_least(&self.name, kind, count, least)));
        judgements.extend(bound.most.map(|most| at_most(&self.name, kind, count, most)));
        judgements
    }

    fn all_times(&self, kind: &str) -> Option<Histogram<u64>> {
        let mut all: Option<Histogram<u64>> = None;
        for (_, times) in self.times.iter().filter(|(name, _)| is_of(name, kind)) {
            match &mut all {
                Some(all) => all.add(times).ok()?,
                none @ None => *none = Some(times.clone()),
            }
        }
        all
    }

    fn all_counts(&self, kind: &str) -> u64 {
        let is_wanted = |name: &str| match kind {
            ERRORS => ERROR_KINDS.iter().any(|error| is_of(name, error)),
            _ => is_of(name, kind),
        };
        self.counts.iter().filter(|(name, _)| is_wanted(name)).map(|(_, count)| count).sum()
    }
}

/// A kind stands for itself and for all that begin with it and a colon.
pub(super) fn is_of(name: &str, kind: &str) -> bool {
    name.strip_prefix(kind).is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
}

fn no_longer(phase: &str, what: &str, took: Option<Duration>, most: Duration) -> Judgement {
    Judgement {
        phase: phase.to_owned(),
        what: what.to_owned(),
        bound: format!("at most {most:.1?}"),
        figure: took.map_or_else(|| "not measured".to_owned(), |took| format!("{took:.1?}")),
        holds: took.is_some_and(|took| took <= most),
    }
}

fn at_least(phase: &str, what: &str, count: u64, least: u64) -> Judgement {
    let (phase, what) = (phase.to_owned(), format!("number of {what}"));
    Judgement { phase, what, bound: format!("at least {least}"), figure: count.to_string(), holds: count >= least }
}

fn at_most(phase: &str, what: &str, count: u64, most: u64) -> Judgement {
    let (phase, what) = (phase.to_owned(), format!("number of {what}"));
    Judgement { phase, what, bound: format!("at most {most}"), figure: count.to_string(), holds: count <= most }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::Figures;

    const SCENARIO: &str = "name = \"a\"\n[fleet]\naccounts = 1\nmachines = 1\nsessions_per_machine = 1\n\
        [[phase]]\nname = \"broken\"\nkind = \"fault\"\nseconds = 1\n[phase.must]\n\
        delivered = { p99_ms = 10, least = 2 }\n\"link gap\" = { max_ms = 5 }\nerrors = { most = 1 }\n";

    fn judged(delivered: &[u64], errors: &[&str]) -> Vec<(String, bool)> {
        let scenario = Scenario::parse(SCENARIO).unwrap();
        let figures = Figures::new(&scenario);
        for (number, milliseconds) in delivered.iter().enumerate() {
            figures.time(1, &format!("delivered: kind {number}"), Duration::from_millis(*milliseconds));
        }
        for error in errors {
            figures.count(1, error);
        }
        let report = figures.report(&scenario, Verdict::default(), 0);
        report.judgements.into_iter().skip(3).map(|judgement| (judgement.what, judgement.holds)).collect()
    }

    fn holds(judgements: &[(String, bool)], what: &str) -> bool {
        judgements.iter().find(|(name, _)| name == what).unwrap_or_else(|| panic!("{what}: {judgements:?}")).1
    }

    #[test]
    fn times_of_every_kind_that_a_name_stands_for_are_held_to_its_bound() {
        assert!(holds(&judged(&[9, 9], &[]), "delivered p99"));
        assert!(!holds(&judged(&[9, 12], &[]), "delivered p99"));
        assert!(holds(&judged(&[9, 9], &[]), "number of delivered"));
        assert!(!holds(&judged(&[9], &[]), "number of delivered"));
    }

    #[test]
    fn what_was_not_measured_holds_no_bound() {
        assert!(!holds(&judged(&[9], &[]), "link gap max"));
    }

    #[test]
    fn all_that_a_user_would_see_fail_is_an_error() {
        assert!(holds(&judged(&[], &["failed: moving", "failedly"]), "number of errors"));
        assert!(!holds(&judged(&[], &["failed: moving", "session lost: the socket closed"]), "number of errors"));
    }

    #[test]
    fn every_run_is_held_to_what_holds_of_any() {
        let scenario = Scenario::parse(SCENARIO).unwrap();
        let figures = Figures::new(&scenario);
        figures.count(1, UNSETTLED);
        let verdict = Verdict { broken: 1, unanswered: 1, ..Verdict::default() };
        let report = figures.report(&scenario, verdict, 0);
        assert!(report.judgements[..3].iter().all(|judgement| !judgement.holds) && !report.holds());
        assert!(report.table().contains("MISSED whole run"), "{}", report.table());
    }
}
