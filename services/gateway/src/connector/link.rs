//! A link of a connector, whatever carries it: hello, challenge, proof, welcome; then frames to and from the owner.
//!
//! The gateway does not look into the frames: which epoch holds and who may do what is between owner and connector.

use std::sync::Arc;

use bytes::Bytes;
use flydex_domain::error::ErrorCode;
use flydex_domain::id::LinkId;
use flydex_domain::limits;
use flydex_domain::token::Claims as _;
use flydex_proto::codec;
use flydex_proto::v1;
use flydex_proto::v1::gateway_frame::Kind as ToNode;
use flydex_proto::v1::link_down::Kind as Down;
use flydex_proto::v1::link_up::Kind as Up;
use futures_util::future::OptionFuture;
use tokio::time::MissedTickBehavior;
use tracing::Instrument as _;

use crate::Gateway;
use crate::admission::{Handshake, Permit};
use crate::auth::{self, Binding};
use crate::ending::{End, Ending, Refusal};
use crate::frame::{self, FrameReader, Inbound};
use crate::life::{Life, Term, Turn, millis};
use crate::metrics::Peer;
use crate::node::NodeError;
use crate::outbox::Outbox;
use crate::placing::place_link;
use crate::registry::Link;
use crate::sizes;

/// What carries a link.
pub(crate) struct Carrier {
    pub(crate) transport: v1::Transport,
    pub(crate) binding: Binding,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) ending: Ending,
}

/// Runs a link from its hello to its end.
pub(crate) async fn run(
    gateway: &Arc<Gateway>,
    reader: &mut impl FrameReader,
    carrier: &Carrier,
    handshake: Handshake,
) -> End {
    let soft = gateway.shutdown.soft();
    let opened = tokio::select! {
        opened = tokio::time::timeout(limits::HANDSHAKE_TIMEOUT, open(gateway, reader, carrier)) => opened,
        end = carrier.ending.begun() => return end,
        () = soft.cancelled() => return ErrorCode::GoingAway.into(),
    };
    drop(handshake);
    let opened = match opened {
        Ok(Ok(opened)) => opened,
        Ok(Err(end)) => return end,
        Err(_) => return ErrorCode::DeadlineExceeded.into(),
    };
    let link = opened.link.clone();
    let registered = gateway.registry.add_link(link.clone());
    let _live = gateway.metrics.live(peer(carrier.transport));
    let span = tracing::info_span!(
        "link",
        link.id = %link.link_id,
        account.id = %link.machine.account_id(),
        machine.id = %link.machine.machine_id(),
        transport = transport_name(carrier.transport),
    );
    let end = serve(gateway, reader, opened).instrument(span.clone()).await;
    if let Some(bound) = link.bound() {
        let close = v1::CloseLink { link_id: wire_id(link.link_id) };
        bound.send_ending(ToNode::CloseLink(close)).await;
    }
    drop(registered);
    span.in_scope(|| tracing::info!(error.code = end.code().map_or("none", ErrorCode::name), "link ended"));
    end
}

/// Lets the writers end after the word on why.
pub(crate) fn finish(outbox: &Outbox, end: End) {
    match end {
        End::Gone => outbox.finish(None::<&v1::LinkDown>, ErrorCode::GoingAway.close_code()),
        End::Refused(Refusal { code, retry_after_ms, link_counter }) => {
            let end = v1::SessionEnd { code: code.number().into(), retry_after_ms, link_counter };
            outbox.finish(Some(&v1::LinkDown { kind: Some(Down::End(end)) }), code.close_code());
        }
    }
}

/// The transport's name in logs.
const fn transport_name(transport: v1::Transport) -> &'static str {
    match transport {
        v1::Transport::Quic => "quic",
        v1::Transport::Websocket => "websocket",
        v1::Transport::Unspecified => "unspecified",
    }
}

/// The label of a link's transport in metrics.
pub(crate) const fn peer(transport: v1::Transport) -> Peer {
    match transport {
        v1::Transport::Quic => Peer::QuicLink,
        v1::Transport::Websocket | v1::Transport::Unspecified => Peer::WebSocketLink,
    }
}

struct Opened {
    link: Arc<Link>,
    claimed: auth::ClaimedLink,
    open: v1::OpenLink,
    _permit: Permit,
}

async fn open(gateway: &Arc<Gateway>, reader: &mut impl FrameReader, carrier: &Carrier) -> Result<Opened, End> {
    let Some(Up::Hello(hello)) = frame::receive::<v1::LinkUp>(reader).await?.kind else {
        return Err(ErrorCode::UnexpectedFrame.into());
    };
    let version = codec::negotiate(hello.version, hello.version_min).ok_or(ErrorCode::UnsupportedVersion)?;
    if hello.connector_version.len() > limits::VERSION_TEXT_BYTES_MAX {
        return Err(ErrorCode::BadRequest.into());
    }
    let claimed = auth::claim_link(gateway, &hello)?;
    let nonce: [u8; 32] = rand::random();
    let challenge = v1::LinkChallenge {
        version,
        nonce: Bytes::copy_from_slice(&nonce),
        gateway_id: gateway.config.gateway_id.as_str().to_owned(),
        server_time_ms: gateway.clock.unix_millis(),
    };
    send(&carrier.outbox, Down::Challenge(challenge))?;
    let Some(Up::Proof(proof)) = frame::receive::<v1::LinkUp>(reader).await?.kind else {
        return Err(ErrorCode::UnexpectedFrame.into());
    };
    let permit = gateway.admission.link()?;
    let machine = claimed.prove(gateway, &nonce, carrier.binding, &proof)?;
    let link_id = LinkId::try_from(rand::random::<[u8; 16]>().as_slice()).map_err(|_| ErrorCode::Internal)?;
    let welcome = v1::LinkWelcome {
        link_id: wire_id(link_id),
        capabilities: vec![v1::Capability::BulkCredit.into()],
        ping_interval_ms: millis(match carrier.transport {
            v1::Transport::Quic => limits::QUIC_PING_INTERVAL,
            v1::Transport::Websocket | v1::Transport::Unspecified => limits::PING_INTERVAL,
        }),
        silence_max_ms: millis(limits::PEER_SILENCE_MAX),
    };
    send(&carrier.outbox, Down::Welcome(welcome))?;
    gateway.arrivals.count(gateway.clock.instant());
    let open = v1::OpenLink {
        link_id: wire_id(link_id),
        credential: hello.credential,
        link_counter: hello.link_counter,
        boot_id: hello.boot_id,
        transport: carrier.transport.into(),
        connector_version: hello.connector_version,
        channel_bound: proof.channel_bound,
        replacing: Bytes::new(),
    };
    let link = Link::new(link_id, machine, claimed.credential.serial, carrier.outbox.clone(), carrier.ending.clone());
    Ok(Opened { link, claimed, open, _permit: permit })
}

async fn serve(gateway: &Arc<Gateway>, reader: &mut impl FrameReader, opened: Opened) -> End {
    let Opened { link, claimed, open, _permit } = opened;
    // A revocation that came between the hello and the registration is not lost.
    if let Err(code) = gateway.revoked.check_credential(&claimed.credential) {
        return code.into();
    }
    tracing::info!("link opened");
    let term = Term {
        holds_until: claimed.credential.holds_until(),
        notice: limits::CREDENTIAL_END_NOTICE,
        signed_by: claimed.signed_by.clone(),
        code: ErrorCode::CredentialInvalid,
    };
    let mut life = Life::new(gateway, &link.ending, &term).of_link();
    let mut pings = tokio::time::interval(limits::PING_INTERVAL);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pings.reset();
    let mut nonce = 0;
    let mut placing = OptionFuture::default();
    loop {
        let turn = tokio::select! {
            () = link.homeless() => {
                if link.lost().is_some() {
                    gateway.metrics.link_replaced();
                }
                let placed = place_link(gateway.clone(), link.clone(), open.clone());
                placing = Some(Box::pin(placed)).into();
                continue;
            }
            Some(placed) = &mut placing => {
                placing = OptionFuture::default();
                match placed {
                    Ok(()) => continue,
                    Err(refusal) => return refusal.into(),
                }
            }
            _ = pings.tick() => {
                nonce += 1;
                link.send(Down::Ping(v1::Ping { nonce }));
                continue;
            }
            turn = life.turn(reader) => turn,
        };
        let handled = match turn {
            Ok(Turn::Tell(go_away)) => {
                link.send(Down::GoAway(go_away));
                Ok(())
            }
            Ok(Turn::Inbound(Inbound::Alive)) => Ok(()),
            Ok(Turn::Inbound(Inbound::Frame(lane, body))) => match frame::decode::<v1::LinkUp>(lane, body) {
                Ok(message) => handle(gateway, &link, message).await,
                Err(end) => Err(end),
            },
            Err(end) => Err(end),
        };
        if let Err(end) = handled {
            return end;
        }
    }
}

async fn handle(gateway: &Arc<Gateway>, link: &Link, message: v1::LinkUp) -> Result<(), End> {
    match message.kind {
        Some(Up::Ping(ping)) => {
            let server_time_ms = gateway.clock.unix_millis();
            link.send(Down::Pong(v1::Pong { nonce: ping.nonce, server_time_ms }));
        }
        Some(Up::Pong(_)) => {}
        Some(Up::Frame(frame)) => {
            sizes::check_connector_frame(&frame)?;
            let message = v1::LinkMessage { link_id: wire_id(link.link_id), frame: Some(frame) };
            to_node(link, ToNode::LinkMessage(message)).await?;
        }
        Some(Up::Hello(_) | Up::Proof(_)) | None => return Err(ErrorCode::UnexpectedFrame.into()),
    }
    Ok(())
}

/// Sends a frame to the owner. Without one it is dropped: it carries the epoch of an owner that is gone, and the next
/// one asks for everything anew.
async fn to_node(link: &Link, kind: ToNode) -> Result<(), End> {
    let Some(bound) = link.bound() else { return Ok(()) };
    match bound.send(limits::ACTOR_CALL_TIMEOUT, kind).await {
        Ok(()) | Err(NodeError::Down) => Ok(()),
        Err(error @ NodeError::Full) => Err(error.code().into()),
    }
}

fn send(outbox: &Outbox, kind: Down) -> Result<(), End> {
    outbox.send(&v1::LinkDown { kind: Some(kind) }).map_err(|error| error.code().into())
}

fn wire_id(link_id: LinkId) -> Bytes {
    Bytes::copy_from_slice(link_id.as_bytes())
}
