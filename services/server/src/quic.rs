//! The QUIC endpoint of a gateway, made so that the links of one that died come to life at another at once.
//!
//! A gateway that is killed says nothing, and its connectors would wait until the silence is long enough. Whoever stands
//! before the gateways leads their packets to another one, which does not know the connection and answers with a
//! stateless reset (RFC 9000, section 10.3). A connector believes a reset only from whoever could make the one that its own
//! gateway announced. So gateways with one certificate make them from one key, which follows from the certificate's.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use anyhow::Context as _;
use aws_lc_rs::hmac;
use flydex_domain::limits::QUIC_RESET_INTERVAL_MIN;
use flydex_proto::codec::SUBPROTOCOL;
use flydex_runtime::tls::Identity;
use quinn::EndpointConfig;
use quinn_proto::HashedConnectionIdGenerator;

/// What the key of resets is derived for.
const RESET: &str = "flydex/v1/quic-reset";
/// What the key of connection ids is derived for.
const CONNECTION_ID: &str = "flydex/v1/quic-connection-id";

/// Listens for QUIC.
///
/// # Errors
/// When the identity cannot be used for it or the address is taken.
pub(crate) fn endpoint(address: SocketAddr, identity: &Identity) -> anyhow::Result<quinn::Endpoint> {
    let tls = identity.server_config(&[SUBPROTOCOL.as_bytes()]).context("configure TLS of QUIC")?;
    let server = flydex_gateway::quic::server_config(tls).context("configure QUIC")?;
    let socket = UdpSocket::bind(address).with_context(|| format!("listen for QUIC on {address}"))?;
    let runtime = quinn::default_runtime().context("find the async runtime")?;
    quinn::Endpoint::new(config(identity), Some(server), socket, runtime).context("begin QUIC")
}

fn config(identity: &Identity) -> EndpointConfig {
    let mut config = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &*identity.derived(RESET))));
    // An id that none of us made is nonsense, and gets no answer.
    let [a, b, c, d, e, f, g, h, ..] = *identity.derived(CONNECTION_ID);
    let ids = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids)));
    config.min_reset_interval(QUIC_RESET_INTERVAL_MIN);
    config
}

#[cfg(test)]
mod tests;
