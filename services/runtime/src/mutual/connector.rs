//! The client's side: TCP, then TLS, then who is there.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower::Service;

use super::identity::Expected;
use super::metrics::Side;
use super::reload::MutualTls;

/// Time to reach a peer and to finish TLS; a caller that knows another peer goes there sooner.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// What the handshake needs as a name, and neither sends nor checks: the certificate names a process, not a host.
const NO_NAME: &str = "flydex.invalid";

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The address has no host or no port.
    #[error("the address names no host and port")]
    Address,
    /// Nobody answers there.
    #[error("reach the peer")]
    Reach(#[source] std::io::Error),
    /// The peer is not the one called, or does not take us.
    #[error("agree with the peer on TLS")]
    Handshake(#[source] std::io::Error),
    /// The own certificate cannot be used.
    #[error("use the own certificate")]
    Config(#[from] rustls::Error),
    /// It takes too long.
    #[error("the peer takes too long to answer")]
    Timeout,
}

/// Opens connections to one server. Cheap to clone.
#[derive(Clone)]
pub struct Connector {
    mutual: MutualTls,
    expected: Arc<Expected>,
}

impl Connector {
    pub(super) fn new(mutual: MutualTls, expected: Expected) -> Self {
        Self { mutual, expected: Arc::new(expected) }
    }

    /// Opens one connection to the host and port of an address; its scheme does not matter.
    ///
    /// # Errors
    /// Each [`ConnectError`].
    pub async fn connect(&self, address: &Uri) -> Result<TlsStream<TcpStream>, ConnectError> {
        tokio::time::timeout(CONNECT_TIMEOUT, self.open(address)).await.unwrap_or(Err(ConnectError::Timeout))
    }

    async fn open(&self, address: &Uri) -> Result<TlsStream<TcpStream>, ConnectError> {
        let (Some(host), Some(port)) = (address.host(), address.port_u16()) else {
            return Err(ConnectError::Address);
        };
        let host = host.trim_matches(['[', ']']);
        let stream = TcpStream::connect((host, port)).await.map_err(ConnectError::Reach)?;
        stream.set_nodelay(true).map_err(ConnectError::Reach)?;
        let config = self.mutual.client_config(&self.expected)?;
        let name = ServerName::try_from(NO_NAME).expect("the constant is a name");
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|error| {
            self.mutual.refused(Side::Client);
            ConnectError::Handshake(error)
        })
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, address: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.connect(&address).await.map(TokioIo::new) })
    }
}
