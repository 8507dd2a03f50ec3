//! Ordered requests: sent one after the other, a bounded number at a time, each with what its answer is for.

use flydex_agent_proto::v1;
use flydex_domain::limits::{CODEX_FOLLOWS_IN_FLIGHT_MAX, CODEX_REQUEST_TIMEOUT};
use serde_json::Value;
use tokio::sync::oneshot;

use super::super::api::{Refused, ThreadId, WatchId};
use super::super::methods::Method;
use super::super::order::reply_with;
use super::super::rpc::Error as RpcError;
use super::Life;

/// Ordered requests that wait for their turn; more are refused.
const QUEUE_MAX: usize = 256;

/// What to do with the answer of an ordered request.
pub(super) enum Then {
    /// Look at each loaded thread.
    LookAtLoaded,
    /// Tell its summary, and follow it when it is active.
    Tell(ThreadId),
    /// Take its state over; the number counts the tries before.
    Follow(ThreadId, Want, u32),
    /// It is open elsewhere: its history is next.
    ReadSummary(ThreadId, WatchId),
    /// It is open elsewhere: tell the snapshot.
    ReadHistory(ThreadId, WatchId, Box<v1::Thread>),
    /// Say which thread it is.
    ThreadStarted(oneshot::Sender<Result<ThreadId, Refused>>),
    /// Say which turn it is.
    TurnStarted(ThreadId, oneshot::Sender<Result<v1::TurnAccepted, Refused>>),
    /// Nothing.
    Nothing,
}

/// Why a thread is to be followed.
pub(super) enum Want {
    /// It is active.
    News,
    /// Somebody watches.
    Watch(WatchId),
    /// Somebody wants to send a prompt.
    Prepare(oneshot::Sender<Result<Option<String>, Refused>>),
}

impl Life {
    pub(super) fn ask(&mut self, method: Method, params: Value, then: Then) {
        if self.broken || self.queue.len() >= QUEUE_MAX {
            self.answered(then, Err(RpcError::NotSent));
            return;
        }
        self.queue.push_back((method, params, then));
        self.ask_queued();
    }

    pub(super) fn ask_queued(&mut self) {
        while !self.broken && self.asked.len() < CODEX_FOLLOWS_IN_FLIGHT_MAX {
            let Some((method, params, then)) = self.queue.pop_front() else { return };
            match self.client.send_ordered(method, &params) {
                Ok(id) => {
                    self.asked.insert(id, (then, self.clock.instant() + CODEX_REQUEST_TIMEOUT));
                }
                Err(error) => {
                    self.broken = true;
                    self.answered(then, Err(error));
                }
            }
        }
    }

    pub(super) fn answered(&mut self, then: Then, outcome: Result<Value, RpcError>) {
        match then {
            Then::LookAtLoaded => self.look_at_loaded(outcome),
            Then::Tell(thread_id) => self.tell(thread_id, outcome),
            Then::Follow(thread_id, want, tries) => self.follows(thread_id, want, tries, outcome),
            Then::ReadSummary(thread_id, watch_id) => self.read_foreign_history(thread_id, watch_id, outcome),
            Then::ReadHistory(thread_id, watch_id, thread) => {
                self.tell_foreign(thread_id, watch_id, *thread, outcome);
            }
            Then::ThreadStarted(reply) => {
                let outcome = self.thread_started(outcome);
                reply_with(reply, outcome);
            }
            Then::TurnStarted(thread_id, reply) => {
                let outcome = self.turn_started(thread_id, outcome);
                reply_with(reply, outcome);
            }
            Then::Nothing => {}
        }
    }
}
