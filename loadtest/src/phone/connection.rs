//! One socket of a phone: opened, proven, and read.

use std::time::Instant;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use flydex_domain::id::{BootId, SessionId};
use flydex_domain::limits::PING_INTERVAL;
use flydex_proto::codec::{Lane, decode_body, encode_message, split_message};
use flydex_proto::v1::{self, session_down, session_up};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio_tungstenite::tungstenite::Message;

use super::{Phone, code_name};
use crate::dial::{self, Socket};
use crate::hello;

/// What ends with a socket.
pub(super) struct Connection {
    pub(super) socket: Socket,
    pub(super) session_id: SessionId,
    pub(super) boot_id: Option<BootId>,
    /// When the machine is to be opened again after it was closed.
    pub(super) open_at: Option<Instant>,
    /// When to go elsewhere, as the gateway asked.
    pub(super) leave_at: Option<Instant>,
    /// Another socket is on its way, to take the place of this one.
    pub(super) is_left: bool,
    /// When its WebSocket was open, and nothing yet said on it.
    pub(super) opened_at: Instant,
    pub(super) heard_at: Instant,
    pub(super) ping_at: Instant,
}

impl Connection {
    /// Opens one: ticket, hello, proof, and with the proof the machine. An eager one does not wait for the welcome where
    /// the challenge names the session already; what is refused then ends it.
    pub(super) fn open(phone: &Phone, eager: bool) -> impl Future<Output = anyhow::Result<Self>> + Send + 'static {
        let (account, device) = (phone.account.clone(), phone.device.clone());
        let (entrance, world, line) = (phone.entrance.clone(), phone.world.clone(), phone.line.clone());
        let machine_id = Bytes::copy_from_slice(phone.machine.machine_id.as_bytes());
        async move {
            let (ticket, grant) = account.ticket(&device, &entrance.region).await.context("no ticket")?;
            let mut socket = dial::session(&entrance.url, account.origin(), &entrance.tls, line.as_ref()).await?;
            let opened_at = world.clock.instant();
            let hello = hello::hello(&ticket, &grant, &device);
            send(&mut socket, Lane::Control, session_up::Kind::Hello(hello)).await?;
            let session_down::Kind::Challenge(challenge) = receive(&mut socket).await? else {
                bail!("no challenge came")
            };
            let proof = hello::proof(&challenge, &ticket, account.origin(), &device)?;
            send(&mut socket, Lane::Control, proof).await?;
            send(&mut socket, Lane::Control, session_up::Kind::Open(v1::OpenMachine { machine_id })).await?;
            let session_id = match SessionId::try_from(challenge.session_id.as_ref()) {
                Ok(session_id) if eager => session_id,
                Ok(_) | Err(_) => welcomed(&mut socket).await?,
            };
            let now = world.clock.instant();
            let (heard_at, ping_at) = (now, now + PING_INTERVAL);
            let (boot_id, open_at, leave_at, is_left) = (None, None, None, false);
            Ok(Self { socket, session_id, boot_id, open_at, leave_at, is_left, opened_at, heard_at, ping_at })
        }
    }

    /// None took its place: another is tried then.
    pub(super) const fn stays_until(&mut self, at: Instant) {
        self.leave_at = Some(at);
        self.is_left = false;
    }

    /// Whether it is time to go elsewhere; said once.
    pub(super) fn leaves(&mut self, now: Instant) -> bool {
        let leaves = self.leave_at.is_some_and(|at| now >= at) && !self.is_left;
        self.is_left |= leaves;
        leaves
    }
}

/// Sends one message on a lane.
pub(super) async fn send(socket: &mut Socket, lane: Lane, kind: session_up::Kind) -> anyhow::Result<()> {
    let frame = encode_message(lane, &v1::SessionUp { kind: Some(kind) })?;
    Ok(socket.send(Message::Binary(frame)).await?)
}

/// What the gateway says in a message; nothing where the socket only keeps itself up.
pub(super) fn down(message: Message) -> anyhow::Result<Option<session_down::Kind>> {
    match message {
        Message::Binary(bytes) => {
            let (_, body) = split_message(bytes)?;
            let down: v1::SessionDown = decode_body(body)?;
            Ok(Some(down.kind.context("an empty message came")?))
        }
        Message::Close(_) => bail!("the socket closed"),
        Message::Text(_) => bail!("a text message came"),
        Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Ok(None),
    }
}

async fn welcomed(socket: &mut Socket) -> anyhow::Result<SessionId> {
    let session_down::Kind::Welcome(welcome) = receive(socket).await? else { bail!("no welcome came") };
    Ok(welcome.session_id.as_ref().try_into()?)
}

/// The next message of a handshake.
async fn receive(socket: &mut Socket) -> anyhow::Result<session_down::Kind> {
    loop {
        match down(socket.next().await.context("the socket closed")??)? {
            Some(session_down::Kind::End(end)) => bail!("the session ended with {}", code_name(end.code)),
            Some(kind) => return Ok(kind),
            None => {}
        }
    }
}
