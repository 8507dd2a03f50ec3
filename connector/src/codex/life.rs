//! One life of a connection to Codex: the task that reads everything in order and keeps what is followed.
//!
//! All that must be in order with Codex's news happens here: snapshots, starts of turns, answers. Requests
//! whose answer may come at any time go through the client directly. Active threads are followed even when
//! nobody watches them, since Codex tells approvals to followers only.

mod follow;
mod news;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use flydex_agent_proto::v1;
use flydex_domain::error::ErrorCode;
use flydex_domain::id::Generation;
use flydex_domain::limits::{
    CODEX_DAEMON_LOOK_INTERVAL, CODEX_FOLLOWS_IN_FLIGHT_MAX, CODEX_REQUEST_TIMEOUT, WATCHED_THREADS_MAX,
};
use flydex_domain::time::UnixMillis;
use flydex_runtime::clock::Clock;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use super::api::{AnswerOutcome, CodexEvent, Refused, RequestKey, ThreadId, WatchId};
use super::approvals::{self, Answer, Ask, Effect, Table};
use super::config::CodexConfig;
use super::methods::Method;
use super::order::{Order, reply_with};
use super::pages::{Cursors, Place};
use super::rpc::{Client, Error as RpcError, Inbound};
use super::view::ThreadView;

/// Ordered requests that wait for their turn; more are refused.
const QUEUE_MAX: usize = 256;
/// How often a thread is asked for that was started a moment ago and cannot be read yet.
const FRESH_TRIES_MAX: u32 = 30;
/// How long between two such tries.
const FRESH_WAIT: Duration = Duration::from_millis(50);
/// How long a prepared thread is followed without a turn and without watchers.
const PREPARED_FOR: Duration = Duration::from_secs(30);

/// Why a life ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The connector stops.
    Stopped,
    /// The connection ended.
    Lost,
    /// Nothing runs, and the shared daemon is there now.
    DaemonFound,
}

/// The task's state.
pub(super) struct Life {
    config: Arc<CodexConfig>,
    clock: Clock,
    client: Client,
    cursors: Arc<Mutex<Cursors>>,
    followed: BTreeMap<ThreadId, Followed>,
    table: Table,
    waiters: BTreeMap<u64, oneshot::Sender<AnswerOutcome>>,
    asked: BTreeMap<u64, (Then, Instant)>,
    queue: VecDeque<(Method, Value, Then)>,
    fresh: Vec<Fresh>,
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

/// What to do with the answer of an ordered request.
enum Then {
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
enum Want {
    /// It is active.
    News,
    /// Somebody watches.
    Watch(WatchId),
    /// Somebody wants to send a prompt.
    Prepare(oneshot::Sender<Result<Option<String>, Refused>>),
}

impl Life {
    /// A life that has seen nothing yet.
    pub(super) fn new(
        config: Arc<CodexConfig>,
        clock: Clock,
        client: Client,
        generation: Generation,
        cursors: Arc<Mutex<Cursors>>,
    ) -> Self {
        Self {
            config,
            clock,
            client,
            cursors,
            followed: BTreeMap::new(),
            table: Table::new(generation),
            waiters: BTreeMap::new(),
            asked: BTreeMap::new(),
            queue: VecDeque::new(),
            fresh: Vec::new(),
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

    /// Does what is due by now.
    pub(super) fn due(&mut self) {
        let now = self.clock.instant();
        for (thread_id, followed) in &mut self.followed {
            let event = followed.view.due(now);
            if let Some(kind) = event.filter(|_| followed.watched) {
                self.told.push(thread_event(*thread_id, kind));
            }
        }
        let effects = self.table.due(now);
        self.apply(effects);
        let late: Vec<u64> =
            self.asked.iter().filter(|(_, (_, deadline))| *deadline <= now).map(|(id, _)| *id).collect();
        for id in late {
            if let Some((then, _)) = self.asked.remove(&id) {
                self.answered(then, Err(RpcError::Unanswered));
            }
        }
        let unprepared: Vec<ThreadId> = self
            .followed
            .iter()
            .filter(|(_, followed)| followed.keep_until.is_some_and(|until| until <= now))
            .map(|(thread_id, _)| *thread_id)
            .collect();
        for thread_id in unprepared {
            if let Some(followed) = self.followed.get_mut(&thread_id) {
                followed.keep_until = None;
            }
            self.release(thread_id);
        }
        for fresh in self.fresh.extract_if(.., |fresh| fresh.at <= now).collect::<Vec<_>>() {
            self.follow(fresh.thread_id, fresh.want, fresh.tries);
        }
        self.ask_queued();
    }

    /// When something is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let texts = self.followed.values().filter_map(|followed| followed.view.deadline());
        let kept = self.followed.values().filter_map(|followed| followed.keep_until);
        let asked = self.asked.values().map(|(_, deadline)| *deadline);
        let fresh = self.fresh.iter().map(|fresh| fresh.at);
        texts.chain(kept).chain(asked).chain(fresh).chain(self.table.deadline()).min()
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
        let effects = self.table.codex_gone();
        self.apply(effects);
        for (thread_id, followed) in std::mem::take(&mut self.followed) {
            if followed.watched {
                self.told.push(CodexEvent::ThreadLost { thread_id });
            }
        }
    }

    fn ask(&mut self, method: Method, params: Value, then: Then) {
        if self.broken || self.queue.len() >= QUEUE_MAX {
            self.answered(then, Err(RpcError::NotSent));
            return;
        }
        self.queue.push_back((method, params, then));
        self.ask_queued();
    }

    fn ask_queued(&mut self) {
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

    fn answered(&mut self, then: Then, outcome: Result<Value, RpcError>) {
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

    fn requested(&mut self, id: Value, method: &str, params: &Value) {
        let request_id = id.to_string();
        if self.table.contains(&request_id) {
            return;
        }
        let thread_id = super::json::text(params, "threadId").parse::<ThreadId>();
        let Ok(thread_id) = thread_id else { return };
        let changes = self.followed.get(&thread_id).and_then(|followed| {
            let turn_id = super::json::text(params, "turnId");
            followed.view.changes(turn_id, super::json::text(params, "itemId"))
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
            Ask::Approval { action, risk_high, session_scope, desk_only } => {
                CodexEvent::ApprovalAsked(super::api::AskedApproval {
                    key,
                    thread_id,
                    turn_id,
                    item_id,
                    started_at_ms,
                    opened_at,
                    action,
                    risk_high,
                    session_scope_possible: session_scope && self.config.session_acceptance,
                    desk_only,
                })
            }
            Ask::Questions { parts, desk_only } => CodexEvent::QuestionAsked(super::api::AskedQuestion {
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

    fn write_answer(&mut self, key: &RequestKey, answer: Answer, reply: oneshot::Sender<AnswerOutcome>) {
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

    fn apply(&mut self, effects: Vec<Effect>) {
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

    fn has_room_for(&self, thread_id: ThreadId) -> bool {
        self.followed.contains_key(&thread_id) || self.followed.len() < WATCHED_THREADS_MAX
    }

    fn give_cursor(&self, place: Place) -> String {
        self.cursors.lock().unwrap_or_else(PoisonError::into_inner).give(place)
    }
}

/// Reads Codex until the connection ends, the connector stops, or a better Codex is found.
pub(super) async fn run(
    life: &mut Life,
    inbound: &mut mpsc::Receiver<Inbound>,
    orders: &mut mpsc::Receiver<Order>,
    events: &mpsc::Sender<CodexEvent>,
    stopped: &tokio_util::sync::CancellationToken,
    daemon: Option<&std::path::Path>,
) -> End {
    life.begin();
    let end = loop {
        for event in life.take_told() {
            // Without a core there is nobody to tell; its going stops the connector.
            if stopped.run_until_cancelled(events.send(event)).await.is_none() {
                return End::Stopped;
            }
        }
        if life.is_broken() {
            break End::Lost;
        }
        let deadline = life.deadline();
        // Answers of people go before news, news before what time brings.
        tokio::select! {
            biased;
            () = stopped.cancelled() => return End::Stopped,
            order = orders.recv() => match order {
                Some(order) => life.order(order),
                None => return End::Stopped,
            },
            message = inbound.recv() => match message {
                Some(message) => life.message(message),
                None => break End::Lost,
            },
            () = until(deadline) => life.due(),
            () = found(daemon), if life.is_quiet() => break End::DaemonFound,
        }
    };
    life.end();
    for event in life.take_told() {
        if stopped.run_until_cancelled(events.send(event)).await.is_none() {
            return End::Stopped;
        }
    }
    end
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

/// Waits for the shared daemon, where it is wanted.
async fn found(daemon: Option<&std::path::Path>) {
    let Some(path) = daemon else { return std::future::pending().await };
    loop {
        tokio::time::sleep(CODEX_DAEMON_LOOK_INTERVAL).await;
        if super::socket::attach(path).await.is_ok() {
            return;
        }
    }
}

fn thread_event(thread_id: ThreadId, kind: v1::agent_event::Kind) -> CodexEvent {
    CodexEvent::Thread { thread_id, event: v1::AgentEvent { kind: Some(kind) } }
}
