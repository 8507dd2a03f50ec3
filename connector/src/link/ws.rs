//! A link over a WebSocket: TLS of our own, so that the proof can cover its exporter.

use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use flydex_domain::error::ErrorCode;
use flydex_domain::limits::{CLOSE_TIMEOUT, COMMAND_FRAME_BYTES_MAX, LINK_INCOMING_MAX, UNSENT_BYTES_MAX};
use flydex_proto::codec::{SUBPROTOCOL, split_message};
use flydex_runtime::lifecycle::Shutdown;
use flydex_runtime::tls::EXPORTER_LABEL;
use futures_util::{SinkExt as _, StreamExt as _};
use http::HeaderValue;
use http::header::SEC_WEBSOCKET_PROTOCOL;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::{Message, WebSocketConfig};
use url::{Host, Url};

use super::DialError;
use super::trust::{Protocol, Trust};
use super::wire::{Incoming, Wire, message};
use crate::outbox::{Framing, Outbox};
use crate::paired::{RegionEndpoint, Transport};

/// A connection to an entrance.
#[expect(clippy::large_enum_variant, reason = "moved once, from the dial to the link")]
pub(super) enum Transported {
    /// Over TLS.
    Tls(TlsStream<TcpStream>),
    /// To this very machine.
    Plain(TcpStream),
}

pub(super) async fn dial(endpoint: &RegionEndpoint, trust: &Trust, shutdown: &Shutdown) -> Result<Wire, DialError> {
    let (stream, handshake) = connect(endpoint, trust).await?;
    let opened = match stream {
        Transported::Tls(stream) => {
            let exporter = stream.get_ref().1.export_keying_material([0; 32], EXPORTER_LABEL, Some(&[]));
            open(endpoint, stream, shutdown).await.map(|opened| (opened, exporter.ok()))
        }
        Transported::Plain(stream) => open(endpoint, stream, shutdown).await.map(|opened| (opened, None)),
    };
    let ((outbox, incoming), exporter) = opened?;
    Ok(Wire { transport: Transport::WebSocket, exporter, handshake, outbox, incoming })
}

/// Connects, and says how long one round trip of the handshake took: that of TLS, or of TCP where there is no TLS.
pub(super) async fn connect(endpoint: &RegionEndpoint, trust: &Trust) -> Result<(Transported, Duration), DialError> {
    let url = Url::parse(&endpoint.link_url).map_err(unreachable)?;
    match url.scheme() {
        "wss" => {
            let config = trust.config(endpoint, Protocol::Http).await?;
            let name = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
            let name = ServerName::try_from(name).map_err(unreachable)?;
            let (tcp, _) = connect_tcp(&url).await?;
            let since = Instant::now();
            let secured = tokio_rustls::TlsConnector::from(config).connect(name, tcp).await;
            let secured = secured.inspect_err(|_| trust.forget(endpoint, Protocol::Http));
            Ok((Transported::Tls(secured.map_err(unreachable)?), since.elapsed()))
        }
        "ws" if is_loopback(&url) => {
            let (tcp, handshake) = connect_tcp(&url).await?;
            Ok((Transported::Plain(tcp), handshake))
        }
        _ => Err(DialError::Plain),
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

async fn connect_tcp(url: &Url) -> Result<(TcpStream, Duration), DialError> {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let port = url.port_or_known_default().unwrap_or(443);
    let addresses = tokio::net::lookup_host((host, port)).await.map_err(unreachable)?;
    let mut failure = None;
    for address in addresses {
        let since = Instant::now();
        match connect_to(address).await {
            Ok(stream) => return Ok((stream, since.elapsed())),
            Err(error) => failure = Some(error),
        }
    }
    Err(unreachable(failure.unwrap_or_else(|| std::io::ErrorKind::NotFound.into())))
}

async fn connect_to(address: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // What the system holds unsent cannot be overtaken by a heartbeat.
    socket.set_send_buffer_size(u32::try_from(UNSENT_BYTES_MAX).unwrap_or(u32::MAX))?;
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn open<S>(
    endpoint: &RegionEndpoint,
    stream: S,
    shutdown: &Shutdown,
) -> Result<(Outbox, mpsc::Receiver<Incoming>), DialError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut request = endpoint.link_url.as_str().into_client_request().map_err(unreachable)?;
    request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    let config = WebSocketConfig::default()
        .max_message_size(Some(COMMAND_FRAME_BYTES_MAX + 1))
        .max_frame_size(Some(COMMAND_FRAME_BYTES_MAX + 1))
        .write_buffer_size(0);
    let opened = tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await;
    let (socket, _) = opened.map_err(unreachable)?;
    let outbox = Outbox::new(Framing::Message);
    let (tx, incoming) = mpsc::channel(LINK_INCOMING_MAX);
    shutdown.spawn(carry(socket, outbox.clone(), tx));
    Ok((outbox, incoming))
}

/// Reads and writes until the outbox is closed or the peer is gone.
async fn carry<S>(socket: WebSocketStream<S>, outbox: Outbox, tx: mpsc::Sender<Incoming>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sink, mut stream) = socket.split();
    let write = async {
        loop {
            match outbox.next().await {
                Ok(frame) => {
                    if sink.send(Message::Binary(frame)).await.is_err() {
                        return None;
                    }
                }
                Err(code) => {
                    let _ = sink.close().await;
                    return Some(code);
                }
            }
        }
    };
    let read = async {
        while let Some(received) = stream.next().await {
            let incoming = match received {
                Ok(Message::Binary(bytes)) => binary(bytes),
                Ok(Message::Ping(_) | Message::Pong(_)) => Incoming::Alive,
                Ok(Message::Close(frame)) => {
                    let said = frame.and_then(|frame| ErrorCode::from_close_code(frame.code.into()));
                    Incoming::End(said.unwrap_or(ErrorCode::PeerTimeout))
                }
                Ok(Message::Text(_) | Message::Frame(_)) => Incoming::End(ErrorCode::UnexpectedFrame),
                Err(_) => Incoming::End(ErrorCode::PeerTimeout),
            };
            let end = incoming.end();
            if tx.send(incoming).await.is_err() {
                return ErrorCode::GoingAway;
            }
            if let Some(code) = end {
                return code;
            }
        }
        ErrorCode::PeerTimeout
    };
    let mut read = pin!(read);
    let code = tokio::select! {
        ended = write => match ended {
            Some(code) => code,
            // A gateway that takes nothing any more may have said why.
            None => timeout(CLOSE_TIMEOUT, read).await.unwrap_or(ErrorCode::PeerTimeout),
        },
        code = &mut read => code,
    };
    outbox.close(code);
    // Nobody listens when the link has ended for another reason.
    let _ = tx.send(Incoming::End(code)).await;
}

fn binary(bytes: Bytes) -> Incoming {
    match split_message(bytes) {
        Ok((lane, body)) => message(lane, body),
        Err(error) => Incoming::End(error.code()),
    }
}

fn unreachable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> DialError {
    DialError::Unreachable(error.into())
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use flydex_proto::codec::encode_message;
    use flydex_proto::lanes::OnLane as _;
    use flydex_proto::v1;
    use tokio::io::{DuplexStream, ReadBuf};
    use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};

    use super::*;

    /// Which of reading and writing is tried first is left to chance: often enough, both have been.
    const TIMES: usize = 32;

    /// The connector's end of a connection over which nothing can be written any more.
    struct Broken(DuplexStream);

    impl AsyncRead for Broken {
        fn poll_read(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_read(context, buffer)
        }
    }

    impl AsyncWrite for Broken {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn what_the_gateway_said_before_it_took_no_more_is_heard() {
        let refused = ErrorCode::CredentialInvalid;
        for _ in 0..TIMES {
            let (near, far) = tokio::io::duplex(1024);
            let mut gateway = WebSocketStream::from_raw_socket(far, Role::Server, None).await;
            let end = v1::SessionEnd { code: refused.number().into(), retry_after_ms: 0, link_counter: 7 };
            let last = v1::LinkDown { kind: Some(v1::link_down::Kind::End(end)) };
            gateway.send(Message::Binary(encode_message(last.lane(), &last).unwrap())).await.unwrap();
            let close = CloseFrame { code: refused.close_code().into(), reason: "".into() };
            gateway.send(Message::Close(Some(close))).await.unwrap();

            let socket = WebSocketStream::from_raw_socket(Broken(near), Role::Client, None).await;
            let (outbox, (tx, mut incoming)) = (Outbox::new(Framing::Message), mpsc::channel(LINK_INCOMING_MAX));
            outbox.send(&v1::LinkUp { kind: Some(v1::link_up::Kind::Ping(v1::Ping { nonce: 1 })) }).unwrap();
            carry(socket, outbox.clone(), tx).await;
            let Some(Incoming::Message(heard)) = incoming.recv().await else { panic!("the last word is lost") };
            assert!(heard == last);
            assert_eq!(incoming.recv().await.and_then(|incoming| incoming.end()), Some(refused));
            assert_eq!(outbox.closed(), Some(refused));
        }
    }
}
