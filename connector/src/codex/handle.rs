//! The inside of [`super::CodexHandle`].

use flydex_agent_proto::v1::{self, command_body};
use flydex_domain::command::Decision;
use flydex_domain::error::ErrorCode;
use flydex_domain::id::CommandId;
use flydex_domain::limits::CODEX_EVENTS_MAX;
use flydex_runtime::clock::Clock;
use flydex_runtime::lifecycle::Shutdown;
use tokio::sync::{mpsc, watch};

use super::api::{AnswerOutcome, CodexEvent, CodexHandle, CodexStatus, Refused, RequestKey, ThreadId, TurnId, WatchId};
use super::config::CodexConfig;

/// Starts to attach to Codex, and keeps attached until the shutdown.
#[must_use]
pub fn start(config: CodexConfig, clock: Clock, shutdown: Shutdown) -> (CodexHandle, mpsc::Receiver<CodexEvent>) {
    let (status, status_rx) = watch::channel(CodexStatus::Starting);
    let (events, events_rx) = mpsc::channel(CODEX_EVENTS_MAX);
    let _ = (config, clock);
    shutdown.clone().spawn(async move {
        shutdown.soft().cancelled().await;
        drop((status, events));
    });
    (CodexHandle { inner: Inner { status: status_rx } }, events_rx)
}

/// What a handle holds.
#[derive(Clone)]
pub(super) struct Inner {
    status: watch::Receiver<CodexStatus>,
}

impl Inner {
    pub(super) fn status(&self) -> watch::Receiver<CodexStatus> {
        self.status.clone()
    }

    pub(super) async fn execute(
        &self,
        _command_id: CommandId,
        _body: command_body::Kind,
    ) -> Result<v1::CommandResult, Refused> {
        Err(Refused::new(ErrorCode::CodexUnavailable))
    }

    pub(super) async fn watch(&self, _thread_id: ThreadId, _watch_id: WatchId) -> Result<(), Refused> {
        Err(Refused::new(ErrorCode::CodexUnavailable))
    }

    pub(super) async fn unwatch(&self, _thread_id: ThreadId) {}

    pub(super) async fn answer_approval(&self, _key: &RequestKey, _decision: Decision) -> AnswerOutcome {
        AnswerOutcome::Gone
    }

    pub(super) async fn answer_question(&self, _key: &RequestKey, _answers: Vec<v1::QuestionAnswer>) -> AnswerOutcome {
        AnswerOutcome::Gone
    }

    pub(super) async fn find_client_id(
        &self,
        _thread_id: ThreadId,
        _command_id: CommandId,
    ) -> Result<Option<TurnId>, Refused> {
        Err(Refused::new(ErrorCode::CodexUnavailable))
    }
}
