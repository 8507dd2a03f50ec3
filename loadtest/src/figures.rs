//! What was measured: a histogram per phase and kind, counts of errors per phase and code, and the report of both.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::record::Verdict;
use crate::scenario::Scenario;

mod judged;

pub use judged::Judgement;

/// The phase before the first of the scenario.
pub const SET_UP: usize = 0;
/// The kind under which a run keeps how late it was itself.
pub const LAG: &str = "own lag";
/// The kind under which the round trips of the floor are kept.
pub const FLOOR: &str = "floor: bare forwarder";
/// What the kinds of answers begin with.
pub const ANSWER: &str = "answer: ";
/// What the kinds of words that the machine has something begin with.
pub const DELIVERED: &str = "delivered: ";
/// The kind of the first effect asked of each machine after a fault.
pub const FIRST_DELIVERED: &str = "first delivered";
/// The count of sessions that were not usable at the end, or still waited for an answer.
pub const UNSETTLED: &str = "sessions unsettled at the end";
/// What times of faults begin with: how long the one who breaks things took.
pub const FAULT: &str = "fault: ";
/// The longest time that is told apart, in microseconds: five minutes.
const TIME_US_MAX: u64 = 300_000_000;
/// Own lateness, at p99, that never voids a run: two cores that the relay shares are late by that much alone.
const LAG_IGNORED: Duration = Duration::from_millis(5);
/// Share of the measured p99 that a run's own lateness may have.
const LAG_SHARE_MAX: f64 = 0.1;
/// Answers below which a phase's p99 says nothing.
const ANSWERS_MIN: u64 = 100;

/// The figures of a run, as they come in.
#[derive(Debug)]
pub struct Figures(Mutex<Vec<Phase>>);

#[derive(Debug, Default)]
struct Phase {
    name: String,
    times: BTreeMap<String, Histogram<u64>>,
    counts: BTreeMap<String, u64>,
}

impl Figures {
    /// No figures yet.
    #[must_use]
    pub fn new(scenario: &Scenario) -> Self {
        let names = scenario.phases.iter().map(|phase| phase.name.clone());
        let phases = std::iter::once("set-up".to_owned()).chain(names);
        Self(Mutex::new(phases.map(|name| Phase { name, ..Phase::default() }).collect()))
    }

    /// Takes how long one thing of a kind took.
    pub fn time(&self, phase: usize, kind: &str, took: Duration) {
        let mut phases = self.lock();
        let Some(phase) = phases.get_mut(phase) else { return };
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        if let Some(times) = phase.times.get_mut(kind) {
            times.saturating_record(micros);
        } else if let Ok(mut times) = Histogram::new_with_bounds(1, TIME_US_MAX, 3) {
            times.saturating_record(micros);
            phase.times.insert(kind.to_owned(), times);
        }
    }

    /// Counts one thing of a kind.
    pub fn count(&self, phase: usize, what: &str) {
        let mut phases = self.lock();
        let Some(phase) = phases.get_mut(phase) else { return };
        *phase.counts.entry(what.to_owned()).or_default() += 1;
    }

    /// Sets one count.
    pub fn set(&self, phase: usize, what: &str, count: u64) {
        if let Some(phase) = self.lock().get_mut(phase) {
            phase.counts.insert(what.to_owned(), count);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Phase>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything, as it is reported; `dropped` arrivals found no room in the run's own queues.
    #[must_use]
    pub fn report(&self, scenario: &Scenario, verdict: Verdict, dropped: u64) -> Report {
        let phases = self.lock();
        let judgements = judged::judge(&phases, scenario, &verdict);
        let mut void = Vec::new();
        if dropped > 0 {
            void.push(Void { cause: Cause::Dropped, why: format!("{dropped} arrivals found no room in its queues") });
        }
        void.extend(phases.iter().filter_map(late));
        let phases = phases.iter().map(PhaseReport::of).collect();
        Report { scenario: scenario.name.clone(), seed: scenario.seed, phases, verdict, void, judgements }
    }
}

/// Whether a phase's own lateness was part of what it measured.
fn late(phase: &Phase) -> Option<Void> {
    let at = |times: &Histogram<u64>| Duration::from_micros(times.value_at_quantile(0.99));
    let lag = at(phase.times.get(LAG)?);
    let mut answers: Option<Histogram<u64>> = None;
    for (_, times) in phase.times.iter().filter(|(kind, _)| kind.starts_with(ANSWER)) {
        match &mut answers {
            Some(all) => all.add(times).ok()?,
            none @ None => *none = Some(times.clone()),
        }
    }
    let answer = answers.filter(|answers| answers.len() >= ANSWERS_MIN).map(|answers| at(&answers));
    let most = answer.map_or(LAG_IGNORED, |answer| LAG_IGNORED.max(answer.mul_f64(LAG_SHARE_MAX)));
    let why = || match answer {
        Some(answer) => format!("in {:?} its own lag was {lag:?} at p99, beside answers of {answer:?}", phase.name),
        None => format!("in {:?} its own lag was {lag:?} at p99", phase.name),
    };
    (lag > most).then(|| Void { cause: Cause::Lag, why: why() })
}

/// What a run found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The scenario.
    pub scenario: String,
    /// What its arrivals were drawn from.
    pub seed: u64,
    /// Its phases in order; the first is the set-up.
    pub phases: Vec<PhaseReport>,
    /// What the history proves.
    pub verdict: Verdict,
    /// Why the figures say nothing about the relay; empty when they do.
    pub void: Vec<Void>,
    /// What had to be so, and whether it is.
    pub judgements: Vec<Judgement>,
}

/// Why figures say nothing about the relay.
#[derive(Debug, Serialize)]
pub struct Void {
    /// What kind of reason.
    pub cause: Cause,
    /// In words.
    pub why: String,
}

/// What voids a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// It was late itself.
    Lag,
    /// Its own queues were full.
    Dropped,
}

/// The figures of one phase.
#[derive(Debug, Serialize)]
pub struct PhaseReport {
    /// Its name.
    pub name: String,
    /// Times by kind.
    pub times: BTreeMap<String, Quantiles>,
    /// Counts by what was counted.
    pub counts: BTreeMap<String, u64>,
}

/// A histogram in five numbers, in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Quantiles {
    /// How many.
    pub count: u64,
    /// Half of them took no longer.
    pub p50_us: u64,
    /// Nine of ten.
    pub p90_us: u64,
    /// 99 of 100.
    pub p99_us: u64,
    /// 999 of 1,000.
    pub p999_us: u64,
    /// The longest.
    pub max_us: u64,
}

impl PhaseReport {
    fn of(phase: &Phase) -> Self {
        let quantiles = |times: &Histogram<u64>| Quantiles {
            count: times.len(),
            p50_us: times.value_at_quantile(0.5),
            p90_us: times.value_at_quantile(0.9),
            p99_us: times.value_at_quantile(0.99),
            p999_us: times.value_at_quantile(0.999),
            max_us: times.max(),
        };
        let times = phase.times.iter().map(|(kind, times)| (kind.clone(), quantiles(times))).collect();
        Self { name: phase.name.clone(), times, counts: phase.counts.clone() }
    }
}

impl Report {
    /// How many of a kind were timed, in all phases.
    #[must_use]
    pub fn timed(&self, kind: &str) -> u64 {
        self.phases.iter().filter_map(|phase| phase.times.get(kind)).map(|times| times.count).sum()
    }

    /// How many of a kind were counted, in all phases; a kind stands for all that begin with it and a colon.
    #[must_use]
    pub fn counted(&self, kind: &str) -> u64 {
        let counts = self.phases.iter().flat_map(|phase| &phase.counts);
        counts.filter(|(what, _)| judged::is_of(what, kind)).map(|(_, count)| count).sum()
    }

    /// How many sessions were not usable at the end, or still waited for an answer.
    #[must_use]
    pub fn unsettled(&self) -> u64 {
        self.phases.iter().filter_map(|phase| phase.counts.get(UNSETTLED)).sum()
    }

    /// Whether all holds that had to be so. A void run may be so too, and yet says nothing.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.judgements.iter().all(|judgement| judgement.holds)
    }

    /// The report as a table.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = format!("scenario {} (seed {})\n", self.scenario, self.seed);
        for phase in &self.phases {
            // Writing into a string cannot fail.
            let _ = writeln!(
                text,
                "\n{:<34} {:>8} {:>10} {:>10} {:>10} {:>10} {:>10}",
                phase.name, "count", "p50", "p90", "p99", "p99.9", "max"
            );
            for (kind, times) in &phase.times {
                let Quantiles { count, p50_us, p90_us, p99_us, p999_us, max_us } = *times;
                let _ = write!(text, "  {kind:<32} {count:>8}");
                for micros in [p50_us, p90_us, p99_us, p999_us, max_us] {
                    let _ = write!(text, " {:>10}", format!("{:.1?}", Duration::from_micros(micros)));
                }
                text.push('\n');
            }
            for (what, count) in &phase.counts {
                let _ = writeln!(text, "  {what:<32} {count:>8}");
            }
        }
        text.push('\n');
        for judgement in &self.judgements {
            let _ = writeln!(text, "{judgement}");
        }
        text.push_str(&verdict_lines(&self.verdict));
        for void in &self.void {
            let _ = writeln!(text, "VOID: {}", void.why);
        }
        text
    }
}

/// A verdict in lines.
#[must_use]
pub fn verdict_lines(verdict: &Verdict) -> String {
    let Verdict { lines, asked, acted, accepted, seen, unanswered, broken, violations } = verdict;
    let mut text = format!(
        "history: {lines} lines, {asked} commands asked, {unanswered} unanswered, {acted} effects, {accepted} approvals \
         accepted, {seen} events seen\n\
         invariants broken: {broken}\n"
    );
    for violation in violations {
        text.push_str(&format!("  {violation}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(lag: Duration, answer: Duration) -> Report {
        let scenario = include_str!("../scenarios/small.toml");
        let scenario = Scenario::parse(scenario).unwrap();
        let figures = Figures::new(&scenario);
        for _ in 0..ANSWERS_MIN {
            figures.time(2, LAG, lag);
            figures.time(2, &format!("{ANSWER}list_threads"), answer);
        }
        figures.count(2, "failed: moving");
        figures.report(&scenario, Verdict::default(), 0)
    }

    #[test]
    fn a_run_that_was_late_itself_is_void() {
        let (quick, slow) = (Duration::from_millis(2), Duration::from_millis(6));
        assert_eq!(report(slow, Duration::from_millis(10)).void[0].cause, Cause::Lag);
        assert!(report(slow, Duration::from_secs(1)).void.is_empty(), "a small part of what was measured");
        let sound = report(quick, Duration::from_millis(10));
        assert!(sound.void.is_empty(), "{:?}", sound.void);
        let table = sound.table();
        assert!(table.contains("answer: list_threads") && table.contains("failed: moving"), "{table}");
    }
}
