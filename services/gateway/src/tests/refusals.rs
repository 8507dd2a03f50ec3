//! Every way in which a session is refused: a typed end, the close code that belongs to it, and nothing lost.

use std::time::Duration;

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use flydex_domain::error::ErrorCode;
use flydex_domain::key::PublicKey;
use flydex_domain::limits::{TICKET_LIFETIME, TOKEN_SKEW_MAX};
use flydex_domain::secret::SecretKey;
use flydex_domain::token::{EncodedKey, Grant, Ticket, TokenSigner};
use flydex_proto::codec::{Lane, SUBPROTOCOL};
use flydex_proto::v1;
use flydex_proto::v1::session_up::Kind as Up;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::{self, Message as WsMessage};

use super::wire::{Browser, Ended, Socket, hello};
use super::world::{ORIGIN, World, device_key, user};

async fn refused(world: &World, hello: v1::SessionHello) -> Ended {
    Browser::connect(world).await.hello(hello).await.err().expect("the hello is refused")
}

async fn upgrade_refused(world: &World, headers: &[(&'static str, &str)]) -> (u16, String) {
    let io = Box::new(TcpStream::connect(world.plain).await.unwrap());
    let Err(tungstenite::Error::Http(response)) = Socket::connect(io, "/v1/session", headers).await else {
        panic!("the upgrade is refused")
    };
    (response.status().as_u16(), String::from_utf8(response.body().clone().unwrap()).unwrap())
}

#[tokio::test]
async fn a_ticket_opens_one_session() {
    let world = World::start().await;
    let _first = Browser::open(&world, 1).await;
    let mut second = Browser::connect(&world).await;
    let hello = hello(&world, 1);
    let ticket = hello.ticket.clone();
    let challenge = second.hello(hello).await.unwrap();
    let refused = second.prove(&challenge, &ticket, &device_key()).await.err();
    assert_eq!(refused, Some(Ended::with(ErrorCode::TicketUsed)));
}

#[tokio::test]
async fn a_wrong_proof_is_refused_and_leaves_the_ticket_unspent() {
    let world = World::start().await;
    let mut thief = Browser::connect(&world).await;
    let hello = hello(&world, 1);
    let ticket = hello.ticket.clone();
    let challenge = thief.hello(hello).await.unwrap();
    let other_key = SigningKey::from_bytes(&[99; 32]);
    let refused = thief.prove(&challenge, &ticket, &other_key).await.err();
    assert_eq!(refused, Some(Ended::with(ErrorCode::ProofInvalid)));
    Browser::open(&world, 1).await;
}

#[tokio::test]
async fn a_proof_over_an_old_nonce_is_refused() {
    let world = World::start().await;
    let hello = hello(&world, 1);
    let ticket = hello.ticket.clone();
    let old = Browser::connect(&world).await.hello(hello.clone()).await.unwrap();
    let mut browser = Browser::connect(&world).await;
    browser.hello(hello).await.unwrap();
    let refused = browser.prove(&old, &ticket, &device_key()).await.err();
    assert_eq!(refused, Some(Ended::with(ErrorCode::ProofInvalid)));
}

#[tokio::test]
async fn an_expired_ticket_is_refused() {
    let world = World::start().await;
    let hello = hello(&world, 1);
    world.clock.advance(TICKET_LIFETIME + TOKEN_SKEW_MAX);
    assert_eq!(refused(&world, hello).await, Ended::with(ErrorCode::TicketExpired));
}

#[tokio::test]
async fn a_forged_foreign_or_mismatched_ticket_or_grant_is_refused() {
    let world = World::start().await;
    let good = || hello(&world, 1);
    let forger = TokenSigner::from_seed("k1", &SecretKey::new([66; 32]));
    let other_key = PublicKey::of(&SigningKey::from_bytes(&[99; 32]));
    let other_user = Grant { user_id: user(2), ..world.grant() };
    let other_device = Grant { device_key: EncodedKey(other_key), ..world.grant() };
    let cases = [
        (v1::SessionHello { ticket: forger.sign(&world.ticket(1)), ..good() }, ErrorCode::TicketInvalid),
        (v1::SessionHello { ticket: world.sign(&world.grant()), ..good() }, ErrorCode::TicketInvalid),
        (v1::SessionHello { ticket: String::new(), ..good() }, ErrorCode::TicketInvalid),
        (v1::SessionHello { device_key: Some(other_key.into()), ..good() }, ErrorCode::TicketInvalid),
        (v1::SessionHello { device_key: None, ..good() }, ErrorCode::BadRequest),
        (
            v1::SessionHello { ticket: world.sign(&Ticket { region: "far".to_owned(), ..world.ticket(1) }), ..good() },
            ErrorCode::TicketWrongRegion,
        ),
        (v1::SessionHello { grant: forger.sign(&world.grant()), ..good() }, ErrorCode::GrantInvalid),
        (v1::SessionHello { grant: world.sign(&other_user), ..good() }, ErrorCode::GrantInvalid),
        (v1::SessionHello { grant: world.sign(&other_device), ..good() }, ErrorCode::GrantInvalid),
        (v1::SessionHello { version: 0, ..good() }, ErrorCode::UnsupportedVersion),
        (v1::SessionHello { version: 7, version_min: 2, ..good() }, ErrorCode::UnsupportedVersion),
    ];
    for (hello, code) in cases {
        assert_eq!(refused(&world, hello).await, Ended::with(code));
    }
}

#[tokio::test]
async fn a_page_of_another_origin_or_without_the_subprotocol_is_refused_before_the_upgrade() {
    let world = World::start().await;
    for origin in ["https://evil.example", "https://localhost:8443", "http://localhost", "null"] {
        let headers = [("origin", origin), ("sec-websocket-protocol", SUBPROTOCOL)];
        let (status, body) = upgrade_refused(&world, &headers).await;
        assert_eq!(status, 403, "{origin}");
        assert!(body.contains(r#""code":"origin_refused","number":2002"#), "{body}");
    }
    assert_eq!(upgrade_refused(&world, &[("sec-websocket-protocol", SUBPROTOCOL)]).await.0, 403);
    let (status, body) = upgrade_refused(&world, &[("origin", ORIGIN), ("sec-websocket-protocol", "flydex.v9")]).await;
    assert_eq!(status, 426);
    assert!(body.contains("unsupported_version"), "{body}");
}

#[tokio::test]
async fn a_malformed_frame_ends_the_session_with_its_own_code() {
    let world = World::start().await;
    let too_large_for = |lane: Lane| {
        let mut frame = vec![0; lane.body_bytes_max() + 2];
        frame[0] = lane.byte();
        WsMessage::Binary(frame.into())
    };
    let cases: [(WsMessage, ErrorCode); 9] = [
        (WsMessage::Binary(Bytes::new()), ErrorCode::FrameTruncated),
        (WsMessage::Binary(Bytes::from_static(&[0, 0x32, 3, 8])), ErrorCode::FrameTruncated),
        (WsMessage::Binary(Bytes::from_static(&[9, 0x32, 0])), ErrorCode::UnexpectedFrame),
        (WsMessage::Binary(Bytes::from_static(&[0])), ErrorCode::UnexpectedFrame),
        (WsMessage::Binary(Bytes::from_static(&[0, 0xfa, 0x0f, 0])), ErrorCode::UnexpectedFrame),
        (WsMessage::Text("hello".into()), ErrorCode::UnexpectedFrame),
        (too_large_for(Lane::Control), ErrorCode::FrameTooLarge),
        (too_large_for(Lane::Commands), ErrorCode::FrameTooLarge),
        (WsMessage::Binary(vec![0; 1024 * 1024].into()), ErrorCode::FrameTooLarge),
    ];
    for (number, (frame, code)) in (1..).zip(cases) {
        let (mut browser, _) = Browser::open(&world, number).await;
        browser.socket.send_raw(frame).await;
        assert_eq!(browser.end().await, Ended::with(code), "case {number}");
    }
}

#[tokio::test]
async fn a_frame_out_of_turn_ends_the_session() {
    let world = World::start().await;
    let mut early = Browser::connect(&world).await;
    early.send(Up::Open(v1::OpenMachine { machine_id: Bytes::from_static(&[1; 16]) })).await;
    assert_eq!(early.end().await, Ended::with(ErrorCode::UnexpectedFrame));
    let (mut again, _) = Browser::open(&world, 1).await;
    again.send(Up::Hello(hello(&world, 2))).await;
    assert_eq!(again.end().await, Ended::with(ErrorCode::UnexpectedFrame));
    let (mut malformed, _) = Browser::open(&world, 3).await;
    malformed.send(Up::Open(v1::OpenMachine { machine_id: Bytes::from_static(&[1; 15]) })).await;
    assert_eq!(malformed.end().await, Ended::with(ErrorCode::BadRequest));
}

#[tokio::test]
async fn clocks_ten_minutes_apart_let_nobody_in_twice() {
    const APART: Duration = Duration::from_secs(600);
    let world = World::start().await;
    // The gateway's clock is ahead of control's: it takes tickets for expired, and says so.
    let early = hello(&world, 1);
    world.clock.advance(APART);
    assert_eq!(refused(&world, early).await, Ended::with(ErrorCode::TicketExpired));
    // It is behind: a ticket holds for longer, and is spent for as long as it holds.
    let late = Ticket { expires_at: world.now().plus(APART + TICKET_LIFETIME), ..world.ticket(2) };
    let late = v1::SessionHello { ticket: world.sign(&late), ..hello(&world, 2) };
    Browser::open_with(&world, late.clone()).await;
    for _ in 0..2 {
        world.clock.advance(APART / 2);
        let mut again = Browser::connect(&world).await;
        let challenge = again.hello(late.clone()).await.unwrap();
        let refused = again.prove(&challenge, &late.ticket, &device_key()).await.err();
        assert_eq!(refused, Some(Ended::with(ErrorCode::TicketUsed)));
    }
}

#[tokio::test]
async fn a_draining_gateway_refuses_new_sessions() {
    let world = World::start().await;
    // A listener that outlives the drain, as a connection that is kept alive does.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(axum::serve(listener, world.service.router()).into_future());
    world.shutdown.begin();
    let mut browser = Browser::connect_to(address).await;
    assert_eq!(browser.end().await, Ended::with(ErrorCode::GoingAway));
}

#[tokio::test]
async fn a_gateway_without_a_place_says_so_and_has_one_again_later() {
    let world = World::start().await;
    let admission = &world.service.gateway.admission;
    let handshakes: Vec<_> = std::iter::from_fn(|| admission.handshake(None).ok()).collect();
    let (status, body) = upgrade_refused(&world, &[("origin", ORIGIN), ("sec-websocket-protocol", SUBPROTOCOL)]).await;
    assert_eq!(status, 503);
    assert!(body.contains("overloaded"), "{body}");
    drop(handshakes);

    let sessions: Vec<_> = std::iter::from_fn(|| admission.session().ok()).collect();
    let mut browser = Browser::connect(&world).await;
    let hello = hello(&world, 1);
    let ticket = hello.ticket.clone();
    let challenge = browser.hello(hello).await.unwrap();
    let refused = browser.prove(&challenge, &ticket, &device_key()).await.err();
    assert_eq!(refused, Some(Ended::with(ErrorCode::Overloaded)));
    drop(sessions);
    Browser::open(&world, 1).await;
}

#[tokio::test]
async fn a_request_that_is_no_upgrade_is_answered_with_a_code() {
    let world = World::start().await;
    for path in ["/v1/session", "/v1/link"] {
        let mut stream = TcpStream::connect(world.plain).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains(r#""code":"bad_request""#), "{answer}");
    }
}
