//! Codex's open requests: what they ask, the answers written to them, and how they ended.
//!
//! Codex takes the first answer of any of its clients, an error included, and says only that a request is
//! resolved. Whether it was resolved by our answer shows in what the item does next: an accepted one runs, a
//! declined one is declined, a cancelled one ends the turn. Pure: the time is a parameter.

mod ask;

use std::collections::BTreeMap;
use std::time::Instant;

use flydex_domain::command::Decision;
use flydex_domain::id::Generation;
use flydex_domain::limits::{APPROVAL_CONFIRM_TIMEOUT, APPROVAL_CONTRADICTION_WAIT, CODEX_ASKED_MAX};
use serde_json::{Value, json};

pub(super) use self::ask::{Ask, Asking, read};
use super::api::{AnswerOutcome, RequestKey, Resolution};

/// What a device answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// To an approval.
    Decision(Decision),
    /// To questions: part id and answers.
    Questions(Vec<(String, Vec<String>)>),
}

/// What the item of a request did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    /// It ran.
    Ran,
    /// It printed something. Before the request was resolved that says nothing: an item may ask while it runs.
    Prints,
    /// It was declined.
    Declined,
    /// Its turn was interrupted.
    Interrupted,
    /// Its turn ended otherwise.
    TurnEnded,
}

/// Something for the owner of the table to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Tell whoever waits for the answer with that number.
    Settle(u64, AnswerOutcome),
    /// Tell the core that the request ended.
    Resolved(RequestKey, Resolution),
}

/// A request that Codex has open.
struct Open {
    asking: Asking,
    answered: Option<Answered>,
    resolved_at: Option<Instant>,
    sign: Option<Sign>,
}

struct Answered {
    answer: Answer,
    at: Instant,
    waiter: Option<u64>,
}

/// The open requests of one life of Codex.
pub(super) struct Table {
    generation: Generation,
    open: BTreeMap<String, Open>,
    next_waiter: u64,
}

impl Table {
    /// No request is open.
    pub(super) const fn new(generation: Generation) -> Self {
        Self { generation, open: BTreeMap::new(), next_waiter: 0 }
    }

    /// The key of a request of this life.
    pub(super) fn key(&self, request_id: &str) -> RequestKey {
        RequestKey { generation: self.generation, request_id: request_id.to_owned() }
    }

    /// Notes a request; false when it is known (Codex repeats open ones) or there are too many.
    pub(super) fn insert(&mut self, request_id: &str, asking: Asking) -> bool {
        if self.open.contains_key(request_id) || self.open.len() >= CODEX_ASKED_MAX {
            return false;
        }
        let open = Open { asking, answered: None, resolved_at: None, sign: None };
        self.open.insert(request_id.to_owned(), open);
        true
    }

    /// Whether the request is noted.
    pub(super) fn contains(&self, request_id: &str) -> bool {
        self.open.contains_key(request_id)
    }

    /// Whether no request is open.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Takes an answer: the message to write, and the number of its waiter. None when the request is not
    /// open or has an answer, and when the answer is none to what was asked.
    pub(super) fn answer(&mut self, key: &RequestKey, answer: Answer, now: Instant) -> Option<(Value, u64)> {
        if key.generation != self.generation {
            return None;
        }
        let open = self.open.get_mut(&key.request_id)?;
        if open.answered.is_some() || open.resolved_at.is_some() {
            return None;
        }
        let result = open.asking.result(&answer)?;
        self.next_waiter += 1;
        open.answered = Some(Answered { answer, at: now, waiter: Some(self.next_waiter) });
        Some((json!({"id": open.asking.id, "result": result}), self.next_waiter))
    }

    /// The thread and turn to interrupt after an answer: Codex has no word for "no, and stop" to some requests.
    pub(super) fn interrupts(&self, key: &RequestKey, answer: &Answer) -> Option<(&str, &str)> {
        let asking = &self.open.get(&key.request_id)?.asking;
        let stops = *answer == Answer::Decision(Decision::Cancel) && asking.cancel_needs_interrupt();
        stops.then_some((&asking.thread_id, &asking.turn_id))
    }

    /// Codex says that the request is resolved.
    pub(super) fn resolved(&mut self, request_id: &str, now: Instant) -> Vec<Effect> {
        if let Some(open) = self.open.get_mut(request_id) {
            open.resolved_at.get_or_insert(now);
        }
        self.settle(now)
    }

    /// An item did something.
    pub(super) fn item_sign(&mut self, thread_id: &str, item_id: &str, sign: Sign, now: Instant) -> Vec<Effect> {
        self.sign(|asking| asking.thread_id == thread_id && asking.item_id == item_id, sign, now)
    }

    /// A turn ended.
    pub(super) fn turn_sign(&mut self, thread_id: &str, turn_id: &str, sign: Sign, now: Instant) -> Vec<Effect> {
        self.sign(|asking| asking.thread_id == thread_id && asking.turn_id == turn_id, sign, now)
    }

    /// A thread is gone, and its requests with it.
    pub(super) fn thread_gone(&mut self, thread_id: &str) -> Vec<Effect> {
        self.end(Resolution::Withdrawn, |asking| asking.thread_id == thread_id)
    }

    /// Codex is gone.
    pub(super) fn codex_gone(&mut self) -> Vec<Effect> {
        self.end(Resolution::CodexLost, |_| true)
    }

    /// What time alone decides by `now`.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Effect> {
        self.settle(now)
    }

    /// When time alone may decide something.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.open.values().filter_map(Open::deadline).min()
    }

    fn sign(&mut self, fits: impl Fn(&Asking) -> bool, sign: Sign, now: Instant) -> Vec<Effect> {
        for open in self.open.values_mut().filter(|open| fits(&open.asking)) {
            let sign = match sign {
                Sign::Prints if open.resolved_at.is_none() => continue,
                Sign::Prints => Sign::Ran,
                Sign::Ran | Sign::Declined | Sign::Interrupted | Sign::TurnEnded => sign,
            };
            // The first sign counts, but a declined item of a turn that is then interrupted was cancelled.
            match (open.sign, sign) {
                (None, _) | (Some(Sign::Declined), Sign::Interrupted) => open.sign = Some(sign),
                (Some(_), _) => {}
            }
        }
        self.settle(now)
    }

    fn settle(&mut self, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        let generation = self.generation;
        self.open.retain(|request_id, open| {
            if let Some(resolution) = open.resolution(now) {
                if let Some(waiter) = open.take_waiter() {
                    effects.push(Effect::Settle(waiter, outcome(resolution)));
                }
                let key = RequestKey { generation, request_id: request_id.clone() };
                effects.push(Effect::Resolved(key, resolution));
                return false;
            }
            if open.confirmation_is_late(now)
                && let Some(waiter) = open.take_waiter()
            {
                effects.push(Effect::Settle(waiter, AnswerOutcome::Unknown));
            }
            true
        });
        effects
    }

    fn end(&mut self, resolution: Resolution, fits: impl Fn(&Asking) -> bool) -> Vec<Effect> {
        let mut effects = Vec::new();
        let generation = self.generation;
        self.open.retain(|request_id, open| {
            if !fits(&open.asking) {
                return true;
            }
            if let Some(waiter) = open.take_waiter() {
                effects.push(Effect::Settle(waiter, AnswerOutcome::Unknown));
            }
            let key = RequestKey { generation, request_id: request_id.clone() };
            effects.push(Effect::Resolved(key, resolution));
            false
        });
        effects
    }
}

// === impl Open ===

impl Open {
    fn take_waiter(&mut self) -> Option<u64> {
        self.answered.as_mut()?.waiter.take()
    }

    fn confirmation_is_late(&self, now: Instant) -> bool {
        self.answered.as_ref().is_some_and(|answered| answered.at + APPROVAL_CONFIRM_TIMEOUT <= now)
    }

    /// How it ended, once that is known.
    fn resolution(&self, now: Instant) -> Option<Resolution> {
        let resolved_at = self.resolved_at?;
        let Some(answered) = &self.answered else {
            return Some(match self.sign {
                Some(Sign::Interrupted | Sign::TurnEnded) => Resolution::Withdrawn,
                Some(Sign::Ran | Sign::Prints | Sign::Declined) | None => Resolution::AtDesk,
            });
        };
        let decision = match &answered.answer {
            Answer::Questions(_) => return Some(Resolution::OursAnswered),
            Answer::Decision(decision) => *decision,
        };
        if !self.asking.shows_outcome() {
            return Some(Resolution::OursConfirmed(decision));
        }
        let quiet = resolved_at + APPROVAL_CONTRADICTION_WAIT <= now;
        let late = answered.at + APPROVAL_CONFIRM_TIMEOUT <= now;
        match (decision, self.sign) {
            (Decision::Accept | Decision::AcceptForSession, Some(Sign::Ran | Sign::Prints))
            | (Decision::Decline, Some(Sign::Declined))
            | (Decision::Cancel, Some(Sign::Interrupted)) => Some(Resolution::OursConfirmed(decision)),
            // An interruption will tell a cancel from a decline at the desk.
            (Decision::Cancel, Some(Sign::Declined)) if !late => None,
            (_, Some(Sign::Ran | Sign::Prints | Sign::Declined)) => Some(Resolution::AtDesk),
            // Nobody declined it, and it has not ended: a command that runs silently.
            (Decision::Accept | Decision::AcceptForSession, None) if quiet => Some(Resolution::OursConfirmed(decision)),
            (_, Some(Sign::Interrupted | Sign::TurnEnded)) => Some(Resolution::Withdrawn),
            (_, None) if late => Some(Resolution::AtDesk),
            (_, None) => None,
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let answered = self.answered.as_ref()?;
        let confirm = answered.waiter.map(|_| answered.at + APPROVAL_CONFIRM_TIMEOUT);
        let quiet = self.resolved_at.map(|at| at + APPROVAL_CONTRADICTION_WAIT);
        let late = self.resolved_at.map(|_| answered.at + APPROVAL_CONFIRM_TIMEOUT);
        [confirm, quiet.filter(|_| answered.is_accept()), late].into_iter().flatten().min()
    }
}

impl Answered {
    const fn is_accept(&self) -> bool {
        matches!(self.answer, Answer::Decision(Decision::Accept | Decision::AcceptForSession))
    }
}

const fn outcome(resolution: Resolution) -> AnswerOutcome {
    match resolution {
        Resolution::OursConfirmed(_) | Resolution::OursAnswered => AnswerOutcome::Confirmed,
        Resolution::AtDesk => AnswerOutcome::AnsweredAtDesk,
        Resolution::Withdrawn | Resolution::CodexLost => AnswerOutcome::Unknown,
    }
}

#[cfg(test)]
mod tests;
