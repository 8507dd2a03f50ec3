//! One machine as its owner sees it: a state machine from [`Input`] and time to [`Effect`]s.
//!
//! It holds the sessions that have the machine open, the one link that counts, and the commands in flight. It
//! decides; the actor in `services/machines` performs. Rules that hold here:
//!
//! - INV-SCOPE: a machine belongs to one account; a session of another is refused as `not_found`.
//! - A session or link is let in when this node owns the machine; until then it waits, for one answer.
//! - INV-FENCE: a connector's frames count only under the epoch that it has attached to, over the one link.
//! - A session lives no longer than its grant, and the link no longer than its credential.
//! - What follows from a command or a subscription carries its trace.
//! - INV-ORDER: a session gets a stream's events in order without holes, or a `stream_end`.
//! - INV-BOUND: sessions, streams, credits, commands in flight and memory of commands are bounded.
//! - The relay queues nothing: without an attached link a command fails with `machine_offline` at once.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::epoch::Epoch;
use crate::error::ErrorCode;
use crate::id::{Incarnation, LinkId, SessionId};
use crate::ledger::{CommandKey, Ledger};
use crate::limits::{ACTOR_IDLE_AFTER, MACHINE_SESSIONS_MAX};
use crate::revocation::{DeviceCut, Revocation};
use crate::scope::MachineKey;
use crate::status::MachineStatus;
use crate::time::UnixMillis;
use crate::token::Claims as _;

mod commands;
pub mod effect;
mod links;
pub mod message;
mod ownership;
mod sessions;

use effect::{Effect, Note};
use links::{Alternation, Link};
use message::{Input, MachineMessage, MachineMessageKind, MachineReport, OpenSession, StatusNotice, Trace};
use ownership::{Look, Ownership};
use sessions::Session;

/// Both clocks at the moment of an input.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For deadlines.
    pub instant: Instant,
    /// For what people see.
    pub unix: UnixMillis,
}

/// The state of one machine at its owner.
#[derive(Debug)]
pub struct Machine {
    key: MachineKey,
    node: Incarnation,
    ownership: Ownership,
    sessions: BTreeMap<SessionId, Session>,
    link: Option<Link>,
    alternation: Alternation,
    highest: Epoch,
    ledger: Ledger,
    report: Option<MachineReport>,
    status: MachineStatus,
    since: UnixMillis,
    look: Option<Look>,
    idle_since: Option<Instant>,
    /// Given up or refused, and nobody has asked since.
    forgotten: bool,
    draining: bool,
}

/// Collects what an input leads to.
pub(crate) type Effects = Vec<Effect>;

impl Machine {
    /// A machine at `node` that nobody has open and that is not linked.
    #[must_use]
    pub fn new(key: MachineKey, node: Incarnation, now: Now) -> Self {
        Self {
            key,
            node,
            ownership: Ownership::Unowned,
            sessions: BTreeMap::new(),
            link: None,
            alternation: Alternation::default(),
            highest: Epoch::ZERO,
            ledger: Ledger::default(),
            report: None,
            status: MachineStatus::Offline,
            since: now.unix,
            look: None,
            idle_since: Some(now.instant),
            forgotten: false,
            draining: false,
        }
    }

    /// Takes one input and says what must be done, in order.
    pub fn handle(&mut self, input: Input, now: Now) -> Vec<Effect> {
        let mut effects = Vec::new();
        match input {
            Input::SessionOpened(open) => self.session_opened(open, now, &mut effects),
            Input::SessionMessage { session_id, message, deadline } => {
                self.session_message(session_id, message, deadline, now, &mut effects);
            }
            Input::SessionClosed(session_id) => self.session_closed(session_id, &mut effects),
            Input::LinkOpened(open) => self.link_opened(open, now, &mut effects),
            Input::Acquired(answer) => self.acquired(answer, now, &mut effects),
            Input::Overtaken(record) => self.overtaken(&record, now, &mut effects),
            Input::Found(record) => self.looked(record.as_ref(), now, &mut effects),
            Input::LinkPlaced { link_id, placed } => self.link_placed(link_id, placed, now, &mut effects),
            Input::LinkFrame { link_id, frame } => self.link_frame(link_id, frame, now, &mut effects),
            Input::LinkClosed(link_id) => self.link_closed(link_id, now, &mut effects),
            Input::Revoked(revocation) => self.revoked(&revocation, now, &mut effects),
            Input::Tick => self.tick(now, &mut effects),
            Input::HandOver => self.hand_over(),
            Input::Drain { successor } => self.drain(successor, now, &mut effects),
        }
        self.look_for_link(now);
        self.note_idleness(now);
        effects
    }

    /// The machine this is.
    #[must_use]
    pub const fn key(&self) -> MachineKey {
        self.key
    }

    /// The status that sessions see.
    #[must_use]
    pub const fn status(&self) -> MachineStatus {
        self.status
    }

    /// How many sessions have it open.
    #[must_use]
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// How many commands are in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.ledger.in_flight()
    }

    /// Whether a command is in flight.
    #[must_use]
    pub fn is_in_flight(&self, key: CommandKey) -> bool {
        self.ledger.is_in_flight(key)
    }

    /// How many commands the connector has not yet said to have.
    #[must_use]
    pub fn undelivered(&self) -> usize {
        self.ledger.undelivered()
    }

    /// The link that has attached, and its counter.
    #[must_use]
    pub fn linked(&self) -> Option<(LinkId, u64)> {
        let link = self.link.as_ref().filter(|link| link.attached().is_some())?;
        Some((link.open().link_id, link.open().link_counter))
    }

    /// Whether it may be forgotten: without sessions and link for long enough, or given up.
    #[must_use]
    pub fn is_idle(&self, now: Instant) -> bool {
        self.idle_end().is_some_and(|end| end <= now)
    }

    fn idle_end(&self) -> Option<Instant> {
        let wait = if self.forgotten { Duration::ZERO } else { ACTOR_IDLE_AFTER };
        self.idle_since.map(|since| since + wait)
    }

    /// When an [`Input::Tick`] is due, given both clocks.
    #[must_use]
    pub fn next_tick(&self, now: Now) -> Option<Instant> {
        let grant_end = self.sessions.values().map(|session| session.grant.holds_until()).min();
        let credential_end = self.link.as_ref().map(|link| link.open().holds_until);
        let token_end = [grant_end, credential_end].into_iter().flatten().min();
        let token_end = token_end.map(|end| now.instant + end.since(now.unix));
        let command_end = self.ledger.next_deadline();
        let look = self.look.map(|look| look.at);
        let attach_end = self.link.as_ref().and_then(Link::attach_by);
        [token_end, command_end, attach_end, look, self.idle_end()].into_iter().flatten().min()
    }

    fn session_opened(&mut self, open: OpenSession, now: Now, effects: &mut Effects) {
        let session_id = open.session_id;
        let refusal = if open.grant.account_id != self.key.account_id() {
            Some(ErrorCode::NotFound)
        } else if self.draining {
            Some(ErrorCode::Moving)
        } else if open.grant.holds_until() <= now.unix {
            Some(ErrorCode::GrantInvalid)
        } else {
            self.refuse_open(&open)
        };
        if let Some(code) = refusal {
            effects.push(end_session(session_id, code));
            return;
        }
        self.session_closed(session_id, effects);
        self.sessions.insert(session_id, Session::new(open.grant));
        self.await_ownership(session_id, open.replacing, effects);
    }

    /// An id that is open already belongs to the device that opened it; that device may open it anew.
    fn refuse_open(&self, open: &OpenSession) -> Option<ErrorCode> {
        match self.sessions.get(&open.session_id) {
            Some(session) if session.device_id() != open.grant.device_key.0.device_id() => Some(ErrorCode::Conflict),
            Some(_) => None,
            None if self.sessions.len() >= MACHINE_SESSIONS_MAX => Some(ErrorCode::Overloaded),
            None => None,
        }
    }

    fn session_closed(&mut self, session_id: SessionId, effects: &mut Effects) {
        let Some(session) = self.sessions.remove(&session_id) else { return };
        self.session_waits_no_more(session_id);
        self.ledger.session_gone(session_id);
        if session.known_to_connector {
            self.to_link(message::OwnerMessage::SessionGone(session_id), effects);
        }
    }

    fn end_sessions(&mut self, code: ErrorCode, which: impl Fn(&Session) -> bool, effects: &mut Effects) {
        let ended: Vec<SessionId> =
            self.sessions.iter().filter(|(_, session)| which(session)).map(|(session_id, _)| *session_id).collect();
        for session_id in ended {
            effects.push(end_session(session_id, code));
            self.session_closed(session_id, effects);
        }
    }

    fn revoked(&mut self, revocation: &Revocation, now: Now, effects: &mut Effects) {
        if revocation.account_id() != self.key.account_id() {
            return;
        }
        match revocation {
            Revocation::User { user_id, .. } => {
                self.end_sessions(ErrorCode::Unauthenticated, |session| session.grant.user_id == *user_id, effects);
            }
            Revocation::Grant { grant_id, .. } => {
                self.end_sessions(ErrorCode::GrantInvalid, |session| session.grant.grant_id == *grant_id, effects);
            }
            Revocation::Device { device_id, keeps, .. } => {
                // A device that keeps a role comes back with a grant that says so.
                let code = if keeps.is_some() { ErrorCode::GrantInvalid } else { ErrorCode::DeviceRevoked };
                self.end_sessions(code, |session| session.device_id() == *device_id, effects);
                let cut = DeviceCut { device_id: *device_id, keeps: *keeps };
                self.to_link(message::OwnerMessage::RemoveDevice(cut), effects);
            }
            Revocation::Machine { machine_id, .. } => {
                if *machine_id == self.key.machine_id() {
                    self.end_link(ErrorCode::MachineRevoked, Duration::ZERO, now, effects);
                    self.end_sessions(ErrorCode::MachineRevoked, |_| true, effects);
                }
            }
            Revocation::Quarantine { machine_id, .. } => {
                // Its sessions stay: they see it offline until it is paired again.
                if *machine_id == self.key.machine_id() {
                    self.end_link(ErrorCode::MachineKeyCloned, Duration::ZERO, now, effects);
                }
            }
            // The gateway ends the links that such a credential opened; it knows the serial of each.
            Revocation::Superseded { .. } => {}
        }
    }

    fn tick(&mut self, now: Now, effects: &mut Effects) {
        for (key, asker) in self.ledger.expire(now.instant) {
            self.fail_known(key, asker, ErrorCode::DeadlineExceeded, effects);
        }
        self.end_sessions(ErrorCode::GrantInvalid, |session| session.grant.holds_until() <= now.unix, effects);
        self.end_link_if_due(now, effects);
        self.look_if_due(now, effects);
    }

    /// Recomputes the status and tells every session when it, or what belongs to it, changed.
    fn publish_status(&mut self, now: Now, effects: &mut Effects) {
        let status = match (&self.link, &self.report) {
            (None, _) => MachineStatus::Offline,
            (Some(link), _) if link.attached().is_none() => MachineStatus::Connecting,
            (Some(_), None) => MachineStatus::LinkUp,
            (Some(_), Some(report)) => report.status,
        };
        if status != self.status {
            self.status = status;
            self.since = now.unix;
            effects.push(Effect::Note(Note::StatusChanged(status)));
        }
        for session_id in self.sessions.keys().filter(|session_id| !self.waits(**session_id)) {
            effects.push(self.status_for(*session_id));
        }
    }

    fn status_for(&self, session_id: SessionId) -> Effect {
        let open = self.link.as_ref().map(Link::open);
        let attached = self.link.as_ref().is_some_and(|link| link.attached().is_some());
        let report = self.report.as_ref();
        let notice = StatusNotice {
            status: self.status,
            boot_id: open.filter(|_| attached).map(|open| open.boot_id),
            since: self.since,
            transport: open.map(|open| open.transport),
            connector_version: open.map(|open| open.connector_version.clone()).unwrap_or_default(),
            codex_version: report.map(|report| report.codex_version.clone()).unwrap_or_default(),
            read_only: report.is_some_and(|report| report.read_only),
            paused: report.is_some_and(|report| report.paused),
            channel_bound: open.is_some_and(|open| open.channel_bound),
        };
        to_session(session_id, None, MachineMessageKind::Status(notice))
    }

    fn note_idleness(&mut self, now: Now) {
        let idle = self.sessions.is_empty() && self.link.is_none();
        self.idle_since = if idle { self.idle_since.or(Some(now.instant)) } else { None };
    }
}

fn to_session(session_id: SessionId, trace: Option<Trace>, kind: MachineMessageKind) -> Effect {
    Effect::ToSession { session_id, message: MachineMessage { trace, kind } }
}

fn end_session(session_id: SessionId, code: ErrorCode) -> Effect {
    Effect::EndSession { session_id, code, retry_after: Duration::ZERO }
}

#[cfg(test)]
mod tests;
