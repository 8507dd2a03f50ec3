//! What happens to an approval: who answers it, with what and when, and what the stub does meanwhile. Drawn with the
//! schedule, and told to the phones in the reason that the approval shows.

use flydex_domain::command::Decision;
use rand::RngExt as _;
use rand::rngs::StdRng;

/// What happens to one approval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Play {
    /// One phone accepts.
    Accept,
    /// One phone declines.
    Decline,
    /// One phone cancels.
    Cancel,
    /// Two phones accept at once.
    TwoAccept,
    /// One phone accepts and another declines, at once.
    TwoDiffer,
    /// A phone sends its accept again after it was answered, and then another one.
    Repeat,
    /// Codex takes it back while a phone accepts; another accepts what it has seen end.
    Withdrawn,
    /// The desk answers while a phone accepts; another accepts what it has seen end.
    AtDesk,
    /// Codex starts anew while a phone accepts; another accepts what it has seen end.
    Restart,
    /// Nobody answers before its end; then what has ended is accepted, and what was renewed.
    Expired,
    /// A phone accepts with the digest of something else, and then rightly.
    WrongDigest,
    /// A phone accepts for another life of Codex, and then rightly.
    WrongGeneration,
}

/// Each with its name and how many of a hundred are such.
const PLAYS: [(Play, &str, u32); 12] = [
    (Play::Accept, "accept", 40),
    (Play::Decline, "decline", 10),
    (Play::Cancel, "cancel", 5),
    (Play::TwoAccept, "two-accept", 10),
    (Play::TwoDiffer, "two-differ", 5),
    (Play::Repeat, "repeat", 5),
    (Play::Withdrawn, "withdrawn", 5),
    (Play::AtDesk, "at-desk", 5),
    (Play::Restart, "restart", 3),
    (Play::Expired, "expired", 5),
    (Play::WrongDigest, "wrong-digest", 4),
    (Play::WrongGeneration, "wrong-generation", 3),
];

/// A play with its players.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cast {
    /// What happens.
    pub play: Play,
    /// It is about files, and not about a command.
    pub changes_files: bool,
    /// The phone that answers, by its number at the machine.
    pub first: usize,
    /// The phone that answers too, or late; the same where there is no other.
    pub second: usize,
}

impl Cast {
    /// Draws a play for these phones.
    pub fn draw(random: &mut StdRng, (first, second): (usize, usize)) -> Self {
        let mut left = random.random_range(0..PLAYS.iter().map(|(_, _, weight)| weight).sum());
        let mut play = Play::Accept;
        for (candidate, _, weight) in PLAYS {
            if left < weight {
                play = candidate;
                break;
            }
            left -= weight;
        }
        Self { play, changes_files: random.random_range(0..3) == 0, first, second }
    }

    /// As it is told to the phones.
    #[must_use]
    pub fn told(&self) -> String {
        format!("{} {} {}", self.play.name(), self.first, self.second)
    }

    /// What was told; whether it is about files is not.
    #[must_use]
    pub fn heard<'a>(mut words: impl Iterator<Item = &'a str>) -> Option<Self> {
        let name = words.next()?;
        let (play, _, _) = *PLAYS.iter().find(|(_, known, _)| *known == name)?;
        Some(Self {
            play,
            changes_files: false,
            first: words.next()?.parse().ok()?,
            second: words.next()?.parse().ok()?,
        })
    }

    /// What a phone answers to an approval that it sees open. `renewed`: it has seen the question's approval end.
    #[must_use]
    pub fn at_opening(&self, phone: usize, renewed: bool) -> Option<Attempt> {
        let (is_first, is_second) = (phone == self.first, phone == self.second);
        let accept = Attempt { decision: Decision::Accept, twist: Twist::None, then: Then::Nothing };
        match self.play {
            Play::Accept | Play::Withdrawn | Play::AtDesk | Play::Restart => is_first.then_some(accept),
            Play::Decline => is_first.then_some(Attempt { decision: Decision::Decline, ..accept }),
            Play::Cancel => is_first.then_some(Attempt { decision: Decision::Cancel, ..accept }),
            Play::TwoAccept => (is_first || is_second).then_some(accept),
            Play::TwoDiffer if is_first => Some(accept),
            Play::TwoDiffer => is_second.then_some(Attempt { decision: Decision::Decline, ..accept }),
            Play::Repeat => is_first.then_some(Attempt { then: Then::SameBytes, ..accept }),
            Play::Expired => (is_first && renewed).then_some(accept),
            Play::WrongDigest => is_first.then_some(Attempt { twist: Twist::Digest, then: Then::Rightly, ..accept }),
            Play::WrongGeneration => {
                is_first.then_some(Attempt { twist: Twist::Generation, then: Then::Rightly, ..accept })
            }
        }
    }

    /// What a phone answers to an approval that it has seen end.
    #[must_use]
    pub fn at_end(&self, phone: usize) -> Option<Attempt> {
        let is_late = match self.play {
            Play::Withdrawn | Play::AtDesk | Play::Restart | Play::Expired => phone == self.second,
            Play::Accept
            | Play::Decline
            | Play::Cancel
            | Play::TwoAccept
            | Play::TwoDiffer
            | Play::Repeat
            | Play::WrongDigest
            | Play::WrongGeneration => false,
        };
        is_late.then_some(Attempt { decision: Decision::Accept, twist: Twist::None, then: Then::Nothing })
    }
}

impl Play {
    fn name(self) -> &'static str {
        PLAYS.iter().find(|(play, _, _)| *play == self).map_or("", |(_, name, _)| name)
    }
}

/// One answer of a phone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The answer.
    pub decision: Decision,
    /// What is wrong with it.
    pub twist: Twist,
    /// What follows when it was answered.
    pub then: Then,
}

/// What is wrong with an answer, on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Twist {
    /// Nothing.
    None,
    /// Something else was rendered.
    Digest,
    /// Another life of Codex is meant.
    Generation,
}

/// What follows an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Nothing.
    Nothing,
    /// The same bytes, and then another command that says the same.
    SameBytes,
    /// The same rightly.
    Rightly,
}

impl Attempt {
    /// The answer that follows as another command.
    #[must_use]
    pub const fn next(&self) -> Option<Self> {
        match self.then {
            Then::Nothing => None,
            Then::SameBytes | Then::Rightly => {
                Some(Self { decision: self.decision, twist: Twist::None, then: Then::Nothing })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn what_is_told_of_a_play_is_heard() {
        let mut random = StdRng::seed_from_u64(3);
        for _ in 0..1_000 {
            let cast = Cast { changes_files: false, ..Cast::draw(&mut random, (4, 17)) };
            assert_eq!(Cast::heard(cast.told().split(' ')), Some(cast));
        }
        assert_eq!(Cast::heard("accept 1".split(' ')), None);
        assert_eq!(Cast::heard("something 1 2".split(' ')), None);
    }

    #[test]
    fn every_play_is_drawn_and_ends_with_a_right_answer_or_another_end() {
        let mut random = StdRng::seed_from_u64(3);
        let drawn: Vec<_> = (0..2_000).map(|_| Cast::draw(&mut random, (0, 1)).play).collect();
        for (play, name, _) in PLAYS {
            assert!(drawn.contains(&play), "{name}");
            let cast = Cast { play, changes_files: false, first: 0, second: 1 };
            let answers: Vec<_> = (0..3).filter_map(|phone| cast.at_opening(phone, true)).collect();
            assert!(!answers.is_empty(), "{name}");
            assert!(answers.iter().all(|answer| answer.twist == Twist::None || answer.next().is_some()), "{name}");
            assert_eq!((cast.at_opening(2, true), cast.at_end(2)), (None, None), "{name}: another phone");
        }
    }
}
