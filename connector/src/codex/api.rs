//! What the rest of the connector sees of Codex: a handle to ask with, and one ordered stream of events.
//!
//! The handle is cheap to clone and may be used from any task. The event receiver must be drained by a task
//! that does not itself wait for one of the handle's calls: Codex is read no faster than its events are taken.

use std::fmt;
use std::str::FromStr;

use flydex_agent_proto::v1;
use flydex_agent_proto::v1::command_body;
use flydex_domain::approval::ApprovalAction;
use flydex_domain::command::Decision;
use flydex_domain::error::ErrorCode;
use flydex_domain::id::{CommandId, Generation, MalformedId};
use flydex_domain::time::UnixMillis;
use tokio::sync::watch;
use uuid::Uuid;

use super::config::Allowed;
use super::handle::Inner;

/// A thread of Codex. Codex names threads by UUIDs; no other text ever reaches it as a thread id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ThreadId(Uuid);

impl ThreadId {
    /// Wraps a UUID.
    #[must_use]
    pub const fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid)
    }
}

impl FromStr for ThreadId {
    type Err = MalformedId;

    fn from_str(text: &str) -> Result<Self, MalformedId> {
        Uuid::try_parse(text).map(Self).map_err(|_| MalformedId { kind: "ThreadId" })
    }
}

impl fmt::Display for ThreadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A turn of Codex: 1 to 64 of `[A-Za-z0-9_-]`. Today's Codex uses UUIDs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TurnId(String);

impl TurnId {
    /// The text, as Codex gave it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TurnId {
    type Err = MalformedId;

    fn from_str(text: &str) -> Result<Self, MalformedId> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if text.is_empty() || text.len() > 64 || !text.bytes().all(allowed) {
            return Err(MalformedId { kind: "TurnId" });
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for TurnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether Codex can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CodexStatus {
    /// Attaching, or starting an app-server.
    Starting,
    /// It answers.
    Ready {
        /// Codex's version, as it says itself.
        version: String,
        /// This life of the app-server.
        generation: Generation,
        /// Only reads are allowed: the version is newer than this connector knows.
        read_only: bool,
    },
    /// It cannot be used, and why. It is tried again with growing waits.
    Unavailable(ErrorCode),
}

/// A request of Codex by what names it: request ids start again at 0 in each life of Codex.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestKey {
    /// The life of Codex that asks.
    pub generation: Generation,
    /// Codex's request id, as JSON text.
    pub request_id: String,
}

/// Codex asks whether something may happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AskedApproval {
    /// Names the request towards this crate.
    pub key: RequestKey,
    /// Codex's thread.
    pub thread_id: ThreadId,
    /// Codex's turn.
    pub turn_id: String,
    /// Codex's item.
    pub item_id: String,
    /// When the item started, by Codex.
    pub started_at_ms: u64,
    /// When the connector first saw the request, by the machine's clock.
    pub opened_at: UnixMillis,
    /// Exactly what would happen.
    pub action: ApprovalAction,
    /// Deserves a second look: wider permissions, network, or outside the working directory.
    pub risk_high: bool,
    /// "Accept for this session" may be offered: Codex knows it for this kind and the desk's policy allows it.
    pub session_scope_possible: bool,
    /// Shown remotely, but answered at the desk only.
    pub desk_only: bool,
}

/// Codex asks questions.
#[derive(Clone)]
pub struct AskedQuestion {
    /// Names the request towards this crate.
    pub key: RequestKey,
    /// Codex's thread.
    pub thread_id: ThreadId,
    /// Codex's turn; empty where Codex gives none.
    pub turn_id: String,
    /// Codex's item; empty where Codex gives none.
    pub item_id: String,
    /// When the item started, by Codex; 0 where Codex does not say.
    pub started_at_ms: u64,
    /// When the connector first saw the request, by the machine's clock.
    pub opened_at: UnixMillis,
    /// The questions, cut to size.
    pub parts: Vec<v1::QuestionPart>,
    /// Shown remotely, but answered at the desk only.
    pub desk_only: bool,
}

/// How a request of Codex ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// By our answer, confirmed by Codex.
    OursConfirmed(Decision),
    /// A question by our answer, confirmed by Codex.
    OursAnswered,
    /// By another client of Codex: a person at the machine.
    AtDesk,
    /// The turn ended, or Codex took it back.
    Withdrawn,
    /// Codex went away with it.
    CodexLost,
}

/// What became of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerOutcome {
    /// Codex confirmed it.
    Confirmed,
    /// Someone at the machine was faster.
    AnsweredAtDesk,
    /// The request is not open: nothing was written.
    Gone,
    /// It was written and not confirmed in time. A later [`CodexEvent::RequestResolved`] may still tell.
    Unknown,
}

/// A request that had no effect, or whose effect is not known.
#[derive(Clone, Default)]
pub struct Refused {
    /// Why.
    pub code: Option<ErrorCode>,
    /// What helps a person: the running turn.
    pub refusal: Option<v1::Refusal>,
    /// The request was written, and no answer came: it may have taken effect.
    pub unknown: bool,
}

impl Refused {
    /// A refusal without effect.
    #[must_use]
    pub const fn new(code: ErrorCode) -> Self {
        Self { code: Some(code), refusal: None, unknown: false }
    }

    /// Refused because of the turn that runs.
    #[must_use]
    pub fn because_of_turn(code: ErrorCode, running_turn_id: &str) -> Self {
        let refusal = v1::Refusal { approval: None, running_turn_id: running_turn_id.to_owned() };
        Self { code: Some(code), refusal: Some(refusal), unknown: false }
    }

    /// Written, and not answered.
    #[must_use]
    pub const fn unknown() -> Self {
        Self { code: Some(ErrorCode::OutcomeUnknown), refusal: None, unknown: true }
    }

    /// The code, `outcome_unknown` for an unknown outcome.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        self.code.unwrap_or(ErrorCode::Internal)
    }
}

impl From<ErrorCode> for Refused {
    fn from(code: ErrorCode) -> Self {
        Self::new(code)
    }
}

impl fmt::Debug for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refused").field("code", &self.code).field("unknown", &self.unknown).finish_non_exhaustive()
    }
}

/// Names one call of [`CodexHandle::watch`]; chosen by the caller, opaque here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WatchId(pub u64);

/// What Codex does, in one order.
pub enum CodexEvent {
    /// The status changed. Also in [`CodexHandle::status`].
    Status(CodexStatus),
    /// For the machine stream: `thread_changed` or `thread_removed`.
    Machine(v1::AgentEvent),
    /// The answer to [`CodexHandle::watch`], in its place among the thread's events: every
    /// [`CodexEvent::Thread`] of this thread that came before is in the snapshot, none that comes after is.
    Watched {
        /// As given to `watch`.
        watch_id: WatchId,
        /// The thread.
        thread_id: ThreadId,
        /// The snapshot, or why there is none.
        outcome: Result<v1::ThreadSnapshot, Refused>,
    },
    /// For a watched thread's stream.
    Thread {
        /// The thread.
        thread_id: ThreadId,
        /// The event.
        event: v1::AgentEvent,
    },
    /// Codex asks for an approval. Told once per key, also when Codex repeats it.
    ApprovalAsked(AskedApproval),
    /// Codex asks questions. Told once per key.
    QuestionAsked(AskedQuestion),
    /// A request that was told before has ended. Told once per key, for our own answers too.
    RequestResolved {
        /// Which.
        key: RequestKey,
        /// How.
        how: Resolution,
    },
    /// The thread is no longer followed: Codex went away or closed it. Whoever watches must watch again.
    ThreadLost {
        /// The thread.
        thread_id: ThreadId,
    },
}

/// A handle to Codex. Cheap to clone.
#[derive(Clone)]
pub struct CodexHandle {
    pub(super) inner: Inner,
}

impl CodexHandle {
    /// The current status.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<CodexStatus> {
        self.inner.status()
    }

    /// What the desk allows now.
    #[must_use]
    pub fn allowed(&self) -> Allowed {
        self.inner.allowed()
    }

    /// How many active threads are not followed, because too many are active at once. Their approvals are not told.
    #[must_use]
    pub fn unfollowed(&self) -> watch::Receiver<usize> {
        self.inner.unfollowed()
    }

    /// The desk allows something else from now on.
    pub fn allow(&self, allowed: Allowed) {
        self.inner.allow(allowed);
    }

    /// Does a read or an effect, other than attach, watch, unwatch and answers, which are `bad_request` here.
    ///
    /// Every parameter is rebuilt from its typed fields. `command_id` becomes Codex's client id of a prompt.
    ///
    /// # Errors
    /// The code to refuse the command with; `unknown` when it may have taken effect.
    pub async fn execute(&self, command_id: CommandId, body: command_body::Kind) -> Result<v1::CommandResult, Refused> {
        self.inner.execute(command_id, body).await
    }

    /// Follows a thread and asks for its snapshot, which comes as [`CodexEvent::Watched`] with `watch_id`:
    /// exactly one for each call that returns `Ok`. A thread may be watched many times; each call gives a
    /// fresh snapshot.
    ///
    /// # Errors
    /// When the question could not be taken: Codex is not ready, or too much is under way.
    pub async fn watch(&self, thread_id: &ThreadId, watch_id: WatchId) -> Result<(), Refused> {
        self.inner.watch(*thread_id, watch_id).await
    }

    /// Nobody watches the thread any more: its [`CodexEvent::Thread`] events stop. One call undoes all
    /// watches of the thread.
    pub async fn unwatch(&self, thread_id: &ThreadId) {
        self.inner.unwatch(*thread_id).await;
    }

    /// Writes the answer and waits until Codex confirms it, at most `APPROVAL_CONFIRM_TIMEOUT`.
    ///
    /// [`CodexEvent::RequestResolved`] follows too.
    pub async fn answer_approval(&self, key: &RequestKey, decision: Decision) -> AnswerOutcome {
        self.inner.answer_approval(key, decision).await
    }

    /// Writes the answers and waits until Codex confirms them, at most `APPROVAL_CONFIRM_TIMEOUT`.
    pub async fn answer_question(&self, key: &RequestKey, answers: Vec<v1::QuestionAnswer>) -> AnswerOutcome {
        self.inner.answer_question(key, answers).await
    }

    /// Looks for a prompt with this client id in the thread's newest turns: proof that a start or a steer
    /// took effect before a crash.
    ///
    /// # Errors
    /// When Codex cannot tell.
    pub async fn find_client_id(&self, thread_id: &ThreadId, command_id: CommandId) -> Result<Option<TurnId>, Refused> {
        self.inner.find_client_id(*thread_id, command_id).await
    }
}
