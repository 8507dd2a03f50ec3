//! A session of a device: hello, challenge, proof, welcome; then its frames to and from machines.
//!
//! The session opens machines under the account of its ticket and under no other, so a machine of another account
//! and one that does not exist are the same to it: offline (see the crate's documentation). A frame for a machine
//! that is not open is answered `not_found`, whatever the id; one that was closed under way is known to be so already.

use std::sync::Arc;

use bytes::Bytes;
use flydex_domain::error::ErrorCode;
use flydex_domain::id::{MachineId, SessionId};
use flydex_domain::limits;
use flydex_domain::token::Claims as _;
use flydex_proto::v1;
use flydex_proto::v1::device_message::Kind as DeviceKind;
use flydex_proto::v1::gateway_frame::Kind as ToNode;
use flydex_proto::v1::session_down::Kind as Down;
use flydex_proto::v1::session_up::Kind as Up;
use flydex_proto::{codec, lanes::OnLane as _};
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use prost::Message as _;
use tracing::Instrument as _;

use crate::Gateway;
use crate::admission::{Handshake, OpenBucket, Permit};
use crate::auth;
use crate::ending::{End, Ending, Refusal};
use crate::frame::{self, FrameReader, Inbound};
use crate::life::{Life, Term, Turn, millis};
use crate::load::Class;
use crate::metrics::Peer;
use crate::node::{Bound, NodeError};
use crate::outbox::Outbox;
use crate::placing::{SessionOpening, place_session};
use crate::registry::{Home, Session};
use crate::sizes;
use crate::trace;

/// Runs a session from its hello to its end.
pub(crate) async fn run(
    gateway: &Arc<Gateway>,
    reader: &mut impl FrameReader,
    outbox: &Arc<Outbox>,
    ending: &Ending,
    handshake: Handshake,
) -> End {
    let soft = gateway.shutdown.soft();
    let opened = tokio::select! {
        opened = tokio::time::timeout(limits::HANDSHAKE_TIMEOUT, open(gateway, reader, outbox, ending)) => opened,
        end = ending.begun() => return end,
        () = soft.cancelled() => return ErrorCode::GoingAway.into(),
    };
    drop(handshake);
    let mut opened = match opened {
        Ok(Ok(opened)) => opened,
        Ok(Err(end)) => return end,
        Err(_) => return ErrorCode::DeadlineExceeded.into(),
    };
    let session = opened.session.clone();
    let registered = gateway.registry.add_session(session.clone());
    let _live = gateway.metrics.live(Peer::Session);
    let span = tracing::info_span!(
        "session",
        session.id = %session.session_id,
        account.id = %session.scope.account_id(),
        device.id = %session.device_id,
    );
    let end = serve(gateway, reader, &mut opened).instrument(span.clone()).await;
    for machine_id in session.open_machines() {
        close_machine(&session, machine_id).await;
    }
    drop(registered);
    span.in_scope(|| tracing::info!(error.code = end.code().map_or("none", ErrorCode::name), "session ended"));
    end
}

struct Opened {
    opens: OpenBucket,
    session: Arc<Session>,
    claimed: auth::Claimed,
    grant_token: String,
    placings: FuturesUnordered<BoxFuture<'static, ()>>,
    _permit: Permit,
}

async fn open(
    gateway: &Arc<Gateway>,
    reader: &mut impl FrameReader,
    outbox: &Arc<Outbox>,
    ending: &Ending,
) -> Result<Opened, End> {
    let Some(Up::Hello(hello)) = frame::receive::<v1::SessionUp>(reader).await?.kind else {
        return Err(ErrorCode::UnexpectedFrame.into());
    };
    let version = codec::negotiate(hello.version, hello.version_min).ok_or(ErrorCode::UnsupportedVersion)?;
    let claimed = auth::claim_session(gateway, &hello)?;
    let nonce: [u8; 32] = rand::random();
    // Told before it is earned, so that a device that comes back need not wait for the welcome to sign what it wants.
    let session_id = SessionId::try_from(rand::random::<[u8; 16]>().as_slice()).map_err(|_| ErrorCode::Internal)?;
    let challenge = v1::SessionChallenge {
        version,
        nonce: Bytes::copy_from_slice(&nonce),
        gateway_id: gateway.config.gateway_id.as_str().to_owned(),
        server_time_ms: gateway.clock.unix_millis(),
        session_id: wire_id(session_id),
    };
    send(outbox, Down::Challenge(challenge))?;
    let Some(Up::Proof(proof)) = frame::receive::<v1::SessionUp>(reader).await?.kind else {
        return Err(ErrorCode::UnexpectedFrame.into());
    };
    let permit = gateway.admission.session()?;
    let identity = claimed.prove(gateway, &nonce, &proof).await?;
    send(outbox, Down::Welcome(welcome(session_id)))?;
    gateway.arrivals.count(gateway.clock.instant());
    Ok(Opened {
        opens: OpenBucket::new(gateway.clock.instant()),
        session: Session::new(session_id, identity, outbox.clone(), ending.clone()),
        claimed,
        grant_token: hello.grant,
        placings: FuturesUnordered::new(),
        _permit: permit,
    })
}

fn welcome(session_id: SessionId) -> v1::SessionWelcome {
    v1::SessionWelcome {
        session_id: Bytes::copy_from_slice(session_id.as_bytes()),
        capabilities: vec![v1::Capability::BulkCredit.into()],
        ping_interval_ms: millis(limits::PING_INTERVAL),
        silence_max_ms: millis(limits::PEER_SILENCE_MAX),
        event_window_bytes: limits::EVENT_WINDOW_BYTES,
        bulk_window_bytes: limits::BULK_WINDOW_BYTES,
    }
}

async fn serve(gateway: &Arc<Gateway>, reader: &mut impl FrameReader, opened: &mut Opened) -> End {
    let session = opened.session.clone();
    // A revocation that came between the hello and the registration is not lost.
    if let Err(code) = gateway.revoked.check_grant(opened.claimed.grant()) {
        return code.into();
    }
    tracing::info!("session opened");
    let grant = opened.claimed.grant();
    let term = Term {
        holds_until: grant.holds_until(),
        notice: limits::GRANT_END_NOTICE,
        signed_by: opened.claimed.signed_by(),
        code: ErrorCode::GrantInvalid,
    };
    let mut life = Life::new(gateway, &session.ending, &term);
    loop {
        let turn = tokio::select! {
            () = session.homeless() => {
                place_homeless(gateway, opened);
                continue;
            }
            Some(()) = opened.placings.next() => continue,
            turn = life.turn(reader) => turn,
        };
        let handled = match turn {
            Ok(Turn::Tell(go_away)) => {
                session.send(Down::GoAway(go_away));
                Ok(())
            }
            Ok(Turn::Inbound(Inbound::Alive)) => Ok(()),
            Ok(Turn::Inbound(Inbound::Frame(lane, body))) => match frame::decode::<v1::SessionUp>(lane, body) {
                Ok(message) => handle(gateway, opened, message).await,
                Err(end) => Err(end),
            },
            Err(end) => Err(end),
        };
        if let Err(end) = handled {
            return end;
        }
    }
}

async fn handle(gateway: &Arc<Gateway>, opened: &mut Opened, message: v1::SessionUp) -> Result<(), End> {
    let session = opened.session.clone();
    match message.kind {
        Some(Up::Ping(ping)) => {
            let server_time_ms = gateway.clock.unix_millis();
            session.send(Down::Pong(v1::Pong { nonce: ping.nonce, server_time_ms }));
        }
        Some(Up::Open(open)) => open_machine(gateway, opened, machine_id(&open.machine_id)?).await,
        Some(Up::Close(close)) => {
            close_machine(&session, machine_id(&close.machine_id)?).await;
        }
        Some(Up::ToMachine(to)) => {
            let machine_id = machine_id(&to.machine_id)?;
            let message = to.message.ok_or(ErrorCode::UnexpectedFrame)?;
            to_machine(gateway, opened, machine_id, message).await?;
        }
        Some(Up::Hello(_) | Up::Proof(_)) | None => return Err(ErrorCode::UnexpectedFrame.into()),
    }
    Ok(())
}

/// Opens a machine; one that is open already starts over.
async fn open_machine(gateway: &Arc<Gateway>, opened: &mut Opened, machine_id: MachineId) {
    let session = opened.session.clone();
    let admitted = opened.opens.take(gateway.clock.instant());
    if admitted.is_ok() {
        close_machine(&session, machine_id).await;
    }
    match admitted.and_then(|()| session.open(machine_id)) {
        Ok(()) => place_homeless(gateway, opened),
        Err(code) => session.refuse(machine_id, code.into()),
    }
}

/// Looks for places for what has none, a new one or another.
fn place_homeless(gateway: &Arc<Gateway>, opened: &Opened) {
    for (machine_id, opening) in opened.session.take_homeless() {
        let (session, grant) = (opened.session.clone(), opened.grant_token.clone());
        let subject = SessionOpening { session, machine_id, opening, grant };
        opened.placings.push(Box::pin(place_session(gateway.clone(), subject)));
    }
}

/// Where a machine is open, once it is known.
async fn home(gateway: &Arc<Gateway>, opened: &mut Opened, machine_id: MachineId) -> Option<Bound> {
    loop {
        match opened.session.home(machine_id)? {
            Home::At(bound) => return Some(bound),
            Home::Homeless | Home::Placing => {
                place_homeless(gateway, opened);
                opened.placings.next().await?;
            }
        }
    }
}

/// Closes a machine, and where it is open tells the node.
async fn close_machine(session: &Session, machine_id: MachineId) {
    if let Some(Home::At(bound)) = session.close(machine_id) {
        let close = v1::CloseSession { session_id: wire_id(session.session_id) };
        bound.send_ending(ToNode::CloseSession(close)).await;
    }
}

async fn to_machine(
    gateway: &Arc<Gateway>,
    opened: &mut Opened,
    machine_id: MachineId,
    mut message: v1::DeviceMessage,
) -> Result<(), End> {
    if !opened.session.is_open(machine_id) {
        if !opened.session.is_told_closed(machine_id) {
            opened.session.tell_closed(machine_id, ErrorCode::NotFound.into());
        }
        return Ok(());
    }
    sizes::check_device_message(&message)?;
    let command = match &message.kind {
        Some(DeviceKind::Command(command)) => {
            let header = v1::CommandHeader::decode(command.header.clone()).map_err(|_| ErrorCode::FrameTruncated)?;
            Some((Class::of(header.kind()), header.command_id))
        }
        Some(DeviceKind::EventCredit(_) | DeviceKind::BulkCredit(_) | DeviceKind::Probe(_)) => None,
        None => return Err(ErrorCode::UnexpectedFrame.into()),
    };
    if let Some((class, command_id)) = &command
        && gateway.load.sheds(*class)
    {
        gateway.metrics.command(Some(ErrorCode::Overloaded));
        let refusal = ErrorCode::Overloaded.into();
        opened.session.send(failure(machine_id, command_id.clone(), message.trace, refusal));
        return Ok(());
    }
    let bound = home(gateway, opened, machine_id).await;
    let session = &opened.session;
    let wire_id = wire_id(session.session_id);
    let Some((_, command_id)) = command else {
        let message = v1::SessionMessage { session_id: wire_id, message: Some(message) };
        // A lost credit would stall the machine's streams without a word, so something ends: the machine, when the
        // stream to its node did and so nobody there has it open; else the session, which closes it there as well.
        match to_node(bound, ToNode::SessionMessage(message)).await {
            Ok(()) => {}
            Err(NodeError::Down) => session.close_with(machine_id, Refusal::moving()),
            Err(error @ NodeError::Full) => return Err(error.code().into()),
        }
        return Ok(());
    };
    let span = tracing::info_span!("command", machine.id = %machine_id, lane = ?message.lane());
    trace::reparent(&mut message.trace, &span);
    let trace = message.trace.clone();
    let message = v1::SessionMessage { session_id: wire_id, message: Some(message) };
    let sent = to_node(bound, ToNode::SessionMessage(message)).instrument(span).await;
    gateway.metrics.command(sent.err().map(NodeError::code));
    if let Err(error) = sent {
        session.send(failure(machine_id, command_id, trace, error.refusal()));
    }
    Ok(())
}

async fn to_node(bound: Option<Bound>, kind: ToNode) -> Result<(), NodeError> {
    bound.ok_or(NodeError::Down)?.send(limits::ACTOR_CALL_TIMEOUT, kind).await
}

/// Nothing was sent, so the command did not take effect; it may be sent again under its id.
fn failure(machine_id: MachineId, command_id: Bytes, trace: Option<v1::TraceContext>, refusal: Refusal) -> Down {
    let failure =
        v1::Failure { code: refusal.code.number().into(), command_id, retry_after_ms: refusal.retry_after_ms };
    Down::FromMachine(v1::FromMachine {
        machine_id: Bytes::copy_from_slice(machine_id.as_bytes()),
        message: Some(v1::MachineMessage { trace, kind: Some(v1::machine_message::Kind::Failure(failure)) }),
    })
}

fn send(outbox: &Outbox, kind: Down) -> Result<(), End> {
    outbox.send(&v1::SessionDown { kind: Some(kind) }).map_err(|error| error.code().into())
}

fn machine_id(bytes: &[u8]) -> Result<MachineId, End> {
    MachineId::try_from(bytes).map_err(|_| ErrorCode::BadRequest.into())
}

fn wire_id(session_id: SessionId) -> Bytes {
    Bytes::copy_from_slice(session_id.as_bytes())
}
