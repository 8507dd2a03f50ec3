//! An owner of the model.

use flydex_domain::epoch::Epoch;
use flydex_domain::id::Incarnation;

use super::directory::Directory;
use super::{Answer, Node};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Owner {
    pub(super) node: Node,
    phase: Phase,
    /// The highest epoch that it has heard of.
    floor: Epoch,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Idle,
    Attaching(Epoch),
    Attached(Epoch),
    /// Let go in the directory; what it has taken on it still sends.
    HandingOver(Epoch),
}

const LIVES: u8 = 2;

impl Owner {
    pub(super) const fn new(node: Node) -> Self {
        Self { node, phase: Phase::Idle, floor: Epoch::ZERO }
    }

    pub(super) const fn attached(&self) -> Option<Epoch> {
        match self.phase {
            Phase::Attached(epoch) => Some(epoch),
            Phase::Idle | Phase::Attaching(_) | Phase::HandingOver(_) => None,
        }
    }

    /// The epoch under which it sends.
    pub(super) const fn sends_under(&self) -> Option<Epoch> {
        match self.phase {
            Phase::Attached(epoch) | Phase::HandingOver(epoch) => Some(epoch),
            Phase::Idle | Phase::Attaching(_) => None,
        }
    }

    /// Whether it asked with this epoch, and has not given it up.
    pub(super) fn asked(&self, epoch: Epoch) -> bool {
        self.phase == Phase::Attaching(epoch) || self.phase == Phase::Attached(epoch)
    }

    /// Whether it is this node, attached with this epoch.
    pub(super) fn has(&self, node: Node, epoch: Epoch) -> bool {
        self.node == node && self.phase == Phase::Attached(epoch)
    }

    /// The epoch of a new ownership; provisional while the directory is away.
    pub(super) fn acquire(&self, directory: &mut Directory, replaces: bool, named: bool) -> Option<Epoch> {
        if self.phase != Phase::Idle {
            return None;
        }
        let asker = self.node.incarnation();
        let epoch =
            if directory.away { self.floor.above(asker) } else { directory.acquire(asker, self.floor, replaces)? };
        let nobody = Incarnation::from_bytes([0; 16]);
        Some(if named { epoch } else { Epoch { incarnation: nobody, ..epoch } })
    }

    pub(super) fn attaching(&mut self, epoch: Epoch) {
        self.phase = Phase::Attaching(epoch);
        self.floor = self.floor.max(epoch);
    }

    pub(super) fn answered(&mut self, answer: Answer) {
        match (answer, self.phase) {
            (Answer::Attached(_, epoch), Phase::Attaching(asked)) if epoch == asked => {
                self.phase = Phase::Attached(epoch);
            }
            (
                Answer::Stale(_, refused, highest),
                Phase::Attaching(asked) | Phase::Attached(asked) | Phase::HandingOver(asked),
            ) if refused == asked => {
                self.phase = Phase::Idle;
                self.floor = self.floor.max(highest);
            }
            (
                Answer::Attached(..) | Answer::Stale(..),
                Phase::Idle | Phase::Attaching(_) | Phase::Attached(_) | Phase::HandingOver(_),
            ) => {}
        }
    }

    pub(super) fn reassert(&mut self, directory: &mut Directory) {
        if let Some(epoch) = self.attached()
            && !directory.away
            && !directory.reassert(self.node.incarnation(), epoch)
        {
            self.phase = Phase::Idle;
        }
    }

    /// Lets the machine go, so that another may take it at once.
    pub(super) fn hand_over(&mut self, directory: &mut Directory) {
        let next = match self.phase {
            Phase::Attaching(_) => Phase::Idle,
            Phase::Attached(epoch) => Phase::HandingOver(epoch),
            Phase::Idle | Phase::HandingOver(_) => return,
        };
        if !directory.away {
            directory.release(self.node.incarnation());
            self.phase = next;
        }
    }

    /// Forgets it: everybody was sent to the successor.
    pub(super) fn drain(&mut self) {
        if matches!(self.phase, Phase::HandingOver(_)) {
            self.phase = Phase::Idle;
        }
    }

    pub(super) fn crash(&mut self) {
        if self.node.0 <= 2 * (LIVES - 1) {
            *self = Self::new(Node(self.node.0 + 2));
        }
    }
}
