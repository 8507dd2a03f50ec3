//! The stub in place of Codex: it thinks for a while, answers, and tells events when it is told to.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flydex_agent_proto::v1 as agent;
use flydex_agent_proto::v1::command_body::Kind as Body;
use flydex_agent_proto::v1::command_result::Kind as ResultKind;
use flydex_connector::codex::{
    AnswerOutcome, CodexEvent, CodexStatus, Refused, RequestKey, Resolution, ThreadId, TurnId, WatchId,
};
use flydex_connector::core::port::CodexPort;
use flydex_connector::epoch::Fence;
use flydex_domain::command::Decision;
use flydex_domain::error::ErrorCode;
use flydex_domain::id::{CommandId, MachineId};
use flydex_domain::time::UnixMillis;
use rand::RngExt as _;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::questions::{Met, Questions};
use crate::play::{Cast, Play};
use crate::record::Entry;
use crate::run::World;
use crate::schedule::Due;

/// Longest time after which a question ends by itself where it is played so, in milliseconds: about as long as a phone
/// takes to answer, so that either may be first.
const ENDS_AFTER_MS_MAX: u64 = 60;

/// Stands in for Codex at one machine.
#[derive(Clone)]
pub(super) struct StubPort(Arc<Stub>);

struct Stub {
    world: Arc<World>,
    machine_id: MachineId,
    questions: Questions,
    fence: Fence,
    events: mpsc::Sender<CodexEvent>,
    watched: Mutex<BTreeSet<ThreadId>>,
}

impl StubPort {
    pub(super) fn new(
        world: Arc<World>,
        machine_id: MachineId,
        fence: Fence,
        events: mpsc::Sender<CodexEvent>,
    ) -> Self {
        let questions = Questions::new();
        Self(Arc::new(Stub { world, machine_id, questions, fence, events, watched: Mutex::default() }))
    }

    fn watched(&self) -> MutexGuard<'_, BTreeSet<ThreadId>> {
        self.0.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for an approval or tells one event of one watched thread, whenever one is due.
    pub(super) async fn tell(self, mut due: mpsc::Receiver<Due>) {
        let mut turn = 0_usize;
        while let Some(due) = due.recv().await {
            let world = &self.0.world;
            if let Some(cast) = due.cast {
                self.ask(&due, cast).await;
                continue;
            }
            let next = {
                let watched = self.watched();
                watched.iter().nth(turn % watched.len().max(1)).copied()
            };
            turn = turn.wrapping_add(1);
            let Some(thread_id) = next else {
                world.figures.count(due.phase + 1, "events without a watcher");
                continue;
            };
            let text = stamp(due.phase + 1, world.micros(due.intended), world.scenario.stub.event_bytes);
            let field = agent::DeltaField::Text.into();
            let delta = agent::ItemDelta { turn_id: "t".to_owned(), item_id: "i".to_owned(), field, text };
            let event = agent::AgentEvent { kind: Some(agent::agent_event::Kind::ItemDelta(delta)) };
            if self.0.events.send(CodexEvent::Thread { thread_id, event }).await.is_err() {
                return;
            }
        }
    }
}

/// The thread of that number at every machine.
pub(crate) const fn thread(number: usize) -> ThreadId {
    ThreadId::from_uuid(Uuid::from_u128(0x01a2_0000_0000_7000_8000_0000_0000_0000 + number as u128))
}

/// Text that says when it was to be told.
fn stamp(phase: usize, micros: u64, bytes: usize) -> String {
    let mut text = format!("{phase} {micros} ");
    text.extend(std::iter::repeat_n('.', bytes.saturating_sub(text.len())));
    text
}

/// Phase and intended time of an event's text.
pub(crate) fn stamped(text: &str) -> Option<(usize, u64)> {
    let mut words = text.split(' ');
    Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}

impl CodexPort for StubPort {
    fn current(&self) -> CodexStatus {
        let generation = self.0.questions.generation();
        CodexStatus::Ready { version: "0.169.0".to_owned(), generation, read_only: false }
    }

    async fn execute(&self, command_id: CommandId, body: Body) -> Result<agent::CommandResult, Refused> {
        let stub = &self.0.world.scenario.stub;
        let [least, most] = stub.answer_ms;
        let thinks = rand::rng().random_range(least..=most);
        if thinks > 0 {
            tokio::time::sleep(Duration::from_millis(thinks)).await;
        }
        // The size of a page is what matters on the way, so its cursor is its weight.
        let weight = || ".".repeat(stub.page_bytes);
        let kind = match body {
            Body::ListThreads(_) => {
                Some(ResultKind::ThreadPage(agent::ThreadPage { threads: Vec::new(), next_cursor: weight() }))
            }
            Body::ReadThread(read) => Some(ResultKind::HistoryPage(agent::HistoryPage {
                thread_id: read.thread_id,
                turns: Vec::new(),
                older_cursor: weight(),
            })),
            Body::ListModels(_) => Some(ResultKind::ModelList(agent::ModelList { models: Vec::new() })),
            Body::StartTurn(_) => {
                self.act(command_id);
                let turn_id = command_id.to_string();
                Some(ResultKind::TurnAccepted(agent::TurnAccepted { turn_id, joined: false }))
            }
            Body::RenameThread(_) => {
                self.act(command_id);
                None
            }
            Body::Attach(_)
            | Body::WatchThread(_)
            | Body::UnwatchThread(_)
            | Body::StartThread(_)
            | Body::Steer(_)
            | Body::Interrupt(_)
            | Body::ArchiveThread(_)
            | Body::UnarchiveThread(_)
            | Body::Review(_)
            | Body::AnswerApproval(_)
            | Body::AnswerQuestion(_)
            | Body::ListDevices(_)
            | Body::EndorseDevice(_)
            | Body::PinPasskey(_) => return Err(Refused::new(ErrorCode::BadRequest)),
        };
        Ok(agent::CommandResult { kind })
    }

    async fn watch(&self, thread_id: ThreadId, watch_id: WatchId) -> Result<(), Refused> {
        let outcome = Ok(agent::ThreadSnapshot { writable: true, ..agent::ThreadSnapshot::default() });
        // The core is gone only when the run ends.
        let _ = self.0.events.send(CodexEvent::Watched { watch_id, thread_id, outcome }).await;
        self.watched().insert(thread_id);
        Ok(())
    }

    async fn unwatch(&self, thread_id: ThreadId) {
        self.watched().remove(&thread_id);
    }

    async fn answer_approval(&self, key: RequestKey, decision: Decision) -> AnswerOutcome {
        let Stub { world, machine_id, questions, fence, events, .. } = &*self.0;
        let met = questions.answer(&key, decision, |answered| {
            world.recorder.answered(world.now_us(), *machine_id, answered, fence.highest());
        });
        match met {
            Met::Open => {
                let how = Resolution::OursConfirmed(decision);
                // The core is gone only when the run ends.
                let _ = events.send(CodexEvent::RequestResolved { key, how }).await;
                AnswerOutcome::Confirmed
            }
            Met::AtDesk => AnswerOutcome::AnsweredAtDesk,
            Met::Nothing => AnswerOutcome::Gone,
        }
    }

    async fn answer_question(&self, _: RequestKey, _: Vec<agent::QuestionAnswer>) -> AnswerOutcome {
        AnswerOutcome::Gone
    }

    async fn find_client_id(&self, _: ThreadId, _: CommandId) -> Result<Option<TurnId>, Refused> {
        Ok(None)
    }
}

impl StubPort {
    fn act(&self, command_id: CommandId) {
        let Stub { world, machine_id, fence, .. } = &*self.0;
        world.recorder.acted(world.now_us(), *machine_id, command_id, fence.highest());
    }

    /// Asks what the schedule wants, and does what is played besides.
    async fn ask(&self, due: &Due, cast: Cast) {
        let Stub { world, questions, events, .. } = &*self.0;
        let phase = due.phase + 1;
        let kind = if cast.changes_files { "file_change" } else { "command" };
        world.figures.count(phase, &format!("approval: asked: {kind}"));
        let reason = format!("{phase} {} {}", world.micros(due.intended), cast.told());
        let now = UnixMillis(world.clock.unix_millis());
        let asked = questions.ask(thread(0), cast.changes_files, reason, now);
        let key = asked.key.clone();
        // The core is gone only when the run ends.
        let _ = events.send(CodexEvent::ApprovalAsked(asked)).await;
        let ends = match cast.play {
            Play::Withdrawn => Some(Resolution::Withdrawn),
            Play::AtDesk => Some(Resolution::AtDesk),
            Play::Restart => Some(Resolution::CodexLost),
            Play::Accept
            | Play::Decline
            | Play::Cancel
            | Play::TwoAccept
            | Play::TwoDiffer
            | Play::Repeat
            | Play::Expired
            | Play::WrongDigest
            | Play::WrongGeneration => None,
        };
        if let Some(how) = ends {
            let wait = Duration::from_millis(rand::rng().random_range(0..=ENDS_AFTER_MS_MAX));
            let port = self.clone();
            world.shutdown.spawn(async move {
                tokio::time::sleep(wait).await;
                port.end(key, how).await;
            });
        }
    }

    /// Takes a question back, answers it at the desk, or begins another life.
    async fn end(&self, key: RequestKey, how: Resolution) {
        let Stub { world, machine_id, questions, events, .. } = &*self.0;
        let event = if how == Resolution::CodexLost {
            questions.restart();
            CodexEvent::Status(self.current())
        } else {
            let ended = questions.end(&key, how == Resolution::AtDesk, |question| {
                world.recorder.take(world.now_us(), *machine_id, Entry::Closed { question: question.into() });
            });
            if !ended {
                return;
            }
            CodexEvent::RequestResolved { key, how }
        };
        // The core is gone only when the run ends.
        let _ = events.send(event).await;
    }
}
