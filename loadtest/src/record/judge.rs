//! What a history proves.

use std::collections::BTreeMap;
use std::io::BufRead;

use flydex_domain::id::MachineId;
use flydex_domain::invariant::{Accept, Checker, Event};
use flydex_domain::ledger::CommandKey;
use flydex_domain::stream::StreamId;
use serde::Serialize;

use super::entry::{Entry, Line};

/// Broken invariants that are kept; the others are counted.
const VIOLATIONS_KEPT_MAX: usize = 100;

/// What a history proves.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Verdict {
    /// Lines that were read.
    pub lines: u64,
    /// Commands that were asked.
    pub asked: u64,
    /// Effects at machines.
    pub acted: u64,
    /// Remote accepts that took effect.
    pub accepted: u64,
    /// Events that reached sessions.
    pub seen: u64,
    /// Effects without a final word at the end: not broken, yet no answer either.
    pub unanswered: u64,
    /// How many times an invariant was broken.
    pub broken: u64,
    /// The first of them.
    pub violations: Vec<String>,
}

/// Judges lines in their order.
#[derive(Debug, Default)]
pub struct Judge {
    machines: BTreeMap<MachineId, Checker>,
    verdict: Verdict,
}

impl Judge {
    /// Takes the next line.
    pub fn see(&mut self, line: &Line) {
        self.verdict.lines += 1;
        if let Some(event) = self.event(line) {
            self.judge(line, &event);
        }
    }

    /// What a line says in the words of the invariants.
    fn event(&mut self, line: &Line) -> Option<Event> {
        let key = |device_id, command_id| CommandKey { device_id, command_id };
        let event = match &line.entry {
            Entry::Asked { device, id, hash, effect, .. } => {
                self.verdict.asked += 1;
                if !effect {
                    return None;
                }
                Event::Asked(key(*device, *id), *hash)
            }
            // A read may be done any number of times: there is no promise to break.
            Entry::Told { effect: false, .. } | Entry::Failed { .. } | Entry::Answers { .. } => return None,
            Entry::Told { device, id, hash, word, .. } => Event::Told(key(*device, *id), *hash, (*word).into()),
            Entry::Journalled { device, id, hash } => Event::Journalled(key(*device, *id), *hash),
            Entry::Acted { device, id, hash, epoch } => {
                self.verdict.acted += 1;
                self.judge(line, &Event::Obeyed { epoch: *epoch, sender: None });
                Event::Acted(key(*device, *id), *hash)
            }
            Entry::Invented { .. } => {
                self.broken(line, "Once: an effect that no device asked for");
                return None;
            }
            Entry::NobodysAnswer { .. } => {
                self.broken(line, "Approve: an answer that no device gave took effect");
                return None;
            }
            Entry::Audited { device, id, hash, .. } => Event::Audited(key(*device, *id), *hash),
            Entry::Closed { question } => Event::Closed((*question).into()),
            Entry::Accepted { device, id, hash, question, rendered, happened, answered, at_ms, expires_at_ms } => {
                self.verdict.accepted += 1;
                let accept = Accept {
                    rendered: rendered.0,
                    would_happen: happened.0,
                    answered: *answered,
                    asking: question.generation,
                    at: *at_ms,
                    expires_at: *expires_at_ms,
                    answered_before: false,
                    audited: false,
                };
                Event::Accepted(key(*device, *id), *hash, (*question).into(), accept)
            }
            Entry::Attached { epoch } => Event::Attached(*epoch),
            Entry::Watches { session, stream, after, resumed } => {
                if resumed.is_some_and(|seen| seen != *after) {
                    self.broken(line, "Order: resumed elsewhere than where the device was");
                }
                Event::Watches(*session, StreamId(*stream), *after)
            }
            Entry::Seen { session, stream, seq } => {
                self.verdict.seen += 1;
                Event::Seen(*session, StreamId(*stream), *seq)
            }
            Entry::Ended { session, stream } => Event::Ended(*session, StreamId(*stream)),
        };
        Some(event)
    }

    fn judge(&mut self, line: &Line, event: &Event) {
        if let Err(broken) = self.machines.entry(line.machine_id).or_default().see(event) {
            self.broken(line, &broken.to_string());
        }
    }

    fn broken(&mut self, line: &Line, why: &str) {
        self.verdict.broken += 1;
        if self.verdict.violations.len() < VIOLATIONS_KEPT_MAX {
            let (number, machine_id) = (self.verdict.lines, line.machine_id);
            self.verdict.violations.push(format!("line {number}, machine {machine_id}: {why}: {:?}", line.entry));
        }
    }

    /// What was found up to now.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let unanswered = self.machines.values().map(|checker| checker.unanswered().len() as u64).sum();
        Verdict { unanswered, ..self.verdict.clone() }
    }
}

/// Judges a written history.
///
/// # Errors
/// When it cannot be read, or a line is none.
pub fn check(history: impl BufRead) -> anyhow::Result<Verdict> {
    let mut judge = Judge::default();
    for (number, line) in history.lines().enumerate() {
        let line = serde_json::from_str(&line?).map_err(|error| anyhow::anyhow!("line {}: {error}", number + 1))?;
        judge.see(&line);
    }
    Ok(judge.verdict())
}
