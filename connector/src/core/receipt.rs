//! What the core tells sessions: receipts signed with the machine key, progress, failures and chunks.

use bytes::Bytes;
use flydex_agent_proto::v1 as agent;
use flydex_domain::command::{
    ApprovalAnswer, BulkDescriptor, CommandKind, Outcome, Receipt, SignedCommand, receipt_transcript,
};
use flydex_domain::encoding::sha256;
use flydex_domain::error::ErrorCode;
use flydex_domain::id::{CommandHash, SessionId};
use flydex_domain::journal::Key;
use flydex_domain::key::sign;
use flydex_domain::limits::{PAGE_BYTES_MAX, RECEIPT_RESULT_BYTES_MAX};
use flydex_domain::secret::Payload;
use flydex_domain::stream::Position;
use flydex_domain::time::UnixMillis;
use flydex_proto::v1;
use flydex_runtime::telemetry::trace::Traceparent;
use prost::Message as _;

use super::Core;
use super::port::CodexPort;
use super::trace;

/// What a receipt says of the command it is about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) key: Key,
    pub(super) hash: CommandHash,
    pub(super) kind: CommandKind,
    pub(super) issued_at: UnixMillis,
    /// The session that asked last.
    pub(super) session_id: SessionId,
    /// On an answer to an approval.
    pub(super) answer: Option<ApprovalAnswer>,
    /// The trace that the answers carry back.
    pub(super) trace: Option<Traceparent>,
}

impl Asked {
    pub(super) fn of(command: &SignedCommand, session_id: SessionId, trace: Option<Traceparent>) -> Self {
        let header = &command.header;
        Self {
            key: (header.device_id, header.command_id),
            hash: command.hash(),
            kind: header.kind,
            issued_at: header.issued_at,
            session_id,
            answer: header.answer,
            trace,
        }
    }
}

/// The content of an answer.
#[derive(Clone, Default)]
pub(super) struct Answer {
    pub(super) result: Bytes,
    pub(super) as_of: Option<Position>,
}

impl Answer {
    pub(super) fn of(kind: agent::command_result::Kind) -> Self {
        Self { result: agent::CommandResult { kind: Some(kind) }.encode_to_vec().into(), as_of: None }
    }

    pub(super) fn at(self, as_of: Option<Position>) -> Self {
        Self { as_of, ..self }
    }
}

impl<P: CodexPort> Core<P> {
    /// Signs and sends the final word on a command. A large answer follows on the bulk lane.
    pub(super) fn send_receipt(&mut self, asked: &Asked, outcome: Outcome, answer: Answer) {
        let (outcome, result, bulk) = self.place(asked, outcome, answer.result);
        let receipt = Receipt {
            account_id: self.paired.account_id,
            machine_id: self.paired.machine_id,
            device_id: asked.key.0,
            command_id: asked.key.1,
            command_hash: asked.hash,
            outcome,
            boot_id: self.boot_id,
            generation: self.generation(),
            at: self.now(),
            as_of: answer.as_of,
            result: Payload::new(result),
            bulk,
        };
        let bytes = Bytes::from(v1::Receipt::from(&receipt).encode_to_vec());
        let signature = sign(&self.paired.machine_key.borrow(), receipt_transcript(&bytes));
        let signed = v1::SignedReceipt { receipt: bytes, signature: Bytes::copy_from_slice(&signature) };
        self.answer_session(asked, v1::machine_message::Kind::Receipt(signed));
        self.pump_bulk();
    }

    /// Decides how an answer travels.
    fn place(&mut self, asked: &Asked, outcome: Outcome, result: Bytes) -> (Outcome, Bytes, Option<BulkDescriptor>) {
        if result.len() <= RECEIPT_RESULT_BYTES_MAX {
            return (outcome, result, None);
        }
        let descriptor = u32::try_from(result.len()).ok().filter(|_| result.len() <= PAGE_BYTES_MAX);
        let Some(total_bytes) = descriptor else {
            return (Outcome::Refused(ErrorCode::PageTooLarge), Bytes::new(), None);
        };
        let sha256 = sha256(&result);
        if !self.bulk.start(asked.session_id, asked.key.1, result) {
            return (Outcome::Refused(ErrorCode::Overloaded), Bytes::new(), None);
        }
        (outcome, Bytes::new(), Some(BulkDescriptor { total_bytes, sha256 }))
    }

    /// Tells that a command was not taken; not the machine's signed word.
    pub(super) fn send_failure(&self, asked: &Asked, code: ErrorCode) {
        let command_id = Bytes::copy_from_slice(asked.key.1.as_bytes());
        let failure = v1::Failure { code: code.number().into(), command_id, retry_after_ms: 0 };
        self.answer_session(asked, v1::machine_message::Kind::Failure(failure));
    }

    pub(super) fn send_delivered(&self, asked: &Asked) {
        let command_id = Bytes::copy_from_slice(asked.key.1.as_bytes());
        let progress = v1::Progress { command_id, state: v1::ProgressState::Delivered.into() };
        self.answer_session(asked, v1::machine_message::Kind::Progress(progress));
    }

    fn answer_session(&self, asked: &Asked, kind: v1::machine_message::Kind) {
        let message = v1::MachineMessage { trace: asked.trace.map(trace::wire), kind: Some(kind) };
        self.send_to_session(asked.session_id, message);
    }

    pub(super) fn to_session(&self, session_id: SessionId, kind: v1::machine_message::Kind) {
        self.send_to_session(session_id, v1::MachineMessage { trace: None, kind: Some(kind) });
    }

    fn send_to_session(&self, session_id: SessionId, message: v1::MachineMessage) {
        let session_id = Bytes::copy_from_slice(session_id.as_bytes());
        let to_session = v1::ToSession { session_id, message: Some(message) };
        self.to_owner(v1::connector_frame::Kind::ToSession(to_session));
    }

    /// Sends to the owner that has attached; without one there is nobody to tell.
    pub(super) fn to_owner(&self, kind: v1::connector_frame::Kind) {
        let Some(link) = &self.link else { return };
        // A closed outbox tells the core by the link's end.
        let _ = link.outbox.send_frame(v1::ConnectorFrame { epoch: Some(link.epoch.into()), kind: Some(kind) });
    }

    /// Sends chunks while credit and the link have room.
    pub(super) fn pump_bulk(&mut self) {
        let Some(link) = &self.link else {
            self.bulk.clear();
            return;
        };
        let outbox = link.outbox.clone();
        while outbox.has_bulk_room() {
            let Some(chunk) = self.bulk.next() else { return };
            let command_id = Bytes::copy_from_slice(chunk.command_id.as_bytes());
            let message = v1::BulkChunk { command_id, offset: chunk.offset, bytes: chunk.bytes };
            self.to_session(chunk.session_id, v1::machine_message::Kind::Chunk(message));
        }
    }
}
