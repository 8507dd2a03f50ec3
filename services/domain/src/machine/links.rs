//! The one link that counts: which of several wins, the attach under an epoch, and what its loss means.
//!
//! A link walks `waiting → attaching → attached`: it waits until this node owns the machine. The newest wins by its
//! counter; an equal counter means the later comer; an older one is told the counter, so that a connector that lost its
//! own catches up. A connector that
//! answers `stale` once is asked again above its highest epoch; the second time this owner gives way. A link that has
//! not attached within [`LINK_ATTACH_WAIT`] ends. A link ends with the credential that opened it; its connector comes
//! back with a newer one.
//! Connectors that take the machine from each other more than
//! [`LINK_ALTERNATIONS_MAX`] times a minute hold one key twice: both are turned away for a minute.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::epoch::Epoch;
use crate::error::ErrorCode;
use crate::id::{BootId, LinkId};
use crate::limits::{EPOCH_JUMP_MAX, LINK_ALTERNATION_WINDOW, LINK_ALTERNATIONS_MAX, LINK_ATTACH_WAIT};
use crate::machine::effect::{Dropped, Effect};
use crate::machine::message::{ConnectorFrame, ConnectorMessage, MachineReport, OpenLink, OwnerMessage};
use crate::machine::sessions::dropped;
use crate::machine::{Effects, Machine, Now};
use crate::revocation::DeviceCut;
use crate::status::MachineStatus;

/// The link that counts.
#[derive(Debug)]
pub(super) struct Link {
    open: OpenLink,
    phase: Phase,
    stale_seen: bool,
    /// The end of its time to attach.
    attach_by: Instant,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// This node does not own the machine yet.
    Waiting,
    /// The connector is being asked.
    Attaching(Epoch),
    /// The connector takes frames of this epoch.
    Attached(Epoch),
}

impl Link {
    pub(super) const fn open(&self) -> &OpenLink {
        &self.open
    }

    pub(super) const fn attached(&self) -> Option<Epoch> {
        match self.phase {
            Phase::Attached(epoch) => Some(epoch),
            Phase::Waiting | Phase::Attaching(_) => None,
        }
    }

    /// When it must have attached, while it has not.
    pub(super) fn attach_by(&self) -> Option<Instant> {
        self.attached().is_none().then_some(self.attach_by)
    }
}

/// Which lives of the connector came lately, to notice two that take turns.
#[derive(Debug, Default)]
pub(super) struct Alternation {
    boots: VecDeque<(Instant, BootId)>,
    quarantine_until: Option<Instant>,
}

impl Alternation {
    /// Notes a link; true when two connectors take turns too often.
    fn cloned(&mut self, boot_id: BootId, now: Instant) -> bool {
        if self.quarantine_until.is_some_and(|until| now < until) {
            return true;
        }
        while self.boots.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) >= LINK_ALTERNATION_WINDOW) {
            self.boots.pop_front();
        }
        if self.boots.back().is_some_and(|(_, last)| *last == boot_id) {
            return false;
        }
        self.boots.push_back((now, boot_id));
        let returns = (1..self.boots.len()).filter(|index| {
            let boot_id = self.boots[*index].1;
            self.boots.range(..index).any(|(_, earlier)| *earlier == boot_id)
        });
        let cloned = returns.count() > LINK_ALTERNATIONS_MAX;
        // A life that never returns is a restart; only as many as can prove the contrary are kept.
        while self.boots.len() > 2 * (LINK_ALTERNATIONS_MAX + 2) {
            self.boots.pop_front();
        }
        if cloned {
            self.boots.clear();
            self.quarantine_until = Some(now + LINK_ALTERNATION_WINDOW);
        }
        cloned
    }
}

impl Machine {
    pub(super) fn link_opened(&mut self, open: OpenLink, now: Now, effects: &mut Effects) {
        let link_id = open.link_id;
        if self.draining {
            effects.push(end_link(link_id, ErrorCode::Moving, Duration::ZERO));
            return;
        }
        if open.holds_until <= now.unix {
            effects.push(end_link(link_id, ErrorCode::CredentialInvalid, Duration::ZERO));
            return;
        }
        if let Some(counter) = self.link.as_ref().map(|link| link.open.link_counter)
            && open.link_counter < counter
        {
            effects.push(superseded(link_id, counter));
            return;
        }
        if self.alternation.cloned(open.boot_id, now.instant) {
            effects.push(end_link(link_id, ErrorCode::MachineKeyCloned, Duration::ZERO));
            self.end_link(ErrorCode::MachineKeyCloned, Duration::ZERO, now, effects);
            return;
        }
        if let Some(before) = self.link.take() {
            if before.open.link_id != link_id {
                effects.push(end_link(before.open.link_id, ErrorCode::LinkSuperseded, Duration::ZERO));
            }
            self.unlinked(ErrorCode::MachineOffline, effects);
        }
        let replacing = open.replacing;
        let attach_by = now.instant + LINK_ATTACH_WAIT;
        self.link = Some(Link { open, phase: Phase::Waiting, stale_seen: false, attach_by });
        self.link_awaits_ownership(replacing, effects);
        self.publish_status(now, effects);
    }

    /// The machine is owned: a link that waits is let in and its connector asked.
    pub(super) fn ask_to_attach(&mut self, epoch: Epoch, effects: &mut Effects) {
        let Some(link) = self.link.as_mut().filter(|link| matches!(link.phase, Phase::Waiting)) else { return };
        let link_id = link.open.link_id;
        if !link.stale_seen {
            effects.push(Effect::LinkOpened(link_id));
        }
        link.phase = Phase::Attaching(epoch);
        effects.push(Effect::ToLink { link_id, epoch, message: OwnerMessage::Attach });
    }

    pub(super) fn link_frame(&mut self, link_id: LinkId, frame: ConnectorFrame, now: Now, effects: &mut Effects) {
        let Some(link) = self.link.as_ref().filter(|link| link.open.link_id == link_id) else {
            effects.push(dropped(Dropped::UnknownLink));
            return;
        };
        // INV-FENCE: what is not about the attach counts only under the epoch that the connector has attached to.
        let current = link.attached().is_some() && frame.epoch == link.attached();
        match frame.message {
            ConnectorMessage::Attached { highest } => self.attached(highest, now, effects),
            ConnectorMessage::Stale { highest } => self.stale(highest, now, effects),
            ConnectorMessage::Report(_)
            | ConnectorMessage::ToSession { .. }
            | ConnectorMessage::Subscribed { .. }
            | ConnectorMessage::Unsubscribed { .. }
            | ConnectorMessage::SharedEvent(_)
            | ConnectorMessage::DeviceRemoved(_)
                if !current =>
            {
                effects.push(dropped(Dropped::StaleEpoch));
            }
            ConnectorMessage::Report(report) => self.reported(report, now, effects),
            ConnectorMessage::ToSession { session_id, message } => {
                self.machine_message(session_id, message, effects);
            }
            ConnectorMessage::Subscribed { session_id, device_id, verdict } => {
                self.subscribed(session_id, device_id, verdict, effects);
            }
            ConnectorMessage::Unsubscribed { session_id, end } => self.unsubscribed(session_id, end, effects),
            ConnectorMessage::SharedEvent(event) => self.shared_event(&event, effects),
            ConnectorMessage::DeviceRemoved(cut) => effects.push(Effect::DeviceRemoved(cut)),
        }
    }

    pub(super) fn link_closed(&mut self, link_id: LinkId, now: Now, effects: &mut Effects) {
        if self.link.as_ref().is_none_or(|link| link.open.link_id != link_id) {
            return;
        }
        self.link = None;
        self.unlinked(ErrorCode::MachineOffline, effects);
        self.publish_status(now, effects);
    }

    /// Ends the link when its credential has, or when it has not attached in time.
    pub(super) fn end_link_if_due(&mut self, now: Now, effects: &mut Effects) {
        let Some(link) = &self.link else { return };
        if link.open.holds_until <= now.unix {
            self.end_link(ErrorCode::CredentialInvalid, Duration::ZERO, now, effects);
        } else if link.attach_by().is_some_and(|end| end <= now.instant) {
            self.end_link(ErrorCode::DeadlineExceeded, Duration::ZERO, now, effects);
        }
    }

    /// Ends the link because a newer one is on record.
    pub(super) fn supersede_link(&mut self, counter: u64, now: Now, effects: &mut Effects) {
        let Some(link) = &self.link else { return };
        let link_id = link.open.link_id;
        effects.push(superseded(link_id, counter));
        self.link_closed(link_id, now, effects);
    }

    /// Ends the link from this side.
    pub(super) fn end_link(&mut self, code: ErrorCode, retry_after: Duration, now: Now, effects: &mut Effects) {
        let Some(link) = &self.link else { return };
        let link_id = link.open.link_id;
        effects.push(end_link(link_id, code, retry_after));
        self.link_closed(link_id, now, effects);
    }

    /// Sends to the connector, when it has attached.
    pub(super) fn to_link(&self, message: OwnerMessage, effects: &mut Effects) {
        let Some(link) = &self.link else { return };
        let Some(epoch) = link.attached() else { return };
        effects.push(Effect::ToLink { link_id: link.open.link_id, epoch, message });
    }

    fn attached(&mut self, highest: Epoch, now: Now, effects: &mut Effects) {
        let Some(link) = &mut self.link else { return };
        let Phase::Attaching(epoch) = link.phase else {
            effects.push(dropped(Dropped::Unexpected));
            return;
        };
        if highest != epoch {
            effects.push(dropped(Dropped::StaleEpoch));
            return;
        }
        link.phase = Phase::Attached(epoch);
        effects.push(Effect::SetLink { link_id: link.open.link_id, counter: link.open.link_counter });
        let revoked: Vec<DeviceCut> = std::mem::take(&mut link.open.revoked_devices);
        for cut in revoked {
            self.to_link(OwnerMessage::RemoveDevice(cut), effects);
        }
        self.publish_status(now, effects);
    }

    fn stale(&mut self, highest: Epoch, now: Now, effects: &mut Effects) {
        let Some(link) = &mut self.link else { return };
        let (Phase::Attaching(asked) | Phase::Attached(asked)) = link.phase else {
            effects.push(dropped(Dropped::Unexpected));
            return;
        };
        if highest <= asked {
            effects.push(dropped(Dropped::StaleEpoch));
            return;
        }
        if highest.counter.saturating_sub(asked.counter) > EPOCH_JUMP_MAX {
            self.end_link(ErrorCode::EpochRefused, Duration::ZERO, now, effects);
            return;
        }
        self.highest = self.highest.max(highest);
        if link.attached().is_some() || link.stale_seen {
            self.give_way(Some(highest.incarnation), effects, now);
            return;
        }
        link.stale_seen = true;
        link.phase = Phase::Waiting;
        let replacing = link.open.replacing;
        self.ask_above(replacing, effects);
    }

    fn reported(&mut self, report: MachineReport, now: Now, effects: &mut Effects) {
        match report.status {
            MachineStatus::Offline | MachineStatus::Connecting => effects.push(dropped(Dropped::Unexpected)),
            MachineStatus::LinkUp
            | MachineStatus::CodexStarting
            | MachineStatus::CodexReady
            | MachineStatus::CodexUnavailable(_)
            | MachineStatus::Draining => {
                if self.report.as_ref() != Some(&report) {
                    self.report = Some(report);
                    self.publish_status(now, effects);
                }
            }
        }
    }

    /// What the loss of a link means, whoever ended it: nothing is final, and nothing is promised.
    pub(super) fn unlinked(&mut self, code: ErrorCode, effects: &mut Effects) {
        self.report = None;
        self.end_streams(code, effects);
        for (key, asker) in self.ledger.link_lost() {
            self.fail_known(key, asker, code, effects);
        }
    }
}

fn end_link(link_id: LinkId, code: ErrorCode, retry_after: Duration) -> Effect {
    Effect::EndLink { link_id, code, retry_after, link_counter: 0 }
}

fn superseded(link_id: LinkId, link_counter: u64) -> Effect {
    Effect::EndLink { link_id, code: ErrorCode::LinkSuperseded, retry_after: Duration::ZERO, link_counter }
}
