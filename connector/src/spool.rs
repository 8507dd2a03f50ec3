//! Audit records that control does not have yet, beside the journal.
//!
//! The core appends, durably before it acts where the audit comes first; the uploader reads what is pending and
//! acknowledges. One JSON line holds one record, preceded by the CRC-32 of its bytes in eight hex digits; a
//! broken last line is a torn write and is cut. Lines that were acknowledged go when all of them are.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flydex_domain::audit::AuditKind;
use flydex_domain::id::{ApprovalId, AuditId, CommandHash, CommandId, DeviceId, Generation};
use flydex_domain::limits::SPOOL_BYTES_MAX;
use flydex_domain::time::UnixMillis;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::storage::Storage;

/// One thing that happened at this machine, free of content; the JSON of `POST /api/machines/{id}/audit`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpoolRecord {
    /// Names the record; repeats of an upload carry the same.
    pub audit_id: AuditId,
    /// What happened.
    pub kind: AuditKind,
    /// The machine's clock.
    pub at_ms: UnixMillis,
    /// Whose command; absent for what was answered at the desk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_id: Option<DeviceId>,
    /// The approval that it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval_id: Option<ApprovalId>,
    /// The life of Codex that asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<Generation>,
    /// The command; absent for what was answered at the desk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command_id: Option<CommandId>,
    /// Its exact bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command_hash: Option<CommandHash>,
    /// The answer: `accept`, `accept_for_session`, `decline` or `cancel`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<String>,
    /// `executed`, `refused` or `unknown`; `unknown` on a record that was written before the act.
    pub outcome: String,
    /// Why it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The machine recorded it first, because control's word was not there.
    pub deferred: bool,
}

/// The spool. Cheap to clone; calls block on the disk, so they belong on a blocking thread.
#[derive(Clone)]
pub struct Spool {
    inner: Arc<Mutex<Inner>>,
    pending: watch::Sender<usize>,
}

struct Inner {
    storage: Box<dyn Storage>,
    records: Vec<SpoolRecord>,
    bytes: u64,
}

impl Spool {
    /// Reads what is pending. A damaged line and what follows it cannot be trusted; the file is set aside.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn open(mut storage: Box<dyn Storage>) -> io::Result<Self> {
        let content = storage.load()?;
        let (records, whole) = parse(&content);
        if whole < content.len() {
            let torn = !content[whole..].contains(&b'\n');
            let repaired = if torn { storage.truncate(whole as u64) } else { rescue(storage.as_mut(), &records) };
            if let Err(error) = repaired {
                tracing::warn!(error.kind = ?error.kind(), "the audit spool cannot be repaired");
            }
        }
        let pending = watch::Sender::new(records.len());
        Ok(Self { inner: Arc::new(Mutex::new(Inner { storage, records, bytes: whole as u64 })), pending })
    }

    /// Appends a record, durable on return.
    ///
    /// # Errors
    /// When the disk refuses, or the spool is full because control was away for very long.
    pub fn append(&self, record: SpoolRecord) -> io::Result<()> {
        let mut inner = self.lock();
        let line = line(&record)?;
        if inner.bytes + line.len() as u64 > SPOOL_BYTES_MAX {
            return Err(io::ErrorKind::StorageFull.into());
        }
        inner.storage.append(&line)?;
        inner.bytes += line.len() as u64;
        inner.records.push(record);
        self.pending.send_replace(inner.records.len());
        Ok(())
    }

    /// The oldest records that control does not have, at most `count_max`.
    #[must_use]
    pub fn pending(&self, count_max: usize) -> Vec<SpoolRecord> {
        self.lock().records.iter().take(count_max).cloned().collect()
    }

    /// How many records are pending; changes when one is added or acknowledged.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<usize> {
        self.pending.subscribe()
    }

    /// Forgets what control has.
    ///
    /// # Errors
    /// When the disk refuses; the records are then offered again, which control takes once.
    pub fn acknowledge(&self, audit_ids: &[AuditId]) -> io::Result<()> {
        let acknowledged: BTreeSet<AuditId> = audit_ids.iter().copied().collect();
        let mut inner = self.lock();
        let rest: Vec<_> =
            inner.records.iter().filter(|record| !acknowledged.contains(&record.audit_id)).cloned().collect();
        if rest.len() == inner.records.len() {
            return Ok(());
        }
        let content = lines(&rest)?;
        inner.storage.replace(&content)?;
        inner.bytes = content.len() as u64;
        inner.records = rest;
        self.pending.send_replace(inner.records.len());
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn rescue(storage: &mut dyn Storage, records: &[SpoolRecord]) -> io::Result<()> {
    tracing::error!("the audit spool is damaged; what is whole of it is kept");
    storage.set_aside()?;
    storage.replace(&lines(records)?)
}

fn line(record: &SpoolRecord) -> io::Result<Vec<u8>> {
    let json = serde_json::to_string(record)?;
    Ok(format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes())).into_bytes())
}

fn lines(records: &[SpoolRecord]) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    for record in records {
        content.extend(line(record)?);
    }
    Ok(content)
}

/// The whole lines from the start, and where they end.
fn parse(content: &[u8]) -> (Vec<SpoolRecord>, usize) {
    let mut records = Vec::new();
    let mut whole = 0;
    while let Some(end) = content[whole..].iter().position(|byte| *byte == b'\n') {
        let Some(record) = parse_line(&content[whole..whole + end]) else { break };
        records.push(record);
        whole += end + 1;
    }
    (records, whole)
}

fn parse_line(line: &[u8]) -> Option<SpoolRecord> {
    let (crc, json) = line.split_at_checked(9)?;
    let crc = u32::from_str_radix(std::str::from_utf8(&crc[..8]).ok()?, 16).ok()?;
    if crc32fast::hash(json) != crc {
        return None;
    }
    serde_json::from_slice(json).ok()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::storage::memory::MemoryStorage;

    fn record(number: u128) -> SpoolRecord {
        SpoolRecord {
            audit_id: AuditId::from_uuid(Uuid::from_u128(number)),
            kind: AuditKind::ApprovalIntent,
            at_ms: UnixMillis(5),
            device_id: Some(DeviceId::from_bytes([1; 32])),
            approval_id: Some(ApprovalId::from_bytes([2; 32])),
            generation: Some(Generation::from_bytes([3; 32])),
            command_id: Some(CommandId::from_uuid(Uuid::from_u128(4))),
            command_hash: Some(CommandHash::from_bytes([5; 32])),
            decision: Some("accept".to_owned()),
            outcome: "unknown".to_owned(),
            code: None,
            deferred: true,
        }
    }

    #[test]
    fn records_wait_across_restarts_until_they_are_acknowledged() {
        let storage = MemoryStorage::default();
        let spool = Spool::open(Box::new(storage.clone())).unwrap();
        spool.append(record(1)).unwrap();
        spool.append(record(2)).unwrap();
        let spool = Spool::open(Box::new(storage.clone())).unwrap();
        assert_eq!(spool.pending(10), [record(1), record(2)]);
        assert_eq!(spool.pending(1), [record(1)]);
        spool.acknowledge(&[record(1).audit_id]).unwrap();
        assert_eq!(*spool.watch().borrow(), 1);
        assert_eq!(Spool::open(Box::new(storage)).unwrap().pending(10), [record(2)]);
    }

    #[test]
    fn a_torn_line_is_cut() {
        let storage = MemoryStorage::default();
        let spool = Spool::open(Box::new(storage.clone())).unwrap();
        spool.append(record(1)).unwrap();
        spool.append(record(2)).unwrap();
        let mut torn = storage.content();
        torn.truncate(torn.len() - 5);
        let storage = MemoryStorage::with(torn);
        let spool = Spool::open(Box::new(storage.clone())).unwrap();
        assert_eq!(spool.pending(10), [record(1)]);
        spool.append(record(3)).unwrap();
        assert_eq!(Spool::open(Box::new(storage)).unwrap().pending(10), [record(1), record(3)]);
    }

    #[test]
    fn a_damaged_line_is_kept_aside_and_what_is_before_it_stays() {
        let storage = MemoryStorage::default();
        let spool = Spool::open(Box::new(storage.clone())).unwrap();
        for number in 1..=3 {
            spool.append(record(number)).unwrap();
        }
        let mut damaged = storage.content();
        let second = damaged.iter().position(|byte| *byte == b'\n').unwrap() + 30;
        damaged[second] ^= 1;
        let storage = MemoryStorage::with(damaged.clone());
        assert_eq!(Spool::open(Box::new(storage.clone())).unwrap().pending(10), [record(1)]);
        assert_eq!(storage.aside(), Some(damaged));
    }

    #[test]
    fn a_full_disk_is_told() {
        let storage = MemoryStorage::default();
        let spool = Spool::open(Box::new(storage.clone())).unwrap();
        storage.fill_disk(true);
        assert!(spool.append(record(1)).is_err());
        assert!(spool.pending(10).is_empty());
    }
}
