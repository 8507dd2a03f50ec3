//! A command arrives: the gate rules, and what may happen goes on as a read or an effect (INV-ONCE).

use bytes::Bytes;
use flydex_agent_proto::v1 as agent;
use flydex_agent_proto::v1::command_body::Kind as Body;
use flydex_domain::command::{CommandClass, Outcome, SignedCommand};
use flydex_domain::error::ErrorCode;
use flydex_domain::gate::{Arrival, Known, Remembered, Ruling, Situation, only_stops, rule};
use flydex_domain::id::{DeviceId, SessionId};
use flydex_domain::journal::Key;
use flydex_domain::limits::MACHINE_COMMANDS_IN_FLIGHT_MAX;
use flydex_domain::scope::Role;
use flydex_domain::stream::Position;
use flydex_runtime::telemetry::trace::Traceparent;
use prost::Message as _;

use super::Core;
use super::effects::Act;
use super::kind::kind_of;
use super::port::CodexPort;
use super::receipt::{Answer, Asked};

/// A command between the gate and its receipt.
pub(super) struct InFlight {
    pub(super) asked: Asked,
    pub(super) as_of: Option<Position>,
    /// The command's, open until its outcome is known.
    _span: tracing::Span,
}

impl InFlight {
    pub(super) fn new(asked: Asked, as_of: Option<Position>) -> Self {
        Self { asked, as_of, _span: tracing::Span::current() }
    }
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
            browser_keys_refused: self.policy.refuse_browser_keys,
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
            // What was read is not kept, and an empty answer would pass for one.
            Known::Settled(Outcome::Executed) if asked.kind.class() == CommandClass::Read => {
                self.send_failure(&asked, ErrorCode::CommandIdReused);
            }
            Known::Settled(outcome) => {
                let kept = self.journal.get(&asked.key).map(|entry| Bytes::copy_from_slice(entry.ids()));
                let result = self.retold(asked.kind, kept.unwrap_or_default());
                self.send_receipt(&asked, outcome, Answer { result, as_of: None });
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
                Body::EndorseDevice(endorse) => self.endorse_device(asked, role, &endorse),
                Body::PinPasskey(pin) => self.pin_passkey(asked, &pin),
                body @ (Body::Attach(_)
                | Body::ListThreads(_)
                | Body::ReadThread(_)
                | Body::ListModels(_)
                | Body::WatchThread(_)
                | Body::UnwatchThread(_)
                | Body::ListDevices(_)
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
}
