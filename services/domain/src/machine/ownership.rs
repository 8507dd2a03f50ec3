//! Whether this node owns the machine: asked of the directory when somebody first opens it, given up when another does.
//!
//! It walks `unowned → asking → owned`. Who opens the machine while the directory is asked waits, and then gets exactly
//! one answer: opened, ended with a code, or sent to the node that owns it. Nothing is forwarded meanwhile, and nothing
//! is kept for later.
//!
//! The directory is a hint and the connector the fence (INV-FENCE). A directory that does not answer is therefore no
//! obstacle: the node mints an epoch itself, above all that it has heard of, and asserts it when the directory is back.
//! What it mints too low the connector refuses with its highest epoch, above which the node asks again, once.
//!
//! A node that learns of another owner sends everybody there and forgets the machine at once. A machine with sessions
//! and no link asks now and then whether its link has come up at another node, and gives way to any other holder,
//! however great its own epoch: only an attached link proves one.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use crate::epoch::Epoch;
use crate::error::ErrorCode;
use crate::id::{Incarnation, LinkId, SessionId};
use crate::invariant::sent_by;
use crate::ledger::Ledger;
use crate::limits::{ACTOR_BUSY_RETRY_AFTER, OWNER_LOOK_JITTER, OWNER_LOOK_WAIT_MAX, OWNER_LOOK_WAIT_MIN};
use crate::machine::effect::{Dropped, Effect, Subject};
use crate::machine::message::Answer;
use crate::machine::sessions::dropped;
use crate::machine::{Effects, Machine, Now};
use crate::placement::{Cause, LinkPlacement, OwnerRecord};
use crate::scope::MachineKey;
use crate::status::MachineStatus;

/// How far this node is with owning the machine.
#[derive(Debug, Default)]
pub(super) enum Ownership {
    /// Nobody has the machine open here.
    #[default]
    Unowned,
    /// The directory is being asked.
    Asking(Asking),
    /// This node owns it, as far as it knows.
    Owned(Epoch),
}

/// A question to the directory, and who waits for the answer besides the link.
#[derive(Debug)]
pub(super) struct Asking {
    cause: Cause,
    replacing: Option<Incarnation>,
    /// The owner that a later comer was sent to replace.
    replacing_next: Option<Incarnation>,
    waiting: BTreeSet<SessionId>,
}

/// When to look next whether another node owns a machine whose link is not here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    pub(super) at: Instant,
    wait: Duration,
    number: u32,
}

impl Look {
    /// The look of this number, up to [`OWNER_LOOK_JITTER`] earlier than `wait` from now: machines that lost their links
    /// in one moment do not look in one moment.
    fn after(wait: Duration, number: u32, machine: MachineKey, now: Now) -> Self {
        let early = wait.mul_f64(OWNER_LOOK_JITTER * spread(machine, number));
        Self { at: now.instant + (wait - early), wait, number }
    }
}

/// A number from 0 to 1 that is as random as the machine's id.
fn spread(machine: MachineKey, number: u32) -> f64 {
    let mut hash = Sha256::new();
    hash.update(b"flydex/v1/look");
    hash.update(machine.account_id().as_bytes());
    hash.update(machine.machine_id().as_bytes());
    hash.update(number.to_be_bytes());
    let digest: [u8; 32] = hash.finalize().into();
    f64::from(u16::from_be_bytes([digest[0], digest[1]])) / f64::from(u16::MAX)
}

impl Machine {
    /// The epoch under which this node owns the machine.
    #[must_use]
    pub const fn owned(&self) -> Option<Epoch> {
        match self.ownership {
            Ownership::Owned(epoch) => Some(epoch),
            Ownership::Unowned | Ownership::Asking(_) => None,
        }
    }

    /// Whether a session waits for the directory's answer.
    pub(super) fn waits(&self, session_id: SessionId) -> bool {
        matches!(&self.ownership, Ownership::Asking(asking) if asking.waiting.contains(&session_id))
    }

    /// Admits a session as soon as the machine is owned.
    pub(super) fn await_ownership(
        &mut self,
        session_id: SessionId,
        replacing: Option<Incarnation>,
        effects: &mut Effects,
    ) {
        if self.owned().is_some() {
            self.admitted(session_id, effects);
            return;
        }
        self.ask(Cause::Session, replacing, effects);
        if let Ownership::Asking(asking) = &mut self.ownership {
            asking.waiting.insert(session_id);
        }
    }

    /// Lets the link attach as soon as the machine is owned.
    pub(super) fn link_awaits_ownership(&mut self, replacing: Option<Incarnation>, effects: &mut Effects) {
        if let Ownership::Owned(epoch) = self.ownership {
            self.ask_to_attach(epoch, effects);
        } else {
            self.ask(Cause::Link, replacing, effects);
        }
    }

    /// Asks for an ownership above what the connector has seen: the one at hand is stale.
    pub(super) fn ask_above(&mut self, replacing: Option<Incarnation>, effects: &mut Effects) {
        self.ownership = Ownership::Unowned;
        self.ask(Cause::Link, replacing, effects);
    }

    pub(super) fn session_waits_no_more(&mut self, session_id: SessionId) {
        if let Ownership::Asking(asking) = &mut self.ownership {
            asking.waiting.remove(&session_id);
        }
    }

    fn ask(&mut self, cause: Cause, replacing: Option<Incarnation>, effects: &mut Effects) {
        match &mut self.ownership {
            Ownership::Owned(_) => {}
            Ownership::Asking(asking) => asking.replacing_next = replacing.or(asking.replacing_next),
            Ownership::Unowned => {
                let waiting = BTreeSet::new();
                self.ask_anew(Asking { cause, replacing, replacing_next: replacing, waiting }, effects);
            }
        }
    }

    fn ask_anew(&mut self, asking: Asking, effects: &mut Effects) {
        let Asking { cause, replacing, .. } = asking;
        effects.push(Effect::Acquire { floor: self.highest, replacing, cause });
        self.forgotten = false;
        self.ownership = Ownership::Asking(asking);
    }

    pub(super) fn acquired(&mut self, answer: Answer, now: Now, effects: &mut Effects) {
        if !matches!(self.ownership, Ownership::Asking(_)) {
            effects.push(dropped(Dropped::Unexpected));
            return;
        }
        let Ownership::Asking(asking) = std::mem::take(&mut self.ownership) else { return };
        match answer {
            Answer::Owned(epoch) if epoch.incarnation == self.node => self.now_owned(epoch, asking, effects),
            // INV-FENCE: under an epoch that names another node two would be obeyed. No directory that is well says so.
            Answer::Owned(foreign) => {
                self.highest = self.highest.max(foreign);
                self.owned_provisionally(asking, effects);
            }
            Answer::Unavailable => self.owned_provisionally(asking, effects),
            Answer::Held(owner) if asking.replacing != asking.replacing_next && asking.replacing_next == owner => {
                self.ask_anew(Asking { replacing: owner, ..asking }, effects);
            }
            Answer::Held(owner) => self.give_way(owner, effects, now),
            // A connector that is there waits for nobody.
            Answer::Settling(_) if asking.cause == Cause::Session && self.link.is_some() => {
                let replacing = asking.replacing_next;
                self.ask_anew(Asking { cause: Cause::Link, replacing, ..asking }, effects);
            }
            Answer::Settling(wait) => self.refuse_all(ErrorCode::Moving, wait, now, effects),
            Answer::Refused(code) => self.refuse_all(code, ACTOR_BUSY_RETRY_AFTER, now, effects),
        }
    }

    fn owned_provisionally(&mut self, asking: Asking, effects: &mut Effects) {
        let epoch = self.highest.above(self.node);
        effects.push(Effect::Assert);
        self.now_owned(epoch, asking, effects);
    }

    fn now_owned(&mut self, epoch: Epoch, asking: Asking, effects: &mut Effects) {
        debug_assert_eq!(sent_by(epoch.incarnation, self.node), Ok(()));
        self.highest = self.highest.max(epoch);
        self.ownership = Ownership::Owned(epoch);
        self.ask_to_attach(epoch, effects);
        for session_id in asking.waiting {
            self.admitted(session_id, effects);
        }
    }

    fn admitted(&self, session_id: SessionId, effects: &mut Effects) {
        effects.push(Effect::SessionOpened(session_id));
        effects.push(self.status_for(session_id));
    }

    fn refuse_all(&mut self, code: ErrorCode, retry_after: Duration, now: Now, effects: &mut Effects) {
        for session_id in std::mem::take(&mut self.sessions).into_keys() {
            effects.push(Effect::EndSession { session_id, code, retry_after });
        }
        self.end_link(code, retry_after, now, effects);
        self.forget(now);
    }

    /// Sends everybody to the owner and forgets the machine: what was in flight is asked of that owner again. The link
    /// goes first, for the machine is away until that owner has attached.
    pub(super) fn give_way(&mut self, owner: Option<Incarnation>, effects: &mut Effects, now: Now) {
        if let Some(link) = self.link.take() {
            effects.push(Effect::NotOwner { subject: Subject::Link(link.open().link_id), owner });
        }
        self.unlinked(ErrorCode::Moving, effects);
        for session_id in self.sessions.keys() {
            effects.push(Effect::NotOwner { subject: Subject::Session(*session_id), owner });
        }
        self.forget(now);
    }

    /// What is kept: the highest epoch, which is a floor, and who has linked lately.
    fn forget(&mut self, now: Now) {
        self.sessions.clear();
        self.ledger = Ledger::default();
        self.ownership = Ownership::Unowned;
        self.status = MachineStatus::Offline;
        self.since = now.unix;
        self.forgotten = true;
    }

    // === What the directory says later ===

    /// Another ownership is on record: this one is over if it is the lesser, or if no link is here that proves it.
    pub(super) fn overtaken(&mut self, record: &OwnerRecord, now: Now, effects: &mut Effects) {
        let Some(epoch) = self.owned() else { return };
        let another_holds = record.holder.is_some_and(|holder| holder != self.node);
        if epoch < record.epoch || (another_holds && self.link.is_none()) {
            self.highest = self.highest.max(record.epoch);
            self.give_way(record.holder, effects, now);
        }
    }

    /// The answer to a look: only while the link is away, for a link that is here proves the ownership better.
    pub(super) fn looked(&mut self, record: Option<&OwnerRecord>, now: Now, effects: &mut Effects) {
        if self.link.is_some() || self.owned().is_none() {
            return;
        }
        match record.and_then(|record| record.holder) {
            Some(holder) if holder == self.node => {}
            Some(_) => record.into_iter().for_each(|record| self.overtaken(record, now, effects)),
            // Nobody is on record, so the link would not be sent here.
            None => effects.push(Effect::Assert),
        }
    }

    pub(super) fn link_placed(&mut self, link_id: LinkId, placed: LinkPlacement, now: Now, effects: &mut Effects) {
        if self.link.as_ref().is_none_or(|link| link.open().link_id != link_id || link.attached().is_none()) {
            effects.push(dropped(Dropped::UnknownLink));
            return;
        }
        match placed {
            LinkPlacement::Newest => {}
            LinkPlacement::Superseded { counter } => self.supersede_link(counter, now, effects),
            LinkPlacement::Absurd => self.end_link(ErrorCode::EpochRefused, Duration::ZERO, now, effects),
            // The connector has attached here, so the directory is behind, or another has just overtaken.
            LinkPlacement::NotHeld => effects.push(Effect::Assert),
        }
    }

    // === Looking for the link ===

    /// Begins or ends the looks, as somebody waits for a link or not.
    pub(super) fn look_for_link(&mut self, now: Now) {
        let needed = self.owned().is_some() && self.link.is_none() && !self.sessions.is_empty();
        let first = || Look::after(OWNER_LOOK_WAIT_MIN, 0, self.key, now);
        self.look = needed.then(|| self.look.unwrap_or_else(first));
    }

    pub(super) fn look_if_due(&mut self, now: Now, effects: &mut Effects) {
        let Some(look) = self.look.filter(|look| look.at <= now.instant) else { return };
        let wait = (look.wait * 2).min(OWNER_LOOK_WAIT_MAX);
        self.look = Some(Look::after(wait, look.number.wrapping_add(1), self.key, now));
        effects.push(Effect::Find);
    }

    // === Handing over ===

    /// From here on nobody is let in and no command is taken; what is in flight goes on.
    pub(super) fn hand_over(&mut self) {
        self.draining = true;
    }

    /// The node goes away: everybody is sent to the successor, or told to come again where there is none.
    pub(super) fn drain(&mut self, successor: Option<Incarnation>, now: Now, effects: &mut Effects) {
        self.draining = true;
        if successor.is_some() {
            self.give_way(successor, effects, now);
            return;
        }
        self.end_link(ErrorCode::GoingAway, Duration::ZERO, now, effects);
        self.end_sessions(ErrorCode::GoingAway, |_| true, effects);
    }
}
