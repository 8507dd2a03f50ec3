//! TLS towards each entrance: whom it trusts, and the sessions that a later handshake resumes.
//!
//! A configuration is kept for each entrance as long as its handshakes succeed. One that failed is made anew: the
//! system's roots may have changed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use flydex_domain::limits::REGIONS_MAX;
use flydex_proto::codec::SUBPROTOCOL;
use flydex_runtime::tls;
use rustls::ClientConfig;

use super::DialError;
use crate::paired::RegionEndpoint;

/// What is spoken over TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Protocol {
    /// A link over QUIC.
    Quic,
    /// HTTP, for a WebSocket.
    Http,
}

impl Protocol {
    const fn alpn(self) -> &'static [u8] {
        match self {
            Self::Quic => SUBPROTOCOL.as_bytes(),
            Self::Http => b"http/1.1",
        }
    }
}

type Key = (String, Protocol);

struct Kept {
    certificate_pem: Option<String>,
    config: Arc<ClientConfig>,
}

/// The configurations in use, two for each region at most.
#[derive(Default)]
pub(super) struct Trust {
    kept: Mutex<BTreeMap<Key, Kept>>,
}

impl Trust {
    /// The configuration for an entrance, with the sessions of earlier handshakes.
    pub(super) async fn config(
        &self,
        endpoint: &RegionEndpoint,
        protocol: Protocol,
    ) -> Result<Arc<ClientConfig>, DialError> {
        let (key, pem) = (key(endpoint, protocol), endpoint.certificate_pem.clone());
        if let Some(kept) = self.lock().get(&key).filter(|kept| kept.certificate_pem == pem) {
            return Ok(Arc::clone(&kept.config));
        }
        // The system's roots are read from the disk.
        let made = tokio::task::spawn_blocking(move || {
            let config = tls::client_config(pem.as_deref(), &[protocol.alpn()]);
            config.map(|config| Kept { certificate_pem: pem, config: Arc::new(config) })
        });
        let made = made.await.map_err(unusable)?.map_err(unusable)?;
        let config = Arc::clone(&made.config);
        let mut kept = self.lock();
        while kept.len() >= 2 * REGIONS_MAX {
            kept.pop_first();
        }
        kept.insert(key, made);
        Ok(config)
    }

    /// A handshake with the entrance failed.
    pub(super) fn forget(&self, endpoint: &RegionEndpoint, protocol: Protocol) {
        self.lock().remove(&key(endpoint, protocol));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Key, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(endpoint: &RegionEndpoint, protocol: Protocol) -> Key {
    let quic = endpoint.quic.as_ref().filter(|_| protocol == Protocol::Quic);
    (quic.map_or_else(|| endpoint.link_url.clone(), |quic| quic.address.clone()), protocol)
}

fn unusable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> DialError {
    DialError::Unreachable(error.into())
}
