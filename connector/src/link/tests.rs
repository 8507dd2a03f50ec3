//! Links against a scripted gateway with real sockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ed25519_dalek::SigningKey;
use flydex_domain::id::{AccountId, MachineId};
use flydex_domain::key::PublicKey;
use flydex_domain::proof::LinkProof;
use flydex_domain::token::TokenVerifier;
use flydex_proto::codec::{
    Lane, SUBPROTOCOL, decode_body, encode_message, encode_stream, split_message, stream_length,
};
use flydex_proto::lanes::OnLane as _;
use flydex_proto::v1::link_down::Kind as Down;
use flydex_proto::v1::link_up::Kind as Up;
use flydex_runtime::tls::{EXPORTER_LABEL, Identity};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

mod quic;
mod regions;

use super::*;
use crate::api::SecretText;
use crate::outbox::Outbox;
use crate::paired::{MeasuredRegion, QuicEndpoint};
use crate::storage::memory::MemoryStorage;

const NONCE: [u8; 32] = [3; 32];
const BOOT: BootId = BootId::from_bytes([4; 16]);

/// The gateway's end of one connection.
pub(crate) trait Peer {
    async fn receive(&mut self) -> Option<Up>;
    async fn send(&mut self, kind: Down);
}

pub(crate) struct WebSocketPeer<S>(WebSocketStream<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> Peer for WebSocketPeer<S> {
    async fn receive(&mut self) -> Option<Up> {
        loop {
            match self.0.next().await?.ok()? {
                Message::Binary(bytes) => {
                    let (_, body) = split_message(bytes).unwrap();
                    return decode_body::<v1::LinkUp>(body).unwrap().kind;
                }
                Message::Close(_) => return None,
                Message::Text(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }

    async fn send(&mut self, kind: Down) {
        let message = v1::LinkDown { kind: Some(kind) };
        self.0.send(Message::Binary(encode_message(message.lane(), &message).unwrap())).await.unwrap();
    }
}

/// Plays the gateway through the hello; gives the hello and whether the proof holds.
pub(crate) async fn welcome(peer: &mut impl Peer, exporter: Option<[u8; 32]>) -> (v1::LinkHello, bool) {
    let Some(Up::Hello(hello)) = peer.receive().await else { panic!("no hello") };
    let challenge = v1::LinkChallenge {
        version: 1,
        nonce: Bytes::copy_from_slice(&NONCE),
        gateway_id: "gateway".to_owned(),
        server_time_ms: 0,
    };
    peer.send(Down::Challenge(challenge)).await;
    let Some(Up::Proof(proof)) = peer.receive().await else { panic!("no proof") };
    assert_eq!(proof.channel_bound, exporter.is_some());
    let transcript = LinkProof {
        nonce: &NONCE,
        host: "localhost",
        gateway_id: "gateway",
        boot_id: BOOT,
        link_counter: hello.link_counter,
        exporter: exporter.as_ref(),
    };
    let holds = PublicKey::of(&key()).verify(transcript.transcript(), &proof.signature).is_ok();
    peer.send(Down::Welcome(v1::LinkWelcome { ping_interval_ms: 1000, silence_max_ms: 8000, ..Default::default() }))
        .await;
    (hello, holds)
}

fn end(code: ErrorCode, retry_after_ms: u32) -> Down {
    Down::End(v1::SessionEnd { code: code.number().into(), retry_after_ms, link_counter: 0 })
}

fn key() -> SigningKey {
    SigningKey::from_bytes(&[9; 32])
}

struct World {
    events: mpsc::Receiver<LinkEvent>,
    policy: watch::Sender<DeskPolicy>,
    credential: watch::Sender<SecretText>,
    regions: watch::Sender<Vec<RegionEndpoint>>,
    report: watch::Receiver<RegionReport>,
    shutdown: Shutdown,
}

/// What a test gives besides the regions.
struct Given {
    policy: DeskPolicy,
    credential: SecretText,
    verifier: TokenVerifier,
}

impl Default for Given {
    fn default() -> Self {
        let (policy, verifier) = (DeskPolicy::default(), TokenVerifier::default());
        Self { policy, credential: SecretText::new("credential".to_owned()), verifier }
    }
}

fn connect(endpoint: RegionEndpoint) -> World {
    connect_with(endpoint, DeskPolicy::default())
}

fn bound_only() -> DeskPolicy {
    DeskPolicy { require_channel_binding: true, ..DeskPolicy::default() }
}

fn connect_with(endpoint: RegionEndpoint, policy: DeskPolicy) -> World {
    connect_to(vec![endpoint], Given { policy, ..Given::default() })
}

fn connect_to(endpoints: Vec<RegionEndpoint>, given: Given) -> World {
    let (policy, policy_rx) = watch::channel(given.policy);
    let (credential, credential_rx) = watch::channel(given.credential);
    let (regions, regions_rx) = watch::channel(endpoints);
    let (region_report, report) = watch::channel(RegionReport::default());
    let paired = PairedState {
        origin: "https://localhost".to_owned(),
        account_id: AccountId::from_uuid(Uuid::from_u128(1)),
        account_name: String::new(),
        machine_id: MachineId::from_uuid(Uuid::from_u128(2)),
        machine_label: String::new(),
        machine_key: watch::channel(Arc::new(key())).1,
        credential: credential_rx,
        verifier: watch::channel(Arc::new(given.verifier)).1,
        regions: regions_rx,
        policy: policy_rx,
    };
    let config = Config {
        paired,
        boot_id: BOOT,
        connector_version: "1".to_owned(),
        fence: Fence::open(Box::new(MemoryStorage::default())).unwrap(),
        entropy: Entropy::from_fn(|bytes| bytes.fill(0)),
        region_report,
    };
    let (tx, events) = mpsc::channel(16);
    let shutdown = Shutdown::new();
    start(config, tx, Clock::manual(0), &shutdown);
    World { events, policy, credential, regions, report, shutdown }
}

impl World {
    async fn up(&mut self) -> (Outbox, Transport) {
        let (outbox, channel) = self.up_over().await;
        (outbox, channel.transport)
    }

    async fn up_over(&mut self) -> (Outbox, Channel) {
        loop {
            let event = tokio::time::timeout(Duration::from_secs(10), self.events.recv()).await;
            if let LinkEvent::Up { outbox, channel, .. } = event.expect("an event").unwrap() {
                return (outbox, channel);
            }
        }
    }

    async fn down(&mut self) -> Option<ErrorCode> {
        loop {
            let event = tokio::time::timeout(Duration::from_secs(10), self.events.recv()).await;
            if let LinkEvent::Down { code, .. } = event.expect("an event").unwrap() {
                return code;
            }
        }
    }
}

pub(crate) fn endpoint(
    address: SocketAddr,
    scheme: &str,
    pem: Option<&str>,
    quic: Option<SocketAddr>,
) -> RegionEndpoint {
    RegionEndpoint {
        region: "local".to_owned(),
        link_url: format!("{scheme}://localhost:{}/v1/link", address.port()),
        quic: quic.map(|at| QuicEndpoint { address: at.to_string(), server_name: "localhost".to_owned() }),
        certificate_pem: pem.map(str::to_owned),
    }
}

pub(crate) async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn upgrade<S: AsyncRead + AsyncWrite + Unpin>(stream: S) -> WebSocketPeer<S> {
    upgrade_if_asked(stream).await.expect("a websocket")
}

/// `None` when the peer goes without asking for anything.
#[expect(clippy::result_large_err, reason = "the callback's type is the library's")]
pub(crate) async fn upgrade_if_asked<S: AsyncRead + AsyncWrite + Unpin>(stream: S) -> Option<WebSocketPeer<S>> {
    use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
    let accept = |request: &Request, mut response: Response| {
        let asked = request.headers().get("sec-websocket-protocol").unwrap().clone();
        assert_eq!(asked, SUBPROTOCOL);
        assert!(request.headers().get("origin").is_none());
        response.headers_mut().insert("sec-websocket-protocol", asked);
        Ok(response)
    };
    tokio_tungstenite::accept_hdr_async(stream, accept).await.ok().map(WebSocketPeer)
}

async fn accept_plain(listener: &TcpListener) -> WebSocketPeer<TcpStream> {
    upgrade(listener.accept().await.unwrap().0).await
}

fn identity() -> (tempfile::TempDir, Identity) {
    let folder = tempfile::tempdir().unwrap();
    let identity = Identity::self_made(folder.path(), "localhost").unwrap();
    (folder, identity)
}

#[tokio::test]
async fn a_link_on_this_machine_is_proven_and_carries_frames_both_ways() {
    let (listener, address) = listen().await;
    let mut world = connect(endpoint(address, "ws", None, None));
    let mut peer = accept_plain(&listener).await;
    let (hello, holds) = welcome(&mut peer, None).await;
    assert!(holds);
    assert_eq!((hello.credential.as_str(), hello.boot_id.as_ref()), ("credential", BOOT.as_bytes().as_slice()));
    let (outbox, transport) = world.up().await;
    assert_eq!(transport, Transport::WebSocket);

    peer.send(Down::Frame(v1::OwnerFrame::default())).await;
    let event = world.events.recv().await.unwrap();
    assert!(matches!(event, LinkEvent::Frame { .. }));
    peer.send(Down::Ping(v1::Ping { nonce: 77 })).await;
    outbox.send_frame(v1::ConnectorFrame::default()).unwrap();
    let (mut pong, mut frame) = (false, false);
    while !(pong && frame) {
        match peer.receive().await.unwrap() {
            Up::Pong(answer) => pong = answer.nonce == 77,
            Up::Frame(_) => frame = true,
            Up::Hello(_) | Up::Proof(_) | Up::Ping(_) => {}
        }
    }
    outbox.close(ErrorCode::GoingAway);
    while peer.receive().await.is_some() {}
}

#[tokio::test]
async fn over_tls_the_proof_covers_the_channel() {
    let (listener, address) = listen().await;
    let (_folder, identity) = identity();
    let mut world = connect(endpoint(address, "wss", identity.self_made_pem(), None));
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(identity.server_config(&[b"http/1.1"]).unwrap()));
    let stream = acceptor.accept(listener.accept().await.unwrap().0).await.unwrap();
    let exporter = stream.get_ref().1.export_keying_material([0; 32], EXPORTER_LABEL, Some(&[])).unwrap();
    let mut peer = upgrade(stream).await;
    let (_, holds) = welcome(&mut peer, Some(exporter)).await;
    assert!(holds);
    world.up().await;
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_is_not_spoken_to() {
    let (listener, address) = listen().await;
    let (_folder, identity) = identity();
    let mut world = connect(endpoint(address, "wss", None, None));
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(identity.server_config(&[b"http/1.1"]).unwrap()));
    assert!(acceptor.accept(listener.accept().await.unwrap().0).await.is_err());
    assert_eq!(world.down().await, Some(ErrorCode::ServerUnreachable));
}

#[tokio::test]
async fn a_plain_address_elsewhere_is_not_dialled() {
    let elsewhere = RegionEndpoint {
        link_url: "ws://relay.example/v1/link".to_owned(),
        ..endpoint(([127, 0, 0, 1], 1).into(), "ws", None, None)
    };
    let mut world = connect(elsewhere);
    assert_eq!(world.down().await, Some(ErrorCode::UntrustedAddress));
}

#[tokio::test]
async fn a_link_that_ends_is_opened_again_with_a_greater_counter() {
    let (listener, address) = listen().await;
    let mut world = connect(endpoint(address, "ws", None, None));
    let mut peer = accept_plain(&listener).await;
    let (first, _) = welcome(&mut peer, None).await;
    world.up().await;
    peer.send(end(ErrorCode::Moving, 1)).await;
    assert_eq!(world.down().await, Some(ErrorCode::Moving));
    let mut peer = accept_plain(&listener).await;
    let (second, _) = welcome(&mut peer, None).await;
    assert!(second.link_counter > first.link_counter);
    world.up().await;
}

#[tokio::test]
async fn a_machine_that_lost_its_count_of_links_counts_on_from_the_newest() {
    let (listener, address) = listen().await;
    let mut world = connect(endpoint(address, "ws", None, None));
    let mut peer = accept_plain(&listener).await;
    let (first, _) = welcome(&mut peer, None).await;
    world.up().await;
    let newest = first.link_counter + 1_000_000;
    let Down::End(ended) = end(ErrorCode::LinkSuperseded, 0) else { panic!("an end") };
    peer.send(Down::End(v1::SessionEnd { link_counter: newest, ..ended })).await;
    assert_eq!(world.down().await, Some(ErrorCode::LinkSuperseded));
    let mut peer = accept_plain(&listener).await;
    let (second, _) = welcome(&mut peer, None).await;
    assert_eq!(second.link_counter, newest + 1);
}

#[tokio::test]
async fn a_refused_hello_is_told_and_tried_again() {
    let (listener, address) = listen().await;
    let mut world = connect(endpoint(address, "ws", None, None));
    let mut peer = accept_plain(&listener).await;
    peer.receive().await.unwrap();
    peer.send(end(ErrorCode::Overloaded, 0)).await;
    assert_eq!(world.down().await, Some(ErrorCode::Overloaded));
    let mut peer = accept_plain(&listener).await;
    welcome(&mut peer, None).await;
    world.up().await;
}

#[tokio::test]
async fn a_link_that_is_told_to_go_serves_until_the_next_one_is_there() {
    let (listener, address) = listen().await;
    let mut world = connect(endpoint(address, "ws", None, None));
    let mut old = accept_plain(&listener).await;
    welcome(&mut old, None).await;
    let (before, _) = world.up().await;
    old.send(Down::GoAway(v1::GoAway { reconnect_in_ms: 1, try_for_ms: 1000, hint: String::new() })).await;
    let mut new = accept_plain(&listener).await;
    welcome(&mut new, None).await;
    world.up().await;
    assert_eq!(before.closed(), None);
    old.send(Down::Frame(v1::OwnerFrame::default())).await;
    assert!(matches!(world.events.recv().await.unwrap(), LinkEvent::Frame { link: 1, .. }));
}

#[tokio::test]
async fn a_newer_credential_disturbs_no_link_and_opens_the_next() {
    let (listener, address) = listen().await;
    let mut world = connect(endpoint(address, "ws", None, None));
    let mut old = accept_plain(&listener).await;
    let (hello, _) = welcome(&mut old, None).await;
    assert_eq!(hello.credential, "credential");
    world.up().await;
    world.credential.send_replace(SecretText::new("renewed".to_owned()));
    let goes_on = async {
        for _ in 0..100 {
            old.send(Down::Frame(v1::OwnerFrame::default())).await;
            assert!(matches!(world.events.recv().await.unwrap(), LinkEvent::Frame { link: 1, .. }));
        }
    };
    tokio::select! {
        biased;
        _ = listener.accept() => panic!("another link was dialled"),
        () = goes_on => {}
    }
    old.send(Down::GoAway(v1::GoAway { reconnect_in_ms: 1, try_for_ms: 1000, hint: String::new() })).await;
    let mut new = accept_plain(&listener).await;
    let (hello, _) = welcome(&mut new, None).await;
    assert_eq!(hello.credential, "renewed");
    world.up().await;
}

#[tokio::test]
async fn a_frame_of_the_gateway_on_another_lane_ends_the_link() {
    let (listener, address) = listen().await;
    let mut world = connect(endpoint(address, "ws", None, None));
    let mut peer = accept_plain(&listener).await;
    welcome(&mut peer, None).await;
    world.up().await;
    let ping = v1::LinkDown { kind: Some(Down::Ping(v1::Ping { nonce: 1 })) };
    peer.0.send(Message::Binary(encode_message(Lane::Bulk, &ping).unwrap())).await.unwrap();
    assert_eq!(world.down().await, Some(ErrorCode::UnexpectedFrame));
}

/// A gateway behind a proxy that ends TLS: a proof that covers the connector's own connection cannot hold there.
async fn refuse_bound(listener: &TcpListener, acceptor: &tokio_rustls::TlsAcceptor) {
    let mut peer = accept_tls(listener, acceptor).await;
    peer.receive().await.unwrap();
    let nonce = Bytes::copy_from_slice(&NONCE);
    let challenge = v1::LinkChallenge { version: 1, nonce, gateway_id: "gateway".to_owned(), server_time_ms: 0 };
    peer.send(Down::Challenge(challenge)).await;
    let Some(Up::Proof(proof)) = peer.receive().await else { panic!("no proof") };
    assert!(proof.channel_bound);
    peer.send(end(ErrorCode::ProofInvalid, 0)).await;
}

async fn accept_tls(
    listener: &TcpListener,
    acceptor: &tokio_rustls::TlsAcceptor,
) -> WebSocketPeer<tokio_rustls::server::TlsStream<TcpStream>> {
    upgrade(acceptor.accept(listener.accept().await.unwrap().0).await.unwrap()).await
}

fn acceptor(identity: &Identity) -> tokio_rustls::TlsAcceptor {
    tokio_rustls::TlsAcceptor::from(Arc::new(identity.server_config(&[b"http/1.1"]).unwrap()))
}

#[tokio::test]
async fn where_tls_ends_on_the_way_one_more_link_is_opened_unbound_and_told_so() {
    let (listener, address) = listen().await;
    let (_folder, identity) = identity();
    let acceptor = acceptor(&identity);
    let mut world = connect(endpoint(address, "wss", identity.self_made_pem(), None));
    refuse_bound(&listener, &acceptor).await;
    let mut peer = accept_tls(&listener, &acceptor).await;
    let (_, holds) = welcome(&mut peer, None).await;
    assert!(holds);
    let (_, channel) = world.up_over().await;
    assert_eq!(channel, Channel { transport: Transport::WebSocket, bound: false });

    // What was learnt is kept: the next link asks for nothing that cannot hold.
    peer.send(end(ErrorCode::Moving, 1)).await;
    let mut peer = accept_tls(&listener, &acceptor).await;
    assert!(welcome(&mut peer, None).await.1);
    assert!(!world.up_over().await.1.bound);
}

#[tokio::test]
async fn a_proof_that_does_not_hold_unbound_either_is_no_proxy() {
    let (listener, address) = listen().await;
    let (_folder, identity) = identity();
    let acceptor = acceptor(&identity);
    let mut world = connect(endpoint(address, "wss", identity.self_made_pem(), None));
    refuse_bound(&listener, &acceptor).await;
    let mut peer = accept_tls(&listener, &acceptor).await;
    peer.receive().await.unwrap();
    peer.send(end(ErrorCode::ProofInvalid, 0)).await;
    assert_eq!(world.down().await, Some(ErrorCode::ProofInvalid));
    refuse_bound(&listener, &acceptor).await;
}

#[tokio::test]
async fn a_desk_that_wants_bound_links_gets_no_other() {
    let (listener, address) = listen().await;
    let (_folder, identity) = identity();
    let mut world = connect_with(endpoint(address, "wss", identity.self_made_pem(), None), bound_only());
    refuse_bound(&listener, &acceptor(&identity)).await;
    assert_eq!(world.down().await, Some(ErrorCode::ChannelNotBound));

    let (listener, address) = listen().await;
    let mut world = connect_with(endpoint(address, "ws", None, None), bound_only());
    let mut peer = accept_plain(&listener).await;
    assert!(peer.receive().await.is_none(), "nothing is said over a link that cannot be bound");
    assert_eq!(world.down().await, Some(ErrorCode::ChannelNotBound));
}

#[tokio::test]
async fn an_unbound_link_ends_when_the_desk_wants_bound_ones() {
    let (listener, address) = listen().await;
    let mut world = connect(endpoint(address, "ws", None, None));
    let mut peer = accept_plain(&listener).await;
    welcome(&mut peer, None).await;
    let (outbox, _) = world.up().await;
    world.policy.send_replace(bound_only());
    assert_eq!(world.down().await, Some(ErrorCode::ChannelNotBound));
    assert_eq!(outbox.closed(), Some(ErrorCode::ChannelNotBound));
}

#[tokio::test]
async fn where_udp_is_blocked_a_websocket_serves() {
    // A socket that swallows every packet.
    let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (_folder, identity) = identity();
    let (listener, address) = listen().await;
    let at = silent.local_addr().unwrap();
    let mut world = connect(endpoint(address, "ws", identity.self_made_pem(), Some(at)));
    let mut peer = accept_plain(&listener).await;
    welcome(&mut peer, None).await;
    assert_eq!(world.up().await.1, Transport::WebSocket);
}
