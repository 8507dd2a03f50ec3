//! The invariants that a history can break, as functions: one wording for the model, the simulation, the checker of
//! recorded histories of real processes, and the debug assertions of production code.
//!
//! A [`Fate`] is what has become of one command; small enough to be part of a model's state. A [`Checker`] reads a
//! history of one machine event by event and says which event broke which rule.
//!
//! INV-SCOPE, INV-KEY, INV-BLIND, INV-BOUND and INV-LOCAL are not about histories: types, bounds and the table of
//! attacks hold them.

use std::collections::{BTreeMap, BTreeSet};

use crate::command::Outcome;
use crate::epoch::Epoch;
use crate::id::{CommandHash, Generation, Incarnation, SessionId};
use crate::ledger::CommandKey;
use crate::stream::StreamId;
use crate::time::UnixMillis;

/// An invariant that a history can break.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// A command takes effect at most once.
    Once,
    /// A device is never told `executed` unless it was, nor `refused` if it may have been, nor `delivered` of what
    /// the machine may still forget.
    Final,
    /// A connector takes frames of one epoch only, the highest it has seen, from the node that minted it.
    Fence,
    /// A remote accept takes effect only as its device rendered it, in time, once, and audited.
    Approve,
    /// Events reach a session in order without holes.
    Order,
}

/// A broken invariant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
#[error("{rule:?}: {why}")]
pub struct Broken {
    /// Which.
    pub rule: Rule,
    /// What should not have happened.
    pub why: &'static str,
}

const fn holds(condition: bool, rule: Rule, why: &'static str) -> Result<(), Broken> {
    if condition { Ok(()) } else { Err(Broken { rule, why }) }
}

// === Commands ===

/// What has become of one command at the machine, and what its device was told of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fate {
    /// How often it took effect.
    pub acts: u8,
    /// It was on the machine's disk at some time.
    pub journalled: bool,
    /// Its device was told `delivered`.
    pub delivered: bool,
    /// Its device was told `executed`.
    pub executed: bool,
    /// Its device was told `refused`.
    pub refused: bool,
}

impl Fate {
    /// INV-ONCE.
    ///
    /// # Errors
    /// [`Broken`] when it took effect twice.
    pub const fn once(&self) -> Result<(), Broken> {
        holds(self.acts <= 1, Rule::Once, "a command took effect twice")
    }

    /// INV-FINAL: the words `executed` and `refused`.
    ///
    /// # Errors
    /// [`Broken`] when a device holds a word that is not so.
    pub const fn truthful(&self) -> Result<(), Broken> {
        if self.executed && self.acts == 0 {
            return holds(false, Rule::Final, "a device was told executed of what has not taken effect");
        }
        holds(!self.refused || self.acts == 0, Rule::Final, "a device was told refused of what took effect")
    }

    /// INV-FINAL: the word `delivered`. Not for commands that only stop something, which need no journal.
    ///
    /// # Errors
    /// [`Broken`] when a device relies on what the machine may still forget.
    pub const fn safe(&self) -> Result<(), Broken> {
        holds(!self.delivered || self.journalled, Rule::Final, "a device was told delivered of what was not on disk")
    }

    /// Every rule for one command.
    ///
    /// # Errors
    /// The first that is broken.
    pub fn check(&self) -> Result<(), Broken> {
        self.once()?;
        self.truthful()?;
        self.safe()
    }

    /// Takes in what its device was told.
    pub const fn told(&mut self, word: Word) {
        match word {
            Word::Delivered => self.delivered = true,
            Word::Executed => self.executed = true,
            Word::Refused => self.refused = true,
            Word::Unknown => {}
        }
    }
}

/// What a device is told of a command in the machine's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Word {
    /// The machine has it.
    Delivered,
    /// It was done.
    Executed,
    /// It was not and will not be done.
    Refused,
    /// It may or may not have been done.
    Unknown,
}

impl Word {
    /// Whether nothing but a proof can follow.
    #[must_use]
    pub const fn is_final(self) -> bool {
        match self {
            Self::Delivered => false,
            Self::Executed | Self::Refused | Self::Unknown => true,
        }
    }
}

/// INV-ONCE, when a machine begins a command: its journal has nothing of it.
///
/// # Errors
/// [`Broken`] when it was begun before, or answered.
pub const fn begins(known: bool) -> Result<(), Broken> {
    holds(!known, Rule::Once, "a command that the journal knows was begun again")
}

/// INV-FINAL, when a machine settles a command: a final word stays, but `unknown` may be followed by a proof.
///
/// # Errors
/// [`Broken`] when it would say something else than it said.
pub fn settles(before: Option<Outcome>, outcome: Outcome) -> Result<(), Broken> {
    let stays = before.is_none_or(|before| before == outcome || before == Outcome::Unknown);
    holds(stays, Rule::Final, "a final word was followed by another")
}

// === Epochs ===

/// INV-FENCE, when a connector acts on a frame: its epoch is the highest that the connector has attached to.
///
/// # Errors
/// [`Broken`] when an owner of the past, or one that never attached, is obeyed.
pub fn fenced(highest: Epoch, frame: Epoch) -> Result<(), Broken> {
    holds(frame == highest, Rule::Fence, "a frame of another epoch than the highest was obeyed")
}

/// INV-FENCE, between nodes: who sends under an epoch is who attached with it.
///
/// # Errors
/// [`Broken`] when two nodes believe in one epoch.
pub fn sent_by(owner: Incarnation, sender: Incarnation) -> Result<(), Broken> {
    holds(owner == sender, Rule::Fence, "a frame of another node than the one that attached was obeyed")
}

/// INV-FENCE, at an attach: the highest epoch never sinks.
///
/// # Errors
/// [`Broken`] when it does.
pub fn rises(before: Epoch, attached: Epoch) -> Result<(), Broken> {
    holds(attached >= before, Rule::Fence, "a connector attached to less than the highest epoch it had seen")
}

// === Streams ===

/// INV-ORDER: the number of the event that follows.
///
/// # Errors
/// [`Broken`] when it is another.
pub fn follows(last_seq: u64, seq: u64) -> Result<(), Broken> {
    holds(seq == last_seq + 1, Rule::Order, "an event was missing, repeated or out of order")
}

// === Approvals ===

/// A remote accept at the moment at which it takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accept {
    /// The digest of what the device rendered.
    pub rendered: [u8; 32],
    /// The digest of what would happen.
    pub would_happen: [u8; 32],
    /// The life of Codex that the device answers.
    pub answered: Generation,
    /// The life of Codex that asks.
    pub asking: Generation,
    /// The machine's clock.
    pub at: UnixMillis,
    /// When the approval ends.
    pub expires_at: UnixMillis,
    /// Somebody has answered it before.
    pub answered_before: bool,
    /// Its audit record is durable, at control or at the machine.
    pub audited: bool,
}

/// INV-APPROVE.
///
/// # Errors
/// The first condition that does not hold.
pub fn approved(accept: &Accept) -> Result<(), Broken> {
    let rule = Rule::Approve;
    holds(accept.rendered == accept.would_happen, rule, "something else was accepted than was rendered")?;
    holds(accept.answered == accept.asking, rule, "an approval of another life of Codex was accepted")?;
    holds(accept.at < accept.expires_at, rule, "an approval was accepted after its end")?;
    holds(!accept.answered_before, rule, "an approval was answered twice")?;
    holds(accept.audited, rule, "an accept took effect before its audit record was durable")
}

/// A question of Codex, whatever approvals were made of it: one that expires is renewed under another id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Question {
    /// The life of Codex that asks.
    pub generation: Generation,
    /// Its number in that life.
    pub number: u64,
}

// === Histories ===

/// One line of the history of one machine, in the order in which things happened there and its devices were told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event {
    /// The connector made an epoch durable and obeys it.
    Attached(Epoch),
    /// The connector obeyed a frame.
    Obeyed {
        /// Its epoch.
        epoch: Epoch,
        /// The node that sent it, where that is known.
        sender: Option<Incarnation>,
    },
    /// A device signed a command.
    Asked(CommandKey, CommandHash),
    /// The machine has a command on disk.
    Journalled(CommandKey, CommandHash),
    /// A command took effect.
    Acted(CommandKey, CommandHash),
    /// A device was told of a command.
    Told(CommandKey, CommandHash, Word),
    /// The audit record of an accept is durable, at control or at the machine.
    Audited(CommandKey, CommandHash),
    /// A question has ended otherwise than by a remote accept: declined, answered at the desk, or taken back.
    Closed(Question),
    /// A remote accept took effect. Whether it was the first and was audited is what the history tells, besides what
    /// [`Accept`] says of it.
    Accepted(CommandKey, CommandHash, Question, Accept),
    /// A session begins a stream after this number.
    Watches(SessionId, StreamId, u64),
    /// An event reached a session.
    Seen(SessionId, StreamId, u64),
    /// A session was told that a stream ended.
    Ended(SessionId, StreamId),
}

/// Reads a history, and says at each event whether it breaks an invariant.
#[derive(Clone, Debug, Default)]
pub struct Checker {
    highest: Option<Epoch>,
    commands: BTreeMap<(CommandKey, CommandHash), Command>,
    acted: BTreeMap<CommandKey, CommandHash>,
    streams: BTreeMap<(SessionId, StreamId), u64>,
    audited: BTreeSet<(CommandKey, CommandHash)>,
    ended: BTreeSet<Question>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Command {
    fate: Fate,
    asked: bool,
    answered: bool,
}

impl Checker {
    /// Takes the next event.
    ///
    /// # Errors
    /// The invariant that it breaks.
    pub fn see(&mut self, event: &Event) -> Result<(), Broken> {
        match *event {
            Event::Attached(epoch) => {
                let before = self.highest.replace(epoch).unwrap_or(Epoch::ZERO);
                rises(before, epoch)
            }
            Event::Obeyed { epoch, sender } => {
                fenced(self.highest.unwrap_or(Epoch::ZERO), epoch)?;
                sender.map_or(Ok(()), |sender| sent_by(epoch.incarnation, sender))
            }
            Event::Asked(key, hash) => self.change(key, hash, |command| command.asked = true),
            Event::Journalled(key, hash) => self.change(key, hash, |command| command.fate.journalled = true),
            Event::Acted(key, hash) => {
                let first = *self.acted.entry(key).or_insert(hash);
                holds(first == hash, Rule::Once, "two commands under one id took effect")?;
                self.change(key, hash, |command| command.fate.acts = command.fate.acts.saturating_add(1))
            }
            Event::Told(key, hash, word) => self.change(key, hash, |command| {
                command.fate.told(word);
                command.answered |= word.is_final();
            }),
            Event::Audited(key, hash) => {
                self.audited.insert((key, hash));
                Ok(())
            }
            Event::Closed(question) => {
                self.ended.insert(question);
                Ok(())
            }
            Event::Accepted(key, hash, question, accept) => approved(&Accept {
                answered_before: !self.ended.insert(question) || accept.answered_before,
                audited: self.audited.contains(&(key, hash)) || accept.audited,
                ..accept
            }),
            Event::Watches(session_id, stream_id, last_seq) => {
                self.streams.insert((session_id, stream_id), last_seq);
                Ok(())
            }
            Event::Seen(session_id, stream_id, seq) => match self.streams.get_mut(&(session_id, stream_id)) {
                Some(last_seq) => follows(std::mem::replace(last_seq, seq), seq),
                None => holds(false, Rule::Order, "an event of a stream that the session does not watch"),
            },
            Event::Ended(session_id, stream_id) => {
                self.streams.remove(&(session_id, stream_id));
                Ok(())
            }
        }
    }

    /// The commands that were asked and have no final answer.
    #[must_use]
    pub fn unanswered(&self) -> Vec<CommandKey> {
        let open = self.commands.iter().filter(|(_, command)| command.asked && !command.answered);
        open.map(|((key, _), _)| *key).collect()
    }

    /// What has become of a command.
    #[must_use]
    pub fn fate(&self, key: CommandKey, hash: CommandHash) -> Fate {
        self.commands.get(&(key, hash)).map_or_else(Fate::default, |command| command.fate)
    }

    fn change(&mut self, key: CommandKey, hash: CommandHash, how: impl FnOnce(&mut Command)) -> Result<(), Broken> {
        let command = self.commands.entry((key, hash)).or_default();
        how(command);
        command.fate.check()
    }
}

/// Checks a whole history; each broken invariant with the number of the event that broke it.
#[must_use]
pub fn check<'a>(history: impl IntoIterator<Item = &'a Event>) -> Vec<(usize, Broken)> {
    let mut checker = Checker::default();
    let broken = history.into_iter().enumerate().filter_map(|(at, event)| Some((at, checker.see(event).err()?)));
    broken.collect()
}

#[cfg(test)]
mod tests;
