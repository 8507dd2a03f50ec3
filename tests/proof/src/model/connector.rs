//! The connector of the model: the fence, the journal in memory and on disk, and what it does with a command.

use flydex_domain::command::Outcome;
use flydex_domain::epoch::{Attach, Epoch, attach};
use flydex_domain::error::ErrorCode;
use flydex_domain::gate::{Known, Remembered, Ruling, asked_before};
use flydex_domain::id::CommandHash;
use flydex_domain::invariant::{Broken, Fate, Word, fenced, sent_by};

use super::{Answer, CommandNumber, Node, Protection, Relay};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Connector {
    /// Durable.
    highest: Epoch,
    attached: Option<(Epoch, Node)>,
    boot: u8,
    commands: Vec<Command>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Command {
    /// The life of the connector that it was signed for.
    signed_for: Option<u8>,
    memory: Memory,
    disk: Disk,
}

/// What this life knows of a command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Memory {
    #[default]
    Nothing,
    /// Handed to the journal.
    Begun,
    /// Begun on disk.
    Delivered,
    /// Codex has done it.
    Acted,
    /// An earlier life began it.
    LeftOpen,
    Settled(Outcome),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Disk {
    #[default]
    Nothing,
    Begun,
    Settled(Outcome),
}

const HASH: CommandHash = CommandHash::from_bytes([0; 32]);
const PAUSED: Outcome = Outcome::Refused(ErrorCode::RemotePaused);

impl Connector {
    pub(super) fn new(commands: u8) -> Self {
        let commands = vec![Command::default(); usize::from(commands)];
        Self { highest: Epoch::ZERO, attached: None, boot: 0, commands }
    }

    pub(super) const fn highest(&self) -> Epoch {
        self.highest
    }

    pub(super) fn is_signed(&self, command: CommandNumber) -> bool {
        self.commands[usize::from(command)].signed_for.is_some()
    }

    /// Ids are signed in order, which loses nothing: commands do not differ.
    pub(super) fn sign(&mut self, command: CommandNumber) {
        let boot = self.boot;
        let in_order = command == 0 || self.is_signed(command - 1);
        let signed_for = &mut self.commands[usize::from(command)].signed_for;
        if in_order && signed_for.is_none() {
            *signed_for = Some(boot);
        }
    }

    pub(super) fn attach(&mut self, node: Node, epoch: Epoch) -> Option<Answer> {
        match attach(self.highest, epoch) {
            Attach::Accept(epoch) => {
                self.highest = epoch;
                self.attached = Some((epoch, node));
                Some(Answer::Attached(node, epoch))
            }
            Attach::Continue => {
                // The same owner over another link; or so the epoch says.
                self.attached.get_or_insert((epoch, node));
                Some(Answer::Attached(node, epoch))
            }
            Attach::Stale { highest } => Some(Answer::Stale(node, epoch, highest)),
            Attach::Absurd => None,
        }
    }

    pub(super) fn command(
        &mut self,
        relay: &Relay,
        node: Node,
        epoch: Epoch,
        number: CommandNumber,
        paused: bool,
        fates: &mut [Fate],
    ) -> Result<(), Broken> {
        let Some((attached, owner)) = self.attached else { return Ok(()) };
        if attached != epoch && relay.has(Protection::Fence) {
            return Ok(());
        }
        let (command, fate) = (&mut self.commands[usize::from(number)], &mut fates[usize::from(number)]);
        let remembered = command.remembered(relay.has(Protection::Unknown));
        let remembered = remembered.filter(|_| relay.has(Protection::Journal));
        let forgettable = command.signed_for != Some(self.boot) && relay.has(Protection::Boot);
        match asked_before(remembered, HASH, forgettable) {
            Some(Ruling::Repeat(Known::Settled(outcome))) => fate.told(word(outcome)),
            Some(Ruling::Repeat(Known::LeftOpen) | Ruling::Unknown) => fate.told(Word::Unknown),
            Some(Ruling::Repeat(Known::UnderWay) | Ruling::Turned(_) | Ruling::Refused(_) | Ruling::Pass(_)) => {}
            None if paused => {
                // A refusal is told before it is durable.
                command.memory = Memory::Settled(PAUSED);
                fate.told(Word::Refused);
            }
            None => {
                command.memory = Memory::Begun;
                if !relay.has(Protection::AckAfterJournal) {
                    fate.told(Word::Delivered);
                }
            }
        }
        fenced(self.highest, epoch)?;
        sent_by(owner.incarnation(), node.incarnation())
    }

    pub(super) fn sync(&mut self, command: CommandNumber, fates: &mut [Fate]) {
        let (command, fate) = (&mut self.commands[usize::from(command)], &mut fates[usize::from(command)]);
        match command.memory {
            Memory::Begun => {
                (command.memory, command.disk) = (Memory::Delivered, Disk::Begun);
                fate.journalled = true;
                fate.told(Word::Delivered);
            }
            Memory::Settled(outcome) => command.disk = Disk::Settled(outcome),
            Memory::Nothing | Memory::Delivered | Memory::Acted | Memory::LeftOpen => {}
        }
    }

    pub(super) fn act(&mut self, command: CommandNumber, fates: &mut [Fate]) {
        let (command, fate) = (&mut self.commands[usize::from(command)], &mut fates[usize::from(command)]);
        if command.memory == Memory::Delivered {
            command.memory = Memory::Acted;
            fate.acts += 1;
        }
    }

    pub(super) fn decline(&mut self, command: CommandNumber, fates: &mut [Fate]) {
        if self.commands[usize::from(command)].memory == Memory::Delivered {
            self.finish(command, Outcome::Refused(ErrorCode::CodexUnavailable), fates);
        }
    }

    pub(super) fn settle(&mut self, command: CommandNumber, fates: &mut [Fate]) {
        if self.commands[usize::from(command)].memory == Memory::Acted {
            self.finish(command, Outcome::Executed, fates);
        }
    }

    pub(super) fn prove(&mut self, command: CommandNumber, fates: &mut [Fate]) {
        let left_open = self.commands[usize::from(command)].memory == Memory::LeftOpen;
        if left_open && fates[usize::from(command)].acts > 0 {
            self.finish(command, Outcome::Executed, fates);
        }
    }

    fn finish(&mut self, command: CommandNumber, outcome: Outcome, fates: &mut [Fate]) {
        let (command, fate) = (&mut self.commands[usize::from(command)], &mut fates[usize::from(command)]);
        (command.memory, command.disk) = (Memory::Settled(outcome), Disk::Settled(outcome));
        fate.told(word(outcome));
    }

    pub(super) fn crash(&mut self, journal_lost: bool) {
        self.boot += 1;
        self.attached = None;
        for command in &mut self.commands {
            if journal_lost {
                command.disk = Disk::Nothing;
            }
            command.memory = match command.disk {
                Disk::Nothing => Memory::Nothing,
                Disk::Begun => Memory::LeftOpen,
                Disk::Settled(outcome) => Memory::Settled(outcome),
            };
        }
    }
}

impl Command {
    fn remembered(&self, told_unknown: bool) -> Option<Remembered> {
        let state = match self.memory {
            Memory::Nothing => return None,
            Memory::Begun | Memory::Delivered | Memory::Acted => Known::UnderWay,
            Memory::LeftOpen if told_unknown => Known::LeftOpen,
            Memory::LeftOpen => Known::Settled(Outcome::Refused(ErrorCode::Internal)),
            Memory::Settled(outcome) => Known::Settled(outcome),
        };
        Some(Remembered { hash: HASH, state })
    }
}

const fn word(outcome: Outcome) -> Word {
    match outcome {
        Outcome::Executed => Word::Executed,
        Outcome::Refused(_) => Word::Refused,
        Outcome::Unknown => Word::Unknown,
    }
}
