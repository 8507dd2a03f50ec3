//! One account with a machine and a device: its names, its keys and its words.

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use flydex_domain::command::command_transcript;
use flydex_domain::encoding::sha256;
use flydex_domain::error::ErrorCode;
use flydex_domain::id::{AccountId, BootId, DeviceId, GrantId, MachineId, TicketId, UserId};
use flydex_domain::key::{PublicKey, sign};
use flydex_domain::limits::{CREDENTIAL_LIFETIME, GRANT_LIFETIME, TICKET_LIFETIME};
use flydex_domain::scope::Role;
use flydex_domain::token::{EncodedKey, Grant, MachineCredential, Ticket};
use flydex_proto::v1;
use prost::Message as _;
use prost_reflect::{DynamicMessage, Value};

use crate::chance::Chance;
use crate::known::Known;
use crate::stand::{REGION, Stand};

/// One account, its machine and its device.
#[derive(Clone)]
pub struct Tenant {
    /// Its account.
    pub account_id: AccountId,
    /// Its user.
    pub user_id: UserId,
    /// Its machine.
    pub machine_id: MachineId,
    /// The life of its connector.
    pub boot_id: BootId,
    /// What stands in all of its content, names and versions.
    pub marker: String,
    /// What its messages hold.
    pub known: Known,
    /// Where its numbers begin: streams, sequences, counters.
    pub numbers_from: u32,
    device: SigningKey,
    machine_key: SigningKey,
}

impl Tenant {
    /// An account whose names a seed decides.
    #[must_use]
    pub fn new(chance: &mut Chance, numbers_from: u32) -> Self {
        let mut tenant = Self {
            account_id: AccountId::from_uuid(uuid(chance)),
            user_id: UserId::from_uuid(uuid(chance)),
            machine_id: MachineId::from_uuid(uuid(chance)),
            boot_id: BootId::from_bytes(chance.bytes()),
            marker: format!("marker-{:016x}", chance.number()),
            known: Known::default(),
            numbers_from,
            device: SigningKey::from_bytes(&chance.bytes()),
            machine_key: SigningKey::from_bytes(&chance.bytes()),
        };
        tenant.introduce(chance);
        tenant
    }

    /// Puts its names into what it knows.
    fn introduce(&mut self, chance: &mut Chance) {
        let mut known = std::mem::take(&mut self.known);
        known.bytes("account_id", self.account_id.as_bytes());
        known.bytes("user_id", self.user_id.as_bytes());
        known.bytes("machine_id", self.machine_id.as_bytes());
        known.bytes("boot_id", self.boot_id.as_bytes());
        known.bytes("device_id", self.device_id().as_bytes());
        known.bytes("body", self.marker.as_bytes());
        known.bytes("result", self.marker.as_bytes());
        known.bytes("bytes", self.marker.as_bytes());
        known.note("connector_version", Value::String(self.marker.clone()));
        known.note("codex_version", Value::String(self.marker.clone()));
        for name in ["command_id", "grant_id", "link_id", "session_id", "subject_id"] {
            known.bytes(name, &chance.bytes::<16>());
        }
        for name in ["approval_id", "generation", "command_hash"] {
            known.bytes(name, &chance.bytes::<32>());
        }
        let from = self.numbers_from;
        known.note("stream_id", Value::U32(from));
        for name in ["seq", "last_seq", "link_counter", "counter", "nonce", "serial", "number", "after_number"] {
            known.note(name, Value::U64(u64::from(from) + 1));
        }
        known.note("lifetime_ms", Value::U32(60_000));
        known.note("code", Value::U32(u32::from(ErrorCode::MachineOffline.number())));
        known.note("region", Value::String(REGION.to_owned()));
        self.known = known;
    }

    /// The fingerprint of its device's key.
    #[must_use]
    pub fn device_id(&self) -> DeviceId {
        PublicKey::of(&self.device).device_id()
    }

    /// The public half of its device's key.
    #[must_use]
    pub fn device_key(&self) -> PublicKey {
        PublicKey::of(&self.device)
    }

    /// Its device's secret key.
    #[must_use]
    pub fn device(&self) -> &SigningKey {
        &self.device
    }

    /// Its machine's secret key.
    #[must_use]
    pub fn machine_key(&self) -> &SigningKey {
        &self.machine_key
    }

    /// The same account and machine, seen by another device of that role.
    #[must_use]
    pub fn colleague(&self, chance: &mut Chance) -> Self {
        let mut colleague = self.clone();
        colleague.user_id = UserId::from_uuid(uuid(chance));
        colleague.device = SigningKey::from_bytes(&chance.bytes());
        colleague
    }

    /// The same account with another machine.
    #[must_use]
    pub fn neighbour(&self, chance: &mut Chance) -> Self {
        let mut neighbour = self.clone();
        neighbour.machine_id = MachineId::from_uuid(uuid(chance));
        neighbour.machine_key = SigningKey::from_bytes(&chance.bytes());
        neighbour
    }

    /// A fresh ticket.
    #[must_use]
    pub fn ticket(&self, stand: &Stand, role: Role, chance: &mut Chance) -> String {
        stand.sign(&Ticket {
            ticket_id: TicketId::from_uuid(uuid(chance)),
            region: REGION.to_owned(),
            account_id: self.account_id,
            user_id: self.user_id,
            role,
            device_id: self.device_id(),
            expires_at: stand.now().plus(TICKET_LIFETIME),
        })
    }

    /// A grant.
    #[must_use]
    pub fn grant(&self, stand: &Stand, role: Role) -> String {
        let grant_id = self.known.all("grant_id");
        let grant_id = grant_id.first().and_then(|plain| GrantId::try_from(plain.telling()?).ok());
        stand.sign(&Grant {
            grant_id: grant_id.unwrap_or_else(|| GrantId::from_uuid(uuid::Uuid::nil())),
            account_id: self.account_id,
            user_id: self.user_id,
            role,
            device_key: EncodedKey(self.device_key()),
            expires_at: stand.now().plus(GRANT_LIFETIME),
        })
    }

    /// Its machine's credential.
    #[must_use]
    pub fn credential(&self, stand: &Stand) -> String {
        stand.sign(&MachineCredential {
            account_id: self.account_id,
            machine_id: self.machine_id,
            machine_key: EncodedKey(PublicKey::of(&self.machine_key)),
            serial: 1,
            region_pin: None,
            strict_audit: false,
            issued_at: stand.now(),
            expires_at: stand.now().plus(CREDENTIAL_LIFETIME),
        })
    }

    /// A command of its device, in a session.
    #[must_use]
    pub fn command(&self, kind: v1::CommandKind, command_id: [u8; 16], session_id: &Bytes) -> v1::Command {
        let header = v1::CommandHeader {
            command_id: copy(&command_id),
            account_id: copy(self.account_id.as_bytes()),
            machine_id: copy(self.machine_id.as_bytes()),
            device_id: copy(self.device_id().as_bytes()),
            boot_id: copy(self.boot_id.as_bytes()),
            issued_at_ms: 1,
            lifetime_ms: 60_000,
            kind: kind.into(),
            body_sha256: Bytes::new(),
            session_id: session_id.clone(),
            answer: Some(v1::ApprovalAnswer {
                approval_id: copy(&[3; 32]),
                generation: copy(&[4; 32]),
                decision: v1::Decision::Decline.into(),
            }),
        };
        let body = Bytes::copy_from_slice(self.marker.as_bytes());
        let header = Bytes::from(header.encode_to_vec());
        self.complete(v1::Command {
            header,
            body,
            signature: Bytes::new(),
            audit_receipt: String::new(),
            assertion: None,
        })
    }

    /// Makes a command whole: what does not belong to its kind is left out, and it is signed.
    #[must_use]
    pub fn complete(&self, command: v1::Command) -> v1::Command {
        let Ok(mut header) = v1::CommandHeader::decode(command.header.clone()) else { return command };
        let kind = header.kind();
        // Reads are below 20, and alone name their session.
        if i32::from(kind) >= v1::CommandKind::StartThread.into() {
            header.session_id = Bytes::new();
        }
        if kind != v1::CommandKind::AnswerApproval {
            header.answer = None;
        }
        header.body_sha256 = copy(&sha256(&command.body));
        self.signed(v1::Command { header: Bytes::from(header.encode_to_vec()), ..command })
    }

    /// Signs a command as it is.
    #[must_use]
    pub fn signed(&self, command: v1::Command) -> v1::Command {
        let signature = copy(&sign(&self.device, command_transcript(&command.header)));
        v1::Command { signature, ..command }
    }

    /// Puts `word` in place of every command in a message.
    ///
    /// # Errors
    /// When a command does not encode.
    pub fn commands_in(message: &mut DynamicMessage, word: &impl Fn(v1::Command) -> v1::Command) -> anyhow::Result<()> {
        if message.descriptor_name() == "Command" {
            let command = word(message.transcode_to::<v1::Command>()?);
            return Ok(message.transcode_from_bytes(&command.encode_to_vec())?);
        }
        for (_, value) in message.fields_mut() {
            if let Value::Message(inner) = value {
                Self::commands_in(inner, word)?;
            }
        }
        Ok(())
    }
}

/// What a message of reflection is called, and how it takes another's place.
trait Named {
    fn descriptor_name(&self) -> String;
    fn transcode_from_bytes(&mut self, bytes: &[u8]) -> Result<(), prost::DecodeError>;
}

impl Named for DynamicMessage {
    fn descriptor_name(&self) -> String {
        prost_reflect::ReflectMessage::descriptor(self).name().to_owned()
    }

    fn transcode_from_bytes(&mut self, bytes: &[u8]) -> Result<(), prost::DecodeError> {
        *self = Self::decode(prost_reflect::ReflectMessage::descriptor(self), bytes)?;
        Ok(())
    }
}

/// Bytes as they travel.
#[must_use]
pub fn copy(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

fn uuid(chance: &mut Chance) -> uuid::Uuid {
    uuid::Uuid::from_bytes(chance.bytes())
}
