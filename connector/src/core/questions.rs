//! Questions of Codex: shown to every session, answered once.

use std::collections::BTreeMap;

use bytes::Bytes;
use flydex_agent_proto::v1 as agent;
use flydex_agent_proto::v1::agent_event::Kind as EventKind;
use flydex_domain::approval::ApprovalSource;
use flydex_domain::command::Outcome;
use flydex_domain::error::ErrorCode;
use flydex_domain::id::{ApprovalId, Generation};
use flydex_domain::journal::Key;
use flydex_domain::limits::{APPROVALS_OPEN_MAX, EVENT_BODY_BYTES_MAX};
use prost::Message as _;

use super::Core;
use super::effects::Act;
use super::port::CodexPort;
use super::receipt::{Answer, Asked};
use crate::codex::{AnswerOutcome, AskedQuestion, RequestKey, Resolution};

/// The questions that are open.
#[derive(Default)]
pub(super) struct Questions {
    open: BTreeMap<ApprovalId, Entry>,
}

struct Entry {
    key: RequestKey,
    shown: agent::Question,
    taken: bool,
}

impl Questions {
    /// What is shown as open.
    pub(super) fn open(&self) -> Vec<agent::Question> {
        self.open.values().map(|entry| entry.shown.clone()).collect()
    }

    pub(super) fn take_back(&mut self, question_id: &ApprovalId) {
        if let Some(entry) = self.open.get_mut(question_id) {
            entry.taken = false;
        }
    }
}

impl<P: CodexPort> Core<P> {
    pub(super) fn question_asked(&mut self, asked: AskedQuestion) {
        let thread_id = asked.thread_id.to_string();
        let source = ApprovalSource {
            generation: asked.key.generation,
            request_id: &asked.key.request_id,
            thread_id: &thread_id,
            turn_id: &asked.turn_id,
            item_id: &asked.item_id,
            started_at_ms: asked.started_at_ms,
            renewal: 0,
        };
        let question_id = source.approval_id();
        let shown = agent::Question {
            question_id: Bytes::copy_from_slice(question_id.as_bytes()),
            generation: Bytes::copy_from_slice(asked.key.generation.as_bytes()),
            thread_id,
            turn_id: asked.turn_id,
            item_id: asked.item_id,
            parts: asked.parts,
            desk_only: asked.desk_only,
            opened_at_ms: asked.opened_at.0,
        };
        let is_full = self.questions.open.len() >= APPROVALS_OPEN_MAX;
        if is_full || shown.encoded_len() > EVENT_BODY_BYTES_MAX / 2 {
            tracing::warn!("a question of codex waits for the desk alone");
            return;
        }
        let entry = Entry { key: asked.key, shown: shown.clone(), taken: false };
        if self.questions.open.insert(question_id, entry).is_none() {
            self.machine_event(EventKind::QuestionOpened(shown));
        }
    }

    pub(super) fn question_resolved(&mut self, key: &RequestKey, how: Resolution) {
        let found = self.questions.open.iter().find(|(_, entry)| entry.key == *key);
        let Some(question_id) = found.map(|(question_id, _)| *question_id) else { return };
        self.close_question(question_id, how == Resolution::AtDesk);
    }

    pub(super) fn end_lost_questions(&mut self) {
        let Some(generation) = self.generation() else { return };
        let lost = self.questions.open.iter().filter(|(_, entry)| entry.key.generation != generation);
        for question_id in lost.map(|(question_id, _)| *question_id).collect::<Vec<_>>() {
            self.close_question(question_id, false);
        }
    }

    fn close_question(&mut self, question_id: ApprovalId, answered_at_desk: bool) {
        if self.questions.open.remove(&question_id).is_some() {
            let question_id = Bytes::copy_from_slice(question_id.as_bytes());
            self.machine_event(EventKind::QuestionClosed(agent::QuestionClosed { question_id, answered_at_desk }));
        }
    }

    pub(super) fn answer_question(&mut self, asked: Asked, answer: agent::AnswerQuestion) {
        match self.answerable(&answer) {
            Ok((question_id, key)) => {
                let act = Act::AnswerQuestion { question_id, key, answers: answer.answers };
                self.begin(asked, false, act);
            }
            Err(code) => self.refuse(asked, code, Answer::default()),
        }
    }

    fn answerable(&mut self, answer: &agent::AnswerQuestion) -> Result<(ApprovalId, RequestKey), ErrorCode> {
        let question_id = ApprovalId::try_from(answer.question_id.as_ref()).map_err(|_| ErrorCode::BadRequest)?;
        let generation = Generation::try_from(answer.generation.as_ref()).map_err(|_| ErrorCode::BadRequest)?;
        if Some(generation) != self.generation() {
            return Err(ErrorCode::GenerationMismatch);
        }
        let entry = self.questions.open.get_mut(&question_id).ok_or(ErrorCode::ApprovalNotFound)?;
        if entry.shown.desk_only {
            return Err(ErrorCode::DeskOnly);
        }
        if std::mem::replace(&mut entry.taken, true) {
            return Err(ErrorCode::AlreadyAnswered);
        }
        Ok((question_id, entry.key.clone()))
    }

    pub(super) fn question_answered(&mut self, key: Key, question_id: ApprovalId, outcome: AnswerOutcome) {
        let Some(in_flight) = self.in_flight.get(&key) else { return };
        let asked = in_flight.asked;
        let (outcome, at_desk) = match outcome {
            AnswerOutcome::Confirmed => (Outcome::Executed, false),
            AnswerOutcome::AnsweredAtDesk => (Outcome::Refused(ErrorCode::AlreadyAnswered), true),
            AnswerOutcome::Gone => (Outcome::Refused(ErrorCode::ApprovalWithdrawn), false),
            AnswerOutcome::Unknown => (Outcome::Unknown, false),
        };
        self.close_question(question_id, at_desk);
        self.finish(asked, outcome, Answer::default());
    }
}
