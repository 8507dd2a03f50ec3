//! A device key and the commands it signs.

use std::time::Duration;

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use flydex_agent_proto::v1 as agent;
use flydex_domain::command::{ApprovalAnswer, CommandHeader, CommandKind, command_transcript};
use flydex_domain::encoding::{Transcript, sha256};
use flydex_domain::id::{BootId, CommandId, DeviceId, SessionId};
use flydex_domain::key::{PublicKey, SIGNATURE_BYTES, sign, sign_p256};
use flydex_domain::time::UnixMillis;
use flydex_proto::v1;
use p256::ecdsa::SigningKey as P256SigningKey;
use prost::Message as _;
use uuid::Uuid;

use crate::account::PairedMachine;

/// Lifetime of the commands that this client signs.
const LIFETIME: Duration = Duration::from_secs(120);

/// A device: its key, in memory.
#[derive(Clone, Debug)]
pub struct Device {
    key: DeviceKey,
}

#[derive(Clone, Debug)]
enum DeviceKey {
    Ed25519(SigningKey),
    P256(P256SigningKey),
}

impl Device {
    /// A device with a fresh key.
    #[must_use]
    pub fn new() -> Self {
        Self { key: DeviceKey::Ed25519(SigningKey::from_bytes(&rand::random())) }
    }

    /// A device of a browser without Ed25519, with a fresh key.
    #[must_use]
    pub fn p256() -> Self {
        // Nearly every 32 bytes are a key.
        let key =
            std::iter::repeat_with(|| P256SigningKey::from_slice(&rand::random::<[u8; 32]>())).find_map(Result::ok);
        key.map_or_else(Self::new, |key| Self { key: DeviceKey::P256(key) })
    }

    /// Signs a transcript, for proofs.
    #[must_use]
    pub fn sign_transcript(&self, transcript: Transcript) -> [u8; SIGNATURE_BYTES] {
        match &self.key {
            DeviceKey::Ed25519(key) => sign(key, transcript),
            DeviceKey::P256(key) => sign_p256(key, transcript),
        }
    }

    /// The secret half, for tests that look for it where it must not be.
    #[must_use]
    pub fn secret_bytes(&self) -> Vec<u8> {
        match &self.key {
            DeviceKey::Ed25519(key) => key.to_bytes().to_vec(),
            DeviceKey::P256(key) => key.to_bytes().to_vec(),
        }
    }

    /// The public half.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        match &self.key {
            DeviceKey::Ed25519(key) => PublicKey::of(key),
            DeviceKey::P256(key) => PublicKey::of_p256(key),
        }
    }

    /// The key's fingerprint.
    #[must_use]
    pub fn device_id(&self) -> DeviceId {
        self.public_key().device_id()
    }

    /// Signs a header over a body as it is: for tests that sign nonsense.
    #[must_use]
    pub fn sign(&self, header: &CommandHeader, body: Bytes) -> v1::Command {
        let header = Bytes::from(v1::CommandHeader::from(header).encode_to_vec());
        let signature = self.sign_transcript(command_transcript(&header));
        v1::Command {
            header,
            body,
            signature: Bytes::copy_from_slice(&signature),
            audit_receipt: String::new(),
            assertion: None,
        }
    }

    /// A well-formed header for a body.
    #[must_use]
    pub fn header(&self, target: &Target<'_>, kind: CommandKind, body: &[u8], now: UnixMillis) -> CommandHeader {
        CommandHeader {
            command_id: CommandId::from_uuid(Uuid::now_v7()),
            account_id: target.machine.account_id,
            machine_id: target.machine.machine_id,
            device_id: self.device_id(),
            boot_id: target.boot_id,
            issued_at: now,
            lifetime: LIFETIME,
            kind,
            body_sha256: sha256(body),
            session_id: target.session_id,
            answer: target.answer,
        }
    }
}

impl Default for Device {
    fn default() -> Self {
        Self::new()
    }
}

/// What a command is meant for.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The machine.
    pub machine: &'a PairedMachine,
    /// The life of its connector.
    pub boot_id: BootId,
    /// The session, on reads.
    pub session_id: Option<SessionId>,
    /// The answer, on answers to approvals.
    pub answer: Option<ApprovalAnswer>,
}

/// Serialises a command's body.
#[must_use]
pub fn body(kind: agent::command_body::Kind) -> Bytes {
    agent::CommandBody { kind: Some(kind) }.encode_to_vec().into()
}
