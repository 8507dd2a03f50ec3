//! What the handle asks of the task that reads Codex.

use flydex_agent_proto::v1;
use flydex_domain::error::ErrorCode;
use serde_json::Value;
use tokio::sync::oneshot;

use super::api::{AnswerOutcome, Refused, RequestKey, ThreadId, WatchId};
use super::approvals::Answer;

/// A question to the reader, whose answer must be in order with Codex's news.
pub(super) enum Order {
    /// Follow a thread and tell its snapshot as an event.
    Watch {
        /// The thread.
        thread_id: ThreadId,
        /// The caller's name for this.
        watch_id: WatchId,
    },
    /// Nobody watches the thread any more.
    Unwatch {
        /// The thread.
        thread_id: ThreadId,
    },
    /// Follow a thread, and say whether a prompt may be sent to it.
    Prepare {
        /// The thread.
        thread_id: ThreadId,
        /// The running turn, or why not.
        reply: oneshot::Sender<Result<Option<String>, Refused>>,
    },
    /// Start a thread, and follow it.
    StartThread {
        /// Of `thread/start`.
        params: Value,
        /// Its id, or why there is none.
        reply: oneshot::Sender<Result<ThreadId, Refused>>,
    },
    /// Start a turn in a thread that was prepared.
    StartTurn {
        /// The thread.
        thread_id: ThreadId,
        /// Of `turn/start`.
        params: Value,
        /// The turn, or why there is none.
        reply: oneshot::Sender<Result<v1::TurnAccepted, Refused>>,
    },
    /// Answer a request of Codex.
    Answer {
        /// Which.
        key: RequestKey,
        /// What.
        answer: Answer,
        /// What became of it.
        reply: oneshot::Sender<AnswerOutcome>,
    },
}

impl Order {
    /// Answers without Codex. A watch is left to the caller: its answer is an event.
    pub(super) fn refuse(self, code: ErrorCode) -> Option<(ThreadId, WatchId)> {
        match self {
            Self::Watch { thread_id, watch_id } => return Some((thread_id, watch_id)),
            Self::Unwatch { .. } => {}
            Self::Prepare { reply, .. } => reply_with(reply, Err(code.into())),
            Self::StartThread { reply, .. } => reply_with(reply, Err(code.into())),
            Self::StartTurn { reply, .. } => reply_with(reply, Err(code.into())),
            Self::Answer { reply, .. } => reply_with(reply, AnswerOutcome::Gone),
        }
        None
    }
}

/// Answers a question of the handle; whoever asked may have gone.
pub(super) fn reply_with<T>(reply: oneshot::Sender<T>, answer: T) {
    let _ = reply.send(answer);
}
