//! The connector's journal of effects: what it may forget and never may (INV-ONCE, INV-FINAL).
//!
//! It holds ids, hashes and outcomes, no content. An effect is *begun* before it acts and *settled* after. The
//! bytes are a header and frames: length (`u16`), CRC-32 of the payload (`u32`), payload; big-endian. A frame
//! that the end of the file cuts is a torn tail and is cut off; any other damage ends the journal, and a new
//! one begins. Nothing is lost by that but knowledge: commands of earlier lives that it does not name are
//! answered `unknown` and never run.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use crate::command::{CommandKind, Outcome};
use crate::error::ErrorCode;
use crate::gate::{Known, Remembered};
use crate::id::{CommandHash, CommandId, DeviceId};
use crate::limits::{JOURNAL_BYTES_MAX, JOURNAL_RECORD_BYTES_MAX, JOURNAL_RETENTION};
use crate::time::UnixMillis;

/// The first bytes of a journal of this version.
pub const HEADER: &[u8; 8] = b"FlyDexJ\x01";

const FRAME_BYTES: usize = 6;

/// Names a command within a machine.
pub type Key = (DeviceId, CommandId);

/// One line of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// An effect is about to act.
    Begun(Begun),
    /// Its outcome is known. Also for an effect that was refused without being begun.
    Settled(Settled),
    /// Effects that were signed at or before this time may have been forgotten.
    LowWater(UnixMillis),
}

/// An effect that is about to act.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    /// Which command.
    pub key: Key,
    /// What exactly was asked.
    pub hash: CommandHash,
    /// What kind.
    pub kind: CommandKind,
    /// When it was signed.
    pub issued_at: UnixMillis,
    /// The machine's clock.
    pub at: UnixMillis,
    /// The thread it acts on, where proof can be found after a crash; at most 64 bytes.
    pub thread_id: String,
}

/// An outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Which command.
    pub key: Key,
    /// What exactly was asked.
    pub hash: CommandHash,
    /// What became of it.
    pub outcome: Outcome,
    /// When it was signed.
    pub issued_at: UnixMillis,
    /// The machine's clock.
    pub at: UnixMillis,
    /// A result that is nothing but ids (`agent.proto` `CommandResult`); at most 512 bytes.
    pub ids: Vec<u8>,
}

/// What the journal knows of one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    hash: CommandHash,
    issued_at: UnixMillis,
    at: UnixMillis,
    bytes: u64,
    left_open: bool,
    begun: Option<(CommandKind, String)>,
    settled: Option<(Outcome, Vec<u8>)>,
}

impl Entry {
    /// What the gate compares and answers.
    #[must_use]
    pub fn remembered(&self) -> Remembered {
        let state = match (&self.settled, self.left_open) {
            (Some((outcome, _)), _) => Known::Settled(*outcome),
            (None, true) => Known::LeftOpen,
            (None, false) => Known::UnderWay,
        };
        Remembered { hash: self.hash, state }
    }

    /// The ids of its result; empty without one.
    #[must_use]
    pub fn ids(&self) -> &[u8] {
        self.settled.as_ref().map_or(&[], |(_, ids)| ids)
    }

    /// When it was signed.
    #[must_use]
    pub const fn issued_at(&self) -> UnixMillis {
        self.issued_at
    }

    /// The machine's clock when it last wrote of it.
    #[must_use]
    pub const fn at(&self) -> UnixMillis {
        self.at
    }

    /// The kind and thread of an effect that was begun and has no outcome.
    #[must_use]
    pub fn open(&self) -> Option<(CommandKind, &str)> {
        match (&self.settled, &self.begun) {
            (None, Some((kind, thread_id))) => Some((*kind, thread_id)),
            (None | Some(_), _) => None,
        }
    }
}

/// What the journal's records add up to.
#[derive(Debug, Default)]
pub struct Journal {
    entries: BTreeMap<Key, Entry>,
    order: VecDeque<Key>,
    low_water: UnixMillis,
    live_bytes: u64,
}

/// Bytes that are not a whole journal, from some place on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Not a journal, or of another version.
    #[error("not a journal of this version")]
    Header,
    /// A frame before the end is not what was written.
    #[error("journal is damaged at byte {at}")]
    Frame {
        /// Where the frame begins.
        at: u64,
    },
}

/// A journal as it was read.
#[derive(Debug)]
pub struct Replayed {
    /// What it says.
    pub journal: Journal,
    /// How many bytes of it are whole; what follows is a torn tail, to be cut.
    pub whole_bytes: u64,
}

/// Reads a journal. Effects without an outcome count as left open by an earlier life.
///
/// # Errors
/// [`Damage`] when anything but the tail is not what was written.
pub fn replay(bytes: &[u8]) -> Result<Replayed, Damage> {
    let mut journal = Journal::default();
    if bytes.len() < HEADER.len() && HEADER.starts_with(bytes) {
        return Ok(Replayed { journal, whole_bytes: 0 });
    }
    if !bytes.starts_with(HEADER) {
        return Err(Damage::Header);
    }
    let mut at = HEADER.len();
    while at < bytes.len() {
        match read_frame(bytes, at) {
            Frame::Whole { payload, record } => {
                journal.apply(&record, payload.len() as u64);
                at = payload.end;
            }
            Frame::Torn => break,
            Frame::Damaged => return Err(Damage::Frame { at: at as u64 }),
        }
    }
    for entry in journal.entries.values_mut() {
        entry.left_open = entry.settled.is_none();
    }
    Ok(Replayed { journal, whole_bytes: at as u64 })
}

impl Journal {
    /// What is known of a command.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// Effects signed at or before this time may have been forgotten.
    #[must_use]
    pub const fn low_water(&self) -> UnixMillis {
        self.low_water
    }

    /// Bytes that a rewritten journal would have at most.
    #[must_use]
    pub const fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// Raises the low-water mark; it never sinks.
    pub fn raise_low_water(&mut self, to: UnixMillis) {
        self.low_water = self.low_water.max(to);
    }

    /// Takes a record in that was or will be written.
    pub fn record(&mut self, record: &Record) {
        let bytes = encode(record).len() as u64;
        self.apply(record, bytes);
    }

    /// Forgets what is older than the retention, and the oldest beyond half of the size bound; raises low water
    /// above everything that it forgets. True when something was forgotten.
    pub fn evict(&mut self, now: UnixMillis) -> bool {
        let keep_from = now.minus(JOURNAL_RETENTION);
        let mut forgot = false;
        while let Some(key) = self.order.front() {
            let Some(entry) = self.entries.get(key) else {
                self.order.pop_front();
                continue;
            };
            let under_way = entry.settled.is_none() && !entry.left_open;
            if under_way || (entry.at >= keep_from && self.live_bytes <= JOURNAL_BYTES_MAX / 2) {
                break;
            }
            self.low_water = self.low_water.max(entry.issued_at);
            self.live_bytes -= entry.bytes;
            self.entries.remove(key);
            self.order.pop_front();
            forgot = true;
        }
        forgot
    }

    /// The bytes of a fresh journal that says the same.
    #[must_use]
    pub fn rewritten(&self) -> Vec<u8> {
        let mut bytes = HEADER.to_vec();
        bytes.extend(encode(&Record::LowWater(self.low_water)));
        for key in &self.order {
            let Some(entry) = self.entries.get(key) else { continue };
            let (hash, issued_at, at) = (entry.hash, entry.issued_at, entry.at);
            if let Some((kind, thread_id)) = &entry.begun {
                let thread_id = thread_id.clone();
                bytes.extend(encode(&Record::Begun(Begun { key: *key, hash, kind: *kind, issued_at, at, thread_id })));
            }
            if let Some((outcome, ids)) = &entry.settled {
                let (outcome, ids) = (*outcome, ids.clone());
                bytes.extend(encode(&Record::Settled(Settled { key: *key, hash, outcome, issued_at, at, ids })));
            }
        }
        bytes
    }

    fn apply(&mut self, record: &Record, bytes: u64) {
        match record {
            Record::LowWater(to) => self.raise_low_water(*to),
            Record::Begun(begun) => {
                let entry = self.entry(begun.key, begun.hash, begun.issued_at, begun.at, bytes);
                entry.begun = Some((begun.kind, begun.thread_id.clone()));
            }
            Record::Settled(settled) => {
                let entry = self.entry(settled.key, settled.hash, settled.issued_at, settled.at, bytes);
                entry.settled = Some((settled.outcome, settled.ids.clone()));
            }
        }
    }

    fn entry(&mut self, key: Key, hash: CommandHash, issued_at: UnixMillis, at: UnixMillis, bytes: u64) -> &mut Entry {
        self.live_bytes += bytes;
        let order = &mut self.order;
        let entry = self.entries.entry(key).or_insert_with(|| {
            order.push_back(key);
            Entry { hash, issued_at, at, bytes: 0, left_open: false, begun: None, settled: None }
        });
        entry.bytes += bytes;
        entry
    }
}

// === Frames ===

enum Frame {
    Whole { payload: Range<usize>, record: Record },
    Torn,
    Damaged,
}

fn read_frame(bytes: &[u8], at: usize) -> Frame {
    let rest = &bytes[at..];
    if rest.iter().all(|byte| *byte == 0) {
        return Frame::Torn;
    }
    let Some((head, body)) = rest.split_at_checked(FRAME_BYTES) else {
        return Frame::Torn;
    };
    let length = usize::from(u16::from_be_bytes([head[0], head[1]]));
    if length == 0 || length > JOURNAL_RECORD_BYTES_MAX {
        return Frame::Damaged;
    }
    let Some(payload) = body.get(..length) else {
        return Frame::Torn;
    };
    let crc = u32::from_be_bytes([head[2], head[3], head[4], head[5]]);
    if crc32fast::hash(payload) == crc
        && let Some(record) = decode_payload(payload)
    {
        let start = at + FRAME_BYTES;
        return Frame::Whole { payload: start..start + length, record };
    }
    if body.len() == length { Frame::Torn } else { Frame::Damaged }
}

/// A record as one frame.
///
/// # Panics
/// Never: a record's texts and ids are cut to their bounds.
#[must_use]
pub fn encode(record: &Record) -> Vec<u8> {
    let payload = encode_payload(record);
    let length = u16::try_from(payload.len()).expect("a record is at most 1 KiB");
    let mut frame = Vec::with_capacity(FRAME_BYTES + payload.len());
    frame.extend(length.to_be_bytes());
    frame.extend(crc32fast::hash(&payload).to_be_bytes());
    frame.extend(payload);
    frame
}

const THREAD_BYTES_MAX: usize = 64;
const IDS_BYTES_MAX: usize = 512;

fn encode_payload(record: &Record) -> Vec<u8> {
    let mut out = Vec::with_capacity(160);
    match record {
        Record::Begun(begun) => {
            out.push(1);
            put_command(&mut out, &begun.key, &begun.hash, begun.issued_at, begun.at);
            out.push(kind_byte(begun.kind));
            let thread_id = begun.thread_id.as_bytes();
            // A longer id is none of Codex's; without it there is merely no proof after a crash.
            out.extend(if thread_id.len() > THREAD_BYTES_MAX { &[] } else { thread_id });
        }
        Record::Settled(settled) => {
            out.push(2);
            put_command(&mut out, &settled.key, &settled.hash, settled.issued_at, settled.at);
            let (outcome, code) = match settled.outcome {
                Outcome::Executed => (1_u8, 0_u16),
                Outcome::Refused(code) => (2, code.number()),
                Outcome::Unknown => (3, 0),
            };
            out.push(outcome);
            out.extend(code.to_be_bytes());
            out.extend(if settled.ids.len() > IDS_BYTES_MAX { &[] } else { settled.ids.as_slice() });
        }
        Record::LowWater(low_water) => {
            out.push(3);
            out.extend(low_water.0.to_be_bytes());
        }
    }
    out
}

fn put_command(out: &mut Vec<u8>, key: &Key, hash: &CommandHash, issued_at: UnixMillis, at: UnixMillis) {
    out.extend(key.0.as_bytes());
    out.extend(key.1.as_bytes());
    out.extend(hash.as_bytes());
    out.extend(issued_at.0.to_be_bytes());
    out.extend(at.0.to_be_bytes());
}

fn decode_payload(payload: &[u8]) -> Option<Record> {
    let (tag, mut rest) = payload.split_first()?;
    match tag {
        1 => {
            let (key, hash, issued_at, at) = take_command(&mut rest)?;
            let (kind, thread_id) = rest.split_first()?;
            let kind = *CommandKind::ALL.get(usize::from(*kind))?;
            let thread_id = std::str::from_utf8(thread_id).ok().filter(|text| text.len() <= THREAD_BYTES_MAX)?;
            Some(Record::Begun(Begun { key, hash, kind, issued_at, at, thread_id: thread_id.to_owned() }))
        }
        2 => {
            let (key, hash, issued_at, at) = take_command(&mut rest)?;
            let [outcome, high, low] = take::<3>(&mut rest)?;
            let outcome = match outcome {
                1 => Outcome::Executed,
                2 => Outcome::Refused(ErrorCode::from_number(u16::from_be_bytes([high, low]).into())?),
                3 => Outcome::Unknown,
                _ => return None,
            };
            (rest.len() <= IDS_BYTES_MAX)
                .then(|| Record::Settled(Settled { key, hash, outcome, issued_at, at, ids: rest.to_vec() }))
        }
        3 => {
            let low_water = u64::from_be_bytes(take(&mut rest)?);
            rest.is_empty().then_some(Record::LowWater(UnixMillis(low_water)))
        }
        _ => None,
    }
}

fn take_command(rest: &mut &[u8]) -> Option<(Key, CommandHash, UnixMillis, UnixMillis)> {
    let device_id = DeviceId::from_bytes(take(rest)?);
    let command_id = CommandId::try_from(take::<16>(rest)?.as_slice()).ok()?;
    let hash = CommandHash::from_bytes(take(rest)?);
    let issued_at = UnixMillis(u64::from_be_bytes(take(rest)?));
    let at = UnixMillis(u64::from_be_bytes(take(rest)?));
    Some(((device_id, command_id), hash, issued_at, at))
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}

fn kind_byte(kind: CommandKind) -> u8 {
    let index = CommandKind::ALL.iter().position(|other| *other == kind);
    u8::try_from(index.unwrap_or_default()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
