//! The command journal on disk: read at start, appended to in group commits, rewritten when it has grown.
//!
//! One task owns the file. While one commit is on its way to the disk the next one gathers; everybody who waits
//! for it is told at once. What the records mean is `flydex_domain::journal`'s.

use std::io;

use flydex_domain::journal::{Damage, HEADER, Journal, replay};
use flydex_domain::limits::{JOURNAL_COMMIT_RECORDS_MAX, JOURNAL_QUEUE_MAX};
use flydex_runtime::lifecycle::Shutdown;
use tokio::sync::mpsc;

use crate::storage::Storage;

/// Names a write that somebody waits for.
pub type WriteToken = u64;

/// Why the journal cannot be read at start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file system refused.
    #[error("open the command journal")]
    Io(#[from] io::Error),
}

/// Reads the journal, cuts a torn tail, and starts a new one where there is none or it is damaged.
///
/// # Errors
/// [`OpenError::Io`] when it cannot be read. That it cannot be written is found at the first write.
pub fn open(storage: &mut dyn Storage) -> Result<Journal, OpenError> {
    let content = storage.load()?;
    match replay(&content) {
        Ok(replayed) => {
            repair_end(storage, &content, replayed.whole_bytes)?;
            Ok(replayed.journal)
        }
        Err(damage) => {
            let at = match damage {
                Damage::Header => 0,
                Damage::Frame { at } => at,
            };
            tracing::error!(journal.damaged_at = at, "the command journal is damaged; a new one begins");
            let renewed = storage.set_aside().and_then(|()| storage.replace(HEADER));
            report(renewed);
            Ok(Journal::default())
        }
    }
}

fn repair_end(storage: &mut dyn Storage, content: &[u8], whole_bytes: u64) -> io::Result<()> {
    let repaired = if whole_bytes == 0 {
        storage.replace(HEADER)
    } else if whole_bytes < content.len() as u64 {
        tracing::warn!(journal.cut_bytes = content.len() as u64 - whole_bytes, "a torn journal tail was cut");
        storage.truncate(whole_bytes)
    } else {
        Ok(())
    };
    report(repaired);
    Ok(())
}

/// A disk that cannot be written shows again at the first effect, which is then refused.
fn report(result: io::Result<()>) {
    if let Err(error) = result {
        tracing::warn!(error.kind = ?error.kind(), "the command journal cannot be written");
    }
}

/// What the writer is asked to do.
pub enum Write {
    /// Append frames; the token is told when they are durable.
    Append {
        /// Whole frames.
        frames: Vec<u8>,
        /// Who waits.
        token: WriteToken,
    },
    /// Replace the journal by a fresh one that says what matters.
    Rewrite {
        /// The whole content.
        content: Vec<u8>,
        /// Who waits.
        token: WriteToken,
    },
}

/// What became of a group of writes.
#[derive(Debug)]
pub struct Written {
    /// Who waited.
    pub tokens: Vec<WriteToken>,
    /// Whether it is durable.
    pub durable: bool,
}

/// The sending half of the journal's task. Order is kept.
#[derive(Clone, Debug)]
pub struct JournalWriter {
    tx: mpsc::Sender<Write>,
}

impl JournalWriter {
    /// Starts the task that owns the file; `told` hears of every write, in order.
    pub fn start(storage: Box<dyn Storage>, told: mpsc::Sender<Written>, shutdown: &Shutdown) -> Self {
        let (tx, rx) = mpsc::channel(JOURNAL_QUEUE_MAX);
        shutdown.spawn(run(storage, rx, told));
        Self { tx }
    }

    /// Hands a write over. False when too many wait, which counts as a disk that cannot be written.
    #[must_use]
    pub fn send(&self, write: Write) -> bool {
        self.tx.try_send(write).is_ok()
    }
}

async fn run(mut storage: Box<dyn Storage>, mut rx: mpsc::Receiver<Write>, told: mpsc::Sender<Written>) {
    let mut batch = Vec::new();
    while rx.recv_many(&mut batch, JOURNAL_COMMIT_RECORDS_MAX).await > 0 {
        let writes = std::mem::take(&mut batch);
        let committed = tokio::task::spawn_blocking(move || {
            let groups = commit(storage.as_mut(), writes);
            (storage, groups)
        });
        let Ok((returned, groups)) = committed.await else {
            tracing::error!("the journal writer failed");
            return;
        };
        storage = returned;
        for written in groups {
            if told.send(written).await.is_err() {
                return;
            }
        }
    }
}

fn commit(storage: &mut dyn Storage, writes: Vec<Write>) -> Vec<Written> {
    let mut groups = Vec::new();
    let mut frames = Vec::new();
    let mut tokens = Vec::new();
    for write in writes {
        match write {
            Write::Append { frames: more, token } => {
                frames.extend(more);
                tokens.push(token);
            }
            Write::Rewrite { content, token } => {
                append(storage, &mut frames, &mut tokens, &mut groups);
                let durable = told_durable(storage.replace(&content));
                groups.push(Written { tokens: vec![token], durable });
            }
        }
    }
    append(storage, &mut frames, &mut tokens, &mut groups);
    groups
}

fn append(storage: &mut dyn Storage, frames: &mut Vec<u8>, tokens: &mut Vec<WriteToken>, groups: &mut Vec<Written>) {
    if tokens.is_empty() {
        return;
    }
    let durable = told_durable(storage.append(frames));
    frames.clear();
    groups.push(Written { tokens: std::mem::take(tokens), durable });
}

fn told_durable(result: io::Result<()>) -> bool {
    let durable = result.is_ok();
    report(result);
    durable
}

#[cfg(test)]
mod tests;
