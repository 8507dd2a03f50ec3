//! Codex's JSON-RPC: requests with a bound, answers to their askers, and everything else in order.
//!
//! Two kinds of requests leave: plain ones, whose answer goes straight to the task that waits; and ordered
//! ones, whose answer comes among the notifications, so that it is known what came before and after it.
//! Requests of Codex are surfaced and never answered here: an error would be an answer.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flydex_domain::error::ErrorCode;
use flydex_domain::limits::{
    CODEX_FOLLOWS_IN_FLIGHT_MAX, CODEX_OVERLOAD_RETRIES_MAX, CODEX_OVERLOAD_WAIT, CODEX_REQUEST_TIMEOUT,
    CODEX_REQUESTS_IN_FLIGHT_MAX,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::api::{Refused, TurnId};
use super::methods::Method;

/// Why a request has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    /// Nothing was written: the connection is gone or too much is under way.
    #[error("the request was not written")]
    NotSent,
    /// Codex was overloaded every time; it did nothing.
    #[error("codex is overloaded")]
    Overloaded,
    /// Codex refused it.
    #[error("codex refused the request")]
    Refused(Reason),
    /// It was written, and no answer came.
    #[error("no answer came")]
    Unanswered,
}

/// Codex's reason, as far as it matters here. Codex has texts instead of codes; they end here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// Another process has the thread open.
    OpenElsewhere,
    /// There is no such thread, or it is not loaded.
    NoThread,
    /// The thread was started a moment ago and cannot be read yet.
    NotYet,
    /// No turn is running.
    NoTurn,
    /// Another turn is running.
    OtherTurn(Option<TurnId>),
    /// The prompt is too long.
    TooLarge,
    /// Anything else.
    Other,
}

impl Error {
    /// What a command is refused with; `effect` tells whether an unanswered request may have acted.
    pub(super) fn refused(self, effect: bool) -> Refused {
        match self {
            Self::NotSent => ErrorCode::CodexUnavailable.into(),
            Self::Overloaded => ErrorCode::CodexOverloaded.into(),
            Self::Unanswered if effect => Refused::unknown(),
            Self::Unanswered => ErrorCode::DeadlineExceeded.into(),
            Self::Refused(reason) => match reason {
                Reason::OpenElsewhere => ErrorCode::ThreadOpenElsewhere.into(),
                Reason::NoThread => ErrorCode::ThreadNotFound.into(),
                Reason::NoTurn => ErrorCode::TurnNotRunning.into(),
                Reason::OtherTurn(Some(turn_id)) => Refused::because_of_turn(ErrorCode::TurnMismatch, turn_id.as_str()),
                Reason::OtherTurn(None) => ErrorCode::TurnMismatch.into(),
                Reason::TooLarge => ErrorCode::PromptTooLarge.into(),
                Reason::NotYet => ErrorCode::CodexUnavailable.into(),
                Reason::Other => ErrorCode::CodexRefused.into(),
            },
        }
    }
}

/// A message of Codex.
pub(super) enum Inbound {
    /// The answer to one of our requests.
    Response {
        /// Our request id.
        id: u64,
        /// The result, or why there is none.
        outcome: Result<Value, Error>,
    },
    /// A question to us.
    Request {
        /// Codex's request id, as JSON.
        id: Value,
        /// What it asks.
        method: String,
        /// About what.
        params: Value,
    },
    /// News.
    Notification {
        /// Which.
        method: String,
        /// About what.
        params: Value,
    },
}

/// Reads one message; `None` for anything that is none, as Codex does with ours.
pub(super) fn parse(text: &str) -> Option<Inbound> {
    #[derive(Deserialize)]
    struct Raw {
        id: Option<Value>,
        method: Option<String>,
        #[serde(default)]
        params: Value,
        #[serde(default)]
        result: Value,
        error: Option<RawError>,
    }
    let raw: Raw = serde_json::from_str(text).ok()?;
    match (raw.id, raw.method) {
        (Some(id), Some(method)) => Some(Inbound::Request { id, method, params: raw.params }),
        (None, Some(method)) => Some(Inbound::Notification { method, params: raw.params }),
        (Some(id), None) => {
            let outcome = raw.error.map_or(Ok(raw.result), |error| Err(error.classify()));
            Some(Inbound::Response { id: id.as_u64()?, outcome })
        }
        (None, None) => None,
    }
}

#[derive(Deserialize)]
struct RawError {
    #[serde(default)]
    code: i64,
    #[serde(default)]
    message: String,
}

impl RawError {
    fn classify(&self) -> Error {
        if self.code == -32001 {
            return Error::Overloaded;
        }
        if self.code == -32602 {
            return Error::Refused(Reason::TooLarge);
        }
        let has = |part: &str| self.message.contains(part);
        let reason = if has("already has an active writer") {
            Reason::OpenElsewhere
        } else if has("thread not found") || has("no rollout found") || has("thread not loaded") {
            Reason::NoThread
        } else if has("is not supported yet") {
            Reason::NotYet
        } else if has("no active turn") {
            Reason::NoTurn
        } else if has("expected active turn id") {
            Reason::OtherTurn(self.found_turn())
        } else {
            Reason::Other
        };
        Error::Refused(reason)
    }

    /// The running turn in ``expected active turn id `a` but found `b` ``.
    fn found_turn(&self) -> Option<TurnId> {
        self.message.rsplit('`').nth(1)?.parse().ok()
    }
}

/// Asks Codex. Cheap to clone; one per connection.
#[derive(Clone)]
pub(super) struct Client(Arc<Shared>);

struct Shared {
    outbound: mpsc::Sender<String>,
    waiting: Mutex<Waiting>,
    next_id: AtomicU64,
    permits: Semaphore,
}

#[derive(Default)]
struct Waiting {
    closed: bool,
    plain: BTreeMap<u64, oneshot::Sender<Result<Value, Error>>>,
}

impl Client {
    /// A client that writes to `outbound`.
    pub(super) fn new(outbound: mpsc::Sender<String>) -> Self {
        Self(Arc::new(Shared {
            outbound,
            waiting: Mutex::default(),
            next_id: AtomicU64::new(1),
            permits: Semaphore::new(CODEX_REQUESTS_IN_FLIGHT_MAX - CODEX_FOLLOWS_IN_FLIGHT_MAX),
        }))
    }

    /// Asks and waits for the answer; again after a wait when Codex is overloaded, which does nothing then.
    pub(super) async fn request(&self, method: Method, params: Value) -> Result<Value, Error> {
        let mut wait = CODEX_OVERLOAD_WAIT;
        for _ in 0..CODEX_OVERLOAD_RETRIES_MAX {
            match self.request_once(method, &params).await {
                Err(Error::Overloaded) => tokio::time::sleep(wait).await,
                other => return other,
            }
            wait *= 2;
        }
        Err(Error::Overloaded)
    }

    /// Writes an ordered request; its answer comes as [`Inbound::Response`] with the id given here.
    pub(super) fn send_ordered(&self, method: Method, params: &Value) -> Result<u64, Error> {
        let id = self.take_id();
        self.write_now(request_text(id, method, params))?;
        Ok(id)
    }

    /// Writes a message without an answer: a notification, or our answer to a request of Codex.
    pub(super) fn write_now(&self, message: String) -> Result<(), Error> {
        self.0.outbound.try_send(message).map_err(|_| Error::NotSent)
    }

    /// Gives the answer to whoever waits for it; gives it back when it is an ordered one.
    pub(super) fn complete(&self, id: u64, outcome: Result<Value, Error>) -> Option<Result<Value, Error>> {
        match self.waiting().plain.remove(&id) {
            Some(reply) => {
                // The asker may have given up.
                let _ = reply.send(outcome);
                None
            }
            None => Some(outcome),
        }
    }

    /// The connection is gone: whoever waits is told, and nothing more is sent.
    pub(super) fn close(&self) {
        let mut waiting = self.waiting();
        waiting.closed = true;
        waiting.plain.clear();
    }

    async fn request_once(&self, method: Method, params: &Value) -> Result<Value, Error> {
        let permit = tokio::time::timeout(CODEX_REQUEST_TIMEOUT, self.0.permits.acquire()).await;
        let Ok(Ok(_permit)) = permit else { return Err(Error::Overloaded) };
        let id = self.take_id();
        let (reply, answer) = oneshot::channel();
        {
            let mut waiting = self.waiting();
            if waiting.closed {
                return Err(Error::NotSent);
            }
            waiting.plain.insert(id, reply);
        }
        if self.write_now(request_text(id, method, params)).is_err() {
            self.waiting().plain.remove(&id);
            return Err(Error::NotSent);
        }
        let answer = tokio::time::timeout(CODEX_REQUEST_TIMEOUT, answer).await;
        self.waiting().plain.remove(&id);
        match answer {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => Err(Error::Unanswered),
        }
    }

    fn take_id(&self) -> u64 {
        self.0.next_id.fetch_add(1, Ordering::Relaxed)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn request_text(id: u64, method: Method, params: &Value) -> String {
    json!({"id": id, "method": method.as_str(), "params": params}).to_string()
}

#[cfg(test)]
mod tests;
