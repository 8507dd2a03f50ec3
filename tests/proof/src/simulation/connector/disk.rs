//! What the connector does around its journal: nothing before it is on disk, nothing told before it is settled.

use flydex_domain::command::Outcome;
use flydex_domain::error::ErrorCode;
use flydex_domain::invariant::Event;
use flydex_domain::journal::{Record, encode};
use flydex_domain::ledger::CommandKey;
use flydex_domain::machine::message::{MachineMessageKind, Stage};

use super::super::{What, World};
use super::{Then, ToConnector};

impl World {
    pub(super) fn write(&mut self, record: Record, then: Then) {
        self.connector.life.journal.record(&record);
        self.connector.life.unsynced.push((record, then));
        if self.connector.life.unsynced.len() == 1 {
            let wait = 1 + self.chance.below(60);
            self.after(wait, What::Connector(ToConnector::Sync { boot: self.connector.disk.boots }));
        }
    }

    pub(super) fn synced(&mut self) {
        let boot = self.connector.disk.boots;
        for (record, then) in std::mem::take(&mut self.connector.life.unsynced) {
            self.connector.disk.journal.extend(encode(&record));
            match then {
                Then::Act(key) => {
                    let Some((command, session_id)) = self.connector.life.in_flight.get(&key).cloned() else {
                        continue;
                    };
                    self.record(Event::Journalled(key, command.hash()));
                    let progress =
                        MachineMessageKind::Progress { command_id: command.header.command_id, stage: Stage::Delivered };
                    self.say_to(session_id, progress);
                    let wait = 1 + self.chance.below(200);
                    self.after(wait, What::Connector(ToConnector::Act { boot, key }));
                }
                Then::Tell(command, session_id, outcome) => self.tell(&command, session_id, outcome),
                Then::Nothing => {}
            }
        }
    }

    pub(super) fn acts(&mut self, key: CommandKey) {
        let Some((command, _)) = self.connector.life.in_flight.get(&key) else { return };
        let hash = command.hash();
        let declined = self.chance.one_in(5);
        if !declined {
            self.record(Event::Acted(key, hash));
        }
        let outcome = if declined { Outcome::Refused(ErrorCode::CodexUnavailable) } else { Outcome::Executed };
        let wait = 1 + self.chance.below(300);
        let boot = self.connector.disk.boots;
        self.after(wait, What::Connector(ToConnector::Outcome { boot, key, outcome }));
    }

    pub(super) fn has_outcome(&mut self, key: CommandKey, outcome: Outcome) {
        let Some((command, session_id)) = self.connector.life.in_flight.remove(&key) else { return };
        let record = self.settled(&command, outcome);
        self.write(record, Then::Tell(Box::new(command), session_id, outcome));
    }
}
