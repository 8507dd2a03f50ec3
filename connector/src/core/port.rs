//! Codex as the core needs it: the handle behind a trait, so that tests script Codex.

use std::future::Future;

use flydex_agent_proto::v1;
use flydex_agent_proto::v1::command_body;
use flydex_domain::command::Decision;
use flydex_domain::id::CommandId;

use crate::codex::{AnswerOutcome, CodexHandle, CodexStatus, Refused, RequestKey, ThreadId, TurnId, WatchId};

/// What the core asks of Codex. Each method is [`CodexHandle`]'s of the same name.
pub trait CodexPort: Clone + Send + Sync + 'static {
    /// The current status.
    fn current(&self) -> CodexStatus;

    /// Does a read or an effect.
    fn execute(
        &self,
        command_id: CommandId,
        body: command_body::Kind,
    ) -> impl Future<Output = Result<v1::CommandResult, Refused>> + Send;

    /// Follows a thread; the snapshot comes as an event.
    fn watch(&self, thread_id: ThreadId, watch_id: WatchId) -> impl Future<Output = Result<(), Refused>> + Send;

    /// Nobody watches the thread any more.
    fn unwatch(&self, thread_id: ThreadId) -> impl Future<Output = ()> + Send;

    /// Writes an answer and waits for Codex's confirmation.
    fn answer_approval(&self, key: RequestKey, decision: Decision) -> impl Future<Output = AnswerOutcome> + Send;

    /// Writes answers and waits for Codex's confirmation.
    fn answer_question(
        &self,
        key: RequestKey,
        answers: Vec<v1::QuestionAnswer>,
    ) -> impl Future<Output = AnswerOutcome> + Send;

    /// Looks for proof that a prompt arrived.
    fn find_client_id(
        &self,
        thread_id: ThreadId,
        command_id: CommandId,
    ) -> impl Future<Output = Result<Option<TurnId>, Refused>> + Send;
}

impl CodexPort for CodexHandle {
    fn current(&self) -> CodexStatus {
        self.status().borrow().clone()
    }

    async fn execute(&self, command_id: CommandId, body: command_body::Kind) -> Result<v1::CommandResult, Refused> {
        Self::execute(self, command_id, body).await
    }

    async fn watch(&self, thread_id: ThreadId, watch_id: WatchId) -> Result<(), Refused> {
        Self::watch(self, &thread_id, watch_id).await
    }

    async fn unwatch(&self, thread_id: ThreadId) {
        Self::unwatch(self, &thread_id).await;
    }

    async fn answer_approval(&self, key: RequestKey, decision: Decision) -> AnswerOutcome {
        Self::answer_approval(self, &key, decision).await
    }

    async fn answer_question(&self, key: RequestKey, answers: Vec<v1::QuestionAnswer>) -> AnswerOutcome {
        Self::answer_question(self, &key, answers).await
    }

    async fn find_client_id(&self, thread_id: ThreadId, command_id: CommandId) -> Result<Option<TurnId>, Refused> {
        Self::find_client_id(self, &thread_id, command_id).await
    }
}
