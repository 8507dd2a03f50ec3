//! Clients of the real protocol: a browser's session, and a connector's link over each transport.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use ed25519_dalek::SigningKey;
use flydex_domain::encoding::Transcript;
use flydex_domain::id::BootId;
use flydex_domain::key::{PublicKey, sign};
use flydex_domain::proof::{self, LinkProof};
use flydex_proto::codec::{self, Lane, SUBPROTOCOL};
use flydex_proto::lanes::OnLane;
use flydex_proto::v1;
use flydex_proto::v1::link_down::Kind as LinkDownKind;
use flydex_proto::v1::link_up::Kind as LinkUpKind;
use flydex_proto::v1::session_down::Kind as Down;
use flydex_proto::v1::session_up::Kind as Up;
use flydex_runtime::tls;
use futures_util::{SinkExt as _, StreamExt as _};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{self, Message as WsMessage};

use super::world::{GATEWAY, HOST, ORIGIN, World, device_key, machine_key, soon};

pub(super) trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A WebSocket of a client.
pub(super) struct Socket {
    stream: WebSocketStream<Box<dyn Io>>,
}

/// How a connection ended: the code in the last frame, and the close code.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) code: u32,
    pub(super) close_code: u16,
}

impl Ended {
    pub(super) fn with(code: flydex_domain::error::ErrorCode) -> Self {
        Self { code: code.number().into(), close_code: code.close_code() }
    }
}

impl Socket {
    pub(super) async fn connect(
        io: Box<dyn Io>,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, tungstenite::Error> {
        let mut request = format!("ws://{HOST}{path}").into_client_request()?;
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let (stream, _) = tokio_tungstenite::client_async(request, io).await?;
        Ok(Self { stream })
    }

    pub(super) async fn send_raw(&mut self, message: WsMessage) {
        self.stream.send(message).await.unwrap();
    }

    pub(super) async fn send(&mut self, message: &(impl Message + OnLane)) {
        self.send_on(message.lane(), message).await;
    }

    /// Sends a message on a lane that need not be its own.
    pub(super) async fn send_on(&mut self, lane: Lane, message: &impl Message) {
        let frame = codec::encode_message(lane, message).unwrap();
        self.send_raw(WsMessage::Binary(frame)).await;
    }

    /// The next frame, or the close code.
    pub(super) async fn next<M: Message + Default>(&mut self) -> Result<M, Option<u16>> {
        loop {
            match soon(self.stream.next()).await {
                Some(Ok(WsMessage::Binary(bytes))) => {
                    let (_, body) = codec::split_message(bytes).unwrap();
                    return Ok(codec::decode_body(body).unwrap());
                }
                Some(Ok(WsMessage::Close(frame))) => return Err(frame.map(|frame| frame.code.into())),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(None),
            }
        }
    }
}

// === Sessions ===

/// A browser's session.
pub(super) struct Browser {
    pub(super) socket: Socket,
}

impl Browser {
    pub(super) async fn connect(world: &World) -> Self {
        Self::connect_to(world.plain).await
    }

    pub(super) async fn connect_to(address: std::net::SocketAddr) -> Self {
        let io: Box<dyn Io> = Box::new(TcpStream::connect(address).await.unwrap());
        let headers = [("origin", ORIGIN), ("sec-websocket-protocol", SUBPROTOCOL)];
        Self { socket: Socket::connect(io, "/v1/session", &headers).await.unwrap() }
    }

    /// Connects and goes through the handshake with a ticket of that number.
    pub(super) async fn open(world: &World, ticket: u128) -> (Self, Bytes) {
        Self::open_with(world, hello(world, ticket)).await
    }

    /// Connects and goes through the handshake with that hello.
    pub(super) async fn open_with(world: &World, hello: v1::SessionHello) -> (Self, Bytes) {
        let mut browser = Self::connect(world).await;
        let ticket = hello.ticket.clone();
        let challenge = browser.hello(hello).await.unwrap();
        let welcome = browser.prove(&challenge, &ticket, &device_key()).await.unwrap();
        (browser, welcome.session_id)
    }

    pub(super) async fn hello(&mut self, hello: v1::SessionHello) -> Result<v1::SessionChallenge, Ended> {
        self.send(Up::Hello(hello)).await;
        let answer = self.next().await;
        if let Down::Challenge(challenge) = answer {
            return Ok(challenge);
        }
        let Down::End(end) = answer else { panic!("a challenge or an end follows a hello") };
        Err(self.ended(&end).await)
    }

    pub(super) async fn prove(
        &mut self,
        challenge: &v1::SessionChallenge,
        ticket: &str,
        key: &SigningKey,
    ) -> Result<v1::SessionWelcome, Ended> {
        self.send_proof(challenge, ticket, key).await;
        let answer = self.next().await;
        if let Down::Welcome(welcome) = answer {
            return Ok(welcome);
        }
        let Down::End(end) = answer else { panic!("a welcome or an end follows a proof") };
        Err(self.ended(&end).await)
    }

    pub(super) async fn send_proof(&mut self, challenge: &v1::SessionChallenge, ticket: &str, key: &SigningKey) {
        let nonce: [u8; 32] = challenge.nonce.as_ref().try_into().unwrap();
        let transcript = proof::session(&nonce, ticket, GATEWAY, ORIGIN);
        let signature = Bytes::copy_from_slice(&sign(key, transcript));
        self.send(Up::Proof(v1::SessionProof { signature })).await;
    }

    pub(super) async fn send(&mut self, kind: Up) {
        self.socket.send(&v1::SessionUp { kind: Some(kind) }).await;
    }

    pub(super) async fn next(&mut self) -> Down {
        let Ok(message) = self.socket.next::<v1::SessionDown>().await else { panic!("the session goes on") };
        message.kind.unwrap()
    }

    /// How the session ends; no other frame may come before.
    pub(super) async fn end(&mut self) -> Ended {
        let Down::End(end) = self.next().await else { panic!("the session ends") };
        self.ended(&end).await
    }

    async fn ended(&mut self, end: &v1::SessionEnd) -> Ended {
        let Err(close_code) = self.socket.next::<v1::SessionDown>().await else { panic!("nothing follows the end") };
        Ended { code: end.code, close_code: close_code.unwrap_or_default() }
    }
}

/// A hello with a ticket of that number and a grant.
pub(super) fn hello(world: &World, ticket: u128) -> v1::SessionHello {
    v1::SessionHello {
        version: codec::VERSION,
        version_min: codec::VERSION_MIN,
        capabilities: Vec::new(),
        ticket: world.sign(&world.ticket(ticket)),
        grant: world.sign(&world.grant()),
        device_key: Some(PublicKey::of(&device_key()).into()),
        client: "test".to_owned(),
    }
}

// === Links ===

/// What a link can travel over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    PlainWebSocket,
    TlsWebSocket,
    Quic,
}

impl Over {
    pub(super) const ALL: [Self; 3] = [Self::PlainWebSocket, Self::TlsWebSocket, Self::Quic];
}

/// A connector's link.
pub(super) struct Connector {
    wire: Wire,
    pub(super) exporter: Option<[u8; 32]>,
}

enum Wire {
    Socket(Box<Socket>),
    Quic(Box<QuicWire>),
}

struct QuicWire {
    _endpoint: quinn::Endpoint,
    connection: quinn::Connection,
    senders: Vec<quinn::SendStream>,
    received: mpsc::Receiver<v1::LinkDown>,
}

impl Connector {
    pub(super) async fn connect(world: &World, over: Over) -> Self {
        match over {
            Over::PlainWebSocket => {
                let io: Box<dyn Io> = Box::new(TcpStream::connect(world.plain).await.unwrap());
                Self { wire: Wire::socket(io).await, exporter: None }
            }
            Over::TlsWebSocket => {
                let config = tls::client_config(Some(&world.certificate_pem), &[b"http/1.1"]).unwrap();
                let tcp = TcpStream::connect(world.tls).await.unwrap();
                let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
                let stream = connector.connect(HOST.try_into().unwrap(), tcp).await.unwrap();
                let exporter =
                    stream.get_ref().1.export_keying_material([0; 32], tls::EXPORTER_LABEL, Some(&[])).unwrap();
                Self { wire: Wire::socket(Box::new(stream)).await, exporter: Some(exporter) }
            }
            Over::Quic => {
                let (wire, exporter) = QuicWire::connect(world).await;
                Self { wire: Wire::Quic(Box::new(wire)), exporter: Some(exporter) }
            }
        }
    }

    /// Connects and goes through the handshake.
    pub(super) async fn open(world: &World, over: Over) -> (Self, Bytes) {
        Self::open_with(world, over, link_hello(world)).await
    }

    /// Connects and goes through the handshake with that hello.
    pub(super) async fn open_with(world: &World, over: Over, hello: v1::LinkHello) -> (Self, Bytes) {
        let mut connector = Self::connect(world, over).await;
        let challenge = connector.hello(hello).await.unwrap();
        let transcript = link_transcript(&challenge, connector.exporter.as_ref());
        let welcome = connector.prove(transcript, connector.exporter.is_some(), &machine_key()).await.unwrap();
        (connector, welcome.link_id)
    }

    pub(super) async fn hello(&mut self, hello: v1::LinkHello) -> Result<v1::LinkChallenge, Ended> {
        self.send(LinkUpKind::Hello(hello)).await;
        let answer = self.next().await;
        if let LinkDownKind::Challenge(challenge) = answer {
            return Ok(challenge);
        }
        let LinkDownKind::End(end) = answer else { panic!("a challenge or an end follows a hello") };
        Err(self.ended(&end).await)
    }

    pub(super) async fn prove(
        &mut self,
        transcript: Transcript,
        channel_bound: bool,
        key: &SigningKey,
    ) -> Result<v1::LinkWelcome, Ended> {
        let signature = Bytes::copy_from_slice(&sign(key, transcript));
        self.send(LinkUpKind::Proof(v1::LinkProof { signature, channel_bound })).await;
        let answer = self.next().await;
        if let LinkDownKind::Welcome(welcome) = answer {
            return Ok(welcome);
        }
        let LinkDownKind::End(end) = answer else { panic!("a welcome or an end follows a proof") };
        Err(self.ended(&end).await)
    }

    pub(super) async fn send(&mut self, kind: LinkUpKind) {
        let lane = v1::LinkUp { kind: Some(kind.clone()) }.lane();
        self.send_on(lane, kind).await;
    }

    /// Sends a message on a lane that need not be its own.
    pub(super) async fn send_on(&mut self, lane: Lane, kind: LinkUpKind) {
        let message = v1::LinkUp { kind: Some(kind) };
        match &mut self.wire {
            Wire::Socket(socket) => socket.send_on(lane, &message).await,
            Wire::Quic(_) => self.send_raw(lane, &codec::encode_stream(lane, &message).unwrap()).await,
        }
    }

    pub(super) async fn send_raw(&mut self, lane: Lane, bytes: &[u8]) {
        let Wire::Quic(wire) = &mut self.wire else { panic!("raw bytes are for QUIC") };
        wire.senders[usize::from(lane.byte())].write_all(bytes).await.unwrap();
    }

    pub(super) async fn next(&mut self) -> LinkDownKind {
        match &mut self.wire {
            Wire::Socket(socket) => {
                let Ok(message) = socket.next::<v1::LinkDown>().await else { panic!("the link goes on") };
                message.kind.unwrap()
            }
            Wire::Quic(wire) => soon(wire.received.recv()).await.expect("the link goes on").kind.unwrap(),
        }
    }

    /// How the link ends; no other frame may come before.
    pub(super) async fn end(&mut self) -> Ended {
        let LinkDownKind::End(end) = self.next().await else { panic!("the link ends") };
        self.ended(&end).await
    }

    async fn ended(&mut self, end: &v1::SessionEnd) -> Ended {
        let close_code = match &mut self.wire {
            Wire::Socket(socket) => match socket.next::<v1::LinkDown>().await {
                Err(close_code) => close_code.unwrap_or_default(),
                Ok(_) => panic!("nothing follows the end"),
            },
            Wire::Quic(wire) => {
                let closed = soon(wire.connection.closed()).await;
                let quinn::ConnectionError::ApplicationClosed(close) = closed else {
                    panic!("closed by the gateway: {closed}")
                };
                u16::try_from(close.error_code.into_inner()).unwrap()
            }
        };
        Ended { code: end.code, close_code }
    }
}

impl Wire {
    async fn socket(io: Box<dyn Io>) -> Self {
        let headers = [("sec-websocket-protocol", SUBPROTOCOL)];
        Self::Socket(Box::new(Socket::connect(io, "/v1/link", &headers).await.unwrap()))
    }
}

impl QuicWire {
    async fn connect(world: &World) -> (Self, [u8; 32]) {
        let config = tls::client_config(Some(&world.certificate_pem), &[SUBPROTOCOL.as_bytes()]).unwrap();
        let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(config).unwrap();
        let mut endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
        endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(crypto)));
        let connection = endpoint.connect(world.quic, HOST).unwrap().await.unwrap();
        let mut exporter = [0; 32];
        connection.export_keying_material(&mut exporter, tls::EXPORTER_LABEL, &[]).unwrap();
        let (frames, received) = mpsc::channel(64);
        let mut senders = Vec::new();
        for lane in Lane::ALL {
            let (mut send, recv) = connection.open_bi().await.unwrap();
            send.write_all(&[lane.byte()]).await.unwrap();
            senders.push(send);
            tokio::spawn(read_lane(recv, frames.clone()));
        }
        (Self { _endpoint: endpoint, connection, senders, received }, exporter)
    }
}

async fn read_lane(mut recv: quinn::RecvStream, frames: mpsc::Sender<v1::LinkDown>) {
    let mut prefix = [0; codec::LENGTH_PREFIX_BYTES];
    while recv.read_exact(&mut prefix).await.is_ok() {
        let length = u32::from_be_bytes(prefix) as usize;
        let mut body = BytesMut::zeroed(length);
        recv.read_exact(&mut body).await.unwrap();
        let _ = frames.send(codec::decode_body(body.freeze()).unwrap()).await;
    }
}

pub(super) const BOOT: [u8; 16] = [9; 16];

/// A hello with a good credential.
pub(super) fn link_hello(world: &World) -> v1::LinkHello {
    v1::LinkHello {
        version: codec::VERSION,
        version_min: codec::VERSION_MIN,
        capabilities: Vec::new(),
        credential: world.sign(&world.credential()),
        link_counter: 5,
        boot_id: Bytes::from_static(&BOOT),
        connector_version: "0.0.0".to_owned(),
    }
}

/// What the machine signs.
pub(super) fn link_transcript(challenge: &v1::LinkChallenge, exporter: Option<&[u8; 32]>) -> Transcript {
    link_transcript_for(HOST, challenge, exporter)
}

/// What the machine signs for another host than the gateway's.
pub(super) fn link_transcript_for(
    host: &str,
    challenge: &v1::LinkChallenge,
    exporter: Option<&[u8; 32]>,
) -> Transcript {
    LinkProof {
        nonce: challenge.nonce.as_ref().try_into().unwrap(),
        host,
        gateway_id: &challenge.gateway_id,
        boot_id: BootId::from_bytes(BOOT),
        link_counter: 5,
        exporter,
    }
    .transcript()
}
