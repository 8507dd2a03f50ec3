//! How a gateway reaches a node: decided by whoever composes the process.

use std::error::Error;

use flydex_domain::limits;
use flydex_domain::placement::NodeRecord;
use tonic::transport::{Channel, Endpoint};

/// Makes the way to a node. It connects when it is used, and again after a connection has ended.
pub trait Dial: Send + Sync + 'static {
    /// A channel to that node, on a connection of its own.
    ///
    /// # Errors
    /// [`DialError`] when the node's record does not lead anywhere.
    fn dial(&self, node: &NodeRecord) -> Result<Channel, DialError>;
}

/// Why a node cannot be dialled.
#[derive(Debug, thiserror::Error)]
#[error("dial a node")]
pub struct DialError(#[source] Box<dyn Error + Send + Sync>);

impl DialError {
    /// For that reason.
    pub fn new(reason: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(reason.into())
    }
}

impl<F> Dial for F
where
    F: Fn(&NodeRecord) -> Result<Channel, DialError> + Send + Sync + 'static,
{
    fn dial(&self, node: &NodeRecord) -> Result<Channel, DialError> {
        self(node)
    }
}

/// An endpoint with the windows and the keepalive of the way between gateway and node: one that does not answer pings
/// is given up, whatever TCP says.
#[must_use]
pub fn tuned(endpoint: Endpoint) -> Endpoint {
    endpoint
        .connect_timeout(limits::NODE_CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .initial_stream_window_size(limits::NODE_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::NODE_CONNECTION_WINDOW_BYTES)
        .http2_adaptive_window(false)
        .http2_keep_alive_interval(limits::NODE_KEEPALIVE_INTERVAL)
        .keep_alive_timeout(limits::NODE_KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
}
