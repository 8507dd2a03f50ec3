//! A connector that attaches and answers everything by script, over one link.
//!
//! It runs as a task, so that a link answers while its fuzzer waits at a session. Every frame that it gets is kept until
//! somebody looks.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use ed25519_dalek::SigningKey;
use flydex_domain::command::command_transcript as transcript;
use flydex_domain::id::BootId;
use flydex_domain::key::sign;
use flydex_domain::proof::LinkProof;
use flydex_proto::codec;
use flydex_proto::lanes::OnLane as _;
use flydex_proto::v1;
use flydex_proto::v1::connector_frame::Kind as FromConnector;
use flydex_proto::v1::device_message::Kind as Asked;
use flydex_proto::v1::link_down::Kind as Down;
use flydex_proto::v1::link_up::Kind as Up;
use flydex_proto::v1::machine_message::Kind as Said;
use flydex_proto::v1::owner_frame::Kind as FromOwner;
use prost::Message as _;
use tokio::sync::{mpsc, watch};

use crate::session::Ended;
use crate::stand::{HOST, Stand};
use crate::tenant::{Tenant, copy};
use crate::wire::{Incoming, PATIENCE, Wire};

/// How often a link says that it lives.
const PING_INTERVAL: Duration = Duration::from_secs(3);
/// Frames that may wait to be sent.
const WAITING_MAX: usize = 64;

/// How a link stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// The epoch of the last attach.
    pub epoch: Option<(u64, Bytes)>,
    /// How often it was asked to attach.
    pub attaches: u64,
    /// The code with which it ended.
    pub ended: Option<u32>,
}

impl State {
    /// The epoch as it travels.
    #[must_use]
    pub fn wire_epoch(&self) -> Option<v1::Epoch> {
        let (counter, incarnation) = self.epoch.clone()?;
        Some(v1::Epoch { counter, incarnation })
    }
}

/// A running link.
pub struct Connector {
    /// The link's id.
    pub link_id: Bytes,
    frames: mpsc::Sender<v1::LinkUp>,
    state: watch::Receiver<State>,
    log: Log,
}

type Log = Arc<Mutex<Vec<Bytes>>>;

impl Connector {
    /// Opens a link and attaches.
    ///
    /// # Errors
    /// When the gateway or the node does not let it in.
    pub async fn attach(stand: &Stand, tenant: &Tenant, link_counter: u64) -> anyhow::Result<Self> {
        let mut wire = Wire::open(stand.address, HOST, "/v1/link", None).await?;
        let hello = hello(stand, tenant, link_counter);
        let link_id = match shake_hands(&mut wire, tenant.machine_key(), hello).await? {
            Ok(link_id) => link_id,
            Err(Ended(code)) => anyhow::bail!("a link was not let in: {code}"),
        };
        let (frames, injected) = mpsc::channel(WAITING_MAX);
        let (state, watched) = watch::channel(State::default());
        let log = Log::default();
        let script = Script { tenant: tenant.clone(), state, log: log.clone(), seq: u64::from(tenant.numbers_from) };
        // It ends with the link, or with who sends over it.
        tokio::spawn(script.run(wire, injected));
        let mut connector = Self { link_id, frames, state: watched, log };
        connector.changed(0).await?;
        Ok(connector)
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// When the link has ended.
    pub async fn send(&self, frame: v1::LinkUp) -> anyhow::Result<()> {
        self.frames.send(frame).await.ok().context("the link has ended")
    }

    /// How it stands.
    #[must_use]
    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Waits until it was asked to attach more often, or has ended.
    ///
    /// # Errors
    /// When that takes too long.
    pub async fn changed(&mut self, attaches: u64) -> anyhow::Result<State> {
        let more = |state: &State| state.attaches > attaches || state.ended.is_some();
        let waiting = tokio::time::timeout(PATIENCE, self.state.wait_for(more)).await;
        let state = waiting.context("no attach and no end")?.context("the link is gone")?;
        Ok(state.clone())
    }

    /// What came over it since somebody looked.
    pub fn take_log(&self) -> Vec<Bytes> {
        std::mem::take(&mut *self.log.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The first frame of a connector.
#[must_use]
pub fn hello(stand: &Stand, tenant: &Tenant, link_counter: u64) -> v1::LinkHello {
    v1::LinkHello {
        version: codec::VERSION,
        version_min: codec::VERSION_MIN,
        capabilities: Vec::new(),
        credential: tenant.credential(stand),
        link_counter,
        boot_id: copy(tenant.boot_id.as_bytes()),
        connector_version: tenant.marker.clone(),
    }
}

/// Says hello and proves a machine key; the link's id, or the code that it ended with.
///
/// # Errors
/// When nothing comes.
pub async fn shake_hands(
    wire: &mut Wire,
    machine_key: &SigningKey,
    hello: v1::LinkHello,
) -> anyhow::Result<Result<Bytes, Ended>> {
    let (boot_id, link_counter) = (BootId::try_from(hello.boot_id.as_ref())?, hello.link_counter);
    wire.send(&v1::LinkUp { kind: Some(Up::Hello(hello)) }).await?;
    let challenge = match down(wire).await? {
        Ok(Down::Challenge(challenge)) => challenge,
        Ok(_) => anyhow::bail!("neither a challenge nor an end"),
        Err(ended) => return Ok(Err(ended)),
    };
    let proof = LinkProof {
        nonce: challenge.nonce.as_ref().try_into()?,
        host: HOST,
        gateway_id: &challenge.gateway_id,
        boot_id,
        link_counter,
        exporter: None,
    };
    let signature = copy(&sign(machine_key, proof.transcript()));
    wire.send(&v1::LinkUp { kind: Some(Up::Proof(v1::LinkProof { signature, channel_bound: false })) }).await?;
    match down(wire).await? {
        Ok(Down::Welcome(welcome)) => Ok(Ok(welcome.link_id)),
        Ok(_) => anyhow::bail!("neither a welcome nor an end"),
        Err(ended) => Ok(Err(ended)),
    }
}

async fn down(wire: &mut Wire) -> anyhow::Result<Result<Down, Ended>> {
    let frame = match wire.next().await? {
        Incoming::Frame(frame) => frame,
        Incoming::Closed(code) => return Ok(Err(Ended(u32::from(code.unwrap_or_default())))),
    };
    let kind = v1::LinkDown::decode(frame)?.kind.context("an empty frame")?;
    Ok(if let Down::End(end) = kind { Err(Ended(end.code)) } else { Ok(kind) })
}

/// What a connector does.
struct Script {
    tenant: Tenant,
    state: watch::Sender<State>,
    log: Log,
    seq: u64,
}

impl Script {
    async fn run(mut self, mut wire: Wire, mut injected: mpsc::Receiver<v1::LinkUp>) {
        let mut pings = tokio::time::interval(PING_INTERVAL);
        loop {
            let sent = tokio::select! {
                incoming = wire.next() => match incoming {
                    Ok(Incoming::Frame(frame)) => self.answer(&mut wire, frame).await,
                    Ok(Incoming::Closed(_)) | Err(_) => break,
                },
                frame = injected.recv() => match frame {
                    Some(frame) => send_waiting(&mut wire, frame, &mut injected).await,
                    None => break,
                },
                _ = pings.tick() => wire.send(&v1::LinkUp { kind: Some(Up::Ping(v1::Ping { nonce: 1 })) }).await,
            };
            if sent.is_err() {
                break;
            }
        }
        self.state.send_if_modified(|state| {
            let unknown = state.ended.is_none();
            state.ended.get_or_insert_default();
            unknown
        });
    }

    async fn answer(&mut self, wire: &mut Wire, frame: Bytes) -> anyhow::Result<()> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).push(frame.clone());
        match v1::LinkDown::decode(frame)?.kind {
            Some(Down::Frame(frame)) => self.owner_says(wire, frame).await?,
            Some(Down::Ping(ping)) => {
                let pong = v1::Pong { nonce: ping.nonce, server_time_ms: 0 };
                wire.send(&v1::LinkUp { kind: Some(Up::Pong(pong)) }).await?;
            }
            Some(Down::End(end)) => self.state.send_modify(|state| state.ended = Some(end.code)),
            Some(Down::Challenge(_) | Down::Welcome(_) | Down::Pong(_) | Down::GoAway(_)) | None => {}
        }
        Ok(())
    }

    async fn owner_says(&mut self, wire: &mut Wire, frame: v1::OwnerFrame) -> anyhow::Result<()> {
        let Some(epoch) = frame.epoch else { return Ok(()) };
        match frame.kind {
            Some(FromOwner::Attach(_)) => {
                let attached = FromConnector::Attached(v1::Attached { highest: Some(epoch.clone()) });
                self.say(wire, None, attached).await?;
                let report = v1::MachineReport {
                    state: v1::MachineState::CodexReady.into(),
                    codex_version: self.tenant.marker.clone(),
                    ..v1::MachineReport::default()
                };
                self.say(wire, Some(&epoch), FromConnector::Report(report)).await?;
                self.state.send_modify(|state| {
                    state.epoch = Some((epoch.counter, epoch.incarnation));
                    state.attaches += 1;
                });
            }
            Some(FromOwner::FromSession(from)) => self.session_says(wire, &epoch, from).await?,
            Some(FromOwner::RemoveDevice(remove)) => {
                let removed = v1::DeviceRemoved { device_id: remove.device_id, keeps: remove.keeps };
                self.say(wire, Some(&epoch), FromConnector::DeviceRemoved(removed)).await?;
            }
            Some(FromOwner::SessionGone(_)) | None => {}
        }
        Ok(())
    }

    async fn session_says(&mut self, wire: &mut Wire, epoch: &v1::Epoch, from: v1::FromSession) -> anyhow::Result<()> {
        let session_id = from.session_id;
        match from.message.and_then(|message| message.kind) {
            Some(Asked::Command(command)) => {
                let header = v1::CommandHeader::decode(command.header.clone())?;
                if matches!(header.kind(), v1::CommandKind::Attach | v1::CommandKind::WatchThread) {
                    self.admit(wire, epoch, &session_id, from.device_id, &header).await?;
                }
                let receipt = receipt(&self.tenant, &header, &command.header);
                self.to_session(wire, epoch, &session_id, Said::Receipt(receipt)).await?;
            }
            Some(Asked::Probe(probe)) => {
                let reply = v1::ProbeReply { nonce: probe.nonce, machine_time_ms: 1 };
                self.to_session(wire, epoch, &session_id, Said::ProbeReply(reply)).await?;
            }
            Some(Asked::BulkCredit(credit)) => {
                let bytes = copy(self.tenant.marker.as_bytes());
                let chunk = v1::BulkChunk { command_id: credit.command_id, offset: 0, bytes };
                self.to_session(wire, epoch, &session_id, Said::Chunk(chunk)).await?;
            }
            Some(Asked::EventCredit(_)) | None => {}
        }
        Ok(())
    }

    /// Lets a session watch, and tells it something.
    async fn admit(
        &mut self,
        wire: &mut Wire,
        epoch: &v1::Epoch,
        session_id: &Bytes,
        device_id: Bytes,
        header: &v1::CommandHeader,
    ) -> anyhow::Result<()> {
        let stream_id = self.tenant.numbers_from;
        let verdict = v1::StreamVerdict {
            command_id: header.command_id.clone(),
            stream_id,
            boot_id: header.boot_id.clone(),
            verdict: Some(v1::stream_verdict::Verdict::ResumedFrom(self.seq)),
        };
        let subscribed = v1::Subscribed { session_id: session_id.clone(), device_id, verdict: Some(verdict) };
        self.say(wire, Some(epoch), FromConnector::Subscribed(subscribed)).await?;
        self.seq += 1;
        let event = v1::Event { stream_id, seq: self.seq, body: copy(self.tenant.marker.as_bytes()) };
        self.say(wire, Some(epoch), FromConnector::SharedEvent(event)).await
    }

    async fn to_session(
        &self,
        wire: &mut Wire,
        epoch: &v1::Epoch,
        session_id: &Bytes,
        kind: Said,
    ) -> anyhow::Result<()> {
        let message = Some(v1::MachineMessage { trace: None, kind: Some(kind) });
        let to = v1::ToSession { session_id: session_id.clone(), message };
        self.say(wire, Some(epoch), FromConnector::ToSession(to)).await
    }

    async fn say(&self, wire: &mut Wire, epoch: Option<&v1::Epoch>, kind: FromConnector) -> anyhow::Result<()> {
        let frame = v1::ConnectorFrame { epoch: epoch.cloned(), kind: Some(kind) };
        let message = v1::LinkUp { kind: Some(Up::Frame(frame)) };
        wire.send_encoded(message.lane(), &message.encode_to_vec()).await
    }
}

/// Sends a frame, and those that wait behind it.
async fn send_waiting(
    wire: &mut Wire,
    first: v1::LinkUp,
    waiting: &mut mpsc::Receiver<v1::LinkUp>,
) -> anyhow::Result<()> {
    let mut next = Some(first);
    while let Some(frame) = next {
        wire.feed(frame.lane(), &frame.encode_to_vec()).await?;
        next = waiting.try_recv().ok();
    }
    wire.flush().await
}

/// The machine's word that a command was executed.
#[must_use]
pub fn receipt(tenant: &Tenant, header: &v1::CommandHeader, header_bytes: &[u8]) -> v1::SignedReceipt {
    let receipt = v1::Receipt {
        account_id: header.account_id.clone(),
        machine_id: header.machine_id.clone(),
        device_id: header.device_id.clone(),
        command_id: header.command_id.clone(),
        command_hash: copy(&transcript(header_bytes).sha256()),
        outcome: v1::Outcome::Executed.into(),
        boot_id: header.boot_id.clone(),
        at_ms: 1,
        result: copy(tenant.marker.as_bytes()),
        ..v1::Receipt::default()
    };
    v1::SignedReceipt { receipt: Bytes::from(receipt.encode_to_vec()), signature: copy(&[7; 64]) }
}
