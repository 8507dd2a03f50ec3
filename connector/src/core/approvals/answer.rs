//! A device answers an approval: admitted, audited, taken once, and told what became of it (INV-APPROVE).

use flydex_agent_proto::v1 as agent;
use flydex_agent_proto::v1::command_result::Kind as ResultKind;
use flydex_domain::command::{ApprovalAnswer, Outcome, SignedCommand};
use flydex_domain::error::ErrorCode;
use flydex_domain::gate::approval::{Accept, Answer as GateAnswer, Answered, Audit, End, State, admit, audit};
use flydex_domain::gate::only_stops;
use flydex_domain::id::ApprovalId;
use flydex_domain::journal::Key;
use flydex_domain::stream::StreamId;

use crate::codex::AnswerOutcome;
use crate::core::command::InFlight;
use crate::core::effects::Act;
use crate::core::port::CodexPort;
use crate::core::receipt::{Answer, Asked};
use crate::core::{Core, Done};

impl<P: CodexPort> Core<P> {
    pub(in crate::core) fn answer_approval(
        &mut self,
        asked: Asked,
        command: &SignedCommand,
        body: &agent::AnswerApproval,
    ) {
        let Some(header) = command.header.answer else {
            return self.refuse(asked, ErrorCode::BadRequest, Answer::default());
        };
        let approval_id = header.approval_id;
        let now = self.now();
        let approval = self.approvals.entries.get(&approval_id).map(|entry| &entry.approval);
        let answer = GateAnswer { header, digest: &body.digest };
        if let Err(code) = admit(approval, self.generation(), &answer, now) {
            return self.refuse(asked, code, self.who_was_first(approval_id));
        }
        let demanded = approval.is_some_and(|approval| approval.passkey_required) && header.decision.is_accept();
        if demanded && let Err(code) = self.person_agrees(&asked, command) {
            return self.refuse(asked, code, Answer::default());
        }
        let audited = {
            let verifier = self.paired.verifier.borrow();
            let accept = self.accept(&asked, header);
            let token = command.audit_receipt.as_deref();
            audit(header.decision, &accept, token, &verifier, self.is_strict(), now)
        };
        let audited = match audited {
            Ok(audited) => audited,
            Err(code) => return self.refuse(asked, code, Answer::default()),
        };
        let Some(entry) = self.approvals.entries.get_mut(&approval_id) else { return };
        let answered = Answered { device_id: asked.key.0, decision: header.decision, at: now };
        entry.approval.state = State::Taken(answered);
        entry.answer = Some(asked);
        let act = Act::AnswerApproval { approval_id, key: entry.asked.key.clone(), decision: header.decision };
        match audited {
            Audit::Recorded | Audit::After => self.begin(asked, only_stops(&command.header), act),
            Audit::RecordFirst => self.record_first(asked, header, act),
        }
    }

    fn accept(&self, asked: &Asked, header: ApprovalAnswer) -> Accept {
        Accept {
            account_id: self.paired.account_id,
            machine_id: self.paired.machine_id,
            device_id: asked.key.0,
            approval_id: header.approval_id,
            generation: header.generation,
            command_id: asked.key.1,
            command_hash: asked.hash,
        }
    }

    /// The audit record of an accept is durable, or cannot be made so.
    pub(in crate::core) fn recorded_first(&mut self, asked: Asked, act: Act, durable: bool) {
        // The disk may have taken longer than the approval had left.
        let refused = match durable {
            true => self.is_over(&act).then_some(ErrorCode::ApprovalExpired),
            false => Some(ErrorCode::AuditUnavailable),
        };
        let Some(code) = refused else { return self.begin(self.newest(asked), false, act) };
        self.take_back(&act);
        self.in_flight.remove(&asked.key);
        self.refuse(asked, code, Answer::default());
    }

    fn is_over(&self, act: &Act) -> bool {
        let now = self.now();
        match act {
            Act::AnswerApproval { approval_id, .. } => {
                self.approvals.entries.get(approval_id).is_none_or(|entry| now >= entry.approval.binding.expires_at)
            }
            Act::AnswerQuestion { .. } | Act::Execute(_) | Act::Devices(_) => false,
        }
    }

    /// An answer that was taken will not be given: the approval is open again.
    pub(in crate::core) fn take_back(&mut self, act: &Act) {
        match act {
            Act::AnswerApproval { approval_id, .. } => {
                let Some(entry) = self.approvals.entries.get_mut(approval_id) else { return };
                let State::Taken(_) = entry.approval.state else { return };
                entry.approval.state = State::Open;
                entry.answer = None;
                // Codex may have taken it back meanwhile.
                if self.approvals.by_key.get(&entry.asked.key) != Some(approval_id) {
                    self.close_approval(*approval_id, End::Withdrawn);
                }
            }
            Act::AnswerQuestion { question_id, .. } => self.questions.take_back(question_id),
            Act::Execute(_) | Act::Devices(_) => {}
        }
    }

    /// What became of the answer at Codex.
    pub(in crate::core) fn approval_answered(&mut self, key: Key, approval_id: ApprovalId, outcome: AnswerOutcome) {
        let Some(in_flight) = self.in_flight.get(&key) else { return };
        let asked = in_flight.asked;
        let taken = self.approvals.entries.get(&approval_id).map(|entry| entry.approval.state);
        let Some(State::Taken(answered)) = taken else {
            return self.finish(asked, Outcome::Unknown, Answer::default());
        };
        let (end, outcome) = match outcome {
            AnswerOutcome::Confirmed => (End::Answered(answered), Outcome::Executed),
            AnswerOutcome::AnsweredAtDesk => (End::AtDesk, Outcome::Refused(ErrorCode::AlreadyAnswered)),
            AnswerOutcome::Gone => (End::Withdrawn, Outcome::Refused(ErrorCode::ApprovalWithdrawn)),
            AnswerOutcome::Unknown => (End::Unknown(answered), Outcome::Unknown),
        };
        self.close_approval(approval_id, end);
        let answer = match outcome {
            Outcome::Executed | Outcome::Unknown => self.settled_approval(approval_id),
            Outcome::Refused(_) => self.who_was_first(approval_id),
        };
        let as_of = self.rings.position(StreamId::MACHINE);
        self.finish(asked, outcome, answer.at(as_of));
    }

    fn settled_approval(&self, approval_id: ApprovalId) -> Answer {
        let settled = agent::ApprovalSettled { closed: self.closed(approval_id) };
        Answer::of(ResultKind::ApprovalSettled(settled))
    }

    /// Codex confirmed after all: proof takes the place of `unknown`, once.
    pub(super) fn supersede_unknown(&mut self, approval_id: ApprovalId, answered: Answered) {
        let asked = self.approvals.entries.get_mut(&approval_id).and_then(|entry| entry.answer.take());
        self.close_approval(approval_id, End::Answered(answered));
        if let Some(asked) = asked {
            let answer = self.settled_approval(approval_id);
            self.finish(asked, Outcome::Executed, answer);
        }
    }

    fn record_first(&mut self, asked: Asked, header: ApprovalAnswer, act: Act) {
        let record = self.intent(&asked, header);
        self.in_flight.insert(asked.key, InFlight::new(asked, None));
        let spool = self.spool.clone();
        self.spawn(async move {
            let appended = tokio::task::spawn_blocking(move || spool.append(record)).await;
            Done::RecordedFirst(asked, Box::new(act), matches!(appended, Ok(Ok(()))))
        });
    }
}
