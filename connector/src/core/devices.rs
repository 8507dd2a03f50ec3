//! The machine's device list as it changes: by the desk, by the account that takes rights away, and by an owner
//! device's endorsement (INV-KEY).
//!
//! An endorsement is looked at twice: when it arrives, and again when it is journalled and its turn has come, since
//! the list may have changed between. Only then is the list made durable, and only then is it the present one.

use std::collections::BTreeSet;

use bytes::Bytes;
use flydex_agent_proto::v1 as agent;
use flydex_agent_proto::v1::command_result::Kind as ResultKind;
use flydex_domain::command::{Outcome, SignedCommand};
use flydex_domain::device::{Device, DeviceList, Holder};
use flydex_domain::endorsement::{self, Endorsement, Endorser};
use flydex_domain::error::ErrorCode;
use flydex_domain::id::DeviceId;
use flydex_domain::journal::Key;
use flydex_domain::key::PublicKey;
use flydex_domain::limits::DEVICE_TOMBSTONES_SHOWN_MAX;
use flydex_domain::passkey::{self, Passkey, PasskeyAlgorithm};
use flydex_domain::revocation::DeviceCut;
use flydex_domain::scope::Role;
use flydex_domain::time::UnixMillis;
use flydex_domain::token::MachineCredential;
use flydex_proto::v1;

use super::Core;
use super::effects::Act;
use super::port::CodexPort;
use super::receipt::{Answer, Asked};
use crate::paired::DeskRequest;

/// What a device asks to be changed in the list.
pub(super) enum DeviceChange {
    /// Take a device that an owner device endorses.
    Endorse(Endorser, Endorsement),
    /// Pin the asking device's passkey.
    PinPasskey(DeviceId, Passkey),
}

impl<P: CodexPort> Core<P> {
    // === Whom the machine obeys now ===

    /// Why nothing that this device began may reach Codex any more.
    pub(super) fn barred(&self, device_id: DeviceId) -> Option<ErrorCode> {
        let Some(device) = self.devices.get(&device_id) else { return Some(ErrorCode::DeviceRevoked) };
        if self.refuses(device) {
            return Some(ErrorCode::BrowserKeysRefused);
        }
        self.policy.paused.then_some(ErrorCode::RemotePaused)
    }

    fn refuses(&self, device: &Device) -> bool {
        self.policy.refuse_browser_keys && device.holder == Holder::Browser
    }

    /// The desk may obey fewer devices than before.
    pub(super) fn end_refused_sessions(&mut self) {
        let sessions: BTreeSet<_> = self.sessions.values().map(|session| session.device_id).collect();
        let refused = |device_id: &DeviceId| self.devices.get(device_id).is_none_or(|device| self.refuses(device));
        let ended: Vec<_> = sessions.into_iter().filter(refused).collect();
        for device_id in ended {
            self.end_sessions_of(device_id, ErrorCode::BrowserKeysRefused);
        }
    }

    /// Whether an accept needs control's word before it acts: by the desk's choice, or by the account's, which
    /// control signs into the machine's credential. A credential that says nothing that holds counts as strict.
    pub(super) fn is_strict(&self) -> bool {
        let verifier = self.paired.verifier.borrow();
        // Past its day its word on the account still stands: time zero leaves the signature to be judged.
        let credential = verifier.verify::<MachineCredential>(self.paired.credential.borrow().expose(), UnixMillis(0));
        self.policy.strict_audit || credential.map_or(true, |credential| credential.strict_audit)
    }

    /// Whether the person of the device agrees to exactly this command, by the passkey that was pinned.
    pub(super) fn person_agrees(&self, asked: &Asked, command: &SignedCommand) -> Result<(), ErrorCode> {
        let device = self.devices.get(&asked.key.0).ok_or(ErrorCode::DeviceRevoked)?;
        let pinned = device.passkey.as_ref().ok_or(ErrorCode::PasskeyMissing)?;
        let assertion = command.assertion.as_ref().ok_or(ErrorCode::PasskeyInvalid)?;
        passkey::verify(pinned, assertion, &self.paired.origin, asked.hash)
    }

    /// The id of a device's pinned passkey, or nothing.
    pub(super) fn passkey_of(&self, device_id: DeviceId) -> Bytes {
        let pinned = self.devices.get(&device_id).and_then(|device| device.passkey.as_ref());
        pinned.map(|passkey| Bytes::copy_from_slice(&passkey.credential_id)).unwrap_or_default()
    }

    // === What a device asks ===

    pub(super) fn list_devices(&mut self, asked: Asked) {
        let mut removed: Vec<_> = self.devices.removed().collect();
        removed.sort_by_key(|(_, removed_at)| std::cmp::Reverse(*removed_at));
        let list = agent::DeviceList {
            version: self.devices.version(),
            devices: self.devices.devices().map(known).collect(),
            removed_total: u32::try_from(removed.len()).unwrap_or(u32::MAX),
            removed: removed.into_iter().take(DEVICE_TOMBSTONES_SHOWN_MAX).map(gone).collect(),
        };
        self.finish(asked, Outcome::Executed, Answer::of(ResultKind::DeviceList(list)));
    }

    pub(super) fn endorse_device(&mut self, asked: Asked, role: Role, endorse: &agent::EndorseDevice) {
        let endorser = Endorser { device_id: asked.key.0, role };
        let Some(endorsement) = endorsement_of(endorse) else {
            return self.refuse(asked, ErrorCode::BadRequest, Answer::default());
        };
        match self.admits(endorser, &endorsement) {
            Ok(()) => {
                let change = DeviceChange::Endorse(endorser, endorsement);
                self.begin(asked, false, Act::Devices(Box::new(change)));
            }
            Err(code) => self.refuse(asked, code, Answer::default()),
        }
    }

    pub(super) fn pin_passkey(&mut self, asked: Asked, pin: &agent::PinPasskey) {
        let algorithm = match pin.algorithm() {
            agent::PasskeyAlgorithm::Es256 => Some(PasskeyAlgorithm::Es256),
            agent::PasskeyAlgorithm::Ed25519 => Some(PasskeyAlgorithm::Ed25519),
            agent::PasskeyAlgorithm::Unspecified => None,
        };
        let passkey = algorithm.ok_or(ErrorCode::BadRequest);
        match passkey.and_then(|algorithm| Passkey::new(&pin.credential_id, algorithm, &pin.key)) {
            Ok(passkey) => {
                let change = DeviceChange::PinPasskey(asked.key.0, passkey);
                self.begin(asked, false, Act::Devices(Box::new(change)));
            }
            Err(code) => self.refuse(asked, code, Answer::default()),
        }
    }

    fn admits(&self, endorser: Endorser, endorsement: &Endorsement) -> Result<(), ErrorCode> {
        let desk_allows = !self.policy.enrol_at_desk_only && !self.policy.refuse_browser_keys;
        endorsement::admit(&self.devices, desk_allows, endorser, endorsement, self.now())
    }

    /// A change is journalled, and its turn has come.
    pub(super) async fn change_devices(&mut self, key: Key, change: DeviceChange) {
        let Some(in_flight) = self.in_flight.get(&key) else { return };
        let asked = in_flight.asked;
        let changed = match change {
            DeviceChange::Endorse(endorser, endorsement) => self.take_endorsed(endorser, &endorsement).await,
            DeviceChange::PinPasskey(device_id, passkey) => self.take_passkey(device_id, passkey).await,
        };
        match changed {
            Ok(answer) => {
                self.finish(asked, Outcome::Executed, answer);
                self.machine_changed();
            }
            Err(code) => self.finish(asked, Outcome::Refused(code), Answer::default()),
        }
    }

    async fn take_endorsed(&mut self, endorser: Endorser, endorsement: &Endorsement) -> Result<Answer, ErrorCode> {
        self.admits(endorser, endorsement)?;
        let mut devices = self.devices.clone();
        let device_id = endorsement::enrol(&mut devices, endorser, endorsement, self.now())?;
        self.keep_devices(devices).await?;
        tracing::info!(device.id = %device_id, "a device was endorsed");
        self.end_sessions_of(device_id, ErrorCode::Moving);
        let endorsed = agent::DeviceEndorsed {
            device_id: Bytes::copy_from_slice(device_id.as_bytes()),
            list_version: self.devices.version(),
        };
        Ok(Answer::of(ResultKind::DeviceEndorsed(endorsed)))
    }

    async fn take_passkey(&mut self, device_id: DeviceId, passkey: Passkey) -> Result<Answer, ErrorCode> {
        let mut devices = self.devices.clone();
        devices.pin_passkey(&device_id, passkey, self.now())?;
        self.keep_devices(devices).await?;
        Ok(Answer::default())
    }

    /// By which a device that another one endorsed knows this machine.
    pub(super) fn introduction(&self, device_id: DeviceId) -> Option<agent::Introduction> {
        let device = self.devices.get(&device_id)?;
        let introducer = device.introducer?;
        let machine_key = PublicKey::of(&self.paired.machine_key.borrow());
        Some(agent::Introduction {
            machine_key_algorithm: machine_key.algorithm().to_owned(),
            machine_key: Bytes::copy_from_slice(machine_key.as_bytes()),
            role: wire_role(device.role).into(),
            mac: Bytes::copy_from_slice(&introducer.mac),
        })
    }

    // === What the desk and the account ask ===

    pub(super) async fn desk_request(&mut self, request: DeskRequest) {
        match request {
            DeskRequest::Enrol { holder, key, role, label, reply } => {
                let enrolled = self.enrol(holder, key, role, &label).await;
                if let Ok(device_id) = enrolled {
                    // Its sessions were admitted as what it was before.
                    self.end_sessions_of(device_id, ErrorCode::Moving);
                    self.machine_changed();
                }
                let _ = reply.send(enrolled);
            }
            DeskRequest::Remove { device_id, reply } => {
                let _ = reply.send(self.remove_device(device_id).await);
            }
            DeskRequest::Cut { cuts, reply } => {
                let mut done = Ok(());
                for cut in cuts {
                    done = done.and(self.cut_device(cut).await);
                }
                let _ = reply.send(done);
            }
            DeskRequest::Devices { reply } => {
                let _ = reply.send(self.devices.clone());
            }
        }
    }

    async fn enrol(&mut self, holder: Holder, key: PublicKey, role: Role, label: &str) -> Result<DeviceId, ErrorCode> {
        let now = self.now();
        let mut devices = self.devices.clone();
        let device_id = match holder {
            Holder::Browser if self.policy.refuse_browser_keys => return Err(ErrorCode::BrowserKeysRefused),
            Holder::Browser => devices.enrol(key, role, label, now)?,
            Holder::Program => devices.trust(key, role, label, now)?,
        };
        self.keep_devices(devices).await.map(|()| device_id)
    }

    /// The account took rights from a device: all, or those above a role. The owner hears of it once it is durable,
    /// and may ask again.
    pub(super) async fn owner_cuts(&mut self, cut: DeviceCut, asked: String) {
        if self.cut_device(cut).await.is_ok() {
            let device_id = Bytes::copy_from_slice(cut.device_id.as_bytes());
            let removed = v1::DeviceRemoved { device_id, keeps: asked };
            self.to_owner(v1::connector_frame::Kind::DeviceRemoved(removed));
        }
    }

    /// Takes all from a device, or what is above a role. One that is not listed has nothing to lose.
    async fn cut_device(&mut self, cut: DeviceCut) -> Result<(), ErrorCode> {
        let done = match cut.keeps {
            Some(role) => self.reduce_device(cut.device_id, role).await,
            None => self.remove_device(cut.device_id).await,
        };
        match done {
            Err(ErrorCode::NotFound) => Ok(()),
            done => done,
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
        let kept = self.keep_devices(devices).await;
        self.machine_changed();
        kept
    }

    async fn remove_device(&mut self, device_id: DeviceId) -> Result<(), ErrorCode> {
        let mut devices = self.devices.clone();
        if !devices.remove(&device_id, self.now()) {
            return Err(ErrorCode::NotFound);
        }
        // A device that must go is gone from memory at once, whatever the disk says.
        self.devices.remove(&device_id, self.now());
        self.end_sessions_of(device_id, ErrorCode::DeviceRevoked);
        let kept = self.keep_devices(devices).await;
        self.machine_changed();
        kept
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

fn endorsement_of(endorse: &agent::EndorseDevice) -> Option<Endorsement> {
    let role = match endorse.role() {
        agent::DeviceRole::Viewer => Role::Viewer,
        agent::DeviceRole::Operator => Role::Operator,
        agent::DeviceRole::Owner => Role::Owner,
        agent::DeviceRole::Unspecified => return None,
    };
    Some(Endorsement {
        key: PublicKey::parse(&endorse.key_algorithm, &endorse.key).ok()?,
        role,
        label: endorse.label.clone(),
        expires_at: UnixMillis(endorse.expires_at_ms),
        list_version: endorse.list_version,
        introduction_mac: endorse.introduction_mac.as_ref().try_into().ok()?,
    })
}

fn known(device: &Device) -> agent::KnownDevice {
    let introducer = device.introducer.map(|introducer| Bytes::copy_from_slice(introducer.device_id.as_bytes()));
    agent::KnownDevice {
        device_id: Bytes::copy_from_slice(device.device_id().as_bytes()),
        role: wire_role(device.role).into(),
        label: device.label.clone(),
        enrolled_at_ms: device.enrolled_at.0,
        endorsed_by: introducer.unwrap_or_default(),
        has_passkey: device.passkey.is_some(),
    }
}

fn gone((device_id, removed_at): (&DeviceId, UnixMillis)) -> agent::RemovedDevice {
    agent::RemovedDevice { device_id: Bytes::copy_from_slice(device_id.as_bytes()), removed_at_ms: removed_at.0 }
}

pub(super) fn wire_role(role: Role) -> agent::DeviceRole {
    match role {
        Role::Viewer => agent::DeviceRole::Viewer,
        Role::Operator => agent::DeviceRole::Operator,
        Role::Owner => agent::DeviceRole::Owner,
    }
}
