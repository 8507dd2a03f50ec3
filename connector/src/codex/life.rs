//! One life of a connection to Codex: the task that reads everything in order and keeps what is followed.
//!
//! All that must be in order with Codex's news happens here: snapshots, starts of turns, answers. Requests
//! whose answer may come at any time go through the client directly. Active threads are followed even when
//! nobody watches them, since Codex tells approvals to followers only.

mod ask;
mod due;
mod follow;
mod news;
mod requests;
mod run;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use flydex_agent_proto::v1;
use flydex_domain::error::ErrorCode;
use flydex_domain::id::Generation;
use flydex_domain::limits::WATCHED_THREADS_MAX;
use flydex_runtime::clock::Clock;
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};

use super::api::{AnswerOutcome, CodexEvent, ThreadId};
use super::approvals::Table;
use super::config::Allowed;
use super::methods::Method;
use super::order::{Order, reply_with};
use super::pages::{Cursors, Place};
use super::rpc::{Client, Error as RpcError, Inbound};
use super::view::ThreadView;

use ask::{Then, Want};
pub(super) use run::{End, run};

/// How often a thread is asked for that was started a moment ago and cannot be read yet.
const FRESH_TRIES_MAX: u32 = 30;
/// How long between two such tries.
const FRESH_WAIT: Duration = Duration::from_millis(50);
/// How long a prepared thread is followed without a turn and without watchers.
const PREPARED_FOR: Duration = Duration::from_secs(30);

/// The task's state.
pub(super) struct Life {
    allowed: watch::Receiver<Allowed>,
    clock: Clock,
    client: Client,
    cursors: Arc<Mutex<Cursors>>,
    followed: BTreeMap<ThreadId, Followed>,
    table: Table,
    waiters: BTreeMap<u64, oneshot::Sender<AnswerOutcome>>,
    asked: BTreeMap<u64, (Then, Instant)>,
    queue: VecDeque<(Method, Value, Then)>,
    fresh: Vec<Fresh>,
    /// Active threads for which there was no room, as far as there is room to remember them.
    unfollowed: BTreeSet<ThreadId>,
    unfollowed_count: watch::Sender<usize>,
    told: Vec<CodexEvent>,
    broken: bool,
}

/// A thread whose news Codex sends us.
struct Followed {
    view: ThreadView,
    watched: bool,
    keep_until: Option<Instant>,
}

/// A thread that cannot be read yet, to be asked for again.
struct Fresh {
    at: Instant,
    thread_id: ThreadId,
    want: Want,
    tries: u32,
}

impl Life {
    /// A life that has seen nothing yet.
    pub(super) fn new(
        allowed: watch::Receiver<Allowed>,
        clock: Clock,
        client: Client,
        generation: Generation,
        cursors: Arc<Mutex<Cursors>>,
        unfollowed_count: watch::Sender<usize>,
    ) -> Self {
        Self {
            allowed,
            clock,
            client,
            cursors,
            followed: BTreeMap::new(),
            table: Table::new(generation),
            waiters: BTreeMap::new(),
            asked: BTreeMap::new(),
            queue: VecDeque::new(),
            fresh: Vec::new(),
            unfollowed: BTreeSet::new(),
            unfollowed_count,
            told: Vec::new(),
            broken: false,
        }
    }

    /// The first questions: which threads are loaded and what they do.
    pub(super) fn begin(&mut self) {
        self.ask(Method::ThreadLoadedList, json!({}), Then::LookAtLoaded);
    }

    /// Takes a message of Codex.
    pub(super) fn message(&mut self, message: Inbound) {
        match message {
            Inbound::Response { id, outcome } => {
                if let Some((then, _)) = self.asked.remove(&id) {
                    self.answered(then, outcome);
                }
                self.ask_queued();
            }
            Inbound::Request { id, method, params } => self.requested(id, &method, &params),
            Inbound::Notification { method, params } => self.news(&method, &params),
        }
    }

    /// Takes a question of the handle.
    pub(super) fn order(&mut self, order: Order) {
        match order {
            Order::Watch { thread_id, watch_id } => {
                if self.has_room_for(thread_id) {
                    self.follow(thread_id, Want::Watch(watch_id), 0);
                } else {
                    let outcome = Err(ErrorCode::Overloaded.into());
                    self.told.push(CodexEvent::Watched { watch_id, thread_id, outcome });
                }
            }
            Order::Unwatch { thread_id } => {
                if let Some(followed) = self.followed.get_mut(&thread_id) {
                    followed.watched = false;
                }
                self.release(thread_id);
            }
            Order::Prepare { thread_id, reply } => {
                if self.has_room_for(thread_id) {
                    self.follow(thread_id, Want::Prepare(reply), 0);
                } else {
                    reply_with(reply, Err(ErrorCode::Overloaded.into()));
                }
            }
            Order::StartThread { params, reply } => self.ask(Method::ThreadStart, params, Then::ThreadStarted(reply)),
            Order::StartTurn { thread_id, params, reply } => match self.may_start(thread_id) {
                Ok(()) => self.ask(Method::TurnStart, params, Then::TurnStarted(thread_id, reply)),
                Err(refused) => reply_with(reply, Err(refused)),
            },
            Order::Answer { key, answer, reply } => self.write_answer(&key, answer, reply),
        }
    }

    /// What there is to tell.
    pub(super) fn take_told(&mut self) -> Vec<CodexEvent> {
        std::mem::take(&mut self.told)
    }

    /// Whether Codex no longer takes messages.
    pub(super) const fn is_broken(&self) -> bool {
        self.broken
    }

    /// Whether nothing would be lost by leaving this Codex for another.
    pub(super) fn is_quiet(&self) -> bool {
        self.asked.is_empty()
            && self.queue.is_empty()
            && self.table.is_empty()
            && self.followed.values().all(|followed| followed.view.running.is_none() && followed.keep_until.is_none())
    }

    /// Codex is gone: everything that waits is told.
    pub(super) fn end(&mut self) {
        self.broken = true;
        for (_, (then, _)) in std::mem::take(&mut self.asked) {
            self.answered(then, Err(RpcError::Unanswered));
        }
        for (_, _, then) in std::mem::take(&mut self.queue) {
            self.answered(then, Err(RpcError::NotSent));
        }
        for fresh in std::mem::take(&mut self.fresh) {
            self.follows(fresh.thread_id, fresh.want, FRESH_TRIES_MAX, Err(RpcError::NotSent));
        }
        self.unfollowed.clear();
        self.tell_unfollowed();
        let effects = self.table.codex_gone();
        self.apply(effects);
        for (thread_id, followed) in std::mem::take(&mut self.followed) {
            if followed.watched {
                self.told.push(CodexEvent::ThreadLost { thread_id });
            }
        }
    }

    fn has_room_for(&self, thread_id: ThreadId) -> bool {
        self.followed.contains_key(&thread_id) || self.followed.len() < WATCHED_THREADS_MAX
    }

    fn give_cursor(&self, place: Place) -> String {
        self.cursors.lock().unwrap_or_else(PoisonError::into_inner).give(place)
    }
}

fn thread_event(thread_id: ThreadId, kind: v1::agent_event::Kind) -> CodexEvent {
    CodexEvent::Thread { thread_id, event: v1::AgentEvent { kind: Some(kind) } }
}

#[cfg(test)]
mod tests;
