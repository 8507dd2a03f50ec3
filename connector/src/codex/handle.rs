//! The inside of [`super::CodexHandle`]: commands become requests, answers become results.

#![expect(clippy::result_large_err, reason = "refusals are rare, and moved once")]

use std::str::FromStr as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flydex_agent_proto::v1::{self, command_body, command_result};
use flydex_domain::command::Decision;
use flydex_domain::error::ErrorCode;
use flydex_domain::id::CommandId;
use flydex_domain::limits::{CODEX_ASKS_MAX, CODEX_EVENTS_MAX, CODEX_REQUEST_TIMEOUT, MODELS_MAX};
use flydex_runtime::clock::Clock;
use flydex_runtime::lifecycle::Shutdown;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};

use super::api::{AnswerOutcome, CodexEvent, CodexHandle, CodexStatus, Refused, RequestKey, ThreadId, TurnId, WatchId};
use super::approvals::Answer;
use super::attach::{Keeper, Session};
use super::config::{Allowed, CodexConfig};
use super::json::{list, present, text};
use super::methods::Method;
use super::order::Order;
use super::pages::{Cursors, Place};
use super::{surface, translate};

/// Starts to attach to Codex, and keeps attached until the shutdown.
#[must_use]
pub fn start(config: CodexConfig, clock: Clock, shutdown: Shutdown) -> (CodexHandle, mpsc::Receiver<CodexEvent>) {
    let allowed = watch::Sender::new(config.allowed());
    let unfollowed = watch::Sender::new(0);
    let cursors = Arc::default();
    let (status_tx, status) = watch::channel(CodexStatus::Starting);
    let (session_tx, session) = watch::channel(None);
    let (orders, orders_rx) = mpsc::channel(CODEX_ASKS_MAX);
    let (events, events_rx) = mpsc::channel(CODEX_EVENTS_MAX);
    let keeper = Keeper {
        config,
        allowed: allowed.subscribe(),
        unfollowed: unfollowed.clone(),
        clock,
        cursors: Arc::clone(&cursors),
        status: status_tx,
        session: session_tx,
        orders: orders_rx,
        events,
        stopped: shutdown.soft(),
    };
    shutdown.spawn(keeper.run());
    (
        CodexHandle { inner: Inner { allowed, unfollowed: unfollowed.subscribe(), cursors, status, session, orders } },
        events_rx,
    )
}

/// What a handle holds.
#[derive(Clone)]
pub(super) struct Inner {
    allowed: watch::Sender<Allowed>,
    unfollowed: watch::Receiver<usize>,
    cursors: Arc<Mutex<Cursors>>,
    status: watch::Receiver<CodexStatus>,
    session: watch::Receiver<Option<Session>>,
    orders: mpsc::Sender<Order>,
}

impl Inner {
    pub(super) fn status(&self) -> watch::Receiver<CodexStatus> {
        self.status.clone()
    }

    pub(super) fn unfollowed(&self) -> watch::Receiver<usize> {
        self.unfollowed.clone()
    }

    pub(super) fn allowed(&self) -> Allowed {
        self.allowed.borrow().clone()
    }

    pub(super) fn allow(&self, allowed: Allowed) {
        self.allowed.send_replace(allowed);
    }

    pub(super) async fn execute(
        &self,
        command_id: CommandId,
        body: command_body::Kind,
    ) -> Result<v1::CommandResult, Refused> {
        use command_body::Kind as Body;
        use command_result::Kind as Answer;
        let kind = match body {
            Body::ListThreads(command) => Some(Answer::ThreadPage(self.list_threads(&command).await?)),
            Body::ReadThread(command) => Some(Answer::HistoryPage(self.read_thread(&command).await?)),
            Body::ListModels(v1::ListModels {}) => Some(Answer::ModelList(self.list_models().await?)),
            Body::StartThread(command) => Some(Answer::ThreadStarted(self.start_thread(command_id, &command).await?)),
            Body::StartTurn(command) => Some(Answer::TurnAccepted(self.start_turn(command_id, &command).await?)),
            Body::Steer(command) => Some(Answer::TurnAccepted(self.steer(command_id, &command).await?)),
            Body::Review(command) => Some(Answer::TurnAccepted(self.review(&command).await?)),
            Body::Interrupt(command) => {
                let turn_id = turn_id(&command.turn_id)?;
                let thread_id = thread_id(&command.thread_id)?;
                self.effect(Method::TurnInterrupt, surface::interrupt(thread_id, &turn_id)).await?;
                None
            }
            Body::RenameThread(command) => {
                let params = surface::rename(thread_id(&command.thread_id)?, &command.name)?;
                self.effect(Method::ThreadNameSet, params).await?;
                None
            }
            Body::ArchiveThread(command) => {
                self.effect(Method::ThreadArchive, surface::about(thread_id(&command.thread_id)?)).await?;
                None
            }
            Body::UnarchiveThread(command) => {
                self.effect(Method::ThreadUnarchive, surface::about(thread_id(&command.thread_id)?)).await?;
                None
            }
            Body::Attach(_)
            | Body::WatchThread(_)
            | Body::UnwatchThread(_)
            | Body::AnswerApproval(_)
            | Body::AnswerQuestion(_)
            | Body::ListDevices(_)
            | Body::EndorseDevice(_)
            | Body::PinPasskey(_) => return Err(ErrorCode::BadRequest.into()),
        };
        Ok(v1::CommandResult { kind })
    }

    pub(super) async fn watch(&self, thread_id: ThreadId, watch_id: WatchId) -> Result<(), Refused> {
        self.session()?;
        self.order(Order::Watch { thread_id, watch_id }).await
    }

    pub(super) async fn unwatch(&self, thread_id: ThreadId) {
        // Without a reader nothing is watched.
        let _ = self.order(Order::Unwatch { thread_id }).await;
    }

    pub(super) async fn answer_approval(&self, key: &RequestKey, decision: Decision) -> AnswerOutcome {
        if decision == Decision::AcceptForSession && !self.allowed.borrow().session_acceptance {
            return AnswerOutcome::Gone;
        }
        self.answer(key, Answer::Decision(decision)).await
    }

    pub(super) async fn answer_question(&self, key: &RequestKey, answers: Vec<v1::QuestionAnswer>) -> AnswerOutcome {
        let answers = answers.into_iter().map(|answer| (answer.part_id, answer.answers)).collect();
        self.answer(key, Answer::Questions(answers)).await
    }

    pub(super) async fn find_client_id(
        &self,
        thread_id: ThreadId,
        command_id: CommandId,
    ) -> Result<Option<TurnId>, Refused> {
        let client_id = command_id.to_string();
        let page = self.read(Method::ThreadTurnsList, surface::list_turns(thread_id, None)).await?;
        let holds = |turn: &&Value| list(turn, "items").iter().any(|item| text(item, "clientId") == client_id);
        Ok(list(&page, "data").iter().find(holds).and_then(|turn| text(turn, "id").parse().ok()))
    }

    async fn list_threads(&self, command: &v1::ListThreads) -> Result<v1::ThreadPage, Refused> {
        let cursor = match self.place(&command.cursor)? {
            None => None,
            Some(Place::Threads(cursor)) => Some(cursor),
            Some(Place::History { .. }) => return Err(ErrorCode::BadRequest.into()),
        };
        let params = surface::list_threads(command, cursor.as_deref())?;
        let result = self.read(Method::ThreadList, params).await?;
        let threads = list(&result, "data").iter().map(|row| translate::thread(row, command.archived)).collect();
        let next_cursor = match text(&result, "nextCursor") {
            "" => String::new(),
            cursor => self.cursors().give(Place::Threads(cursor.to_owned())),
        };
        Ok(v1::ThreadPage { threads, next_cursor })
    }

    async fn read_thread(&self, command: &v1::ReadThread) -> Result<v1::HistoryPage, Refused> {
        let thread_id = thread_id(&command.thread_id)?;
        let (cursor, rest) = match self.place(&command.cursor)? {
            None => (None, None),
            Some(Place::History { thread_id: of, cursor, rest }) if of == thread_id => (cursor, rest),
            Some(Place::History { .. } | Place::Threads(_)) => return Err(ErrorCode::BadRequest.into()),
        };
        let client = self.session()?.client;
        super::history::read_page(&client, &self.cursors, thread_id, cursor, rest, command.max_bytes).await
    }

    async fn list_models(&self) -> Result<v1::ModelList, Refused> {
        let result = self.read(Method::ModelList, surface::list_models()).await?;
        let models = list(&result, "data").iter().take(MODELS_MAX).map(translate::model).collect();
        Ok(v1::ModelList { models })
    }

    async fn start_thread(
        &self,
        command_id: CommandId,
        command: &v1::StartThread,
    ) -> Result<v1::ThreadStarted, Refused> {
        self.writable_session()?;
        surface::check_prompt(&command.text)?;
        let params = surface::start_thread(command, &self.allowed.borrow().directories)?;
        let thread_id = self.ordered(true, |reply| Order::StartThread { params, reply }).await?;
        let first = v1::StartTurn { text: command.text.clone(), ..Default::default() };
        let params = surface::start_turn(thread_id, command_id, &first)?;
        let turn = self.ordered(true, |reply| Order::StartTurn { thread_id, params, reply }).await?;
        Ok(v1::ThreadStarted { thread_id: thread_id.to_string(), turn_id: turn.turn_id })
    }

    async fn start_turn(&self, command_id: CommandId, command: &v1::StartTurn) -> Result<v1::TurnAccepted, Refused> {
        self.writable_session()?;
        let thread_id = thread_id(&command.thread_id)?;
        let params = surface::start_turn(thread_id, command_id, command)?;
        self.ordered(false, |reply| Order::Prepare { thread_id, reply }).await?;
        self.ordered(true, |reply| Order::StartTurn { thread_id, params, reply }).await
    }

    async fn steer(&self, command_id: CommandId, command: &v1::Steer) -> Result<v1::TurnAccepted, Refused> {
        let client = self.writable_session()?.client;
        let thread_id = thread_id(&command.thread_id)?;
        let expected = turn_id(&command.expected_turn_id)?;
        let params = surface::steer(thread_id, command_id, &expected, &command.text)?;
        self.ordered(false, |reply| Order::Prepare { thread_id, reply }).await?;
        let result = client.request(Method::TurnSteer, params).await.map_err(|error| error.refused(true))?;
        Ok(v1::TurnAccepted { turn_id: text(&result, "turnId").to_owned(), joined: true })
    }

    async fn review(&self, command: &v1::Review) -> Result<v1::TurnAccepted, Refused> {
        let thread_id = thread_id(&command.thread_id)?;
        let params = surface::review(thread_id, command.target.as_ref())?;
        self.writable_session()?;
        let running = self.ordered(false, |reply| Order::Prepare { thread_id, reply }).await?;
        if let Some(running) = running {
            return Err(Refused::because_of_turn(ErrorCode::TurnRunning, &running));
        }
        let result = self.effect(Method::ReviewStart, params).await?;
        let turn_id = present(&result, "turn").map(|turn| text(turn, "id")).unwrap_or_default();
        Ok(v1::TurnAccepted { turn_id: turn_id.to_owned(), joined: false })
    }

    async fn answer(&self, key: &RequestKey, answer: Answer) -> AnswerOutcome {
        let (reply, outcome) = oneshot::channel();
        let order = Order::Answer { key: key.clone(), answer, reply };
        if self.order(order).await.is_err() {
            return AnswerOutcome::Gone;
        }
        outcome.await.unwrap_or(AnswerOutcome::Unknown)
    }

    async fn read(&self, method: Method, params: Value) -> Result<Value, Refused> {
        let client = self.session()?.client;
        client.request(method, params).await.map_err(|error| error.refused(false))
    }

    async fn effect(&self, method: Method, params: Value) -> Result<Value, Refused> {
        let client = self.writable_session()?.client;
        client.request(method, params).await.map_err(|error| error.refused(true))
    }

    /// Asks the reader and waits; `effect` tells whether a lost answer may hide an effect.
    async fn ordered<T>(
        &self,
        effect: bool,
        order: impl FnOnce(oneshot::Sender<Result<T, Refused>>) -> Order,
    ) -> Result<T, Refused> {
        let (reply, answer) = oneshot::channel();
        self.order(order(reply)).await?;
        match answer.await {
            Ok(outcome) => outcome,
            Err(_) if effect => Err(Refused::unknown()),
            Err(_) => Err(ErrorCode::CodexUnavailable.into()),
        }
    }

    async fn order(&self, order: Order) -> Result<(), Refused> {
        match tokio::time::timeout(CODEX_REQUEST_TIMEOUT, self.orders.send(order)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(ErrorCode::CodexUnavailable.into()),
            Err(_) => Err(ErrorCode::Overloaded.into()),
        }
    }

    fn session(&self) -> Result<Session, Refused> {
        if let Some(session) = self.session.borrow().clone() {
            return Ok(session);
        }
        Err(match &*self.status.borrow() {
            CodexStatus::Unavailable(code) => (*code).into(),
            CodexStatus::Starting | CodexStatus::Ready { .. } => ErrorCode::CodexUnavailable.into(),
        })
    }

    fn writable_session(&self) -> Result<Session, Refused> {
        let session = self.session()?;
        if session.read_only { Err(ErrorCode::CodexTooNew.into()) } else { Ok(session) }
    }

    /// The place of a cursor that was given out; an empty one is the beginning.
    fn place(&self, cursor: &str) -> Result<Option<Place>, Refused> {
        if cursor.is_empty() {
            return Ok(None);
        }
        let place = self.cursors().place(cursor).cloned();
        place.map(Some).ok_or_else(|| ErrorCode::CursorExpired.into())
    }

    fn cursors(&self) -> MutexGuard<'_, Cursors> {
        self.cursors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn thread_id(text: &str) -> Result<ThreadId, ErrorCode> {
    ThreadId::from_str(text).map_err(|_| ErrorCode::ThreadNotFound)
}

fn turn_id(text: &str) -> Result<TurnId, ErrorCode> {
    TurnId::from_str(text).map_err(|_| ErrorCode::BadRequest)
}
