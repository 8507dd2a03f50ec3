//! The gRPC side: many machines over one stream of a gateway.
//!
//! The gateway's word on who somebody is counts for nothing: grants and credentials are verified here, and the
//! machine's key is formed from what they say (INV-SCOPE). A machine id of another account thus names a machine
//! that nobody ever links, exactly as one that does not exist: it is offline, for ever.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flydex_domain::error::ErrorCode;
use flydex_domain::id::{Incarnation, LinkId, MachineId, NodeId, SessionId};
use flydex_domain::limits::{ACTOR_BUSY_RETRY_AFTER, COMMAND_FRAME_BYTES_MAX, EVENT_FRAME_BYTES_MAX};
use flydex_domain::machine::message::{Failure, Input, MachineMessage, MachineMessageKind, OpenLink, OpenSession};
use flydex_domain::scope::{MachineKey, Principal};
use flydex_domain::time::UnixMillis;
use flydex_domain::token::{Claims as _, Grant, MachineCredential};
use flydex_proto::convert::Malformed;
use flydex_proto::v1::gateway_frame::Kind;
use flydex_proto::v1::machine_host_server::{MachineHost, MachineHostServer};
use flydex_proto::v1::node_frame::Kind as NodeKind;
use flydex_proto::v1::{self, GatewayFrame, NodeFrame};
use flydex_runtime::mutual::PeerIdentity;
use futures_util::Stream;
use prost::Message as _;
use tonic::{Request, Response, Status, Streaming};

use crate::convert::{command_id, connector_frame, device_message, transport, wire_machine_message};
use crate::handle::SendError;
use crate::host::Host;
use crate::peer::{Named, Peer, end_link, end_session};

/// Room for a node's own fields around the largest frame of a session or link.
const FRAME_OVERHEAD_BYTES: usize = 16 * 1024;

/// The largest frame that is taken from a gateway.
const GATEWAY_FRAME_BYTES_MAX: usize = if COMMAND_FRAME_BYTES_MAX > EVENT_FRAME_BYTES_MAX {
    COMMAND_FRAME_BYTES_MAX + FRAME_OVERHEAD_BYTES
} else {
    EVENT_FRAME_BYTES_MAX + FRAME_OVERHEAD_BYTES
};

/// The service as tonic sees it.
#[derive(Clone)]
pub(crate) struct Grpc {
    host: Arc<Host>,
}

/// The service for a tonic server.
pub(crate) fn server(host: Arc<Host>) -> MachineHostServer<Grpc> {
    MachineHostServer::new(Grpc { host }).max_decoding_message_size(GATEWAY_FRAME_BYTES_MAX)
}

#[tonic::async_trait]
impl MachineHost for Grpc {
    type ExchangeStream = Pin<Box<dyn Stream<Item = Result<NodeFrame, Status>> + Send>>;

    async fn exchange(
        &self,
        request: Request<Streaming<GatewayFrame>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let (peer, outgoing) = self.host.open_peer().map_err(|code| Status::unavailable(code.name()))?;
        let host = Arc::clone(&self.host);
        // None where both are one process.
        let certificate = request.extensions().get::<PeerIdentity>().cloned();
        self.host.context.shutdown.spawn(read(host, peer, certificate, request.into_inner()));
        Ok(Response::new(Box::pin(outgoing.into_stream())))
    }
}

/// Takes a gateway's frames until either side ends the stream.
async fn read(
    host: Arc<Host>,
    peer: Arc<Peer>,
    certificate: Option<PeerIdentity>,
    mut frames: Streaming<GatewayFrame>,
) {
    let hard = host.context.shutdown.hard();
    let (mut hard, mut finished) = (pin!(hard.cancelled()), pin!(peer.finished()));
    loop {
        tokio::select! {
            // The end goes before another frame.
            biased;
            () = &mut hard => break,
            () = &mut finished => break,
            frame = frames.message() => match frame {
                Ok(Some(frame)) if peer.gateway_id().is_none() => {
                    if let Err(error) = greet(&host, &peer, certificate.as_ref(), frame) {
                        host.context.metrics.malformed_frame();
                        tracing::warn!(%error, "gateway stream did not begin with a hello");
                        break;
                    }
                }
                Ok(Some(frame)) => take(&host, &peer, frame),
                Ok(None) => break,
                Err(status) => {
                    tracing::debug!(reason = status.code().description(), "gateway stream broke");
                    break;
                }
            },
        }
    }
    host.close_peer(&peer);
}

/// The first frame of a stream: which gateway it is, for the record of its links. Nothing is forwarded between regions.
fn greet(host: &Host, peer: &Peer, certificate: Option<&PeerIdentity>, frame: GatewayFrame) -> Result<(), Malformed> {
    let Some(Kind::Hello(hello)) = frame.kind else { return Err(Malformed::Missing("gateway hello")) };
    peer.greeted_by(named(hello, &host.context.region, certificate)?);
    Ok(())
}

/// The gateway that a hello names, which must be the one of its certificate.
fn named(hello: v1::GatewayHello, region: &str, certificate: Option<&PeerIdentity>) -> Result<NodeId, Malformed> {
    if hello.region != region {
        return Err(Malformed::Unknown("region"));
    }
    if certificate.is_some_and(|peer| peer.node_id != hello.gateway_id) {
        return Err(Malformed::Unknown("gateway id"));
    }
    NodeId::try_from(hello.gateway_id).map_err(|_| Malformed::Unknown("gateway id"))
}

/// Where a frame came from and belongs to.
struct Route<'a> {
    host: &'a Arc<Host>,
    peer: &'a Arc<Peer>,
    account_id: Bytes,
    machine_id: Bytes,
    deadline: Option<Duration>,
    bytes: usize,
}

fn take(host: &Arc<Host>, peer: &Arc<Peer>, frame: GatewayFrame) {
    let bytes = frame.encoded_len();
    let GatewayFrame { account_id, machine_id, deadline_ms, kind } = frame;
    let deadline = (deadline_ms > 0).then(|| Duration::from_millis(deadline_ms.into()));
    let route = Route { host, peer, account_id, machine_id, deadline, bytes };
    let taken = match kind {
        None => Err(Malformed::Missing("gateway frame")),
        Some(Kind::Hello(_)) => Err(Malformed::Unknown("second hello")),
        Some(Kind::OpenSession(open)) => route.open_session(&open),
        Some(Kind::SessionMessage(message)) => route.session_message(message),
        Some(Kind::CloseSession(close)) => route.close_session(&close),
        Some(Kind::OpenLink(open)) => route.open_link(open),
        Some(Kind::LinkMessage(message)) => route.link_message(message),
        Some(Kind::CloseLink(close)) => route.close_link(&close),
    };
    if let Err(error) = taken {
        host.context.metrics.malformed_frame();
        tracing::warn!(%error, "gateway sent a malformed frame");
    }
}

impl Route<'_> {
    // === Sessions ===

    fn open_session(&self, open: &v1::OpenSession) -> Result<(), Malformed> {
        let session_id = SessionId::try_from(open.session_id.as_ref())?;
        let replacing = incarnation(&open.replacing)?;
        if let Err(code) = self.admit_session(session_id, &open.grant, replacing) {
            self.refuse_session(session_id, code);
        }
        Ok(())
    }

    fn admit_session(
        &self,
        session_id: SessionId,
        token: &str,
        replacing: Option<Incarnation>,
    ) -> Result<(), ErrorCode> {
        let context = &self.host.context;
        let grant: Grant =
            context.verifier.verify(token, context.now().unix).map_err(|error| error.code(ErrorCode::GrantInvalid))?;
        if let Some(code) = context.revocations.refuse_grant(&grant) {
            return Err(code);
        }
        let principal = Principal::Device {
            account_id: grant.account_id,
            user_id: grant.user_id,
            role: grant.role,
            device_id: grant.device_key.0.device_id(),
        };
        let key = self.key(&principal)?;
        if self.peer.remove_session(key, session_id) {
            self.to_machine(key, Input::SessionClosed(session_id));
        }
        if !self.peer.add_session(key, session_id) {
            return Err(ErrorCode::Overloaded);
        }
        let opened = self.open(key, &Input::SessionOpened(OpenSession { session_id, grant, replacing }));
        if opened.is_err() {
            self.peer.remove_session(key, session_id);
        }
        opened
    }

    fn session_message(&self, message: v1::SessionMessage) -> Result<(), Malformed> {
        let session_id = SessionId::try_from(message.session_id.as_ref())?;
        let Some(key) = self.peer.session(&self.named(session_id)?) else { return Ok(()) };
        let message = message.message.ok_or(Malformed::Missing("device message"))?;
        let (trace, command_id) = (message.trace.clone(), command_id(&message));
        let message = match device_message(message) {
            Ok(message) => message,
            Err(_) => {
                let failure = Failure { code: ErrorCode::BadRequest, command_id, retry_after: Duration::ZERO };
                self.fail(key, session_id, trace, failure);
                return Ok(());
            }
        };
        let input = Input::SessionMessage { session_id, message, deadline: self.deadline };
        match self.send(key, input) {
            Ok(()) => {}
            Err(SendError::Overloaded) if command_id.is_some() => {
                self.host.context.metrics.overloaded();
                let failure = Failure { code: ErrorCode::Overloaded, command_id, retry_after: ACTOR_BUSY_RETRY_AFTER };
                self.fail(key, session_id, trace, failure);
            }
            // A credit that is lost would starve the session: it opens again instead.
            Err(SendError::Overloaded) => {
                self.host.context.metrics.overloaded();
                self.to_machine(key, Input::SessionClosed(session_id));
                self.peer.end_session(key, session_id, ErrorCode::Overloaded, ACTOR_BUSY_RETRY_AFTER);
            }
            Err(SendError::Stopped) => {
                self.peer.end_session(key, session_id, ErrorCode::Moving, Duration::ZERO);
            }
        }
        Ok(())
    }

    fn close_session(&self, close: &v1::CloseSession) -> Result<(), Malformed> {
        let session_id = SessionId::try_from(close.session_id.as_ref())?;
        if let Some(key) = self.peer.session(&self.named(session_id)?) {
            self.peer.remove_session(key, session_id);
            self.to_machine(key, Input::SessionClosed(session_id));
        }
        Ok(())
    }

    fn refuse_session(&self, session_id: SessionId, code: ErrorCode) {
        tracing::debug!("session.id" = %session_id, error.code = code.name(), "session refused");
        let end = NodeKind::EndSession(end_session(session_id, code, retry_after(code)));
        self.peer.send_raw(self.account_id.clone(), self.machine_id.clone(), end);
    }

    fn fail(&self, key: MachineKey, session_id: SessionId, trace: Option<v1::TraceContext>, failure: Failure) {
        self.host.context.metrics.command_failed(failure.code);
        let message = MachineMessage { trace: None, kind: MachineMessageKind::Failure(failure) };
        let session_id = crate::convert::copy(session_id.as_bytes());
        let message = Some(v1::MachineMessage { trace, ..wire_machine_message(message) });
        self.peer.send(key, NodeKind::ToSession(v1::NodeToSession { session_id, message }));
    }

    // === Links ===

    fn open_link(&self, open: v1::OpenLink) -> Result<(), Malformed> {
        let link_id = LinkId::try_from(open.link_id.as_ref())?;
        let transport = transport(open.transport())?;
        let link = OpenLink {
            link_id,
            link_counter: open.link_counter,
            boot_id: open.boot_id.as_ref().try_into()?,
            transport,
            connector_version: open.connector_version,
            channel_bound: open.channel_bound,
            holds_until: UnixMillis(0),
            revoked_devices: Vec::new(),
            replacing: incarnation(&open.replacing)?,
        };
        if let Err(code) = self.admit_link(link, &open.credential) {
            tracing::info!("link.id" = %link_id, error.code = code.name(), "link refused");
            let end = NodeKind::EndLink(end_link(link_id, code, retry_after(code)));
            self.peer.send_raw(self.account_id.clone(), self.machine_id.clone(), end);
        }
        Ok(())
    }

    fn admit_link(&self, mut link: OpenLink, token: &str) -> Result<(), ErrorCode> {
        let context = &self.host.context;
        let credential: MachineCredential = context
            .verifier
            .verify(token, context.now().unix)
            .map_err(|error| error.code(ErrorCode::CredentialInvalid))?;
        if let Some(code) = context.revocations.refuse_credential(&credential) {
            return Err(code);
        }
        if credential.region_pin.as_ref().is_some_and(|region| *region != context.region) {
            return Err(ErrorCode::MachineWrongRegion);
        }
        let principal = Principal::Machine { account_id: credential.account_id, machine_id: credential.machine_id };
        let key = self.key(&principal).map_err(|_| ErrorCode::CredentialInvalid)?;
        if key.machine_id() != credential.machine_id {
            return Err(ErrorCode::CredentialInvalid);
        }
        link.holds_until = credential.holds_until();
        link.revoked_devices = context.revocations.to_remove(&credential);
        let link_id = link.link_id;
        if self.peer.remove_link(key, link_id) {
            self.to_machine(key, Input::LinkClosed(link_id));
        }
        if !self.peer.add_link(key, link_id) {
            return Err(ErrorCode::Overloaded);
        }
        let opened = self.open(key, &Input::LinkOpened(link));
        if opened.is_err() {
            self.peer.remove_link(key, link_id);
        }
        opened
    }

    fn link_message(&self, message: v1::LinkMessage) -> Result<(), Malformed> {
        let link_id = LinkId::try_from(message.link_id.as_ref())?;
        let Some(key) = self.peer.link(&self.named(link_id)?) else { return Ok(()) };
        let frame = message.frame.ok_or(Malformed::Missing("connector frame")).and_then(connector_frame);
        let Ok(frame) = frame else {
            self.host.context.metrics.malformed_frame();
            self.end_link(key, link_id, ErrorCode::BadRequest);
            return Ok(());
        };
        match self.send(key, Input::LinkFrame { link_id, frame }) {
            Ok(()) => {}
            Err(SendError::Overloaded) => {
                self.host.context.metrics.overloaded();
                self.end_link(key, link_id, ErrorCode::Overloaded);
            }
            Err(SendError::Stopped) => self.peer.end_link(key, link_id, ErrorCode::Moving, Duration::ZERO, 0),
        }
        Ok(())
    }

    /// Ends a link of which a frame is lost: a hole would follow. It opens again instead.
    fn end_link(&self, key: MachineKey, link_id: LinkId, code: ErrorCode) {
        self.to_machine(key, Input::LinkClosed(link_id));
        self.peer.end_link(key, link_id, code, retry_after(code), 0);
    }

    fn close_link(&self, close: &v1::CloseLink) -> Result<(), Malformed> {
        let link_id = LinkId::try_from(close.link_id.as_ref())?;
        if let Some(key) = self.peer.link(&self.named(link_id)?) {
            self.peer.remove_link(key, link_id);
            self.to_machine(key, Input::LinkClosed(link_id));
        }
        Ok(())
    }

    // === Machines ===

    /// The machine that the frame names, in the scope of who asks.
    fn key(&self, principal: &Principal) -> Result<MachineKey, ErrorCode> {
        let scope = principal.scope();
        if self.account_id.as_ref() != scope.account_id().as_bytes() {
            return Err(ErrorCode::NotFound);
        }
        let machine_id = MachineId::try_from(self.machine_id.as_ref()).map_err(|_| ErrorCode::NotFound)?;
        Ok(MachineKey::new(scope, machine_id))
    }

    /// A session or link as the frame names it. Only what this stream carries leads on from it, and what it
    /// carries was let in under a verified token.
    fn named<Id>(&self, id: Id) -> Result<Named<Id>, Malformed> {
        let account_id = self.account_id.as_ref().try_into()?;
        Ok(Named { account_id, machine_id: self.machine_id.as_ref().try_into()?, id })
    }

    /// Sends an opening, starting the actor if need be; once more when it was just retiring.
    fn open(&self, key: MachineKey, input: &Input) -> Result<(), ErrorCode> {
        for _ in 0..2 {
            let handle = self.host.find_or_start(key)?;
            match handle.send(self.peer, input.clone(), self.bytes) {
                Ok(()) => return Ok(()),
                Err(SendError::Overloaded) => {
                    self.host.context.metrics.overloaded();
                    return Err(ErrorCode::Overloaded);
                }
                Err(SendError::Stopped) => self.host.forget(key, handle.actor_id()),
            }
        }
        Err(ErrorCode::Moving)
    }

    /// Sends what a session or link of this stream says.
    fn send(&self, key: MachineKey, input: Input) -> Result<(), SendError> {
        self.host.find(key).ok_or(SendError::Stopped)?.send(self.peer, input, self.bytes)
    }

    /// Sends that something has ended; an actor that is gone has ended it itself.
    fn to_machine(&self, key: MachineKey, ending: Input) {
        if let Some(handle) = self.host.find(key) {
            let _ = handle.send_ending(self.peer, ending);
        }
    }
}

/// A node's life, where a frame names one.
fn incarnation(bytes: &[u8]) -> Result<Option<Incarnation>, Malformed> {
    if bytes.is_empty() { Ok(None) } else { Ok(Some(Incarnation::try_from(bytes)?)) }
}

fn retry_after(code: ErrorCode) -> Duration {
    match code.retry() {
        flydex_domain::error::Retry::Later => ACTOR_BUSY_RETRY_AFTER,
        flydex_domain::error::Retry::Never | flydex_domain::error::Retry::Refreshed => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_cannot_greet_under_the_name_of_another_or_from_another_region() {
        let hello = |gateway_id: &str, region: &str| v1::GatewayHello {
            gateway_id: gateway_id.to_owned(),
            region: region.to_owned(),
        };
        let certificate: PeerIdentity = "spiffe://flydex/eu/gateway/gateway-1".parse().unwrap();
        let taken = |hello| named(hello, "eu", Some(&certificate)).is_ok();
        assert!(taken(hello("gateway-1", "eu")));
        assert!(!taken(hello("gateway-2", "eu")));
        assert!(!taken(hello("gateway-1", "us")));
        assert!(named(hello("all", "eu"), "eu", None).is_ok());
        assert!(named(hello("", "eu"), "eu", None).is_err());
    }
}
