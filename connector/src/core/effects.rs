//! Effects: journalled before they act, settled before their outcome is told (INV-ONCE, INV-FINAL).

use flydex_agent_proto::v1 as agent;
use flydex_agent_proto::v1::command_body::Kind as Body;
use flydex_agent_proto::v1::command_result::Kind as ResultKind;
use flydex_domain::command::{CommandClass, Decision, Outcome};
use flydex_domain::error::ErrorCode;
use flydex_domain::gate::Known;
use flydex_domain::id::ApprovalId;
use flydex_domain::invariant::{begins, settles};
use flydex_domain::journal::{Begun, Record, Settled, encode};
use flydex_domain::limits::JOURNAL_RETRY_AFTER;
use flydex_domain::stream::StreamId;

use super::command::InFlight;
use super::devices::DeviceChange;
use super::kind::{kept, thread_of};
use super::port::CodexPort;
use super::receipt::{Answer, Asked};
use super::{Core, Done};
use crate::codex::RequestKey;
use crate::journal::{Write, Written};

/// What an effect does once it is journalled.
pub(super) enum Act {
    /// Ask Codex.
    Execute(Body),
    /// Answer an approval.
    AnswerApproval { approval_id: ApprovalId, key: RequestKey, decision: Decision },
    /// Answer questions.
    AnswerQuestion { question_id: ApprovalId, key: RequestKey, answers: Vec<agent::QuestionAnswer> },
    /// Change the device list.
    Devices(Box<DeviceChange>),
}

/// What goes on when a record is durable.
pub(super) enum Waiting {
    Begin { asked: Asked, only_stops: bool, act: Act },
    Settle { asked: Asked, outcome: Outcome, answer: Answer },
    Rewrite,
    Nobody,
}

impl<P: CodexPort> Core<P> {
    /// Journals an effect; it acts once that is durable. What only stops something never waits for a journal.
    pub(super) fn begin(&mut self, asked: Asked, only_stops: bool, act: Act) {
        let thread_id = match &act {
            Act::Execute(body) => thread_of(body),
            Act::AnswerApproval { .. } | Act::AnswerQuestion { .. } | Act::Devices(_) => String::new(),
        };
        let record = Record::Begun(Begun {
            key: asked.key,
            hash: asked.hash,
            kind: asked.kind,
            issued_at: asked.issued_at,
            at: self.now(),
            thread_id,
        });
        debug_assert_eq!(begins(self.journal.get(&asked.key).is_some()), Ok(()));
        self.journal.record(&record);
        let as_of = self.rings.position(StreamId::MACHINE);
        let in_flight = self.in_flight.entry(asked.key).or_insert_with(|| InFlight::new(asked, as_of));
        // An accept that was recorded first is in flight already, and its span stays open.
        (in_flight.asked, in_flight.as_of) = (asked, as_of);
        let waiting = Waiting::Begin { asked, only_stops, act };
        self.write(&record, waiting);
    }

    /// Hands a record to the journal; `waiting` goes on when it is durable, or known not to be.
    pub(super) fn write(&mut self, record: &Record, waiting: Waiting) {
        let token = self.next_number();
        if self.journal_writable && self.writer.send(Write::Append { frames: encode(record), token }) {
            self.waiting.insert(token, waiting);
        } else {
            self.written(waiting, false);
        }
    }

    /// A record is durable, or will not be.
    pub(super) fn written(&mut self, waiting: Waiting, durable: bool) {
        match waiting {
            Waiting::Begin { asked, only_stops, act } => {
                let barred = if durable { self.barred(asked.key.0) } else { Some(ErrorCode::JournalUnavailable) };
                if let Some(code) = barred.filter(|_| !only_stops) {
                    self.take_back(&act);
                    self.finish(asked, Outcome::Refused(code), Answer::default());
                } else {
                    self.send_delivered(&self.newest(asked));
                    self.act(asked, act);
                }
            }
            Waiting::Settle { asked, outcome, answer } => self.send_receipt(&asked, outcome, answer),
            Waiting::Rewrite => self.set_journal_writable(durable),
            Waiting::Nobody => {}
        }
    }

    pub(super) fn newest(&self, asked: Asked) -> Asked {
        self.in_flight.get(&asked.key).map_or(asked, |in_flight| in_flight.asked)
    }

    fn act(&mut self, asked: Asked, act: Act) {
        let port = self.port.clone();
        match act {
            Act::Execute(body) => self.execute(asked.key, body),
            Act::AnswerApproval { approval_id, key, decision } => self.spawn(async move {
                Done::ApprovalAnswered(asked.key, approval_id, port.answer_approval(key, decision).await)
            }),
            Act::AnswerQuestion { question_id, key, answers } => self.spawn(async move {
                Done::QuestionAnswered(asked.key, question_id, port.answer_question(key, answers).await)
            }),
            Act::Devices(change) => self.spawn(async move { Done::Devices(asked.key, change) }),
        }
    }

    /// A final refusal of something that was not begun.
    pub(super) fn refuse(&mut self, asked: Asked, code: ErrorCode, answer: Answer) {
        match asked.kind.class() {
            CommandClass::Read => {
                self.reads.begin(asked.key, asked.hash);
                self.reads.settle(asked.key, Outcome::Refused(code));
            }
            CommandClass::Effect => {
                let outcome = Outcome::Refused(code);
                let record = self.settled(&asked, outcome, kept(asked.kind, outcome, &answer.result));
                self.journal.record(&record);
                // Within this life memory holds it, and in the next one an older boot is answered `unknown`.
                self.write(&record, Waiting::Nobody);
            }
        }
        self.send_receipt(&asked, Outcome::Refused(code), answer);
    }

    /// The outcome of a command that was under way. An effect's is durable before it is told.
    pub(super) fn finish(&mut self, asked: Asked, outcome: Outcome, answer: Answer) {
        let asked = self.newest(asked);
        self.in_flight.remove(&asked.key);
        match asked.kind.class() {
            CommandClass::Read => {
                self.reads.settle(asked.key, outcome);
                self.send_receipt(&asked, outcome, answer);
            }
            CommandClass::Effect => {
                let ids = kept(asked.kind, outcome, &answer.result);
                let record = self.settled(&asked, outcome, ids);
                debug_assert_eq!(settles(self.settled_as(&asked), outcome), Ok(()));
                self.journal.record(&record);
                self.audit_after(&asked, outcome);
                self.write(&record, Waiting::Settle { asked, outcome, answer });
            }
        }
    }

    /// What the journal has said of it so far.
    fn settled_as(&self, asked: &Asked) -> Option<Outcome> {
        let remembered = self.journal.get(&asked.key)?.remembered();
        if let Known::Settled(outcome) = remembered.state { Some(outcome) } else { None }
    }

    fn settled(&self, asked: &Asked, outcome: Outcome, ids: Vec<u8>) -> Record {
        let (key, hash, issued_at, at) = (asked.key, asked.hash, asked.issued_at, self.now());
        Record::Settled(Settled { key, hash, outcome, issued_at, at, ids })
    }

    // === The journal ===

    pub(super) fn journal_written(&mut self, written: Written) {
        if !written.durable {
            self.set_journal_writable(false);
        }
        for token in written.tokens {
            if let Some(waiting) = self.waiting.remove(&token) {
                self.written(waiting, written.durable);
            }
        }
    }

    fn set_journal_writable(&mut self, writable: bool) {
        if self.journal_writable != writable {
            tracing::warn!(journal.writable = writable, "the command journal changed its state");
        }
        self.journal_writable = writable;
        self.journal_retry_at = (!writable).then(|| self.clock.instant() + JOURNAL_RETRY_AFTER);
        self.publish_status();
    }

    pub(super) fn rewrite_journal(&mut self) {
        let token = self.next_number();
        if self.writer.send(Write::Rewrite { content: self.journal.rewritten(), token }) {
            self.waiting.insert(token, Waiting::Rewrite);
        } else {
            self.set_journal_writable(false);
        }
    }
}

/// A refusal's content.
pub(super) fn refusal(refusal: Option<agent::Refusal>) -> Answer {
    refusal.map_or_else(Answer::default, |refusal| Answer::of(ResultKind::Refusal(refusal)))
}
