//! The history of a run: what devices asked and were told, and what machines did. Checked as it happens against the
//! invariants, and written down one line each when asked to.
//!
//! One recorder sees both ends, since sessions and connectors live in this process: a line stands after what caused
//! it, so that the order of the lines is an order in which things may have happened.
//!
//! An answer to an approval is known by its command to the device and to the machine's journal, and by its question to
//! the stub: what takes effect is the answer that the journal began last.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use flydex_domain::approval::{ApprovalAction, ApprovalBinding, ApprovalSource, digest};
use flydex_domain::command::Decision;
use flydex_domain::epoch::Epoch;
use flydex_domain::id::{ApprovalId, CommandHash, CommandId, DeviceId, Generation, MachineId};
use flydex_domain::invariant::Question;
use flydex_domain::journal::Journal;
use flydex_domain::time::UnixMillis;

mod entry;
mod judge;

pub use entry::{AuditedAt, Digest, Entry, Line, TheQuestion, TheWord};
pub use judge::{Judge, Verdict, check};

/// How often a question may have been renewed: hours of a run.
const RENEWALS_MAX: u32 = 10_000;

/// An answer as its device signed it.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Whose.
    pub device: DeviceId,
    /// With which command.
    pub id: CommandId,
    /// To what.
    pub question: Question,
    /// What names the approval that the device was shown.
    pub binding: ApprovalBinding,
    /// The life of Codex that it says.
    pub generation: Generation,
    /// What it says.
    pub decision: Decision,
    /// The digest that it signed.
    pub digest: [u8; 32],
}

/// What the stub did because of an answer.
#[derive(Clone, Debug)]
pub struct Answered<'a> {
    /// What Codex had asked, before any renewal.
    pub source: ApprovalSource<'a>,
    /// To what.
    pub question: Question,
    /// What was answered.
    pub decision: Decision,
    /// What happens by it.
    pub action: &'a ApprovalAction,
}

/// Takes lines from every part of a run.
pub struct Recorder(Mutex<Inner>);

struct Inner {
    judge: Judge,
    /// What was asked by id: the stub is told no more than that. Ids are UUIDs.
    asked: BTreeMap<CommandId, (DeviceId, CommandHash)>,
    /// Those of them that are answers.
    answers: BTreeMap<CommandId, Answer>,
    /// Answers that a journal has begun and that have not taken effect.
    begun: BTreeMap<Question, VecDeque<(CommandId, UnixMillis)>>,
    /// Accepts of which an audit record was told already.
    audited: BTreeSet<CommandId>,
    /// Effects that were asked, and of which no journal has told yet: as many as are under way.
    unwritten: BTreeSet<(DeviceId, CommandId)>,
    file: Option<Box<dyn Write + Send>>,
    failed: Option<io::Error>,
}

impl Recorder {
    /// A recorder that also writes to `file`, where one is given.
    #[must_use]
    pub fn new(file: Option<Box<dyn Write + Send>>) -> Self {
        Self(Mutex::new(Inner {
            judge: Judge::default(),
            asked: BTreeMap::new(),
            answers: BTreeMap::new(),
            begun: BTreeMap::new(),
            audited: BTreeSet::new(),
            unwritten: BTreeSet::new(),
            file,
            failed: None,
        }))
    }

    /// Takes a line.
    pub fn take(&self, at_us: u64, machine_id: MachineId, entry: Entry) {
        self.lock().take(Line { at_us, machine_id, entry });
    }

    /// A journal got these commands. Told once each.
    pub fn journalled(&self, at_us: u64, machine_id: MachineId, journal: &Journal) {
        let mut inner = self.lock();
        let fresh: Vec<_> =
            inner.unwritten.iter().filter(|(device, id)| journal.get(&(*device, *id)).is_some()).copied().collect();
        for (device, id) in fresh {
            inner.unwritten.remove(&(device, id));
            let begun_at = journal.get(&(device, id)).filter(|entry| entry.open().is_some()).map(|entry| entry.at());
            if let (Some(at), Some(question)) = (begun_at, inner.answers.get(&id).map(|answer| answer.question)) {
                inner.begun.entry(question).or_default().push_back((id, at));
            }
            let Some(&(_, hash)) = inner.asked.get(&id) else { continue };
            inner.take(Line { at_us, machine_id, entry: Entry::Journalled { device, id, hash } });
        }
    }

    /// A command took effect.
    pub fn acted(&self, at_us: u64, machine_id: MachineId, id: CommandId, epoch: Epoch) {
        let mut inner = self.lock();
        let entry = match inner.asked.get(&id) {
            Some(&(device, hash)) => Entry::Acted { device, id, hash, epoch },
            None => Entry::Invented { id },
        };
        inner.take(Line { at_us, machine_id, entry });
    }

    /// A device answers an approval. Its command was taken as asked before.
    pub fn answers(&self, at_us: u64, machine_id: MachineId, answer: Answer) {
        let mut inner = self.lock();
        let entry = Entry::Answers {
            device: answer.device,
            id: answer.id,
            question: answer.question.into(),
            approval: answer.binding.approval_id,
            decision: answer.decision.name().to_owned(),
            digest: Digest(answer.digest),
        };
        inner.answers.insert(answer.id, answer);
        inner.take(Line { at_us, machine_id, entry });
    }

    /// The audit record of a command is durable. Told once each.
    pub fn audited(&self, at_us: u64, machine_id: MachineId, id: CommandId, at: AuditedAt) {
        let mut inner = self.lock();
        let Some(&(device, hash)) = inner.asked.get(&id) else { return };
        if inner.audited.insert(id) {
            inner.take(Line { at_us, machine_id, entry: Entry::Audited { device, id, hash, at } });
        }
    }

    /// An answer took effect.
    pub fn answered(&self, at_us: u64, machine_id: MachineId, answered: &Answered<'_>, epoch: Epoch) {
        let mut inner = self.lock();
        let question = answered.question.into();
        let begun = inner.begun.get_mut(&answered.question).and_then(VecDeque::pop_front);
        let begun = begun.and_then(|(id, at)| Some((inner.asked.get(&id)?.1, inner.answers.get(&id)?.clone(), at)));
        let Some((hash, answer, at_ms)) = begun.filter(|(_, answer, _)| answer.decision == answered.decision) else {
            return inner.take(Line { at_us, machine_id, entry: Entry::NobodysAnswer { question } });
        };
        let (device, id) = (answer.device, answer.id);
        inner.take(Line { at_us, machine_id, entry: Entry::Acted { device, id, hash, epoch } });
        let entry = match answered.decision.is_accept() {
            false => Entry::Closed { question },
            true => Entry::Accepted {
                device,
                id,
                hash,
                question,
                rendered: Digest(answer.digest),
                happened: Digest(answered.happened(machine_id, &answer.binding)),
                answered: answer.generation,
                at_ms,
                expires_at_ms: answer.binding.expires_at,
            },
        };
        inner.take(Line { at_us, machine_id, entry });
    }

    /// What was found up to now.
    ///
    /// # Errors
    /// When the file could not be written.
    pub fn verdict(&self) -> io::Result<Verdict> {
        let mut inner = self.lock();
        if let Some(error) = inner.failed.take() {
            return Err(error);
        }
        if let Some(file) = &mut inner.file {
            file.flush()?;
        }
        Ok(inner.judge.verdict())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn take(&mut self, line: Line) {
        if let Entry::Asked { device, id, hash, effect, .. } = line.entry {
            self.asked.insert(id, (device, hash));
            if effect {
                self.unwritten.insert((device, id));
            }
        }
        self.judge.see(&line);
        if let Some(file) = &mut self.file
            && let Err(error) = write_line(file, &line)
        {
            self.failed.get_or_insert(error);
            self.file = None;
        }
    }
}

impl Answered<'_> {
    /// The digest of what happens, as an approval of this question binds it: end and salt are the machine's choice.
    fn happened(&self, machine_id: MachineId, shown: &ApprovalBinding) -> [u8; 32] {
        let id = |renewal| ApprovalSource { renewal, ..self.source.clone() }.approval_id();
        let is_shown = |id: &ApprovalId| *id == shown.approval_id;
        let approval_id = (0..RENEWALS_MAX).map(id).find(is_shown).unwrap_or_else(|| id(0));
        let binding = ApprovalBinding { machine_id, generation: self.source.generation, approval_id, ..*shown };
        digest(&binding, self.action)
    }
}

fn write_line(file: &mut dyn Write, line: &Line) -> io::Result<()> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    file.write_all(&bytes)
}

#[cfg(test)]
mod tests;
