//! Large answers on their way to sessions, in chunks, within each session's credit and the link's room.

use std::collections::VecDeque;

use bytes::Bytes;
use flydex_domain::id::{CommandId, SessionId};
use flydex_domain::limits::{BULK_CHUNK_BYTES_MAX, BULK_TRANSFERS_BYTES_MAX, BULK_WINDOW_BYTES};

/// The answers that are under way, served in turn.
#[derive(Default)]
pub(super) struct Bulk {
    transfers: VecDeque<Transfer>,
    bytes: usize,
}

struct Transfer {
    session_id: SessionId,
    command_id: CommandId,
    content: Bytes,
    sent: usize,
    allowed: usize,
}

/// One chunk to send.
pub(super) struct Chunk {
    pub(super) session_id: SessionId,
    pub(super) command_id: CommandId,
    pub(super) offset: u32,
    pub(super) bytes: Bytes,
}

impl Bulk {
    /// Takes an answer on. False when too much is under way already.
    #[must_use]
    pub(super) fn start(&mut self, session_id: SessionId, command_id: CommandId, content: Bytes) -> bool {
        if self.bytes + content.len() > BULK_TRANSFERS_BYTES_MAX {
            return false;
        }
        self.bytes += content.len();
        let allowed = BULK_WINDOW_BYTES as usize;
        self.transfers.push_back(Transfer { session_id, command_id, content, sent: 0, allowed });
        true
    }

    /// A device has consumed some of an answer.
    pub(super) fn credit(&mut self, session_id: SessionId, command_id: CommandId, bytes: u32) {
        for transfer in &mut self.transfers {
            if transfer.session_id == session_id && transfer.command_id == command_id {
                transfer.allowed = transfer.allowed.saturating_add(bytes as usize);
            }
        }
    }

    /// Forgets what a session would have got.
    pub(super) fn end_session(&mut self, session_id: SessionId) {
        self.transfers.retain(|transfer| transfer.session_id != session_id);
        self.bytes = self.transfers.iter().map(|transfer| transfer.content.len()).sum();
    }

    /// Forgets everything, with the link.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Whether nothing is under way.
    pub(super) fn is_empty(&self) -> bool {
        self.transfers.is_empty()
    }

    /// The next chunk of the next answer that has credit.
    pub(super) fn next(&mut self) -> Option<Chunk> {
        let index = self.transfers.iter().position(|transfer| transfer.sent < transfer.allowed)?;
        let mut transfer = self.transfers.remove(index)?;
        let end = transfer.content.len().min(transfer.sent + BULK_CHUNK_BYTES_MAX).min(transfer.allowed);
        let chunk = Chunk {
            session_id: transfer.session_id,
            command_id: transfer.command_id,
            offset: u32::try_from(transfer.sent).unwrap_or(u32::MAX),
            bytes: transfer.content.slice(transfer.sent..end),
        };
        transfer.sent = end;
        if end < transfer.content.len() {
            self.transfers.push_back(transfer);
        } else {
            self.bytes -= transfer.content.len();
        }
        Some(chunk)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn session(number: u128) -> SessionId {
        SessionId::from_uuid(Uuid::from_u128(number))
    }

    fn command(number: u128) -> CommandId {
        CommandId::from_uuid(Uuid::from_u128(number))
    }

    #[test]
    fn answers_take_turns_and_stop_at_their_credit() {
        let mut bulk = Bulk::default();
        let window = BULK_WINDOW_BYTES as usize;
        assert!(bulk.start(session(1), command(1), Bytes::from(vec![1; window + 10])));
        assert!(bulk.start(session(2), command(2), Bytes::from(vec![2; 20])));
        let mut got = vec![(bulk.next().unwrap().session_id, 0)];
        let second = bulk.next().unwrap();
        assert_eq!((second.session_id, second.offset, second.bytes.len()), (session(2), 0, 20));
        while let Some(chunk) = bulk.next() {
            got.push((chunk.session_id, chunk.offset));
        }
        assert_eq!(got.len(), window / BULK_CHUNK_BYTES_MAX);
        bulk.credit(session(2), command(1), 10);
        assert!(bulk.next().is_none(), "another session's credit counts for nothing");
        bulk.credit(session(1), command(1), 10);
        let last = bulk.next().unwrap();
        assert_eq!((last.offset as usize, last.bytes.len()), (window, 10));
        assert!(bulk.is_empty() && bulk.bytes == 0);
    }

    #[test]
    fn too_much_under_way_is_refused_and_a_session_frees_its_share() {
        let mut bulk = Bulk::default();
        let page = Bytes::from(vec![0; 256 * 1024]);
        while bulk.start(session(1), command(1), page.clone()) {}
        assert!(bulk.bytes <= BULK_TRANSFERS_BYTES_MAX);
        bulk.end_session(session(1));
        assert!(bulk.start(session(2), command(1), page));
    }
}
