//! The HTTP front door: accepts TCP, speaks TLS where it ends here, HTTP/1.1 and HTTP/2, and drains.

mod patience;
mod places;
pub mod trace;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use self::patience::Patience;
use self::places::{AddressPlace, Place, Places};
use crate::files;
use crate::lifecycle::Shutdown;
use crate::tls::{ChannelBinding, EXPORTER_LABEL};

/// Connections that one listener holds open at once; further ones wait in the kernel's queue. One address has half of them,
/// and further ones of it are closed.
const CONNECTIONS_MAX: usize = 100_000;
/// TLS handshakes under way at once: they cost CPU, and a flood must not starve the rest. One address waits for its half.
const HANDSHAKES_MAX: usize = 256;
/// Time a peer has to finish TLS, its wait for a place included.
const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time a peer has to send a request's headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(15);
/// Headers of one request, and their bytes with its first line: a browser sends twenty, and a credential fits ten times.
const HEADERS_MAX: usize = 64;
const HEADER_BYTES_MAX: usize = 32 * 1024;
/// Requests under way on one HTTP/2 connection: a page loads its parts at once, and long polls wait beside.
const HTTP2_STREAMS_MAX: u32 = 64;
/// Interval at which a silent HTTP/2 connection is asked whether it lives, and the time it has to answer.
const HTTP2_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const HTTP2_KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(15);
/// One file in so many is kept for what is no connection: the database, other processes, certificates.
const FILES_KEPT_PART: usize = 4;
/// Wait after a failed accept, so that an exhausted file table is not a busy loop.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// Serves `router` on `listener` until the soft stop; connections then end after their request, or by the hard
/// stop. Each request carries [`ConnectInfo<SocketAddr>`] and [`ChannelBinding`].
pub async fn serve(listener: TcpListener, tls: Option<Arc<rustls::ServerConfig>>, router: Router, shutdown: Shutdown) {
    let acceptor = tls.map(TlsAcceptor::from);
    let (connections, handshakes) = (Places::new(connections_max()), Places::new(HANDSHAKES_MAX));
    Door { acceptor, router, shutdown, connections, handshakes }.serve(listener).await;
}

/// What lets connections in: what they are served with, and the places there are for them.
struct Door {
    acceptor: Option<TlsAcceptor>,
    router: Router,
    shutdown: Shutdown,
    connections: Arc<Places>,
    handshakes: Arc<Places>,
}

impl Door {
    async fn serve(&self, listener: TcpListener) {
        let soft = self.shutdown.soft();
        loop {
            let Some(place) = self.connections.any().await else { return };
            let accepted = tokio::select! {
                () = soft.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => self.admit(stream, peer, place),
                Err(error) => {
                    tracing::warn!(error = &error as &(dyn std::error::Error + 'static), "accept failed");
                    tokio::time::sleep(ACCEPT_BACKOFF).await;
                }
            }
        }
    }

    /// Serves a connection from that address, or closes it when the address has its share.
    fn admit(&self, stream: TcpStream, peer: SocketAddr, place: Place) {
        let Some(of_address) = self.connections.of_address_now(peer.ip()) else {
            tracing::debug!("an address has its share of connections");
            return;
        };
        let (router, shutdown) = (self.router.clone(), self.shutdown.clone());
        let connection = Connection { peer, router, shutdown, _places: (of_address, place) };
        self.shutdown.spawn(connection.run(stream, self.acceptor.clone(), self.handshakes.clone()));
    }
}

struct Connection {
    peer: SocketAddr,
    router: Router,
    shutdown: Shutdown,
    _places: (AddressPlace, Place),
}

/// As many as the process may have files open, less a part for everything else.
fn connections_max() -> usize {
    let files = files::limit().unwrap_or(usize::MAX);
    CONNECTIONS_MAX.min(files - files / FILES_KEPT_PART)
}

impl Connection {
    async fn run(self, stream: TcpStream, acceptor: Option<TlsAcceptor>, handshakes: Arc<Places>) {
        let _ = stream.set_nodelay(true);
        let Some(acceptor) = acceptor else {
            return self.serve(stream, ChannelBinding(None)).await;
        };
        let handshake = tokio::time::timeout(TLS_HANDSHAKE_TIMEOUT, async {
            let _of_address = handshakes.of_address(self.peer.ip()).await?;
            let _place = handshakes.any().await?;
            acceptor.accept(stream).await.ok()
        });
        let soft = self.shutdown.soft();
        let accepted = tokio::select! {
            accepted = handshake => accepted,
            // Who is not in yet goes elsewhere, and a drain does not wait for one who says nothing.
            () = soft.cancelled() => return,
        };
        let Ok(Some(stream)) = accepted else {
            tracing::debug!("tls handshake failed");
            return;
        };
        let exported = stream.get_ref().1.export_keying_material([0; 32], EXPORTER_LABEL, Some(&[]));
        self.serve(stream, ChannelBinding(exported.ok())).await;
    }

    async fn serve<S>(self, stream: S, binding: ChannelBinding)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { peer, router, shutdown, _places } = self;
        let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(ConnectInfo(peer));
            request.extensions_mut().insert(binding);
            router.clone().oneshot(request)
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_headers(HEADERS_MAX)
            .max_buf_size(HEADER_BYTES_MAX);
        // Without extended CONNECT: browsers open a WebSocket over a connection of its own, as its limits count it.
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_header_list_size(HEADER_BYTES_MAX as u32)
            .max_concurrent_streams(HTTP2_STREAMS_MAX)
            .keep_alive_interval(HTTP2_KEEPALIVE_INTERVAL)
            .keep_alive_timeout(HTTP2_KEEPALIVE_TIMEOUT);
        let connection =
            builder.serve_connection_with_upgrades(TokioIo::new(Patience::of(stream, HEADER_TIMEOUT)), service);
        let mut connection = std::pin::pin!(connection);
        let (soft, hard) = (shutdown.soft(), shutdown.hard());
        let mut draining = false;
        loop {
            tokio::select! {
                ended = connection.as_mut() => {
                    if ended.is_err() {
                        tracing::debug!("http connection ended early");
                    }
                    return;
                }
                () = soft.cancelled(), if !draining => {
                    draining = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = hard.cancelled() => return,
            }
        }
    }
}

#[cfg(test)]
mod tests;
