//! A link over QUIC: one connection, one bidirectional stream for each lane, opened by the connector.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use flydex_domain::error::ErrorCode;
use flydex_domain::limits::{CLOSE_TIMEOUT, LINK_INCOMING_MAX, PEER_SILENCE_MAX};
use flydex_proto::codec::{LENGTH_PREFIX_BYTES, Lane, stream_length};
use flydex_runtime::lifecycle::Shutdown;
use flydex_runtime::tls::EXPORTER_LABEL;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, ConnectionError, Endpoint, RecvStream, SendStream, VarInt};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::DialError;
use super::trust::{Protocol, Trust};
use super::wire::{Incoming, Wire, message};
use crate::outbox::{Framing, Outbox};
use crate::paired::{QuicEndpoint, RegionEndpoint, Transport};

pub(super) async fn dial(
    endpoint: &RegionEndpoint,
    at: &QuicEndpoint,
    trust: &Trust,
    shutdown: &Shutdown,
) -> Result<Wire, DialError> {
    let (connection, handshake) = connect(endpoint, at, trust).await?;
    open(connection, handshake, shutdown).await
}

/// Connects, and says how long the handshake took.
pub(super) async fn connect(
    endpoint: &RegionEndpoint,
    at: &QuicEndpoint,
    trust: &Trust,
) -> Result<(Connection, Duration), DialError> {
    let mut addresses = tokio::net::lookup_host(&at.address).await.map_err(unreachable)?;
    let address = addresses.next().ok_or_else(|| unreachable("no address"))?;
    let config = trust.config(endpoint, Protocol::Quic).await?;
    let crypto = QuicClientConfig::try_from(config).map_err(unreachable)?;
    let mut transport = quinn::TransportConfig::default();
    transport.max_idle_timeout(PEER_SILENCE_MAX.try_into().ok());
    let mut client = quinn::ClientConfig::new(Arc::new(crypto));
    client.transport_config(Arc::new(transport));
    let local: SocketAddr =
        if address.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = Endpoint::client(local).map_err(unreachable)?;
    let since = Instant::now();
    let connecting = socket.connect_with(client, address, &at.server_name).map_err(unreachable)?;
    let connected = connecting.await.inspect_err(|_| trust.forget(endpoint, Protocol::Quic));
    Ok((connected.map_err(unreachable)?, since.elapsed()))
}

async fn open(connection: Connection, handshake: Duration, shutdown: &Shutdown) -> Result<Wire, DialError> {
    let mut exporter = [0; 32];
    let exported = connection.export_keying_material(&mut exporter, EXPORTER_LABEL, &[]);
    exported.map_err(|_| unreachable("no exporter"))?;
    let outbox = Outbox::new(Framing::Stream);
    let (tx, incoming) = mpsc::channel(LINK_INCOMING_MAX);
    for lane in Lane::ALL {
        let (mut send, receive) = connection.open_bi().await.map_err(unreachable)?;
        // A stream that was just opened is not closed; the most urgent lane goes first.
        let _ = send.set_priority(-i32::from(lane.byte()));
        send.write_all(&[lane.byte()]).await.map_err(unreachable)?;
        shutdown.spawn(write(lane, send, outbox.clone(), connection.clone()));
        shutdown.spawn(read(lane, receive, outbox.clone(), tx.clone(), connection.clone()));
    }
    Ok(Wire { transport: Transport::Quic, exporter: Some(exporter), handshake, outbox, incoming })
}

async fn write(lane: Lane, mut send: SendStream, outbox: Outbox, connection: Connection) {
    let code = loop {
        match outbox.next_from(lane).await {
            Ok(frame) => {
                if send.write_all(&frame).await.is_err() {
                    break why_closed(&connection).await;
                }
            }
            Err(code) => break code,
        }
    };
    outbox.close(code);
    let _ = send.finish();
    if lane == Lane::Control {
        connection.close(VarInt::from_u32(code.close_code().into()), &[]);
    }
}

async fn read(lane: Lane, mut receive: RecvStream, outbox: Outbox, tx: mpsc::Sender<Incoming>, connection: Connection) {
    loop {
        let incoming = match read_frame(lane, &mut receive).await {
            Ok(Some(incoming)) => incoming,
            Ok(None) => {
                let code = why_closed(&connection).await;
                // A gateway that closes says more on the control lane, which is read to its end.
                if lane != Lane::Control && connection.close_reason().is_some() {
                    return;
                }
                Incoming::End(code)
            }
            Err(code) => Incoming::End(code),
        };
        let end = incoming.end();
        if tx.send(incoming).await.is_err() || end.is_some() {
            return outbox.close(end.unwrap_or(ErrorCode::PeerTimeout));
        }
    }
}

/// The next frame of a lane; `None` when its stream is over, be it in the middle of a frame.
async fn read_frame(lane: Lane, receive: &mut RecvStream) -> Result<Option<Incoming>, ErrorCode> {
    let mut prefix = [0; LENGTH_PREFIX_BYTES];
    if receive.read_exact(&mut prefix).await.is_err() {
        return Ok(None);
    }
    let length = stream_length(lane, prefix).map_err(|error| error.code())?;
    let mut body = BytesMut::zeroed(length);
    let whole = receive.read_exact(&mut body).await.is_ok();
    Ok(whole.then(|| message(lane, body.freeze())))
}

/// Why the gateway closes the connection. Its streams end first, each when it likes; one that ends alone is a loss.
async fn why_closed(connection: &Connection) -> ErrorCode {
    let said = match timeout(CLOSE_TIMEOUT, connection.closed()).await {
        Ok(ConnectionError::ApplicationClosed(close)) => u16::try_from(close.error_code.into_inner()).ok(),
        Ok(_) | Err(_) => None,
    };
    said.and_then(ErrorCode::from_close_code).unwrap_or(ErrorCode::PeerTimeout)
}

fn unreachable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> DialError {
    DialError::Unreachable(error.into())
}
