//! Opens a WebSocket over TLS of our own, or in the clear on this machine.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use flydex_proto::codec::SUBPROTOCOL;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::line::Line;

/// A stream whose encryption does not matter any more.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// A socket of a session or a link.
pub type Socket = WebSocketStream<Box<dyn Stream>>;

/// Opens the address of links.
///
/// # Errors
/// When the address is not one, or nobody answers there as it should be.
pub async fn link(url: &str, tls: &Arc<ClientConfig>) -> anyhow::Result<Socket> {
    socket(url, None, tls, None).await
}

/// Opens the address of sessions as a page of `origin` would.
///
/// # Errors
/// When the address is not one, or nobody answers there as it should be.
pub(crate) async fn session(
    url: &str,
    origin: &str,
    tls: &Arc<ClientConfig>,
    line: Option<&Arc<Line>>,
) -> anyhow::Result<Socket> {
    socket(url, Some(origin), tls, line).await
}

async fn socket(
    url: &str,
    origin: Option<&str>,
    tls: &Arc<ClientConfig>,
    line: Option<&Arc<Line>>,
) -> anyhow::Result<Socket> {
    let mut request = url.into_client_request()?;
    request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(SUBPROTOCOL));
    if let Some(origin) = origin {
        request.headers_mut().insert("origin", HeaderValue::from_str(origin)?);
    }
    let encrypted = request.uri().scheme_str() == Some("wss");
    let host = request.uri().host().context("the address has no host")?.trim_matches(['[', ']']).to_owned();
    let port = request.uri().port_u16().unwrap_or(if encrypted { 443 } else { 80 });
    let tcp: Box<dyn Stream> = match line {
        Some(line) => Box::new(line.connect((host.as_str(), port)).await.context("connect")?),
        None => {
            let tcp = TcpStream::connect((host.as_str(), port)).await.context("connect")?;
            tcp.set_nodelay(true)?;
            ensure!(encrypted || tcp.peer_addr()?.ip().is_loopback(), "what is in the clear stays on this machine");
            Box::new(tcp)
        }
    };
    let stream = if encrypted {
        let name = ServerName::try_from(host).context("the host is no name for a certificate")?;
        Box::new(TlsConnector::from(tls.clone()).connect(name, tcp).await.context("open TLS")?)
    } else {
        tcp
    };
    let (socket, _) = client_async(request, stream).await.context("open the WebSocket")?;
    Ok(socket)
}
