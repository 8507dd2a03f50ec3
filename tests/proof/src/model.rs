//! Two owners, a directory, a connector and a device, small enough for every order of events to be tried.
//!
//! The network keeps every frame for ever and delivers any of them at any time, any number of times, or never:
//! that covers loss, delay, duplication, reordering, frozen owners and links that outlive their owner. Telling a
//! device is taken to reach it at once; what it was told counts even if it was lost. Faults that destroy something
//! are counted and bounded: the crash of an owner or of the connector, a lost journal, a directory that forgets,
//! rolls back or is away.
//!
//! The epoch's rule is `epoch::attach`, the directory's are `placement::{acquire, reassert}`, the journal's is
//! `gate::asked_before`; the invariants are those of `flydex_domain::invariant`. Each [`Protection`] can be left out.

use std::collections::BTreeSet;

use flydex_domain::epoch::Epoch;
use flydex_domain::id::Incarnation;
use flydex_domain::invariant::{Broken, Fate};
use stateright::{Checker, HasDiscoveries, Model, Property};

mod connector;
mod directory;
mod owner;
#[cfg(test)]
mod tests;

use connector::Connector;
use directory::Directory;
use owner::Owner;

/// What keeps the invariants; a model without one of them must break one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protection {
    /// The connector obeys frames of the highest epoch only.
    Fence,
    /// The connector remembers what it was asked.
    Journal,
    /// An epoch names the node that minted it.
    Incarnation,
    /// `delivered` is told when the journal is durable.
    AckAfterJournal,
    /// A command names the life of the connector that it was signed for.
    Boot,
    /// What an earlier life began and did not settle is told as `unknown`.
    Unknown,
}

/// How far the model is walked.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// How many faults may happen in one history.
    pub faults: u8,
    /// The highest counter of an epoch.
    pub epochs: u64,
    /// How many commands the device signs.
    pub commands: u8,
    /// Whether an owner may be sent to replace one that is there.
    pub force: bool,
}

/// As far as there is time for in every test run.
pub const QUICK: [Bounds; 3] = [
    Bounds { faults: 2, epochs: 2, commands: 1, force: true },
    Bounds { faults: 1, epochs: 3, commands: 1, force: true },
    Bounds { faults: 1, epochs: 2, commands: 2, force: true },
];

/// As far as an optimised build gets in minutes.
pub const FULL: [Bounds; 3] = [
    Bounds { faults: 3, epochs: 2, commands: 1, force: true },
    Bounds { faults: 2, epochs: 3, commands: 1, force: true },
    Bounds { faults: 2, epochs: 2, commands: 2, force: true },
];

/// The model.
#[derive(Clone, Debug)]
pub struct Relay {
    /// How far.
    pub bounds: Bounds,
    /// What is left out.
    pub without: Option<Protection>,
}

/// Names an owner: which of the two, in which life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node(u8);

impl Node {
    fn incarnation(self) -> Incarnation {
        Incarnation::from_bytes([self.0; 16])
    }
}

/// Names a command.
type CommandNumber = u8;

/// What is on its way to the connector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Frame {
    /// An owner asks to attach.
    Attach(Node, Epoch),
    /// An owner forwards a command.
    Command(Node, Epoch, CommandNumber),
}

/// What is on its way to an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Answer {
    /// The connector has attached to this epoch.
    Attached(Node, Epoch),
    /// It refused the first; the second is the highest that it has seen.
    Stale(Node, Epoch, Epoch),
}

/// Everything at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    owners: [Owner; 2],
    directory: Directory,
    frames: BTreeSet<Frame>,
    answers: BTreeSet<Answer>,
    connector: Connector,
    fates: Vec<Fate>,
    /// What a single step has broken.
    broken: Option<Broken>,
    faults_left: u8,
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// An owner asks the directory for the machine, sent to replace its holder or not.
    Acquire {
        /// Which.
        owner: u8,
        /// Whether it takes over from a holder that is there.
        replaces: bool,
    },
    /// An owner re-asserts what it holds.
    Reassert(u8),
    /// An owner lets the machine go in the directory, for a successor to take; it still sends what it has taken on.
    HandOver(u8),
    /// It has sent everybody to the successor.
    Drain(u8),
    /// An owner forwards a command.
    Forward(u8, CommandNumber),
    /// An answer reaches its owner.
    Answer(Answer),
    /// A frame reaches the connector; with `paused` it refuses what is new.
    Frame {
        /// Which.
        frame: Frame,
        /// Whether the desk has paused remote control.
        paused: bool,
    },
    /// The device signs a command for the present life of the connector.
    Sign(CommandNumber),
    /// The disk holds what the journal was given of a command.
    Sync(CommandNumber),
    /// Codex does it.
    Act(CommandNumber),
    /// Codex refuses it.
    Decline(CommandNumber),
    /// Its outcome is durable and told.
    Settle(CommandNumber),
    /// Codex is found to have done what an earlier life left open.
    Prove(CommandNumber),
    /// Fault: an owner dies, and another life of it begins.
    OwnerCrash(u8),
    /// Fault: the connector dies, and another life of it begins; perhaps with a journal that cannot be read.
    ConnectorCrash {
        /// Whether the disk was damaged too.
        journal_lost: bool,
    },
    /// Fault: the directory loses everything.
    Forget,
    /// Fault: the directory loses its last write.
    RollBack,
    /// Fault: the directory does not answer.
    GoAway,
    /// It answers again.
    ComeBack,
}

impl Relay {
    fn has(&self, protection: Protection) -> bool {
        self.without != Some(protection)
    }
}

impl Model for Relay {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            owners: [Owner::new(Node(1)), Owner::new(Node(2))],
            directory: Directory::default(),
            frames: BTreeSet::new(),
            answers: BTreeSet::new(),
            connector: Connector::new(self.bounds.commands),
            fates: vec![Fate::default(); usize::from(self.bounds.commands)],
            broken: None,
            faults_left: self.bounds.faults,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.broken.is_some() {
            return;
        }
        for owner in 0..2 {
            actions.push(Action::Acquire { owner, replaces: false });
            if self.bounds.force {
                actions.push(Action::Acquire { owner, replaces: true });
            }
            actions.extend([Action::Reassert(owner), Action::HandOver(owner), Action::Drain(owner)]);
            actions.extend((0..self.bounds.commands).map(|command| Action::Forward(owner, command)));
        }
        actions.extend(state.answers.iter().copied().map(Action::Answer));
        for frame in &state.frames {
            let paused: &[bool] = if matches!(frame, Frame::Command(..)) { &[false, true] } else { &[false] };
            actions.extend(paused.iter().map(|paused| Action::Frame { frame: *frame, paused: *paused }));
        }
        for command in 0..self.bounds.commands {
            let steps = [Action::Sign, Action::Sync, Action::Act, Action::Decline, Action::Settle, Action::Prove];
            actions.extend(steps.map(|step: fn(CommandNumber) -> Action| step(command)));
        }
        actions.push(Action::ComeBack);
        if state.faults_left > 0 {
            actions.extend([Action::OwnerCrash(0), Action::OwnerCrash(1)]);
            actions.extend([false, true].map(|journal_lost| Action::ConnectorCrash { journal_lost }));
            actions.extend([Action::Forget, Action::RollBack, Action::GoAway]);
        }
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        let mut state = before.clone();
        match action {
            Action::Acquire { owner, replaces } => self.acquire(&mut state, owner, replaces),
            Action::Reassert(owner) => reassert(&mut state, owner),
            Action::HandOver(owner) => hand_over(&mut state, owner),
            Action::Drain(owner) => state.owners[usize::from(owner)].drain(),
            Action::Forward(owner, command) => forward(&mut state, owner, command),
            Action::Answer(answer) => answered(&mut state, answer),
            Action::Frame { frame, paused } => self.frame(&mut state, frame, paused),
            Action::Sign(command) => state.connector.sign(command),
            Action::Sync(command) => self.sync(&mut state, command),
            Action::Act(command) => state.connector.act(command, &mut state.fates),
            Action::Decline(command) => state.connector.decline(command, &mut state.fates),
            Action::Settle(command) => state.connector.settle(command, &mut state.fates),
            Action::Prove(command) => state.connector.prove(command, &mut state.fates),
            Action::ComeBack => state.directory.away = false,
            Action::OwnerCrash(_)
            | Action::ConnectorCrash { .. }
            | Action::Forget
            | Action::RollBack
            | Action::GoAway => fault(&mut state, action),
        }
        self.forget_the_spent(&mut state);
        // A step that changes nothing is none.
        (state != *before).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ONCE, |_, state: &State| state.fates.iter().all(|fate| fate.once().is_ok())),
            Property::always(FINAL, |_, state: &State| state.fates.iter().all(|fate| fate.truthful().is_ok())),
            Property::always(SAFE, |_, state: &State| state.fates.iter().all(|fate| fate.safe().is_ok())),
            Property::always(FENCE, |_, state: &State| state.broken.is_none()),
        ]
    }
}

/// INV-ONCE.
pub const ONCE: &str = "INV-ONCE: at most once";
/// INV-FINAL, of `executed` and `refused`.
pub const FINAL: &str = "INV-FINAL: executed only if it was, refused only if it was not and will not be";
/// INV-FINAL, of `delivered`.
pub const SAFE: &str = "INV-FINAL: delivered only what is on disk";
/// INV-FENCE.
pub const FENCE: &str = "INV-FENCE: only the attached owner is obeyed, under the highest epoch";

/// What a walk found.
#[derive(Clone, Debug)]
pub struct Walk {
    /// How many different states were seen.
    pub states: usize,
    /// The broken properties, each with the shortest way there.
    pub broken: Vec<(&'static str, String)>,
}

/// Walks the model: all of it, or until this property, or any, is broken.
#[must_use]
pub fn walk(relay: Relay, until: Option<&'static str>) -> Walk {
    let until =
        until.map_or(HasDiscoveries::AnyFailures, |property| HasDiscoveries::AnyOf([property].into_iter().collect()));
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let checker = relay.checker().threads(threads).finish_when(until).spawn_bfs().join();
    let broken = checker.discoveries().into_iter().map(|(name, path)| {
        let steps: Vec<String> = path.into_actions().iter().map(|action| format!("{action:?}")).collect();
        (name, steps.join("\n"))
    });
    Walk { states: checker.unique_state_count(), broken: broken.collect() }
}

fn fault(state: &mut State, fault: Action) {
    let before = state.clone();
    match fault {
        Action::OwnerCrash(owner) => state.owners[usize::from(owner)].crash(),
        Action::ConnectorCrash { journal_lost } => state.connector.crash(journal_lost),
        Action::Forget => state.directory.forget(),
        Action::RollBack => state.directory.roll_back(),
        Action::GoAway => state.directory.away = true,
        Action::Acquire { .. }
        | Action::Reassert(_)
        | Action::HandOver(_)
        | Action::Drain(_)
        | Action::Forward(..)
        | Action::Answer(_)
        | Action::Frame { .. }
        | Action::Sign(_)
        | Action::Sync(_)
        | Action::Act(_)
        | Action::Decline(_)
        | Action::Settle(_)
        | Action::Prove(_)
        | Action::ComeBack => {}
    }
    if *state != before {
        state.faults_left -= 1;
    }
}

impl Relay {
    /// Leaves out of the state what can change nothing any more, so that states that differ only in it are one.
    fn forget_the_spent(&self, state: &mut State) {
        let State { owners, connector, frames, answers, directory, .. } = state;
        let waits = |node: Node, epoch: Epoch| owners.iter().any(|owner| owner.node == node && owner.asked(epoch));
        answers.retain(|answer| match *answer {
            Answer::Attached(node, epoch) => waits(node, epoch) && !owners.iter().any(|owner| owner.has(node, epoch)),
            Answer::Stale(node, epoch, _) => waits(node, epoch),
        });
        frames.retain(|frame| match *frame {
            Frame::Attach(node, epoch) => epoch >= connector.highest() || waits(node, epoch),
            Frame::Command(_, epoch, _) => epoch >= connector.highest() || !self.has(Protection::Fence),
        });
        if state.faults_left == 0 {
            directory.forget_what_was_before();
        }
    }

    fn acquire(&self, state: &mut State, owner: u8, replaces: bool) {
        let owner = &mut state.owners[usize::from(owner)];
        let mut directory = state.directory.clone();
        if let Some(epoch) = owner.acquire(&mut directory, replaces, self.has(Protection::Incarnation))
            && epoch.counter <= self.bounds.epochs
        {
            owner.attaching(epoch);
            state.directory = directory;
            state.frames.insert(Frame::Attach(owner.node, epoch));
        }
    }

    fn frame(&self, state: &mut State, frame: Frame, paused: bool) {
        match frame {
            Frame::Attach(node, epoch) => state.answers.extend(state.connector.attach(node, epoch)),
            Frame::Command(node, epoch, command) => {
                let State { connector, fates, broken, .. } = state;
                *broken = connector.command(self, node, epoch, command, paused, fates).err();
            }
        }
    }

    fn sync(&self, state: &mut State, command: CommandNumber) {
        state.connector.sync(command, &mut state.fates);
    }
}

fn reassert(state: &mut State, owner: u8) {
    state.owners[usize::from(owner)].reassert(&mut state.directory);
}

fn hand_over(state: &mut State, owner: u8) {
    state.owners[usize::from(owner)].hand_over(&mut state.directory);
}

fn forward(state: &mut State, owner: u8, command: CommandNumber) {
    let owner = state.owners[usize::from(owner)];
    if let Some(epoch) = owner.sends_under()
        && state.connector.is_signed(command)
    {
        state.frames.insert(Frame::Command(owner.node, epoch, command));
    }
}

fn answered(state: &mut State, answer: Answer) {
    let (Answer::Attached(node, _) | Answer::Stale(node, ..)) = answer;
    if let Some(owner) = state.owners.iter_mut().find(|owner| owner.node == node) {
        owner.answered(answer);
    }
}
