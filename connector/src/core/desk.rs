//! What the desk decides, what the machine says of itself, and the device list as it changes.

use bytes::Bytes;
use flydex_agent_proto::v1 as agent;
use flydex_agent_proto::v1::agent_event::Kind as EventKind;
use flydex_domain::device::DeviceList;
use flydex_domain::error::ErrorCode;
use flydex_domain::id::{DeviceId, Generation};
use flydex_domain::limits::{PAGE_BYTES_MAX, SNAPSHOT_REST_BYTES};
use flydex_domain::revocation::DeviceCut;
use flydex_domain::scope::Role;
use flydex_domain::status::MachineStatus;
use flydex_domain::stream::StreamId;
use flydex_proto::convert::wire_status;
use flydex_proto::v1;
use prost::Message as _;

use super::Core;
use super::port::CodexPort;
use crate::codex::CodexStatus;
use crate::paired::{CoreStatus, DeskPolicy, DeskRequest, LinkStatus};

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
            strict_audit: self.policy.strict_audit,
        }
    }

    /// Everything that a device which comes new must know, and the approvals for which there was no room.
    pub(super) fn full_snapshot(&self, role: Role) -> (agent::MachineSnapshot, Vec<agent::SignedApproval>) {
        let mut snapshot = self.snapshot();
        snapshot.own_role = match role {
            Role::Viewer => agent::DeviceRole::Viewer,
            Role::Operator => agent::DeviceRole::Operator,
            Role::Owner => agent::DeviceRole::Owner,
        }
        .into();
        snapshot.questions = self.questions.open();
        let mut room = PAGE_BYTES_MAX.saturating_sub(SNAPSHOT_REST_BYTES).saturating_sub(snapshot.encoded_len());
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
        let offers_change = self.policy.session_acceptance != policy.session_acceptance;
        if self.policy == policy {
            return;
        }
        self.policy = policy;
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

    // === The device list ===

    pub(super) async fn desk_request(&mut self, request: DeskRequest) {
        match request {
            DeskRequest::Enrol { key, role, label, reply } => {
                let now = self.now();
                let mut devices = self.devices.clone();
                let enrolled = match devices.enrol(key, role, &label, now) {
                    Ok(device_id) => self.keep_devices(devices).await.map(|()| device_id),
                    Err(code) => Err(code),
                };
                if let Ok(device_id) = enrolled {
                    // Its sessions were admitted as what it was before.
                    self.end_sessions_of(device_id, ErrorCode::Moving);
                }
                let _ = reply.send(enrolled);
            }
            DeskRequest::Remove { device_id, reply } => {
                let _ = reply.send(self.remove_device(device_id).await);
            }
            DeskRequest::Devices { reply } => {
                let _ = reply.send(self.devices.devices().cloned().collect());
            }
        }
    }

    /// The account took rights from a device: all, or those above a role. The owner hears of it once it is durable,
    /// and may ask again.
    pub(super) async fn owner_cuts(&mut self, cut: DeviceCut, asked: String) {
        let done = match cut.keeps {
            Some(role) => self.reduce_device(cut.device_id, role).await,
            None => self.remove_device(cut.device_id).await,
        };
        match done {
            Ok(()) | Err(ErrorCode::NotFound) => {
                let device_id = Bytes::copy_from_slice(cut.device_id.as_bytes());
                let removed = v1::DeviceRemoved { device_id, keeps: asked };
                self.to_owner(v1::connector_frame::Kind::DeviceRemoved(removed));
            }
            Err(_) => {}
        }
    }

    async fn reduce_device(&mut self, device_id: DeviceId, role: Role) -> Result<(), ErrorCode> {
        let mut devices = self.devices.clone();
        if !devices.reduce(&device_id, role) {
            return Err(ErrorCode::NotFound);
        }
        // It may do less at once, whatever the disk says; what it was let in as before ends.
        self.devices.reduce(&device_id, role);
        self.end_sessions_of(device_id, ErrorCode::Moving);
        self.keep_devices(devices).await
    }

    async fn remove_device(&mut self, device_id: DeviceId) -> Result<(), ErrorCode> {
        let mut devices = self.devices.clone();
        if !devices.remove(&device_id, self.now()) {
            return Err(ErrorCode::NotFound);
        }
        // A device that must go is gone from memory at once, whatever the disk says.
        self.devices.remove(&device_id, self.now());
        self.end_sessions_of(device_id, ErrorCode::DeviceRevoked);
        self.keep_devices(devices).await
    }

    /// Makes the list durable, then the present one.
    async fn keep_devices(&mut self, devices: DeviceList) -> Result<(), ErrorCode> {
        let content = serde_json::to_vec_pretty(&devices).map_err(|_| ErrorCode::Internal)?;
        let storage = self.device_storage.clone();
        let kept = tokio::task::spawn_blocking(move || {
            let mut storage = storage.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            storage.replace(&content)
        });
        match kept.await {
            Ok(Ok(())) => {
                self.devices = devices;
                Ok(())
            }
            Ok(Err(_)) | Err(_) => {
                tracing::error!("the device list cannot be kept");
                Err(ErrorCode::StateUnusable)
            }
        }
    }
}
