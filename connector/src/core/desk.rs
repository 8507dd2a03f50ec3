//! What the desk decides, and what the machine says of itself.

use bytes::Bytes;
use flydex_agent_proto::v1 as agent;
use flydex_agent_proto::v1::agent_event::Kind as EventKind;
use flydex_domain::id::{DeviceId, Generation};
use flydex_domain::scope::Role;
use flydex_domain::status::MachineStatus;
use flydex_domain::stream::StreamId;
use flydex_proto::convert::wire_status;
use flydex_proto::v1;
use prost::Message as _;

use super::Core;
use super::devices::wire_role;
use super::port::CodexPort;
use crate::codex::CodexStatus;
use crate::paired::{CoreStatus, DeskPolicy, LinkStatus};

impl<P: CodexPort> Core<P> {
    // === What the machine says of itself ===

    pub(super) fn generation(&self) -> Option<Generation> {
        match &self.codex {
            CodexStatus::Ready { generation, .. } => Some(*generation),
            CodexStatus::Starting | CodexStatus::Unavailable(_) => None,
        }
    }

    pub(super) fn report(&self) -> v1::MachineReport {
        let (version, read_only) = self.version();
        let status = match &self.codex {
            _ if self.draining => MachineStatus::Draining,
            CodexStatus::Starting => MachineStatus::CodexStarting,
            CodexStatus::Ready { .. } => MachineStatus::CodexReady,
            CodexStatus::Unavailable(code) => MachineStatus::CodexUnavailable(*code),
        };
        let (state, code) = wire_status(status);
        v1::MachineReport {
            state: state.into(),
            code,
            codex_version: version.to_owned(),
            read_only,
            paused: self.policy.paused,
        }
    }

    fn version(&self) -> (&str, bool) {
        match &self.codex {
            CodexStatus::Ready { version, read_only, .. } => (version, *read_only),
            CodexStatus::Starting | CodexStatus::Unavailable(_) => ("", false),
        }
    }

    fn snapshot(&self) -> agent::MachineSnapshot {
        let (version, read_only) = self.version();
        let directory =
            |(path, label): &(String, String)| agent::Directory { path: path.clone(), label: label.clone() };
        agent::MachineSnapshot {
            machine_label: self.paired.machine_label.clone(),
            codex_version: version.to_owned(),
            connector_version: self.connector_version.clone(),
            read_only,
            paused: self.policy.paused,
            own_role: agent::DeviceRole::Unspecified.into(),
            approvals: Vec::new(),
            questions: Vec::new(),
            directories: self.policy.directories.iter().map(directory).collect(),
            session_acceptance: self.policy.session_acceptance,
            strict_audit: self.is_strict(),
            device_list_version: self.devices.version(),
            endorsement: !self.policy.enrol_at_desk_only,
            passkey_demanded: self.policy.passkey_for_high_risk,
            own_passkey: Bytes::new(),
        }
    }

    /// Everything that a device which comes new must know, and the approvals for which there was no room.
    pub(super) fn full_snapshot(
        &self,
        role: Role,
        device_id: DeviceId,
        bytes_max: usize,
    ) -> (agent::MachineSnapshot, Vec<agent::SignedApproval>) {
        let mut snapshot = self.snapshot();
        snapshot.own_role = wire_role(role).into();
        snapshot.own_passkey = self.passkey_of(device_id);
        snapshot.questions = self.questions.open();
        let mut room = bytes_max.saturating_sub(snapshot.encoded_len());
        let mut left_out = Vec::new();
        for approval in self.approvals.open() {
            let bytes = approval.encoded_len() + 8;
            if bytes <= room {
                room -= bytes;
                snapshot.approvals.push(approval);
            } else {
                left_out.push(approval);
            }
        }
        (snapshot, left_out)
    }

    /// An event of the machine stream, for every session that is admitted.
    pub(super) fn machine_event(&mut self, kind: EventKind) {
        let body = Bytes::from(agent::AgentEvent { kind: Some(kind) }.encode_to_vec());
        let is_watched = !self.sessions.is_empty();
        self.publish(StreamId::MACHINE, body, is_watched);
    }

    pub(super) fn machine_changed(&mut self) {
        let snapshot = self.snapshot();
        self.machine_event(EventKind::MachineChanged(agent::MachineChanged { snapshot: Some(snapshot) }));
        self.send_report();
        self.publish_status();
    }

    pub(super) fn codex_changed(&mut self, status: CodexStatus) {
        if self.codex == status {
            return;
        }
        self.codex = status;
        self.end_lost_approvals();
        self.end_lost_questions();
        self.machine_changed();
    }

    pub(super) fn policy_changed(&mut self, policy: DeskPolicy) {
        let offers_change = self.policy.session_acceptance != policy.session_acceptance
            || self.policy.passkey_for_high_risk != policy.passkey_for_high_risk;
        if self.policy == policy {
            return;
        }
        self.policy = policy;
        self.end_refused_sessions();
        if offers_change {
            self.renew_open_approvals();
        }
        self.machine_changed();
    }

    pub(super) fn set_link_status(&mut self, link: LinkStatus) {
        self.link_status = link;
        self.publish_status();
    }

    pub(super) fn publish_status(&self) {
        let status = CoreStatus {
            boot_id: self.boot_id,
            link: self.link_status,
            codex: match &self.codex {
                CodexStatus::Ready { .. } => Ok(()),
                CodexStatus::Starting => Err(None),
                CodexStatus::Unavailable(code) => Err(Some(*code)),
            },
            sessions: self.sessions.len(),
            journal_writable: self.journal_writable,
        };
        self.status.send_if_modified(|current| {
            let changed = *current != Some(status);
            *current = Some(status);
            changed
        });
    }
}
