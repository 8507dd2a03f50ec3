//! The files: read, checked against each other, and turned into both sides of TLS.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::identity::{Allowed, Expected, IdentityError, PeerIdentity};
use super::verify::{ClientVerifier, ServerVerifier, verify_usages};

/// The only protocol between our processes.
const ALPN: &[u8] = b"h2";

/// Where a process finds who it is and whom it trusts.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct MutualConfig {
    /// Chain in PEM, leaf first, with the URI `spiffe://flydex/<region>/<role>/<node id>`. Needed.
    pub certificate_file: PathBuf,
    /// Private key in PEM. Needed.
    pub key_file: PathBuf,
    /// Authorities in PEM that peers must be certified by; two of them while one replaces the other. Needed.
    pub ca_file: PathBuf,
}

/// Why certificate, key and authority cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MutualError {
    /// A file cannot be read.
    #[error("read {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file does not hold what it should, in PEM.
    #[error("parse {path}")]
    Pem {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: rustls_pki_types::pem::Error,
    },
    /// A file of certificates holds none.
    #[error("{path} holds no certificate")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// Key and certificate do not fit, or the authority did not make the certificate, or its time is over.
    #[error("use certificate, key and authority together")]
    Tls(#[from] rustls::Error),
    /// The certificate names no process.
    #[error("read who this process is from its certificate")]
    Identity(#[from] IdentityError),
    /// The new certificate is of another process.
    #[error("the certificate names {found}, but this process is {known}")]
    OtherProcess {
        /// Who the process is.
        known: PeerIdentity,
        /// Who the file says it is.
        found: PeerIdentity,
    },
}

/// The bytes of the three files.
#[derive(PartialEq, Eq)]
pub(super) struct Files {
    certificate: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
    ca: Vec<u8>,
}

/// What the files hold, checked.
pub(super) struct Material {
    pub(super) identity: PeerIdentity,
    /// When the own chain no longer verifies, in seconds since the epoch.
    pub(super) holds_until: u64,
    key: Arc<CertifiedKey>,
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

// === impl Files ===

impl Files {
    pub(super) fn read(config: &MutualConfig) -> Result<Self, MutualError> {
        Ok(Self {
            certificate: read(&config.certificate_file)?,
            key: Zeroizing::new(read(&config.key_file)?),
            ca: read(&config.ca_file)?,
        })
    }
}

// === impl Material ===

impl Material {
    pub(super) fn parse(files: &Files, config: &MutualConfig, now: Duration) -> Result<Self, MutualError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let chain = certificates(&files.certificate, &config.certificate_file)?;
        let key = PrivateKeyDer::from_pem_slice(&files.key)
            .map_err(|source| MutualError::Pem { path: config.key_file.clone(), source })?;
        let mut roots = RootCertStore::empty();
        for authority in certificates(&files.ca, &config.ca_file)? {
            roots.add(authority)?;
        }
        let key = CertifiedKey::from_der(chain, key, &provider)?;
        let roots = Arc::new(roots);
        let (leaf, intermediates) =
            key.cert.split_first().ok_or(MutualError::Empty { path: config.certificate_file.clone() })?;
        let verifies = |seconds| {
            let at = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
            verify_usages(leaf, intermediates, &roots, &provider, at)
        };
        verifies(now.as_secs())?;
        let identity = PeerIdentity::of(leaf)?;
        let holds_until = last_second(now.as_secs(), |seconds| verifies(seconds).is_ok());
        Ok(Self { identity, holds_until, key: Arc::new(key), roots, provider })
    }

    pub(super) fn server(&self, allowed: Arc<Allowed>) -> Result<rustls::ServerConfig, rustls::Error> {
        let verifier = ClientVerifier::new(Arc::clone(&self.roots), Arc::clone(&self.provider), allowed)?;
        let mut config = rustls::ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&self.key))));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    pub(super) fn client(&self, expected: Arc<Expected>) -> Result<rustls::ClientConfig, rustls::Error> {
        let verifier = ServerVerifier::new(Arc::clone(&self.roots), Arc::clone(&self.provider), expected);
        let mut config = rustls::ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&self.key))));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        config.enable_sni = false;
        Ok(config)
    }
}

/// The last second at which something still holds that holds `now` and ends once. Asking the verifier itself covers the
/// whole chain and needs no second reading of certificates.
fn last_second(now: u64, holds: impl Fn(u64) -> bool) -> u64 {
    let (mut good, mut bad) = (now, u64::from(u32::MAX) * 4);
    if holds(bad) {
        return bad;
    }
    while bad - good > 1 {
        let middle = good + (bad - good) / 2;
        if holds(middle) {
            good = middle;
        } else {
            bad = middle;
        }
    }
    good
}

fn certificates(pem: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, MutualError> {
    let certificates = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| MutualError::Pem { path: path.to_owned(), source })?;
    if certificates.is_empty() {
        return Err(MutualError::Empty { path: path.to_owned() });
    }
    Ok(certificates)
}

fn read(path: &Path) -> Result<Vec<u8>, MutualError> {
    fs::read(path).map_err(|source| MutualError::File { path: path.to_owned(), source })
}
