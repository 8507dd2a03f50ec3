//! The names and words of the simulated world.

use std::time::Duration;

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use flydex_domain::command::{CommandClass, CommandHeader, CommandKind, SignedCommand, command_transcript};
use flydex_domain::encoding::sha256;
use flydex_domain::id::{AccountId, BootId, CommandId, GrantId, Incarnation, LinkId, MachineId, SessionId, UserId};
use flydex_domain::key::{PublicKey, sign};
use flydex_domain::scope::{MachineKey, Principal, Role};
use flydex_domain::secret::Payload;
use flydex_domain::time::UnixMillis;
use flydex_domain::token::{EncodedKey, Grant};
use uuid::Uuid;

pub(super) fn account() -> AccountId {
    AccountId::from_uuid(Uuid::from_u128(1))
}

pub(super) fn machine() -> MachineKey {
    let machine_id = MachineId::from_uuid(Uuid::from_u128(2));
    MachineKey::new(Principal::Machine { account_id: account(), machine_id }.scope(), machine_id)
}

pub(super) fn device_key(device: u8) -> SigningKey {
    SigningKey::from_bytes(&[device; 32])
}

pub(super) fn grant(device: u8) -> Grant {
    Grant {
        grant_id: GrantId::from_uuid(Uuid::from_u128(u128::from(device) + 400)),
        account_id: account(),
        user_id: UserId::from_uuid(Uuid::from_u128(u128::from(device) + 300)),
        role: Role::Owner,
        device_key: EncodedKey(PublicKey::of(&device_key(device))),
        expires_at: UnixMillis(u64::MAX / 2),
    }
}

pub(super) fn incarnation(number: u128) -> Incarnation {
    Incarnation::from_bytes(number.to_be_bytes())
}

pub(super) fn boot(number: u128) -> BootId {
    BootId::from_bytes(number.to_be_bytes())
}

pub(super) fn session(number: u128) -> SessionId {
    SessionId::from_uuid(Uuid::from_u128(number))
}

pub(super) fn link(number: u128) -> LinkId {
    LinkId::from_uuid(Uuid::from_u128(number))
}

pub(super) fn command(
    device: u8,
    number: u128,
    kind: CommandKind,
    boot_id: BootId,
    issued_at: UnixMillis,
    session_id: SessionId,
) -> SignedCommand {
    let key = device_key(device);
    let header = CommandHeader {
        command_id: CommandId::from_uuid(Uuid::from_u128(number)),
        account_id: account(),
        machine_id: machine().machine_id(),
        device_id: PublicKey::of(&key).device_id(),
        boot_id,
        issued_at,
        lifetime: Duration::from_secs(600),
        kind,
        body_sha256: sha256(b"body"),
        session_id: (kind.class() == CommandClass::Read).then_some(session_id),
        answer: None,
    };
    let header_bytes = Bytes::from(format!("{header:?}"));
    let signature = Bytes::copy_from_slice(&sign(&key, command_transcript(&header_bytes)));
    let body = Payload::new(Bytes::from_static(b"body"));
    SignedCommand { header, header_bytes, body, signature, audit_receipt: None, assertion: None }
}
