//! What the core writes into the audit spool, before and after it acts.

use flydex_domain::audit::{AuditKind, AuditOutcome};
use flydex_domain::command::{ApprovalAnswer, CommandKind, Outcome};
use flydex_domain::id::{ApprovalId, AuditId, Generation};

use super::Core;
use super::port::CodexPort;
use super::receipt::Asked;
use crate::spool::SpoolRecord;

impl<P: CodexPort> Core<P> {
    /// The record of an accept that control has not confirmed; durable before the accept acts.
    pub(super) fn intent(&self, asked: &Asked, answer: ApprovalAnswer) -> SpoolRecord {
        let outcome = AuditOutcome::Unknown.name().to_owned();
        SpoolRecord { deferred: true, ..self.record(AuditKind::ApprovalIntent, asked, Some(answer), outcome) }
    }

    /// Records what became of an effect. Nothing waits for it.
    pub(super) fn audit_after(&self, asked: &Asked, outcome: Outcome) {
        let kind = match (asked.kind == CommandKind::AnswerApproval, outcome) {
            (true, _) => AuditKind::ApprovalAnswered,
            (false, Outcome::Executed | Outcome::Unknown) => AuditKind::CommandExecuted,
            (false, Outcome::Refused(_)) => return,
        };
        let (name, code) = match outcome {
            Outcome::Executed => (AuditOutcome::Executed, None),
            Outcome::Refused(code) => (AuditOutcome::Refused, Some(code.name().to_owned())),
            Outcome::Unknown => (AuditOutcome::Unknown, None),
        };
        self.keep_record(SpoolRecord { code, ..self.record(kind, asked, asked.answer, name.name().to_owned()) });
    }

    /// Records that a person at the machine answered; Codex does not tell what.
    pub(super) fn audit_desk_answer(&self, approval_id: ApprovalId, generation: Generation) {
        self.keep_record(SpoolRecord {
            audit_id: self.next_audit_id(),
            kind: AuditKind::ApprovalAnswered,
            at_ms: self.now(),
            device_id: None,
            approval_id: Some(approval_id),
            generation: Some(generation),
            command_id: None,
            command_hash: None,
            decision: None,
            outcome: AuditOutcome::Executed.name().to_owned(),
            code: None,
            deferred: false,
        });
    }

    fn keep_record(&self, record: SpoolRecord) {
        let spool = self.spool.clone();
        self.shutdown.spawn(async move {
            let appended = tokio::task::spawn_blocking(move || spool.append(record)).await;
            if !matches!(appended, Ok(Ok(()))) {
                tracing::error!("an audit record could not be kept");
            }
        });
    }

    fn record(&self, kind: AuditKind, asked: &Asked, answer: Option<ApprovalAnswer>, outcome: String) -> SpoolRecord {
        SpoolRecord {
            audit_id: self.next_audit_id(),
            kind,
            at_ms: self.now(),
            device_id: Some(asked.key.0),
            approval_id: answer.map(|answer| answer.approval_id),
            generation: answer.map(|answer| answer.generation),
            command_id: Some(asked.key.1),
            command_hash: Some(asked.hash),
            decision: answer.map(|answer| answer.decision.name().to_owned()),
            outcome,
            code: None,
            deferred: false,
        }
    }

    fn next_audit_id(&self) -> AuditId {
        AuditId::from_uuid(uuid::Builder::from_random_bytes(self.entropy.bytes()).into_uuid())
    }
}
