//! What a machine actor remembers of commands, to answer repeats quickly (INV-ONCE's fast half).
//!
//! A command is *in flight* from the moment it is forwarded until its receipt, the loss of the link or its
//! deadline; then it is *settled*. In-flight entries are bounded and never evicted; settled ones are evicted
//! oldest first, by count and by bytes of kept receipts. Forgetting is harmless: a repeat of a forgotten
//! command is forwarded again, and the connector's journal has the last word.
//!
//! Only receipts that can stand for themselves are kept: final ones (an `unknown` may be superseded by proof,
//! so its repeat goes to the machine while there is one), of effects (a read belongs to its session, and its
//! repeat must subscribe or send pieces again), without pieces that follow.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::command::{ApprovalAnswer, CommandClass};
use crate::id::{ApprovalId, CommandHash, CommandId, DeviceId, Generation, SessionId};
use crate::limits::{ACTOR_LEDGER_BYTES_MAX, ACTOR_LEDGER_ENTRIES_MAX, MACHINE_COMMANDS_IN_FLIGHT_MAX};
use crate::machine::message::{OutcomeKind, SignedReceipt, Stage, Trace};

/// A command's name: ids are unique per device only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommandKey {
    /// Whose command.
    pub device_id: DeviceId,
    /// Which command.
    pub command_id: CommandId,
}

/// A command that was forwarded and has no receipt yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InFlight {
    /// What exactly was asked.
    pub hash: CommandHash,
    /// Whether it acts.
    pub class: CommandClass,
    /// The session under whose name it was forwarded.
    pub via: SessionId,
    /// The newest session that asked: it gets the answer.
    pub target: SessionId,
    /// How far it is known to be.
    pub stage: Stage,
    /// When waiting ends.
    pub deadline: Instant,
    /// The approval that it answers.
    pub answer: Option<ApprovalAnswer>,
    /// The trace that what follows from it carries.
    pub trace: Option<Trace>,
}

/// What the ledger says to a command that a session asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Not known, or nothing to answer with: forward it.
    Forward,
    /// On its way already; the answer now goes to the asker.
    InFlight(Stage),
    /// Done: this is the machine's word.
    Answered(SignedReceipt),
    /// The id stands for another command.
    Reused,
    /// Too many are in flight.
    Full,
}

/// What the ledger knows of a receipt that arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// It ends a command in flight: this session asked last.
    Settled(SessionId),
    /// Nothing in flight: it is for the session that it names.
    Late,
    /// It is about other bytes than those under that id.
    Mismatch,
}

#[derive(Clone, Debug)]
struct Settled {
    hash: CommandHash,
    class: CommandClass,
    receipt: Option<SignedReceipt>,
    trace: Option<Trace>,
    order: u64,
}

/// The commands of one machine, by device and id.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    in_flight: BTreeMap<CommandKey, InFlight>,
    settled: BTreeMap<CommandKey, Settled>,
    oldest: BTreeMap<u64, CommandKey>,
    order: u64,
    receipt_bytes: usize,
}

impl Ledger {
    /// Looks a command up and, when it is in flight, makes the asker the one who gets the answer.
    ///
    /// `online` says whether the machine can be asked: if not, an `unknown` receipt is the best answer there is.
    pub fn ask(&mut self, key: CommandKey, hash: CommandHash, asker: SessionId, online: bool) -> Asked {
        if let Some(entry) = self.in_flight.get_mut(&key) {
            if entry.hash != hash {
                return Asked::Reused;
            }
            entry.target = asker;
            return Asked::InFlight(entry.stage);
        }
        if let Some(entry) = self.settled.get(&key) {
            if entry.hash != hash {
                return Asked::Reused;
            }
            if let Some(receipt) = &entry.receipt
                && (receipt.facts.outcome != OutcomeKind::Unknown || !online)
            {
                return Asked::Answered(receipt.clone());
            }
        }
        if self.in_flight.len() >= MACHINE_COMMANDS_IN_FLIGHT_MAX {
            return Asked::Full;
        }
        Asked::Forward
    }

    /// Whether another command that answers this approval is on its way.
    #[must_use]
    pub fn answer_in_flight(&self, approval_id: ApprovalId, generation: Generation) -> bool {
        self.in_flight
            .values()
            .filter_map(|entry| entry.answer)
            .any(|answer| answer.approval_id == approval_id && answer.generation == generation)
    }

    /// Records a command that is being forwarded. The caller has [`Self::ask`]ed.
    ///
    /// # Panics
    /// When the ledger is full or the command is in flight: `ask` says so.
    pub fn forwarded(&mut self, key: CommandKey, entry: InFlight) {
        assert!(self.in_flight.len() < MACHINE_COMMANDS_IN_FLIGHT_MAX, "INV-BOUND: commands in flight");
        let before = self.in_flight.insert(key, entry);
        assert!(before.is_none(), "INV-ONCE: a command in flight was forwarded again");
    }

    /// Records progress of a command that was forwarded under a session's name; returns who asked last.
    pub fn progress(&mut self, via: SessionId, command_id: CommandId, stage: Stage) -> Option<SessionId> {
        let entry = self
            .in_flight
            .iter_mut()
            .find(|(key, entry)| key.command_id == command_id && entry.via == via)
            .map(|(_, entry)| entry)?;
        entry.stage = entry.stage.max(stage);
        Some(entry.target)
    }

    /// Records the machine's word on a command.
    pub fn receipt(&mut self, receipt: &SignedReceipt) -> Received {
        let facts = receipt.facts;
        let key = CommandKey { device_id: facts.device_id, command_id: facts.command_id };
        if let Some(entry) = self.in_flight.get(&key) {
            if entry.hash != facts.command_hash {
                return Received::Mismatch;
            }
            let (class, target, trace) = (entry.class, entry.target, entry.trace);
            self.in_flight.remove(&key);
            self.settle(key, facts.command_hash, class, trace, Some(receipt));
            return Received::Settled(target);
        }
        if let Some(entry) = self.settled.get(&key) {
            if entry.hash != facts.command_hash {
                return Received::Mismatch;
            }
            let final_already = entry.receipt.as_ref().is_some_and(|known| known.facts.outcome != OutcomeKind::Unknown);
            if !final_already {
                let (class, trace) = (entry.class, entry.trace);
                self.settle(key, facts.command_hash, class, trace, Some(receipt));
            }
        }
        Received::Late
    }

    /// Takes every command out of flight: the link is gone. Returns each with who asked last.
    pub fn link_lost(&mut self) -> Vec<(CommandKey, SessionId)> {
        self.give_up(|_| true)
    }

    /// Takes the commands out of flight whose deadline has passed.
    pub fn expire(&mut self, now: Instant) -> Vec<(CommandKey, SessionId)> {
        self.give_up(|entry| entry.deadline <= now)
    }

    /// Forgets the reads of a session that is gone: nobody waits, and the machine may not answer.
    pub fn session_gone(&mut self, session_id: SessionId) {
        self.give_up(|entry| entry.class == CommandClass::Read && entry.via == session_id);
    }

    /// When the next command in flight expires.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.in_flight.values().map(|entry| entry.deadline).min()
    }

    /// How many commands are in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// How many commands in flight the machine has not yet said to have.
    #[must_use]
    pub fn undelivered(&self) -> usize {
        self.in_flight.values().filter(|entry| entry.stage == Stage::Accepted).count()
    }

    /// Whether a command is in flight.
    #[must_use]
    pub fn is_in_flight(&self, key: CommandKey) -> bool {
        self.in_flight.contains_key(&key)
    }

    /// The trace of a command that is known: the one under which it was forwarded.
    #[must_use]
    pub fn trace(&self, key: CommandKey) -> Option<Trace> {
        let in_flight = self.in_flight.get(&key).map(|entry| entry.trace);
        in_flight.or_else(|| self.settled.get(&key).map(|entry| entry.trace)).flatten()
    }

    /// How many commands are known in all.
    #[must_use]
    pub fn len(&self) -> usize {
        self.in_flight.len() + self.settled.len()
    }

    /// Whether nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of the receipts that are kept.
    #[must_use]
    pub const fn receipt_bytes(&self) -> usize {
        self.receipt_bytes
    }

    fn give_up(&mut self, lost: impl Fn(&InFlight) -> bool) -> Vec<(CommandKey, SessionId)> {
        let given_up: Vec<(CommandKey, InFlight)> = self.in_flight.extract_if(.., |_, entry| lost(entry)).collect();
        let mut askers = Vec::with_capacity(given_up.len());
        for (key, entry) in given_up {
            self.settle(key, entry.hash, entry.class, entry.trace, None);
            askers.push((key, entry.target));
        }
        askers
    }

    fn settle(
        &mut self,
        key: CommandKey,
        hash: CommandHash,
        class: CommandClass,
        trace: Option<Trace>,
        receipt: Option<&SignedReceipt>,
    ) {
        let known = self.settled.get(&key).and_then(|entry| entry.receipt.clone());
        self.forget(key);
        let kept = receipt.filter(|receipt| class == CommandClass::Effect && !receipt.facts.bulk).cloned().or(known);
        self.receipt_bytes += kept.as_ref().map_or(0, receipt_bytes);
        self.order += 1;
        self.oldest.insert(self.order, key);
        self.settled.insert(key, Settled { hash, class, receipt: kept, trace, order: self.order });
        while self.settled.len() > ACTOR_LEDGER_ENTRIES_MAX || self.receipt_bytes > ACTOR_LEDGER_BYTES_MAX {
            let Some((_, oldest)) = self.oldest.first_key_value() else { break };
            self.forget(*oldest);
        }
    }

    fn forget(&mut self, key: CommandKey) {
        let Some(entry) = self.settled.remove(&key) else { return };
        self.oldest.remove(&entry.order);
        self.receipt_bytes -= entry.receipt.as_ref().map_or(0, receipt_bytes);
    }
}

fn receipt_bytes(receipt: &SignedReceipt) -> usize {
    receipt.receipt.len() + receipt.signature.len()
}

#[cfg(test)]
mod tests;
