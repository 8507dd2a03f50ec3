//! One session over WebSocket: hello, machines, commands and what comes back.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use flydex_agent_proto::v1 as agent;
use flydex_domain::command::{CommandClass, CommandKind, Receipt, receipt_transcript};
use flydex_domain::id::{BootId, CommandId, SessionId};
use flydex_domain::time::UnixMillis;
use flydex_proto::codec::{Lane, decode_body, encode_message, split_message};
use flydex_proto::v1::{self, machine_message, session_down, session_up};
use flydex_runtime::tls;
use futures_util::{SinkExt as _, StreamExt as _};
use prost::Message as _;
use tokio_tungstenite::tungstenite::Message;

use crate::account::{Account, PairedMachine};
use crate::device::{Device, Target, body};
use crate::dial::{self, Socket};
use crate::hello;

/// Time that a step of the protocol may take before the client gives up.
const STEP_TIMEOUT: Duration = Duration::from_secs(20);

/// Frames that a session keeps of those it sent: more than any test has to say.
const SENT_KEPT_MAX: usize = 256;

/// An open session.
pub struct Session {
    socket: Socket,
    waiting: VecDeque<session_down::Kind>,
    sent: Vec<Bytes>,
    /// The id that the gateway gave.
    pub session_id: SessionId,
}

/// A machine that this session was admitted to.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The machine.
    pub machine: PairedMachine,
    /// The life of its connector.
    pub boot_id: BootId,
}

impl Session {
    /// Opens a session for a device: ticket, hello, proof.
    ///
    /// # Errors
    /// When the gateway refuses; the code is in the text.
    pub async fn open(account: &Account, device: &Device, url: &str, region: &str) -> anyhow::Result<Self> {
        let (ticket, grant) = account.ticket(device, region).await?;
        Self::connect_trusting(url, account.origin(), account.extra_pem())
            .await?
            .prove(ticket, grant, device, account.origin())
            .await
    }

    /// Opens a session by a ticket and a grant that are there already.
    ///
    /// # Errors
    /// When the gateway refuses; the code is in the text.
    pub async fn open_by(
        ticket: String,
        grant: String,
        device: &Device,
        url: &str,
        origin: &str,
    ) -> anyhow::Result<Self> {
        Self::connect(url, origin).await?.prove(ticket, grant, device, origin).await
    }

    /// Says hello on an open socket and proves the device.
    ///
    /// # Errors
    /// When the gateway refuses; the code is in the text.
    pub async fn prove(mut self, ticket: String, grant: String, device: &Device, origin: &str) -> anyhow::Result<Self> {
        self.enter(&ticket, &grant, device, origin).await?;
        Ok(self)
    }

    /// Says hello and proves the device's key, on a socket that is open.
    ///
    /// # Errors
    /// When the gateway refuses; the code is in the text.
    pub async fn enter(&mut self, ticket: &str, grant: &str, device: &Device, origin: &str) -> anyhow::Result<()> {
        self.send(Lane::Control, session_up::Kind::Hello(hello::hello(ticket, grant, device))).await?;
        let session_down::Kind::Challenge(challenge) = self.next().await? else { bail!("no challenge came") };
        let proof = hello::proof(&challenge, ticket, origin, device)?;
        self.send(Lane::Control, proof).await?;
        let session_down::Kind::Welcome(welcome) = self.next().await? else { bail!("no welcome came") };
        self.session_id = welcome.session_id.as_ref().try_into()?;
        Ok(())
    }

    /// Opens the socket only: for tests that say the wrong thing next.
    ///
    /// # Errors
    /// When the upgrade is refused.
    pub async fn connect(url: &str, origin: &str) -> anyhow::Result<Self> {
        Self::connect_trusting(url, origin, None).await
    }

    /// Opens the socket only, at a gateway whose certificate is vouched for by `extra_pem` or the system.
    ///
    /// # Errors
    /// When the upgrade is refused.
    pub async fn connect_trusting(url: &str, origin: &str, extra_pem: Option<&str>) -> anyhow::Result<Self> {
        let tls = Arc::new(tls::client_config(extra_pem, &[b"http/1.1"])?);
        let socket = dial::session(url, origin, &tls, None).await?;
        let session_id = SessionId::from_uuid(uuid::Uuid::nil());
        Ok(Self { socket, waiting: VecDeque::new(), sent: Vec::new(), session_id })
    }

    /// Sends one message on a lane.
    ///
    /// # Errors
    /// When the message is too large or the socket is gone.
    pub async fn send(&mut self, lane: Lane, kind: session_up::Kind) -> anyhow::Result<()> {
        let frame = encode_message(lane, &v1::SessionUp { kind: Some(kind) })?;
        if self.sent.len() < SENT_KEPT_MAX {
            self.sent.push(frame.clone());
        }
        Ok(self.socket.send(Message::Binary(frame)).await?)
    }

    /// Every frame that was sent so far, the handshake's too: for tests that send them again elsewhere.
    #[must_use]
    pub fn sent(&self) -> &[Bytes] {
        &self.sent
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When the socket is gone.
    pub async fn send_raw(&mut self, bytes: Bytes) -> anyhow::Result<()> {
        Ok(self.socket.send(Message::Binary(bytes)).await?)
    }

    /// Sends text, which no part of the protocol is.
    ///
    /// # Errors
    /// When the socket is gone.
    pub async fn send_text(&mut self, text: &str) -> anyhow::Result<()> {
        Ok(self.socket.send(Message::Text(text.into())).await?)
    }

    /// The next message, answering pings.
    ///
    /// # Errors
    /// When the session ended, with its code, or nothing came in time.
    pub async fn next(&mut self) -> anyhow::Result<session_down::Kind> {
        if let Some(kind) = self.waiting.pop_front() {
            return Ok(kind);
        }
        self.receive().await
    }

    async fn receive(&mut self) -> anyhow::Result<session_down::Kind> {
        loop {
            let message = tokio::time::timeout(STEP_TIMEOUT, self.socket.next()).await.context("nothing came")?;
            let message = message.context("the socket closed")??;
            let bytes = match message {
                Message::Binary(bytes) => bytes,
                Message::Close(frame) => bail!("closed with {:?}", frame.map(|frame| frame.code)),
                Message::Text(_) => bail!("a text message came"),
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
            };
            let (_, body) = split_message(bytes)?;
            let down: v1::SessionDown = decode_body(body)?;
            let Some(kind) = down.kind else { bail!("an empty message came") };
            if let session_down::Kind::End(end) = &kind {
                bail!("the session ended with {}", code_name(end.code));
            }
            return Ok(kind);
        }
    }

    /// Opens a machine and waits for its status to name a boot.
    ///
    /// # Errors
    /// When it is closed instead, with the code in the text.
    pub async fn open_machine(&mut self, machine: &PairedMachine) -> anyhow::Result<Opened> {
        let machine_id = Bytes::copy_from_slice(machine.machine_id.as_bytes());
        self.send(Lane::Control, session_up::Kind::Open(v1::OpenMachine { machine_id })).await?;
        loop {
            let kind = self.next().await?;
            if let session_down::Kind::MachineClosed(closed) = &kind {
                bail!("the machine closed with {}", code_name(closed.code));
            }
            if let Some(machine_message::Kind::Status(status)) = machine_kind(&kind)
                && !status.boot_id.is_empty()
            {
                let boot_id = status.boot_id.as_ref().try_into()?;
                return Ok(Opened { machine: machine.clone(), boot_id });
            }
        }
    }

    /// Signs and sends a command as it should be.
    ///
    /// # Errors
    /// When the socket is gone.
    pub async fn command(
        &mut self,
        device: &Device,
        opened: &Opened,
        kind: CommandKind,
        content: agent::command_body::Kind,
        now: UnixMillis,
    ) -> anyhow::Result<CommandId> {
        let session_id = (kind.class() == CommandClass::Read).then_some(self.session_id);
        let target = Target { machine: &opened.machine, boot_id: opened.boot_id, session_id, answer: None };
        let content = body(content);
        let header = device.header(&target, kind, &content, now);
        self.send_command(opened, device.sign(&header, content)).await?;
        Ok(header.command_id)
    }

    /// Sends a command as it is.
    ///
    /// # Errors
    /// When the socket is gone.
    pub async fn send_command(&mut self, opened: &Opened, command: v1::Command) -> anyhow::Result<()> {
        let machine_id = Bytes::copy_from_slice(opened.machine.machine_id.as_bytes());
        let kind = Some(v1::device_message::Kind::Command(command));
        let message = Some(v1::DeviceMessage { trace: None, kind });
        self.send(Lane::Commands, session_up::Kind::ToMachine(v1::ToMachine { machine_id, message })).await
    }

    /// Waits for the receipt of a command, verifies it, and returns it with its content. Other messages are kept.
    ///
    /// # Errors
    /// When a failure comes instead, or the receipt does not verify.
    pub async fn receipt(&mut self, opened: &Opened, command_id: CommandId) -> anyhow::Result<(Receipt, Bytes)> {
        let mut kept = VecDeque::new();
        let signed = loop {
            let kind = self.next().await?;
            match machine_kind(&kind) {
                Some(machine_message::Kind::Receipt(signed)) => {
                    let receipt = Receipt::try_from(v1::Receipt::decode(signed.receipt.clone())?)?;
                    if receipt.command_id == command_id {
                        opened.machine.machine_key.verify(receipt_transcript(&signed.receipt), &signed.signature)?;
                        break receipt;
                    }
                }
                Some(machine_message::Kind::Failure(failure)) if failure.command_id == command_id.as_bytes()[..] => {
                    bail!("failed on the way with {}", code_name(failure.code));
                }
                _ => {}
            }
            kept.push_back(kind);
        };
        self.waiting = kept;
        let content = match signed.bulk {
            Some(bulk) => self.bulk(command_id, bulk.total_bytes as usize).await?,
            None => signed.result.expose().clone(),
        };
        Ok((signed, content))
    }

    async fn bulk(&mut self, command_id: CommandId, total: usize) -> anyhow::Result<Bytes> {
        let mut content = Vec::with_capacity(total);
        let mut kept = VecDeque::new();
        while content.len() < total {
            let kind = self.next().await?;
            match machine_kind(&kind) {
                Some(machine_message::Kind::Chunk(chunk)) if chunk.command_id == command_id.as_bytes()[..] => {
                    content.extend_from_slice(&chunk.bytes);
                }
                _ => kept.push_back(kind),
            }
        }
        self.waiting = kept;
        Ok(content.into())
    }

    /// Waits for an event of any stream and returns it decoded.
    ///
    /// # Errors
    /// When the session ends first.
    pub async fn event(&mut self) -> anyhow::Result<agent::agent_event::Kind> {
        loop {
            let kind = self.next().await?;
            if let Some(machine_message::Kind::Event(event)) = machine_kind(&kind)
                && let Some(kind) = agent::AgentEvent::decode(event.body.clone())?.kind
            {
                return Ok(kind);
            }
        }
    }
}

fn machine_kind(kind: &session_down::Kind) -> Option<&machine_message::Kind> {
    let session_down::Kind::FromMachine(from) = kind else { return None };
    from.message.as_ref()?.kind.as_ref()
}

fn code_name(number: u32) -> &'static str {
    flydex_domain::error::ErrorCode::from_number(number).map_or("an unknown code", |code| code.name())
}
