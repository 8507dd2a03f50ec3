//! A session of a device, driven step by step.

use std::collections::VecDeque;

use anyhow::Context as _;
use bytes::Bytes;
use ed25519_dalek::SigningKey;
use flydex_domain::key::sign;
use flydex_domain::proof;
use flydex_domain::scope::Role;
use flydex_proto::codec;
use flydex_proto::lanes::OnLane as _;
use flydex_proto::v1;
use flydex_proto::v1::device_message::Kind as Asked;
use flydex_proto::v1::machine_message::Kind as Said;
use flydex_proto::v1::session_down::Kind as Down;
use flydex_proto::v1::session_up::Kind as Up;
use prost::Message as _;

use crate::chance::Chance;
use crate::stand::{GATEWAY, HOST, ORIGIN, Stand};
use crate::tenant::{Tenant, copy};
use crate::wire::{Incoming, Wire};

/// A session.
pub struct Session {
    /// Its id.
    pub session_id: Bytes,
    wire: Wire,
    /// Every frame since somebody looked.
    log: VecDeque<Bytes>,
}

/// The code with which a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended(pub u32);

impl Session {
    /// Opens a session without a machine.
    ///
    /// # Errors
    /// When it is not let in.
    pub async fn open(stand: &Stand, tenant: &Tenant, role: Role, chance: &mut Chance) -> anyhow::Result<Self> {
        let hello = hello(stand, tenant, role, chance);
        let mut wire = connect(stand).await?;
        match shake_hands(&mut wire, tenant.device(), hello).await? {
            Ok(session_id) => Ok(Self { session_id, wire, log: VecDeque::new() }),
            Err(Ended(code)) => anyhow::bail!("a session was not let in: {code}"),
        }
    }

    /// Opens a session and its account's machine, and waits until that is there.
    ///
    /// # Errors
    /// When it is not let in.
    pub async fn ready(stand: &Stand, tenant: &Tenant, chance: &mut Chance) -> anyhow::Result<Self> {
        let mut session = Self::open(stand, tenant, Role::Owner, chance).await?;
        session.open_machine(tenant.machine_id.as_bytes(), true).await?;
        session.log.clear();
        Ok(session)
    }

    /// Opens a machine and waits for its status, or until it is linked; false when it was closed instead.
    ///
    /// # Errors
    /// When the session ends.
    pub async fn open_machine(&mut self, machine_id: &[u8], linked: bool) -> anyhow::Result<bool> {
        self.send(Up::Open(v1::OpenMachine { machine_id: copy(machine_id) })).await?;
        loop {
            match self.next().await? {
                Ok(Down::FromMachine(from)) if from.machine_id == machine_id => {
                    let said = from.message.and_then(|message| message.kind);
                    let Some(Said::Status(status)) = said else { continue };
                    if !linked || status.state() == v1::MachineState::CodexReady {
                        return Ok(true);
                    }
                }
                Ok(Down::MachineClosed(closed)) if closed.machine_id == machine_id => return Ok(false),
                Ok(_) => {}
                Err(Ended(code)) => anyhow::bail!("the session ended: {code}"),
            }
        }
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// When the session has ended.
    pub async fn send(&mut self, kind: Up) -> anyhow::Result<()> {
        self.wire.send(&v1::SessionUp { kind: Some(kind) }).await
    }

    /// Sends a frame with the next that is flushed.
    ///
    /// # Errors
    /// When the session has ended.
    pub async fn feed(&mut self, kind: Up) -> anyhow::Result<()> {
        let message = v1::SessionUp { kind: Some(kind) };
        self.wire.feed(message.lane(), &message.encode_to_vec()).await
    }

    /// Sends what was fed.
    ///
    /// # Errors
    /// When the session has ended.
    pub async fn flush(&mut self) -> anyhow::Result<()> {
        self.wire.flush().await
    }

    /// Says something to a machine.
    ///
    /// # Errors
    /// When the session has ended.
    pub async fn say(&mut self, machine_id: &[u8], kind: Asked) -> anyhow::Result<()> {
        let message = Some(v1::DeviceMessage { trace: None, kind: Some(kind) });
        self.send(Up::ToMachine(v1::ToMachine { machine_id: copy(machine_id), message })).await
    }

    /// Asks its machine for a sign that everything before has passed: the answer comes last of all lanes.
    ///
    /// # Errors
    /// When the session has ended.
    pub async fn ask_for_sign(&mut self, machine_id: &[u8], sign: [u8; 16]) -> anyhow::Result<()> {
        self.say(machine_id, Asked::BulkCredit(v1::BulkCredit { command_id: copy(&sign), bytes: 1 })).await
    }

    /// The next frame, or how it ended.
    ///
    /// # Errors
    /// When nothing comes for too long.
    pub async fn next(&mut self) -> anyhow::Result<Result<Down, Ended>> {
        match self.wire.next().await? {
            Incoming::Frame(frame) => {
                self.log.push_back(frame.clone());
                read(frame)
            }
            Incoming::Closed(code) => Ok(Err(Ended(u32::from(code.unwrap_or_default())))),
        }
    }

    /// Waits until it watches its machine, and has its receipt and the first event; the event's number.
    ///
    /// # Errors
    /// When the session ends.
    pub async fn watched(&mut self) -> anyhow::Result<u64> {
        let (mut seq, mut receipted) = (None, false);
        loop {
            let from = match self.next().await? {
                Ok(Down::FromMachine(from)) => from,
                Ok(_) => continue,
                Err(Ended(code)) => anyhow::bail!("the session ended: {code}"),
            };
            let said = from.message.and_then(|message| message.kind);
            if let Some(Said::Event(event)) = &said {
                seq = Some(event.seq);
            }
            receipted |= matches!(said, Some(Said::Receipt(_)));
            if let (Some(seq), true) = (seq, receipted) {
                return Ok(seq);
            }
        }
    }

    /// What came since somebody looked.
    pub fn take_log(&mut self) -> Vec<Bytes> {
        self.log.drain(..).collect()
    }
}

/// Whether a frame is the sign that was asked for.
#[must_use]
pub fn is_sign(kind: &Down, sign: &[u8]) -> bool {
    let Down::FromMachine(from) = kind else { return false };
    let said = from.message.as_ref().and_then(|message| message.kind.as_ref());
    matches!(said, Some(Said::Chunk(chunk)) if chunk.command_id == sign)
}

/// A connection on which nothing was said.
///
/// # Errors
/// When it is refused.
pub async fn connect(stand: &Stand) -> anyhow::Result<Wire> {
    Wire::open(stand.address, HOST, "/v1/session", Some(ORIGIN)).await
}

/// The first frame of a device.
#[must_use]
pub fn hello(stand: &Stand, tenant: &Tenant, role: Role, chance: &mut Chance) -> v1::SessionHello {
    v1::SessionHello {
        version: codec::VERSION,
        version_min: codec::VERSION_MIN,
        capabilities: Vec::new(),
        ticket: tenant.ticket(stand, role, chance),
        grant: tenant.grant(stand, role),
        device_key: Some(tenant.device_key().into()),
        client: tenant.marker.clone(),
    }
}

/// Says hello and proves a device key; the session's id, or the code that it ended with.
///
/// # Errors
/// When nothing comes.
pub async fn shake_hands(
    wire: &mut Wire,
    device: &SigningKey,
    hello: v1::SessionHello,
) -> anyhow::Result<Result<Bytes, Ended>> {
    let ticket = hello.ticket.clone();
    wire.send(&v1::SessionUp { kind: Some(Up::Hello(hello)) }).await?;
    let challenge = match down(wire).await? {
        Ok(Down::Challenge(challenge)) => challenge,
        Ok(_) => anyhow::bail!("neither a challenge nor an end"),
        Err(ended) => return Ok(Err(ended)),
    };
    let transcript = proof::session(&challenge.nonce.as_ref().try_into()?, &ticket, GATEWAY, ORIGIN);
    let signature = copy(&sign(device, transcript));
    wire.send(&v1::SessionUp { kind: Some(Up::Proof(v1::SessionProof { signature })) }).await?;
    match down(wire).await? {
        Ok(Down::Welcome(welcome)) => Ok(Ok(welcome.session_id)),
        Ok(_) => anyhow::bail!("neither a welcome nor an end"),
        Err(ended) => Ok(Err(ended)),
    }
}

async fn down(wire: &mut Wire) -> anyhow::Result<Result<Down, Ended>> {
    match wire.next().await? {
        Incoming::Frame(frame) => read(frame),
        Incoming::Closed(code) => Ok(Err(Ended(u32::from(code.unwrap_or_default())))),
    }
}

fn read(frame: Bytes) -> anyhow::Result<Result<Down, Ended>> {
    let kind = v1::SessionDown::decode(frame)?.kind.context("an empty frame")?;
    Ok(if let Down::End(end) = kind { Err(Ended(end.code)) } else { Ok(kind) })
}
