//! Everything too large, and everything packed.

use anyhow::{Context as _, ensure};
use flydex_domain::error::ErrorCode;
use flydex_domain::limits::API_BODY_BYTES_MAX;
use flydex_proto::codec::Lane;
use futures_util::{SinkExt as _, StreamExt as _};
use reqwest::header::{self, HeaderValue};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use super::links::Links;
use super::{from_page, post, raw, status, upgraded};
use crate::attacks::stand::{Relay, api_code};

/// How many headers a request may have, the host included.
const HEADERS_MAX: usize = 64;

/// `{"token":"AAA…"}` with 43 of them, packed each way.
const GZIP: [u8; 35] = [
    31, 139, 8, 0, 0, 0, 0, 0, 0, 3, 171, 86, 42, 201, 207, 78, 205, 83, 178, 82, 114, 36, 30, 40, 213, 2, 0, 24, 128,
    34, 45, 55, 0, 0, 0,
];
const DEFLATE: [u8; 23] =
    [120, 156, 171, 86, 42, 201, 207, 78, 205, 83, 178, 82, 114, 36, 30, 40, 213, 2, 0, 172, 115, 14, 199];
const BROTLI: [u8; 27] = [
    27, 54, 0, 248, 141, 212, 98, 77, 153, 238, 148, 34, 65, 123, 165, 211, 151, 118, 72, 50, 73, 192, 242, 108, 160,
    42, 1,
];
/// Before the same as it is: one frame of one raw block.
const ZSTD: [u8; 9] = [40, 181, 47, 253, 32, 55, 185, 1, 0];

/// A person is served as before.
async fn serves_on(relay: &Relay) -> anyhow::Result<()> {
    let (_, session) = relay.account.call(Method::GET, "/api/session", None).await?;
    ensure!(session["account_id"].is_string(), "the relay serves on: {session}");
    Ok(())
}

#[tokio::test]
async fn whatever_is_too_large_is_refused_with_a_code_and_harms_nobody() -> anyhow::Result<()> {
    let relay = Relay::start().await?;
    let large = "x".repeat(64 * 1024);
    let headers = |count| {
        format!("GET /api/session HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{}\r\n", "x: y\r\n".repeat(count - 2))
    };
    assert_eq!(status(&raw(&relay, headers(HEADERS_MAX).as_bytes()).await?), "401", "so many may be sent");
    for (what, request) in [
        ("a header", format!("GET /api/session HTTP/1.1\r\nhost: x\r\nx: {large}\r\n\r\n")),
        ("a path", format!("GET /{large} HTTP/1.1\r\nhost: x\r\n\r\n")),
        ("a header too many", headers(HEADERS_MAX + 1)),
        ("many headers", headers(200)),
    ] {
        let answer = raw(&relay, request.as_bytes()).await?;
        ensure!(["431", "414"].contains(&status(&answer)), "{what}: {answer}");
    }
    let deep = |depth: usize| format!("{{\"token\":{}{}}}", "[".repeat(depth), "]".repeat(depth)).into_bytes();
    let fields: Value = (0..5_000).map(|number| (format!("field{number}"), json!(number))).collect();
    for (what, body, code) in [
        ("a body", vec![b' '; API_BODY_BYTES_MAX + 1], ErrorCode::FrameTooLarge),
        ("depth", deep(30_000), ErrorCode::BadRequest),
        (
            "fields",
            fields.to_string().into_bytes().into_iter().take(API_BODY_BYTES_MAX).collect(),
            ErrorCode::BadRequest,
        ),
    ] {
        let answer = post(&relay, "/api/sign-in", body, &[]).await.context(what)?;
        let told = answer.status().as_u16();
        let body: Value = answer.json().await?;
        ensure!(api_code(&body) == code.name() && told == code.http_status(), "{what}: {body}");
    }
    serves_on(&relay).await
}

/// Over HTTP/2 headers are packed: few bytes of the network become many.
#[tokio::test]
async fn headers_that_unpack_to_too_much_are_refused_over_http2() -> anyhow::Result<()> {
    let relay = Relay::start().await?;
    let client = Client::builder().http2_prior_knowledge().build()?;
    let url = format!("{}/api/session", relay.server.origin());
    let mut request = client.get(&url);
    for number in 0..40 {
        request = request.header(format!("x-{number}"), "x".repeat(1024));
    }
    assert_eq!(request.send().await?.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    ensure!(client.get(&url).send().await?.status() == StatusCode::UNAUTHORIZED, "a smaller request is answered");
    serves_on(&relay).await
}

/// Every lane has its own limit, and the frame that is one byte over it ends the link with its code.
#[tokio::test]
async fn a_frame_over_the_limit_of_its_lane_ends_a_link_over_either_transport() -> anyhow::Result<()> {
    let relay = Relay::start().await?;
    let links = Links::of(&relay).await?;
    for lane in Lane::ALL {
        let length = u32::try_from(lane.body_bytes_max() + 1)?.to_be_bytes();
        for prefix in [length, u32::MAX.to_be_bytes()] {
            let connection = links.connect().await?;
            let (mut send, _receive) = connection.open_bi().await?;
            send.write_all(&[&[lane.byte()][..], &prefix[..]].concat()).await?;
            let code = Links::close_code(&connection).await?;
            assert_eq!(code, ErrorCode::FrameTooLarge.close_code(), "{lane:?} over QUIC");
        }
        for bytes in [lane.body_bytes_max() + 1, 1024 * 1024] {
            let request = format!("{}/v1/link", relay.server.origin().replacen("http", "ws", 1));
            let mut request = request.into_client_request()?;
            let protocol = HeaderValue::from_static(flydex_proto::codec::SUBPROTOCOL);
            request.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
            let (mut socket, _) = connect_async(request).await?;
            let frame = [&[lane.byte()][..], &vec![0; bytes][..]].concat();
            // The relay may have ended it before all was written.
            let _ = socket.send(Message::Binary(frame.into())).await;
            let closed = loop {
                match socket.next().await.context("a close comes first")?? {
                    Message::Close(frame) => break frame.context("a code")?,
                    Message::Binary(_) | Message::Ping(_) => {}
                    other @ (Message::Text(_) | Message::Pong(_) | Message::Frame(_)) => {
                        anyhow::bail!("{lane:?}: {other:?}")
                    }
                }
            };
            assert_eq!(u16::from(closed.code), ErrorCode::FrameTooLarge.close_code(), "{lane:?} over WebSocket");
        }
    }
    serves_on(&relay).await
}

/// Its head is enough: nobody waits for the rest, or keeps room for it.
#[tokio::test]
async fn a_frame_that_announces_too_much_is_refused_before_it_comes() -> anyhow::Result<()> {
    let relay = Relay::start().await?;
    for (path, headers) in [("/v1/session", from_page(&relay)), ("/v1/link", String::new())] {
        let (mut stream, answer) = upgraded(&relay, path, &headers).await?;
        ensure!(status(&answer) == "101", "{path}: {answer}");
        // Binary, the longest form of a length, masked with nothing.
        stream.write_all(&[&[0x82, 0x80 | 127][..], &(1_u64 << 20).to_be_bytes(), &[0; 4]].concat()).await?;
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await?;
        let close = ErrorCode::FrameTooLarge.close_code().to_be_bytes();
        ensure!(rest.ends_with(&close), "{path}: {rest:?}");
    }
    serves_on(&relay).await
}

/// A kilobyte that becomes a gigabyte would need somebody to unpack it: nobody does.
#[tokio::test]
async fn nothing_that_is_packed_is_unpacked() -> anyhow::Result<()> {
    let relay = Relay::start().await?;
    let plain = format!("{{\"token\":\"{}\"}}", "A".repeat(43)).into_bytes();
    let body: Value = post(&relay, "/api/sign-in", plain.clone(), &[]).await?.json().await?;
    assert_eq!(api_code(&body), ErrorCode::SignInLinkInvalid.name(), "whoever reads it finds a token");
    for (encoding, packed) in [
        ("gzip", GZIP.to_vec()),
        ("deflate", DEFLATE.to_vec()),
        ("br", BROTLI.to_vec()),
        ("zstd", [&ZSTD[..], &plain].concat()),
    ] {
        let answer = post(&relay, "/api/sign-in", packed, &[(header::CONTENT_ENCODING, encoding)]).await?;
        let body: Value = answer.json().await?;
        assert_eq!(api_code(&body), ErrorCode::BadRequest.name(), "{encoding}");
    }
    for (path, headers) in [("/v1/session", from_page(&relay)), ("/v1/link", String::new())] {
        let offer = "sec-websocket-extensions: permessage-deflate; client_max_window_bits\r\n";
        let (mut stream, answer) = upgraded(&relay, path, &format!("{headers}{offer}")).await?;
        ensure!(status(&answer) == "101" && !answer.contains("sec-websocket-extensions"), "{path}: {answer}");
        // A frame that says it is packed all the same: binary, first bit of the reserved, masked with nothing.
        stream.write_all(&[0xC2, 0x80 | 6, 0, 0, 0, 0, 0xAA, 0x56, 0x4A, 0x4D, 0x2D, 0x06]).await?;
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await?;
        let close = ErrorCode::BadRequest.close_code().to_be_bytes();
        ensure!(rest.ends_with(&close), "{path}: {rest:?}");
    }
    serves_on(&relay).await
}
