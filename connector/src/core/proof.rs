//! Effects that an earlier life of the connector began: what proof of them Codex shows.

use flydex_agent_proto::v1 as agent;
use flydex_agent_proto::v1::command_result::Kind as ResultKind;
use flydex_domain::command::{CommandKind, Outcome};
use flydex_domain::journal::Key;
use flydex_domain::limits::MACHINE_COMMANDS_IN_FLIGHT_MAX;

use super::command::InFlight;
use super::port::CodexPort;
use super::receipt::{Answer, Asked};
use super::{Core, Done};
use crate::codex::{Refused, ThreadId, TurnId};

impl<P: CodexPort> Core<P> {
    /// An earlier life began it. Only a prompt that Codex shows proves that it acted; all else stays unknown.
    pub(super) fn look_for_proof(&mut self, asked: Asked) {
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
            | CommandKind::AnswerQuestion
            | CommandKind::ListDevices
            | CommandKind::EndorseDevice
            | CommandKind::PinPasskey => None,
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
