//! Requests of Codex: told as approvals and questions, answered once, and what became of the answers.

use flydex_domain::time::UnixMillis;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::super::api::{AnswerOutcome, AskedApproval, AskedQuestion, CodexEvent, RequestKey, ThreadId};
use super::super::approvals::{self, Answer, Ask, Effect};
use super::super::json::text;
use super::super::methods::Method;
use super::super::order::reply_with;
use super::{Life, Then};

impl Life {
    pub(super) fn requested(&mut self, id: Value, method: &str, params: &Value) {
        let request_id = id.to_string();
        if self.table.contains(&request_id) {
            return;
        }
        let thread_id = text(params, "threadId").parse::<ThreadId>();
        let Ok(thread_id) = thread_id else { return };
        let changes = self.followed.get(&thread_id).and_then(|followed| {
            let turn_id = text(params, "turnId");
            followed.view.changes(turn_id, text(params, "itemId"))
        });
        let whole = changes.filter(|(_, cut)| !cut).map(|(changes, _)| changes);
        let Some((asking, ask)) = approvals::read(id, method, params, whole) else {
            tracing::debug!("a request of codex is left to the desk");
            return;
        };
        let key = self.table.key(&request_id);
        let opened_at = UnixMillis(self.clock.unix_millis());
        let (turn_id, item_id, started_at_ms) = (asking.turn_id.clone(), asking.item_id.clone(), asking.started_at_ms);
        if !self.table.insert(&request_id, asking) {
            tracing::warn!("codex has too many requests open");
            return;
        }
        self.told.push(match ask {
            Ask::Approval { action, risk_high, session_scope, desk_only } => CodexEvent::ApprovalAsked(AskedApproval {
                key,
                thread_id,
                turn_id,
                item_id,
                started_at_ms,
                opened_at,
                action,
                risk_high,
                session_scope_possible: session_scope,
                desk_only,
            }),
            Ask::Questions { parts, desk_only } => CodexEvent::QuestionAsked(AskedQuestion {
                key,
                thread_id,
                turn_id,
                item_id,
                started_at_ms,
                opened_at,
                parts,
                desk_only,
            }),
        });
    }

    pub(super) fn write_answer(&mut self, key: &RequestKey, answer: Answer, reply: oneshot::Sender<AnswerOutcome>) {
        let interrupts = self
            .table
            .interrupts(key, &answer)
            .map(|(thread_id, turn_id)| json!({"threadId": thread_id, "turnId": turn_id}));
        let Some((message, waiter)) = self.table.answer(key, answer, self.clock.instant()) else {
            reply_with(reply, AnswerOutcome::Gone);
            return;
        };
        self.waiters.insert(waiter, reply);
        if self.client.write_now(message.to_string()).is_err() {
            self.broken = true;
        } else if let Some(params) = interrupts {
            self.ask(Method::TurnInterrupt, params, Then::Nothing);
        }
    }

    pub(super) fn apply(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Settle(waiter, outcome) => {
                    if let Some(reply) = self.waiters.remove(&waiter) {
                        reply_with(reply, outcome);
                    }
                }
                Effect::Resolved(key, how) => self.told.push(CodexEvent::RequestResolved { key, how }),
            }
        }
    }
}
