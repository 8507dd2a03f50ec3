//! The history of a run: what devices asked and were told, and what machines did. Checked as it happens against the
//! invariants, and written down one line each when asked to.
//!
//! One recorder sees both ends, since sessions and connectors live in this process: a line stands after what caused
//! it, so that the order of the lines is an order in which things may have happened.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, Write};
use std::sync::{Mutex, PoisonError};

use flydex_domain::epoch::Epoch;
use flydex_domain::id::{CommandHash, CommandId, DeviceId, MachineId, SessionId};
use flydex_domain::invariant::{Checker, Event, Word};
use flydex_domain::journal::Journal;
use flydex_domain::ledger::CommandKey;
use flydex_domain::stream::StreamId;
use serde::{Deserialize, Serialize};

/// Broken invariants that are kept; the others are counted.
const VIOLATIONS_KEPT_MAX: usize = 100;

/// One line of a history.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// Microseconds since the run began.
    #[serde(rename = "t")]
    pub at_us: u64,
    /// At or about which machine.
    #[serde(rename = "m")]
    pub machine_id: MachineId,
    /// What.
    #[serde(rename = "e")]
    pub entry: Entry,
}

/// What happened.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Entry {
    /// A device sent a command for the first time.
    Asked {
        /// Whose.
        device: DeviceId,
        /// Which.
        id: CommandId,
        /// What exactly.
        hash: CommandHash,
        /// Its kind.
        kind: String,
        /// It acts, and is not only read.
        effect: bool,
        /// When it was to be sent, in microseconds since the run began.
        intended_us: u64,
    },
    /// A device was told of a command in the machine's name.
    Told {
        /// Whose.
        device: DeviceId,
        /// Which.
        id: CommandId,
        /// What exactly.
        hash: CommandHash,
        /// It acts, and is not only read.
        effect: bool,
        /// What.
        word: TheWord,
    },
    /// A device was told by the relay that a command did not get through. Never final.
    Failed {
        /// Whose.
        device: DeviceId,
        /// Which.
        id: CommandId,
        /// Why.
        code: String,
    },
    /// A command is on the machine's disk.
    Journalled {
        /// Whose.
        device: DeviceId,
        /// Which.
        id: CommandId,
        /// What exactly.
        hash: CommandHash,
    },
    /// A command took effect.
    Acted {
        /// Whose.
        device: DeviceId,
        /// Which.
        id: CommandId,
        /// What exactly.
        hash: CommandHash,
        /// The highest epoch that the connector had attached to.
        epoch: Epoch,
    },
    /// A command took effect that no device asked for.
    Invented {
        /// Which.
        id: CommandId,
    },
    /// The connector made an epoch durable.
    Attached {
        /// Which.
        epoch: Epoch,
    },
    /// A session begins a stream after this number.
    Watches {
        /// Which session.
        session: SessionId,
        /// Which stream.
        stream: u32,
        /// The number.
        after: u64,
        /// The number up to which the device had seen the stream, when it was told that it resumes there.
        resumed: Option<u64>,
    },
    /// An event reached a session.
    Seen {
        /// Which session.
        session: SessionId,
        /// Which stream.
        stream: u32,
        /// Its number.
        seq: u64,
    },
    /// A session was told that a stream ended.
    Ended {
        /// Which session.
        session: SessionId,
        /// Which stream.
        stream: u32,
    },
}

/// [`Word`] as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TheWord {
    /// The machine has it.
    Delivered,
    /// It was done.
    Executed,
    /// It was not and will not be done.
    Refused,
    /// It may or may not have been done.
    Unknown,
}

impl From<TheWord> for Word {
    fn from(word: TheWord) -> Self {
        match word {
            TheWord::Delivered => Self::Delivered,
            TheWord::Executed => Self::Executed,
            TheWord::Refused => Self::Refused,
            TheWord::Unknown => Self::Unknown,
        }
    }
}

/// What a history proves.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Verdict {
    /// Lines that were read.
    pub lines: u64,
    /// Commands that were asked.
    pub asked: u64,
    /// Effects at machines.
    pub acted: u64,
    /// Events that reached sessions.
    pub seen: u64,
    /// Effects without a final word at the end: not broken, yet no answer either.
    pub unanswered: u64,
    /// How many times an invariant was broken.
    pub broken: u64,
    /// The first of them.
    pub violations: Vec<String>,
}

/// Judges lines in their order.
#[derive(Debug, Default)]
pub struct Judge {
    machines: BTreeMap<MachineId, Checker>,
    verdict: Verdict,
}

impl Judge {
    /// Takes the next line.
    pub fn see(&mut self, line: &Line) {
        self.verdict.lines += 1;
        let key = |device_id, command_id| CommandKey { device_id, command_id };
        let event = match &line.entry {
            Entry::Asked { device, id, hash, effect, .. } => {
                self.verdict.asked += 1;
                if !effect {
                    return;
                }
                Event::Asked(key(*device, *id), *hash)
            }
            // A read may be done any number of times: there is no promise to break.
            Entry::Told { effect: false, .. } => return,
            Entry::Told { device, id, hash, word, .. } => Event::Told(key(*device, *id), *hash, (*word).into()),
            Entry::Failed { .. } => return,
            Entry::Journalled { device, id, hash } => Event::Journalled(key(*device, *id), *hash),
            Entry::Acted { device, id, hash, epoch } => {
                self.verdict.acted += 1;
                self.judge(line, &Event::Obeyed { epoch: *epoch, sender: None });
                Event::Acted(key(*device, *id), *hash)
            }
            Entry::Invented { .. } => return self.broken(line, "Once: an effect that no device asked for"),
            Entry::Attached { epoch } => Event::Attached(*epoch),
            Entry::Watches { session, stream, after, resumed } => {
                if resumed.is_some_and(|seen| seen != *after) {
                    self.broken(line, "Order: resumed elsewhere than where the device was");
                }
                Event::Watches(*session, StreamId(*stream), *after)
            }
            Entry::Seen { session, stream, seq } => {
                self.verdict.seen += 1;
                Event::Seen(*session, StreamId(*stream), *seq)
            }
            Entry::Ended { session, stream } => Event::Ended(*session, StreamId(*stream)),
        };
        self.judge(line, &event);
    }

    fn judge(&mut self, line: &Line, event: &Event) {
        if let Err(broken) = self.machines.entry(line.machine_id).or_default().see(event) {
            self.broken(line, &broken.to_string());
        }
    }

    fn broken(&mut self, line: &Line, why: &str) {
        self.verdict.broken += 1;
        if self.verdict.violations.len() < VIOLATIONS_KEPT_MAX {
            let (number, machine_id) = (self.verdict.lines, line.machine_id);
            self.verdict.violations.push(format!("line {number}, machine {machine_id}: {why}: {:?}", line.entry));
        }
    }

    /// What was found up to now.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let unanswered = self.machines.values().map(|checker| checker.unanswered().len() as u64).sum();
        Verdict { unanswered, ..self.verdict.clone() }
    }
}

/// Judges a written history.
///
/// # Errors
/// When it cannot be read, or a line is none.
pub fn check(history: impl BufRead) -> anyhow::Result<Verdict> {
    let mut judge = Judge::default();
    for (number, line) in history.lines().enumerate() {
        let line = serde_json::from_str(&line?).map_err(|error| anyhow::anyhow!("line {}: {error}", number + 1))?;
        judge.see(&line);
    }
    Ok(judge.verdict())
}

/// Takes lines from every part of a run.
pub struct Recorder(Mutex<Inner>);

struct Inner {
    judge: Judge,
    /// What was asked by id: the stub is told no more than that. Ids are UUIDs.
    asked: BTreeMap<CommandId, (DeviceId, CommandHash)>,
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

fn write_line(file: &mut dyn Write, line: &Line) -> io::Result<()> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    file.write_all(&bytes)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use flydex_domain::id::Incarnation;
    use uuid::Uuid;

    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_was_found_while_it_happened_is_found_again_in_the_file() {
        let file = Shared::default();
        let recorder = Recorder::new(Some(Box::new(file.clone())));
        let machine = MachineId::from_uuid(Uuid::from_u128(1));
        let (device, hash) = (DeviceId::from_bytes([2; 32]), CommandHash::from_bytes([3; 32]));
        let (session, id) = (SessionId::from_uuid(Uuid::from_u128(5)), CommandId::from_uuid(Uuid::from_u128(4)));
        let epoch = Epoch { counter: 1, incarnation: Incarnation::from_bytes([1; 16]) };
        recorder.take(1, machine, Entry::Attached { epoch });
        recorder.take(
            2,
            machine,
            Entry::Asked { device, id, hash, kind: "start_turn".to_owned(), effect: true, intended_us: 2 },
        );
        recorder.take(3, machine, Entry::Journalled { device, id, hash });
        recorder.acted(4, machine, id, epoch);
        recorder.take(5, machine, Entry::Told { device, id, hash, effect: true, word: TheWord::Executed });
        recorder.take(6, machine, Entry::Watches { session, stream: 0, after: 7, resumed: Some(7) });
        recorder.take(7, machine, Entry::Seen { session, stream: 0, seq: 8 });
        let clean = recorder.verdict().unwrap();
        assert_eq!((clean.broken, clean.unanswered, clean.acted, clean.seen), (0, 0, 1, 1), "{:?}", clean.violations);

        recorder.acted(8, machine, id, epoch);
        recorder.take(9, machine, Entry::Seen { session, stream: 0, seq: 10 });
        recorder.take(10, machine, Entry::Watches { session, stream: 0, after: 12, resumed: Some(11) });
        recorder.acted(11, machine, CommandId::from_uuid(Uuid::from_u128(9)), epoch);
        let told = recorder.verdict().unwrap();
        let read = check(file.0.lock().unwrap().as_slice()).unwrap();
        assert_eq!((told.broken, told.lines), (4, 11));
        assert_eq!((read.broken, read.violations), (told.broken, told.violations));
    }

    #[test]
    fn a_line_that_is_none_is_named() {
        let error = check(&b"{\"t\":1}\n"[..]).unwrap_err().to_string();
        assert!(error.starts_with("line 1: "), "{error}");
    }
}
