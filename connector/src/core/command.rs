//! A command from its arrival to its receipt: the gate rules, the core performs (INV-ONCE, INV-FINAL).

use bytes::Bytes;
use flydex_agent_proto::v1 as agent;
use flydex_agent_proto::v1::command_body::Kind as Body;
use flydex_agent_proto::v1::command_result::Kind as ResultKind;
use flydex_domain::command::{CommandClass, CommandKind, Decision, Outcome, SignedCommand};
use flydex_domain::error::ErrorCode;
use flydex_domain::gate::{Arrival, Known, Remembered, Ruling, Situation, only_stops, rule};
use flydex_domain::id::{ApprovalId, DeviceId, SessionId};
use flydex_domain::journal::{Begun, Key, Record, Settled, encode};
use flydex_domain::limits::MACHINE_COMMANDS_IN_FLIGHT_MAX;
use flydex_domain::scope::Role;
use flydex_domain::stream::{StreamId, Verdict};
use flydex_runtime::telemetry::trace::Traceparent;
use prost::Message as _;

use super::port::CodexPort;
use super::receipt::{Answer, Asked};
use super::{Core, Done, InFlight, Waiting};
use crate::codex::{Refused, RequestKey, ThreadId, TurnId};
use crate::journal::Write;

/// What an effect does once it is journalled.
pub(super) enum Act {
    /// Ask Codex.
    Execute(Body),
    /// Answer an approval.
    AnswerApproval { approval_id: ApprovalId, key: RequestKey, decision: Decision },
    /// Answer questions.
    AnswerQuestion { question_id: ApprovalId, key: RequestKey, answers: Vec<agent::QuestionAnswer> },
}

impl<P: CodexPort> Core<P> {
    pub(super) fn command(
        &mut self,
        session_id: SessionId,
        session_device_id: DeviceId,
        account_role: Role,
        command: &SignedCommand,
        trace: Option<Traceparent>,
    ) {
        let asked = Asked::of(command, session_id, trace);
        let admitted_as = self.sessions.get(&session_id).map(|session| session.device_id);
        let arrival = Arrival { command, session_id, session_device_id, account_role, admitted_as };
        let ruling = rule(&self.situation(), &self.devices, &arrival, || self.recall(&asked.key));
        match ruling {
            Ruling::Turned(code) => {
                tracing::debug!(
                    error.code = code.name(),
                    command.kind = asked.kind.name(),
                    "a command was turned away"
                );
                self.send_failure(&asked, code);
            }
            Ruling::Repeat(known) => self.repeat(asked, known),
            Ruling::Refused(ErrorCode::CommandIdReused) => {
                self.send_receipt(&asked, Outcome::Refused(ErrorCode::CommandIdReused), Answer::default());
            }
            Ruling::Refused(code) => self.refuse(asked, code, Answer::default()),
            Ruling::Unknown => self.send_receipt(&asked, Outcome::Unknown, Answer::default()),
            Ruling::Pass(_) if self.draining => self.send_failure(&asked, ErrorCode::GoingAway),
            Ruling::Pass(role) => self.perform(asked, role, command),
        }
    }

    fn situation(&self) -> Situation {
        Situation {
            account_id: self.paired.account_id,
            machine_id: self.paired.machine_id,
            boot_id: self.boot_id,
            now: self.now(),
            paused: self.policy.paused,
            journal_writable: self.journal_writable,
            has_room: self.in_flight.len() < MACHINE_COMMANDS_IN_FLIGHT_MAX,
            low_water: self.journal.low_water(),
        }
    }

    fn recall(&self, key: &Key) -> Option<Remembered> {
        let under_way = |in_flight: &InFlight| Remembered { hash: in_flight.asked.hash, state: Known::UnderWay };
        self.in_flight
            .get(key)
            .map(under_way)
            .or_else(|| self.journal.get(key).map(flydex_domain::journal::Entry::remembered))
            .or_else(|| self.reads.get(key))
    }

    fn repeat(&mut self, asked: Asked, known: Known) {
        match known {
            Known::UnderWay => {
                if let Some(in_flight) = self.in_flight.get_mut(&asked.key) {
                    in_flight.asked.session_id = asked.session_id;
                }
            }
            Known::Settled(outcome) => {
                let ids = self.journal.get(&asked.key).map(|entry| Bytes::copy_from_slice(entry.ids()));
                let answer = Answer { result: ids.unwrap_or_default(), as_of: None };
                self.send_receipt(&asked, outcome, answer);
            }
            Known::LeftOpen => self.look_for_proof(asked),
        }
    }

    fn perform(&mut self, asked: Asked, role: Role, command: &SignedCommand) {
        let body = agent::CommandBody::decode(command.body.expose().clone()).ok().and_then(|body| body.kind);
        let Some(body) = body.filter(|body| kind_of(body) == asked.kind) else {
            return self.refuse(asked, ErrorCode::BadRequest, Answer::default());
        };
        match asked.kind.class() {
            CommandClass::Read => self.read(asked, role, body),
            CommandClass::Effect => match body {
                Body::AnswerApproval(answer) => self.answer_approval(asked, command, &answer),
                Body::AnswerQuestion(answer) => self.answer_question(asked, answer),
                body @ (Body::Attach(_)
                | Body::ListThreads(_)
                | Body::ReadThread(_)
                | Body::ListModels(_)
                | Body::WatchThread(_)
                | Body::UnwatchThread(_)
                | Body::StartThread(_)
                | Body::StartTurn(_)
                | Body::Steer(_)
                | Body::Interrupt(_)
                | Body::RenameThread(_)
                | Body::ArchiveThread(_)
                | Body::UnarchiveThread(_)
                | Body::Review(_)) => self.begin(asked, only_stops(&command.header), Act::Execute(body)),
            },
        }
    }

    // === Reads ===

    fn read(&mut self, asked: Asked, role: Role, body: Body) {
        self.reads.begin(asked.key, asked.hash);
        self.in_flight.insert(asked.key, InFlight::new(asked, self.rings.position(StreamId::MACHINE)));
        match body {
            Body::Attach(attach) => self.attach_session(asked, role, &attach),
            Body::WatchThread(watch) => self.watch_thread(asked, &watch),
            Body::UnwatchThread(unwatch) => self.unwatch_thread(asked, &unwatch),
            body @ (Body::ListThreads(_)
            | Body::ReadThread(_)
            | Body::ListModels(_)
            | Body::StartThread(_)
            | Body::StartTurn(_)
            | Body::Steer(_)
            | Body::Interrupt(_)
            | Body::RenameThread(_)
            | Body::ArchiveThread(_)
            | Body::UnarchiveThread(_)
            | Body::Review(_)
            | Body::AnswerApproval(_)
            | Body::AnswerQuestion(_)) => self.execute(asked.key, body),
        }
    }

    fn attach_session(&mut self, asked: Asked, role: Role, attach: &agent::Attach) {
        let is_new = !self.sessions.contains_key(&asked.session_id);
        if is_new && self.sessions.len() >= flydex_domain::limits::MACHINE_SESSIONS_MAX {
            return self.finish(asked, Outcome::Refused(ErrorCode::Overloaded), Answer::default());
        }
        if is_new {
            self.admit(asked.session_id, asked.key.0);
        }
        self.subscribe(asked.session_id, StreamId::MACHINE);
        let cursor = attach.cursor.as_ref().and_then(super::watch::position);
        let Some(verdict) = self.rings.verdict(StreamId::MACHINE, cursor) else { return };
        self.send_subscribed(&asked, StreamId::MACHINE, verdict);
        let as_of = self.rings.position(StreamId::MACHINE);
        let mut left_out = Vec::new();
        let snapshot = match verdict {
            Verdict::Resumed { from } => {
                self.replay(asked.session_id, StreamId::MACHINE, from);
                None
            }
            Verdict::Gap { .. } => {
                let (snapshot, rest) = self.full_snapshot(role);
                left_out = rest;
                Some(snapshot)
            }
        };
        let attached = agent::Attached { snapshot, machine_time_ms: self.now().0 };
        self.finish(asked, Outcome::Executed, Answer::of(ResultKind::Attached(attached)).at(as_of));
        // What no snapshot has room for is told again as an event; openings are told by id, so twice is harmless.
        for approval in left_out {
            self.machine_event(agent::agent_event::Kind::ApprovalOpened(approval));
        }
    }

    fn execute(&self, key: Key, body: Body) {
        let port = self.port.clone();
        self.spawn(async move { Done::Executed(key, port.execute(key.1, body).await) });
    }

    /// Codex has answered a read or an effect.
    pub(super) fn executed(&mut self, key: Key, result: Result<agent::CommandResult, Refused>) {
        let Some(in_flight) = self.in_flight.get(&key) else { return };
        let (asked, as_of) = (in_flight.asked, in_flight.as_of);
        let (outcome, answer) = match result {
            Ok(result) => (Outcome::Executed, Answer { result: result.encode_to_vec().into(), as_of }),
            Err(refused) if refused.unknown => (Outcome::Unknown, Answer::default()),
            Err(refused) => (Outcome::Refused(refused.code()), refusal(refused.refusal)),
        };
        self.finish(asked, outcome, answer);
    }

    // === Effects ===

    /// Journals an effect; it acts once that is durable. What only stops something never waits for a journal.
    pub(super) fn begin(&mut self, asked: Asked, only_stops: bool, act: Act) {
        let thread_id = match &act {
            Act::Execute(body) => thread_of(body),
            Act::AnswerApproval { .. } | Act::AnswerQuestion { .. } => String::new(),
        };
        let record = Record::Begun(Begun {
            key: asked.key,
            hash: asked.hash,
            kind: asked.kind,
            issued_at: asked.issued_at,
            at: self.now(),
            thread_id,
        });
        self.journal.record(&record);
        self.in_flight.insert(asked.key, InFlight::new(asked, self.rings.position(StreamId::MACHINE)));
        let waiting = Waiting::Begin { asked, only_stops, act };
        self.write(&record, waiting);
    }

    /// Hands a record to the journal; `waiting` goes on when it is durable, or known not to be.
    pub(super) fn write(&mut self, record: &Record, waiting: Waiting) {
        let token = self.next_number();
        if self.journal_writable && self.writer.send(Write::Append { frames: encode(record), token }) {
            self.waiting.insert(token, waiting);
        } else {
            self.written(waiting, false);
        }
    }

    /// A record is durable, or will not be.
    pub(super) fn written(&mut self, waiting: Waiting, durable: bool) {
        match waiting {
            Waiting::Begin { asked, only_stops, act } => {
                if durable || only_stops {
                    self.send_delivered(&self.newest(asked));
                    self.act(asked, act);
                } else {
                    self.take_back(&act);
                    self.finish(asked, Outcome::Refused(ErrorCode::JournalUnavailable), Answer::default());
                }
            }
            Waiting::Settle { asked, outcome, answer } => self.send_receipt(&asked, outcome, answer),
            Waiting::Rewrite => self.set_journal_writable(durable),
            Waiting::Nobody => {}
        }
    }

    pub(super) fn newest(&self, asked: Asked) -> Asked {
        self.in_flight.get(&asked.key).map_or(asked, |in_flight| in_flight.asked)
    }

    fn act(&mut self, asked: Asked, act: Act) {
        let port = self.port.clone();
        match act {
            Act::Execute(body) => self.execute(asked.key, body),
            Act::AnswerApproval { approval_id, key, decision } => self.spawn(async move {
                Done::ApprovalAnswered(asked.key, approval_id, port.answer_approval(key, decision).await)
            }),
            Act::AnswerQuestion { question_id, key, answers } => self.spawn(async move {
                Done::QuestionAnswered(asked.key, question_id, port.answer_question(key, answers).await)
            }),
        }
    }

    /// A final refusal of something that was not begun.
    pub(super) fn refuse(&mut self, asked: Asked, code: ErrorCode, answer: Answer) {
        match asked.kind.class() {
            CommandClass::Read => {
                self.reads.begin(asked.key, asked.hash);
                self.reads.settle(asked.key, Outcome::Refused(code));
            }
            CommandClass::Effect => {
                let record = self.settled(&asked, Outcome::Refused(code), Vec::new());
                self.journal.record(&record);
                // Within this life memory holds it, and in the next one an older boot is answered `unknown`.
                self.write(&record, Waiting::Nobody);
            }
        }
        self.send_receipt(&asked, Outcome::Refused(code), answer);
    }

    /// The outcome of a command that was under way. An effect's is durable before it is told.
    pub(super) fn finish(&mut self, asked: Asked, outcome: Outcome, answer: Answer) {
        let asked = self.newest(asked);
        self.in_flight.remove(&asked.key);
        match asked.kind.class() {
            CommandClass::Read => {
                self.reads.settle(asked.key, outcome);
                self.send_receipt(&asked, outcome, answer);
            }
            CommandClass::Effect => {
                let ids = if ids_only(asked.kind, outcome) { answer.result.to_vec() } else { Vec::new() };
                let record = self.settled(&asked, outcome, ids);
                self.journal.record(&record);
                self.audit_after(&asked, outcome);
                self.write(&record, Waiting::Settle { asked, outcome, answer });
            }
        }
    }

    fn settled(&self, asked: &Asked, outcome: Outcome, ids: Vec<u8>) -> Record {
        let (key, hash, issued_at, at) = (asked.key, asked.hash, asked.issued_at, self.now());
        Record::Settled(Settled { key, hash, outcome, issued_at, at, ids })
    }

    // === After a crash ===

    /// An earlier life began it. Only a prompt that Codex shows proves that it acted; all else stays unknown.
    fn look_for_proof(&mut self, asked: Asked) {
        let open = self.journal.get(&asked.key).and_then(flydex_domain::journal::Entry::open);
        let provable = open.and_then(|(kind, thread_id)| match kind {
            CommandKind::StartTurn | CommandKind::Steer => thread_id.parse::<ThreadId>().ok(),
            CommandKind::Attach
            | CommandKind::ListThreads
            | CommandKind::ReadThread
            | CommandKind::ListModels
            | CommandKind::WatchThread
            | CommandKind::UnwatchThread
            | CommandKind::StartThread
            | CommandKind::Interrupt
            | CommandKind::RenameThread
            | CommandKind::ArchiveThread
            | CommandKind::UnarchiveThread
            | CommandKind::Review
            | CommandKind::AnswerApproval
            | CommandKind::AnswerQuestion => None,
        });
        let Some(thread_id) = provable.filter(|_| self.in_flight.len() < MACHINE_COMMANDS_IN_FLIGHT_MAX) else {
            return self.send_receipt(&asked, Outcome::Unknown, Answer::default());
        };
        if self.in_flight.insert(asked.key, InFlight::new(asked, None)).is_some() {
            return;
        }
        let port = self.port.clone();
        self.spawn(async move { Done::Proof(asked.key, port.find_client_id(thread_id, asked.key.1).await) });
    }

    pub(super) fn proof(&mut self, key: Key, found: Result<Option<TurnId>, Refused>) {
        let Some(in_flight) = self.in_flight.get(&key) else { return };
        let asked = in_flight.asked;
        match found {
            Ok(Some(turn_id)) => {
                let accepted =
                    agent::TurnAccepted { turn_id: turn_id.to_string(), joined: asked.kind == CommandKind::Steer };
                self.finish(asked, Outcome::Executed, Answer::of(ResultKind::TurnAccepted(accepted)));
            }
            Ok(None) | Err(_) => {
                self.in_flight.remove(&key);
                self.send_receipt(&asked, Outcome::Unknown, Answer::default());
            }
        }
    }
}

/// A refusal's content.
pub(super) fn refusal(refusal: Option<agent::Refusal>) -> Answer {
    refusal.map_or_else(Answer::default, |refusal| Answer::of(ResultKind::Refusal(refusal)))
}

/// Whether the result is nothing but ids, which the journal may keep.
fn ids_only(kind: CommandKind, outcome: Outcome) -> bool {
    match kind {
        CommandKind::StartThread | CommandKind::StartTurn | CommandKind::Steer | CommandKind::Review => {
            outcome == Outcome::Executed
        }
        CommandKind::Attach
        | CommandKind::ListThreads
        | CommandKind::ReadThread
        | CommandKind::ListModels
        | CommandKind::WatchThread
        | CommandKind::UnwatchThread
        | CommandKind::Interrupt
        | CommandKind::RenameThread
        | CommandKind::ArchiveThread
        | CommandKind::UnarchiveThread
        | CommandKind::AnswerApproval
        | CommandKind::AnswerQuestion => false,
    }
}

/// The kind that a body is for.
fn kind_of(body: &Body) -> CommandKind {
    match body {
        Body::Attach(_) => CommandKind::Attach,
        Body::ListThreads(_) => CommandKind::ListThreads,
        Body::ReadThread(_) => CommandKind::ReadThread,
        Body::ListModels(_) => CommandKind::ListModels,
        Body::WatchThread(_) => CommandKind::WatchThread,
        Body::UnwatchThread(_) => CommandKind::UnwatchThread,
        Body::StartThread(_) => CommandKind::StartThread,
        Body::StartTurn(_) => CommandKind::StartTurn,
        Body::Steer(_) => CommandKind::Steer,
        Body::Interrupt(_) => CommandKind::Interrupt,
        Body::RenameThread(_) => CommandKind::RenameThread,
        Body::ArchiveThread(_) => CommandKind::ArchiveThread,
        Body::UnarchiveThread(_) => CommandKind::UnarchiveThread,
        Body::Review(_) => CommandKind::Review,
        Body::AnswerApproval(_) => CommandKind::AnswerApproval,
        Body::AnswerQuestion(_) => CommandKind::AnswerQuestion,
    }
}

/// The thread in which a prompt would show, for proof after a crash.
fn thread_of(body: &Body) -> String {
    // The journal holds no text of a device, so only what is an id is kept.
    let proper = |text: &str| text.parse::<ThreadId>().map(|thread_id| thread_id.to_string()).unwrap_or_default();
    match body {
        Body::StartTurn(start) => proper(&start.thread_id),
        Body::Steer(steer) => proper(&steer.thread_id),
        Body::Attach(_)
        | Body::ListThreads(_)
        | Body::ReadThread(_)
        | Body::ListModels(_)
        | Body::WatchThread(_)
        | Body::UnwatchThread(_)
        | Body::StartThread(_)
        | Body::Interrupt(_)
        | Body::RenameThread(_)
        | Body::ArchiveThread(_)
        | Body::UnarchiveThread(_)
        | Body::Review(_)
        | Body::AnswerApproval(_)
        | Body::AnswerQuestion(_) => String::new(),
    }
}
