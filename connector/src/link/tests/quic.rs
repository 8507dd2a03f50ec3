//! Links over QUIC: the channel in the proof, and why a link ended, whichever of its streams says so first.

use super::*;

const NONCE_OF_TEST: u64 = 77;

/// The control lane, which is enough for a script, and the other streams to end it by.
struct QuicPeer {
    send: quinn::SendStream,
    receive: quinn::RecvStream,
    /// The lanes for commands, events and bulk.
    others: Vec<(quinn::SendStream, quinn::RecvStream)>,
    connection: quinn::Connection,
}

impl Peer for QuicPeer {
    async fn receive(&mut self) -> Option<Up> {
        let mut prefix = [0; 4];
        self.receive.read_exact(&mut prefix).await.ok()?;
        let mut body = BytesMut::zeroed(stream_length(Lane::Control, prefix).unwrap());
        self.receive.read_exact(&mut body).await.ok()?;
        decode_body::<v1::LinkUp>(body.freeze()).unwrap().kind
    }

    async fn send(&mut self, kind: Down) {
        let message = v1::LinkDown { kind: Some(kind) };
        self.send.write_all(&encode_stream(Lane::Control, &message).unwrap()).await.unwrap();
    }
}

impl QuicPeer {
    /// Ends as gateways do: the last word, and the close once it has arrived.
    async fn end(mut self, code: ErrorCode) {
        self.send(end(code, 0)).await;
        self.send.finish().unwrap();
        self.send.stopped().await.unwrap();
        self.connection.close(u32::from(code.close_code()).into(), b"");
    }

    /// Waits until the connector has seen all that was done so far.
    async fn caught_up(&mut self) {
        self.send(Down::Ping(v1::Ping { nonce: NONCE_OF_TEST })).await;
        loop {
            match self.receive().await {
                Some(Up::Pong(pong)) if pong.nonce == NONCE_OF_TEST => return,
                Some(_) => {}
                None => panic!("the link has ended"),
            }
        }
    }
}

pub(super) fn quic_server(identity: &Identity) -> quinn::Endpoint {
    let tls = identity.server_config(&[SUBPROTOCOL.as_bytes()]).unwrap();
    let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(tls).unwrap();
    let config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    quinn::Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap()
}

/// A gateway with a certificate of its own, at an address.
struct Gateway {
    _folder: tempfile::TempDir,
    _listener: TcpListener,
    server: quinn::Endpoint,
}

impl Gateway {
    async fn start() -> (Self, World) {
        let (folder, identity) = identity();
        let server = quic_server(&identity);
        let (listener, address) = listen().await;
        let world = connect(endpoint(address, "wss", identity.self_made_pem(), server.local_addr().ok()));
        (Self { _folder: folder, _listener: listener, server }, world)
    }

    /// The next connection, not greeted yet, and its exporter.
    async fn accept(&self) -> (QuicPeer, [u8; 32]) {
        let connection = self.server.accept().await.unwrap().await.unwrap();
        let mut exporter = [0; 32];
        connection.export_keying_material(&mut exporter, EXPORTER_LABEL, &[]).unwrap();
        let mut streams = Vec::new();
        for lane in Lane::ALL {
            let (send, mut receive) = connection.accept_bi().await.unwrap();
            let mut byte = [9];
            receive.read_exact(&mut byte).await.unwrap();
            assert_eq!(byte, [lane.byte()]);
            streams.push((send, receive));
        }
        let (send, receive) = streams.remove(0);
        (QuicPeer { send, receive, others: streams, connection }, exporter)
    }
}

/// A link that serves: the gateway's end of it, the connector, and what the connector sends by.
async fn linked() -> (Gateway, QuicPeer, World, Outbox) {
    let (gateway, mut world) = Gateway::start().await;
    let (mut peer, exporter) = gateway.accept().await;
    welcome(&mut peer, Some(exporter)).await;
    let (outbox, _) = world.up().await;
    (gateway, peer, world, outbox)
}

#[tokio::test]
async fn quic_is_preferred_and_its_proof_covers_the_channel() {
    let (gateway, mut world) = Gateway::start().await;
    let (mut peer, exporter) = gateway.accept().await;
    let (_, holds) = welcome(&mut peer, Some(exporter)).await;
    assert!(holds);
    assert_eq!(world.up().await.1, Transport::Quic);
    world.shutdown.begin();
}

#[tokio::test]
async fn a_lane_that_ends_before_the_gateway_has_said_why_does_not_speak_for_it() {
    let (_gateway, mut peer, mut world, _) = linked().await;
    for (mut send, mut receive) in peer.others.drain(..) {
        send.finish().unwrap();
        receive.stop(0_u32.into()).unwrap();
    }
    peer.caught_up().await;
    peer.end(ErrorCode::CredentialInvalid).await;
    assert_eq!(world.down().await, Some(ErrorCode::CredentialInvalid));
}

#[tokio::test]
async fn a_lane_that_takes_no_more_frames_does_not_speak_for_the_gateway() {
    let (_gateway, mut peer, mut world, outbox) = linked().await;
    for (_, receive) in &mut peer.others {
        receive.stop(0_u32.into()).unwrap();
    }
    peer.caught_up().await;
    let event = v1::Event { stream_id: 1, seq: 1, body: Bytes::from_static(b"body") };
    let kind = Some(v1::connector_frame::Kind::SharedEvent(event));
    outbox.send_frame(v1::ConnectorFrame { epoch: None, kind }).unwrap();
    outbox.drained().await;
    peer.caught_up().await;
    peer.end(ErrorCode::CredentialInvalid).await;
    assert_eq!(world.down().await, Some(ErrorCode::CredentialInvalid));
}

#[tokio::test]
async fn a_refusal_is_known_when_its_last_word_is_lost() {
    let (gateway, mut world) = Gateway::start().await;
    let (peer, _) = gateway.accept().await;
    peer.connection.close(u32::from(ErrorCode::CredentialInvalid.close_code()).into(), b"");
    assert_eq!(world.down().await, Some(ErrorCode::CredentialInvalid));
}

#[tokio::test]
async fn a_gateway_that_ends_a_lane_and_says_no_more_is_lost() {
    let (_gateway, mut peer, mut world, _) = linked().await;
    let (mut commands, _) = peer.others.swap_remove(0);
    commands.finish().unwrap();
    assert_eq!(world.down().await, Some(ErrorCode::PeerTimeout));
}
