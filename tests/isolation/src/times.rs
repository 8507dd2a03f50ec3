//! Whether two kinds of answers take the same time, by ranks: no shape of either distribution is assumed, and no single
//! late answer weighs more than its place in the order.

use std::time::Duration;

/// Answers of each kind below which their times say nothing.
pub const SAMPLES_MIN: usize = 300;
/// Answers of each kind that are kept; later ones are not looked at.
const SAMPLES_MAX: usize = 20_000;
/// How far from the middle the ranks of one kind may lie, in standard deviations: by chance it happens once in some
/// hundred million comparisons.
const DEVIATIONS_MAX: f64 = 6.0;
/// How far from a half the chance may be that an answer of one kind is slower than one of the other. What is less than
/// this cannot be told from the ways of a processor's caches.
const SKEW_MAX: f64 = 0.06;

/// How long answers took.
#[derive(Clone, Debug, Default)]
pub struct Times {
    forbidden: Vec<u64>,
    absent: Vec<u64>,
}

/// What the times say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Class {
    /// Too few answers.
    Unknown,
    /// They tell nothing.
    Same,
    /// They tell the kinds apart.
    Different(Difference),
}

/// By how much times differ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    /// The chance that what is forbidden is slower than what is absent.
    pub slower: f64,
    /// The medians, in nanoseconds: of what is forbidden, and of what is absent.
    pub medians: (u64, u64),
}

impl Times {
    /// Notes one answer of each kind, to the same question.
    pub fn note(&mut self, forbidden: Duration, absent: Duration) {
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        if self.forbidden.len() < SAMPLES_MAX {
            self.forbidden.push(nanos(forbidden));
            self.absent.push(nanos(absent));
        }
    }

    /// Adds what somebody else noted.
    pub fn add(&mut self, other: &Self) {
        let room = SAMPLES_MAX.saturating_sub(self.forbidden.len());
        self.forbidden.extend(other.forbidden.iter().take(room));
        self.absent.extend(other.absent.iter().take(room));
    }

    /// What they say.
    #[must_use]
    pub fn class(&self) -> Class {
        compare(&self.forbidden, &self.absent)
    }
}

/// The Mann-Whitney test of two samples, with a least size of the effect.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "counts of samples are small")]
pub fn compare(forbidden: &[u64], absent: &[u64]) -> Class {
    if forbidden.len().min(absent.len()) < SAMPLES_MIN {
        return Class::Unknown;
    }
    let (count, others) = (forbidden.len() as f64, absent.len() as f64);
    let (ranks, ties) = ranks(forbidden, absent);
    let slower = (ranks - count * (count + 1.0) / 2.0) / (count * others);
    let all = count + others;
    let variance = (all + 1.0 - ties / (all * (all - 1.0))) / (12.0 * count * others);
    // All are the same.
    if variance <= 0.0 {
        return Class::Same;
    }
    let skew = (slower - 0.5).abs();
    if skew <= SKEW_MAX || skew / variance.sqrt() <= DEVIATIONS_MAX {
        return Class::Same;
    }
    Class::Different(Difference { slower, medians: (median(forbidden), median(absent)) })
}

/// The sum of the ranks of the first among both, where equals share theirs; and how much equals there are.
#[expect(clippy::cast_precision_loss, reason = "counts of samples are small")]
fn ranks(first: &[u64], second: &[u64]) -> (f64, f64) {
    let mut all: Vec<(u64, bool)> = first.iter().map(|one| (*one, true)).collect();
    all.extend(second.iter().map(|one| (*one, false)));
    all.sort_unstable();
    let (mut sum, mut ties, mut before) = (0.0, 0.0, 0);
    for equals in all.chunk_by(|one, other| one.0 == other.0) {
        let rank = before as f64 + (equals.len() as f64 + 1.0) / 2.0;
        sum += rank * equals.iter().filter(|(_, is_first)| *is_first).count() as f64;
        ties += (equals.len() as f64).powi(3) - equals.len() as f64;
        before += equals.len();
    }
    (sum, ties)
}

fn median(of: &[u64]) -> u64 {
    let mut sorted = of.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chance::Chance;

    /// Times around a middle, with now and then a late one, as a busy computer has them.
    fn drawn(seed: u64, count: usize, middle: u64) -> Vec<u64> {
        let mut chance = Chance::new(seed);
        let late = |chance: &mut Chance| if chance.once_in(50) { 5_000_000 } else { 0 };
        (0..count).map(|_| middle + chance.number() % 100_000 + late(&mut chance)).collect()
    }

    #[test]
    fn times_of_one_distribution_are_of_one_class() {
        for seed in 0..200 {
            let (forbidden, absent) = (drawn(seed, 500, 400_000), drawn(seed + 1_000, 500, 400_000));
            assert_eq!(compare(&forbidden, &absent), Class::Same, "seed {seed}");
        }
    }

    #[test]
    fn a_shift_of_a_quarter_of_the_spread_is_another_class_whichever_is_slower() {
        for seed in 0..50 {
            let (slow, quick) = (drawn(seed, 500, 425_000), drawn(seed + 1_000, 500, 400_000));
            let Class::Different(difference) = compare(&slow, &quick) else { panic!("seed {seed}") };
            assert!(difference.slower > 0.6 && difference.medians.0 > difference.medians.1);
            let Class::Different(difference) = compare(&quick, &slow) else { panic!("seed {seed}") };
            assert!(difference.slower < 0.4 && difference.medians.0 < difference.medians.1);
        }
    }

    #[test]
    fn late_answers_of_one_kind_alone_do_not_weigh_by_how_late_they_are() {
        let absent = drawn(1, 500, 400_000);
        let mut forbidden = drawn(2, 500, 400_000);
        forbidden.iter_mut().step_by(100).for_each(|one| *one = u64::MAX / 2);
        assert_eq!(compare(&forbidden, &absent), Class::Same);
    }

    #[test]
    fn few_times_say_nothing_and_equal_ones_are_the_same() {
        assert_eq!(compare(&[1; SAMPLES_MIN - 1], &[9; SAMPLES_MIN]), Class::Unknown);
        assert_eq!(compare(&[5; SAMPLES_MIN], &[5; SAMPLES_MIN]), Class::Same);
        assert!(matches!(compare(&[6; SAMPLES_MIN], &[5; SAMPLES_MIN]), Class::Different(_)));
    }

    #[test]
    fn what_several_noted_is_compared_together() {
        let mut times = Times::default();
        for (slow, quick) in drawn(1, 200, 450_000).into_iter().zip(drawn(2, 200, 400_000)) {
            times.note(Duration::from_nanos(slow), Duration::from_nanos(quick));
        }
        assert_eq!(times.class(), Class::Unknown);
        times.add(&times.clone());
        assert!(matches!(times.class(), Class::Different(_)));
    }
}
