//! What goes wrong, and when: planned from the seed before anything happens.

use super::node::{LOST_AFTER_MS, ToNode};
use super::{FAULTS_UNTIL, What, World, names};
use flydex_domain::machine::message::Input;

#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    NodeDies(usize),
    NodeFreezes(usize),
    NodeDrains(usize),
    /// It gives the machine to one that has fewer, and stays.
    NodeGives(usize),
    /// The gateway of the sessions does not reach it; the link's does.
    NodeIsHidden(usize),
    LinkBreaks,
    LinkIsReplaced,
    SessionsBreak,
    ConnectorDies {
        journal_lost: bool,
    },
    DirectoryForgets,
    DirectoryRollsBack,
    DirectoryGoesAway,
    DirectoryComesBack,
}

impl World {
    pub(super) fn plan_faults(&mut self) {
        for _ in 0..4 + self.chance.below(8) {
            let at = 500 + self.chance.below(FAULTS_UNTIL - 1_000);
            let slot = self.chance.index(3);
            let fault = match self.chance.below(14) {
                0 | 1 => Fault::NodeDies(slot),
                2 | 3 => Fault::NodeFreezes(slot),
                4 => Fault::NodeDrains(slot),
                5 => Fault::LinkBreaks,
                6 => Fault::LinkIsReplaced,
                7 => Fault::SessionsBreak,
                8 | 9 => Fault::ConnectorDies { journal_lost: self.chance.one_in(3) },
                10 => Fault::DirectoryGoesAway,
                11 => Fault::NodeIsHidden(slot),
                12 => Fault::NodeGives(slot),
                _ if self.chance.one_in(2) => Fault::DirectoryForgets,
                _ => Fault::DirectoryRollsBack,
            };
            self.after(at, What::Fault(fault));
        }
        self.after(FAULTS_UNTIL, What::Fault(Fault::DirectoryComesBack));
    }

    pub(super) fn fails(&mut self, fault: Fault) {
        self.say(&format!("{fault:?}"));
        match fault {
            Fault::NodeDies(slot) => self.restart_node(slot),
            Fault::NodeFreezes(slot) => {
                let at = (slot, self.nodes[slot].life);
                let lasts = 200 + self.chance.below(6_000);
                self.nodes[slot].frozen_until = (self.now_ms + lasts).min(FAULTS_UNTIL);
                if lasts > LOST_AFTER_MS {
                    self.after(LOST_AFTER_MS, What::Node(ToNode::Lost { at }));
                }
            }
            Fault::NodeDrains(slot) => {
                let at = (slot, self.nodes[slot].life);
                self.nodes[slot].draining = true;
                self.after(1, What::Node(ToNode::Input { at, input: Input::HandOver }));
                self.after(250, What::Node(ToNode::HandsOver { at, goes: true }));
            }
            Fault::NodeGives(slot) => {
                let at = (slot, self.nodes[slot].life);
                self.after(1, What::Node(ToNode::Input { at, input: Input::HandOver }));
                let wait = 2 + self.chance.below(250);
                self.after(wait, What::Node(ToNode::HandsOver { at, goes: false }));
            }
            Fault::NodeIsHidden(slot) => {
                let at = (slot, self.nodes[slot].life);
                self.hidden = Some((at.1, (self.now_ms + 500 + self.chance.below(4_000)).min(FAULTS_UNTIL)));
                self.break_sessions_at(at);
            }
            Fault::LinkBreaks => self.cut_links(),
            Fault::LinkIsReplaced => self.open_link(),
            Fault::SessionsBreak => self.break_sessions(),
            Fault::ConnectorDies { journal_lost } => self.crash_connector(journal_lost),
            Fault::DirectoryForgets => {
                (self.directory.record, self.directory.before) = (None, None);
                self.directory.life += 1;
                self.directory.forgot_at = Some(self.now_ms);
            }
            Fault::DirectoryRollsBack => {
                self.directory.record = self.directory.before.clone();
                self.directory.life += 1;
            }
            Fault::DirectoryGoesAway => {
                self.directory.away = true;
                let lasts = 200 + self.chance.below(4_000);
                self.after(lasts, What::Fault(Fault::DirectoryComesBack));
            }
            Fault::DirectoryComesBack => self.directory.away = false,
        }
    }

    fn break_sessions(&mut self) {
        for slot in 0..self.nodes.len() {
            self.break_sessions_at((slot, self.nodes[slot].life));
        }
    }

    fn break_sessions_at(&mut self, at: (usize, u128)) {
        for session in self.sessions_at(at) {
            self.send(session, 0, What::Device(super::device::ToDevice::Closed { session }));
            let input = Input::SessionClosed(names::session(session));
            self.send(session, 0, What::Node(ToNode::Input { at, input }));
        }
    }
}
