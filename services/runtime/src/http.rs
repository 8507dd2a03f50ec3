//! The HTTP front door: accepts TCP, speaks TLS where it ends here, HTTP/1.1 and HTTP/2, and drains.

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
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use crate::lifecycle::Shutdown;
use crate::tls::{ChannelBinding, EXPORTER_LABEL};

/// Connections that one listener holds open at once; further ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 100_000;
/// TLS handshakes under way at once: they cost CPU, and a flood must not starve the rest.
const HANDSHAKES_MAX: usize = 256;
/// Time a peer has to finish TLS.
const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time a peer has to send a request's headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(15);
/// Wait after a failed accept, so that an exhausted file table is not a busy loop.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// Serves `router` on `listener` until the soft stop; connections then end after their request, or by the hard
/// stop. Each request carries [`ConnectInfo<SocketAddr>`] and [`ChannelBinding`].
pub async fn serve(listener: TcpListener, tls: Option<Arc<rustls::ServerConfig>>, router: Router, shutdown: Shutdown) {
    let acceptor = tls.map(TlsAcceptor::from);
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let soft = shutdown.soft();
    loop {
        let Ok(permit) = connections.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            () = soft.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let connection =
                    Connection { peer, router: router.clone(), shutdown: shutdown.clone(), _permit: permit };
                let (acceptor, handshakes) = (acceptor.clone(), handshakes.clone());
                shutdown.spawn(connection.run(stream, acceptor, handshakes));
            }
            Err(error) => {
                tracing::warn!(error = &error as &(dyn std::error::Error + 'static), "accept failed");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}

struct Connection {
    peer: SocketAddr,
    router: Router,
    shutdown: Shutdown,
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    async fn run(self, stream: TcpStream, acceptor: Option<TlsAcceptor>, handshakes: Arc<Semaphore>) {
        let _ = stream.set_nodelay(true);
        let Some(acceptor) = acceptor else {
            return self.serve(stream, ChannelBinding(None)).await;
        };
        let Ok(_permit) = handshakes.acquire().await else { return };
        let handshake = tokio::time::timeout(TLS_HANDSHAKE_TIMEOUT, acceptor.accept(stream));
        let soft = self.shutdown.soft();
        let accepted = tokio::select! {
            accepted = handshake => accepted,
            // Who is not in yet goes elsewhere, and a drain does not wait for one who says nothing.
            () = soft.cancelled() => return,
        };
        let Ok(Ok(stream)) = accepted else {
            tracing::debug!("tls handshake failed");
            return;
        };
        drop(_permit);
        let exported = stream.get_ref().1.export_keying_material([0; 32], EXPORTER_LABEL, Some(&[]));
        self.serve(stream, ChannelBinding(exported.ok())).await;
    }

    async fn serve<S>(self, stream: S, binding: ChannelBinding)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { peer, router, shutdown, _permit } = self;
        let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(ConnectInfo(peer));
            request.extensions_mut().insert(binding);
            router.clone().oneshot(request)
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
        // Without extended CONNECT: browsers open a WebSocket over a connection of its own, as its limits count it.
        builder.http2().timer(TokioTimer::new());
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
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
