//! The server's side: accepts, checks, and serves HTTP/2 with the peer's identity in each request.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::identity::{Allowed, PeerIdentity};
use super::metrics::Side;
use super::reload::MutualTls;
use crate::lifecycle::Shutdown;

/// Connections that one listener holds open at once: a few for each process of a large region.
const CONNECTIONS_MAX: usize = 4096;
/// TLS handshakes under way at once.
const HANDSHAKES_MAX: usize = 64;
/// Time a peer has to finish TLS.
const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Wait after a failed accept, so that an exhausted file table is not a busy loop.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);
/// Interval at which a silent connection is asked whether it lives.
const KEEPALIVE_INTERVAL: Duration = Duration::from_millis(500);
/// Time it has to answer; it is dead 1.5 s after its last sign of life.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(1);
/// Requests under way on one connection at once.
const STREAMS_MAX: u32 = 1024;
/// Bytes that a peer may send ahead on one stream, and on all of a connection: enough for a fast path between regions.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;

/// Serves `router` until `stop`: then nothing new is accepted, connections end once their requests have, and at the
/// hard stop at once. Each request carries the caller's [`PeerIdentity`] as an extension.
pub async fn serve(
    listener: TcpListener,
    mutual: MutualTls,
    allowed: Allowed,
    router: Router,
    stop: CancellationToken,
    shutdown: Shutdown,
) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let allowed = Arc::new(allowed);
    loop {
        let accepting = async {
            let permit = Arc::clone(&connections).acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            () = stop.cancelled() => return,
            accepted = accepting => accepted,
        };
        let Ok(permit) = permit else { return };
        match accepted {
            Ok((stream, _)) => {
                let connection = Connection {
                    mutual: mutual.clone(),
                    allowed: Arc::clone(&allowed),
                    router: router.clone(),
                    stop: stop.clone(),
                    hard: shutdown.hard(),
                    _permit: permit,
                };
                shutdown.spawn(connection.run(stream, Arc::clone(&handshakes)));
            }
            Err(error) => {
                tracing::warn!(error = &error as &(dyn std::error::Error + 'static), "accept failed");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}

struct Connection {
    mutual: MutualTls,
    allowed: Arc<Allowed>,
    router: Router,
    stop: CancellationToken,
    hard: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    async fn run(self, stream: TcpStream, handshakes: Arc<Semaphore>) {
        let hard = self.hard.clone();
        let handshake = async {
            let _permit = handshakes.acquire().await.ok()?;
            tokio::time::timeout(TLS_HANDSHAKE_TIMEOUT, self.handshake(stream)).await.ok()?
        };
        let handshaken = tokio::select! {
            handshaken = handshake => handshaken,
            () = hard.cancelled() => return,
        };
        match handshaken {
            Some((stream, peer)) => self.serve(stream, peer).await,
            None => self.mutual.refused(Side::Server),
        }
    }

    async fn handshake(&self, stream: TcpStream) -> Option<(tokio_rustls::server::TlsStream<TcpStream>, PeerIdentity)> {
        let _ = stream.set_nodelay(true);
        let config = self.mutual.server_config(&self.allowed).ok()?;
        let stream = match TlsAcceptor::from(Arc::new(config)).accept(stream).await {
            Ok(stream) => stream,
            Err(error) => {
                let error: &(dyn std::error::Error + 'static) = &error;
                tracing::debug!(error, "a peer was not let in");
                return None;
            }
        };
        let peer = stream.get_ref().1.peer_certificates()?.first().and_then(|leaf| PeerIdentity::of(leaf).ok())?;
        Some((stream, peer))
    }

    async fn serve(self, stream: tokio_rustls::server::TlsStream<TcpStream>, peer: PeerIdentity) {
        let router = self.router.clone();
        let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(peer.clone());
            router.clone().oneshot(request)
        });
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .max_concurrent_streams(STREAMS_MAX)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
        let mut ending = false;
        loop {
            tokio::select! {
                ended = connection.as_mut() => {
                    if ended.is_err() {
                        tracing::debug!("a peer's connection ended early");
                    }
                    return;
                }
                () = self.stop.cancelled(), if !ending => {
                    ending = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = self.hard.cancelled() => return,
            }
        }
    }
}
