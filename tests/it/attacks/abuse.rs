//! Floods, slow peers, guesses, and everything too large, over real sockets; and what every kind of answer tells
//! browsers. Each shows that somebody else is served meanwhile.

mod flood;
mod guess;
mod headers;
mod initial;
mod links;
mod size;
mod slow;

use anyhow::Context as _;
use flydex_proto::codec::SUBPROTOCOL;
use flydex_tests::server::Settings;
use reqwest::header::{CONTENT_TYPE, HeaderName, ORIGIN};
use reqwest::{Client, Response};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::stand::Relay;

/// Says whom a request is made for: the relay believes its own computer about that.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Who floods.
const FLOODER: &str = "192.0.2.1";
/// Who is served meanwhile.
const NEIGHBOUR: &str = "198.51.100.7";

/// A relay that stands behind a proxy on this computer, so that a test can be at many addresses.
async fn behind_a_proxy() -> anyhow::Result<Relay> {
    let variables = vec![("FLYDEX__TRUSTED_PROXIES".to_owned(), "127.0.0.1/32".to_owned())];
    Relay::start_with(Settings { variables, ..Settings::default() }).await
}

/// Where the relay listens, as an address.
fn address(relay: &Relay) -> anyhow::Result<String> {
    let (_, port) = relay.server.origin().rsplit_once(':').context("no port")?;
    Ok(format!("127.0.0.1:{port}"))
}

/// Writes bytes as they are and reads all that comes until the other side closes.
async fn raw(relay: &Relay, bytes: &[u8]) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(address(relay)?).await?;
    // A server that has read enough may have closed before all was written.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or("none")
}

/// Opens a socket at that path, and returns it with the head of the answer.
async fn upgraded(relay: &Relay, path: &str, headers: &str) -> anyhow::Result<(TcpStream, String)> {
    let mut stream = TcpStream::connect(address(relay)?).await?;
    stream.write_all(upgrade(path, headers).as_bytes()).await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await?);
    }
    Ok((stream, String::from_utf8(answer)?.to_lowercase()))
}

/// A request for a WebSocket. Headers that are added end with a line break.
fn upgrade(path: &str, headers: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-protocol: {SUBPROTOCOL}\r\n{headers}\r\n"
    )
}

/// The header that pages of the relay's own origin send.
fn from_page(relay: &Relay) -> String {
    format!("origin: {}\r\n", relay.server.origin())
}

/// A request of nobody who is signed in, for that address, with whatever is added.
async fn post(relay: &Relay, path: &str, body: Vec<u8>, headers: &[(HeaderName, &str)]) -> anyhow::Result<Response> {
    let origin = relay.server.origin();
    let mut request = Client::new().post(format!("{origin}{path}")).header(ORIGIN, origin).body(body);
    request = request.header(CONTENT_TYPE, "application/json");
    for (name, value) in headers {
        request = request.header(name, *value);
    }
    Ok(request.send().await?)
}
