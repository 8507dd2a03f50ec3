//! Reads are remembered in memory only, the newest of them: a repeat within a session is answered once.

use std::collections::{BTreeMap, VecDeque};

use flydex_agent_proto::v1 as agent;
use flydex_agent_proto::v1::command_body::Kind as Body;
use flydex_agent_proto::v1::command_result::Kind as ResultKind;
use flydex_domain::command::Outcome;
use flydex_domain::error::ErrorCode;
use flydex_domain::gate::{Known, Remembered};
use flydex_domain::id::CommandHash;
use flydex_domain::journal::Key;
use flydex_domain::limits::{
    INTRODUCED_REST_BYTES, PAGE_BYTES_MAX, READ_DEDUP_ENTRIES_MAX, RECEIPT_RESULT_BYTES_MAX, SNAPSHOT_REST_BYTES,
};
use flydex_domain::scope::Role;
use flydex_domain::stream::{StreamId, Verdict};
use prost::Message as _;

use super::command::InFlight;
use super::effects::refusal;
use super::port::CodexPort;
use super::receipt::{Answer, Asked};
use super::{Core, Done};
use crate::codex::Refused;

/// The newest reads and what became of them.
#[derive(Default)]
pub(super) struct Reads {
    entries: BTreeMap<Key, Remembered>,
    order: VecDeque<Key>,
}

impl Reads {
    pub(super) fn get(&self, key: &Key) -> Option<Remembered> {
        self.entries.get(key).copied()
    }

    pub(super) fn begin(&mut self, key: Key, hash: CommandHash) {
        if self.entries.insert(key, Remembered { hash, state: Known::UnderWay }).is_none() {
            self.order.push_back(key);
        }
        if self.order.len() > READ_DEDUP_ENTRIES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.entries.remove(&oldest);
        }
    }

    pub(super) fn settle(&mut self, key: Key, outcome: Outcome) {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.state = Known::Settled(outcome);
        }
    }
}

impl<P: CodexPort> Core<P> {
    pub(super) fn read(&mut self, asked: Asked, role: Role, body: Body) {
        self.reads.begin(asked.key, asked.hash);
        self.in_flight.insert(asked.key, InFlight::new(asked, self.rings.position(StreamId::MACHINE)));
        match body {
            Body::Attach(attach) => self.attach_session(asked, role, &attach),
            Body::WatchThread(watch) => self.watch_thread(asked, &watch),
            Body::UnwatchThread(unwatch) => self.unwatch_thread(asked, &unwatch),
            Body::ListDevices(_) => self.list_devices(asked),
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
            | Body::AnswerQuestion(_)
            | Body::EndorseDevice(_)
            | Body::PinPasskey(_)) => self.execute(asked.key, body),
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
        let introduction = self.introduction(asked.key.0);
        // Whoever does not know the machine's key yet reads an introduction in the receipt itself, and nothing beside it.
        let bytes_max = match &introduction {
            Some(introduction) => RECEIPT_RESULT_BYTES_MAX - INTRODUCED_REST_BYTES - introduction.encoded_len(),
            None => PAGE_BYTES_MAX - SNAPSHOT_REST_BYTES,
        };
        let mut left_out = Vec::new();
        let snapshot = match verdict {
            Verdict::Resumed { from } => {
                self.replay(asked.session_id, StreamId::MACHINE, from);
                None
            }
            Verdict::Gap { .. } => {
                let (snapshot, rest) = self.full_snapshot(role, asked.key.0, bytes_max);
                left_out = rest;
                Some(snapshot)
            }
        };
        let attached = agent::Attached { snapshot, machine_time_ms: self.now().0, introduction };
        self.finish(asked, Outcome::Executed, Answer::of(ResultKind::Attached(attached)).at(as_of));
        // What no snapshot has room for is told again as an event; openings are told by id, so twice is harmless.
        for approval in left_out {
            self.machine_event(agent::agent_event::Kind::ApprovalOpened(approval));
        }
    }

    pub(super) fn execute(&self, key: Key, body: Body) {
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
}
