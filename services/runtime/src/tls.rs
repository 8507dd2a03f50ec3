//! TLS 1.3 with the hybrid post-quantum key exchange, on certificates from files or made at first start.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::aws_lc_rs::hmac;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

/// Label of the TLS exporter that a link's proof covers (the pattern of RFC 9266).
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-flydex-link";

/// The TLS exporter of the connection that a request came over; absent where TLS does not end here.
///
/// It is put into the extensions of every HTTP request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelBinding(pub Option<[u8; 32]>);

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or written.
    #[error("open {path}")]
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
    /// A certificate could not be made.
    #[error("make a certificate")]
    Make(#[from] rcgen::Error),
    /// Key and certificate do not belong together.
    #[error("use the certificate")]
    Config(#[from] rustls::Error),
}

/// A certificate chain and its key.
#[derive(Debug)]
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    self_made_pem: Option<String>,
}

impl Identity {
    /// Reads a chain and a key in PEM.
    ///
    /// # Errors
    /// [`TlsError::File`] or [`TlsError::Pem`], naming the file.
    pub fn from_files(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let chain = CertificateDer::pem_slice_iter(&read(certificate)?)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|source| TlsError::Pem { path: certificate.to_owned(), source })?;
        let key = PrivateKeyDer::from_pem_slice(&read(key)?)
            .map_err(|source| TlsError::Pem { path: key.to_owned(), source })?;
        Ok(Self { chain, key, self_made_pem: None })
    }

    /// Reads the certificate that an earlier start made in `folder` for `name`, or makes it: self-signed, so
    /// every client must be told to trust it.
    ///
    /// # Errors
    /// Each [`TlsError`].
    pub fn self_made(folder: &Path, name: &str) -> Result<Self, TlsError> {
        let certificate = folder.join(format!("{name}.crt"));
        let key = folder.join(format!("{name}.key"));
        if !certificate.exists() || !key.exists() {
            let mut params = CertificateParams::new(vec![name.to_owned()])?;
            params.distinguished_name = DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, format!("FlyDex at {name}"));
            params.not_after = rcgen::date_time_ymd(2099, 1, 1);
            let key_pair = KeyPair::generate()?;
            let made = params.self_signed(&key_pair)?;
            write_private(&key, key_pair.serialize_pem().as_bytes())?;
            write_private(&certificate, made.pem().as_bytes())?;
        }
        let mut identity = Self::from_files(&certificate, &key)?;
        identity.self_made_pem = Some(String::from_utf8_lossy(&read(&certificate)?).into_owned());
        Ok(identity)
    }

    /// The certificate in PEM when it is self-made and so not trusted by anyone.
    #[must_use]
    pub fn self_made_pem(&self) -> Option<&str> {
        self.self_made_pem.as_deref()
    }

    /// A secret for one purpose, which all that hold this private key share and nobody else can make.
    #[must_use]
    pub fn derived(&self, purpose: &str) -> Zeroizing<[u8; 32]> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.key.secret_der());
        let mut secret = Zeroizing::new([0; 32]);
        secret.copy_from_slice(hmac::sign(&key, purpose.as_bytes()).as_ref());
        secret
    }

    /// The server side of TLS 1.3 with this identity; `alpn` in order of preference.
    ///
    /// # Errors
    /// [`TlsError::Config`] when key and certificate do not fit.
    pub fn server_config(&self, alpn: &[&[u8]]) -> Result<rustls::ServerConfig, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), self.key.clone_key())?;
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(config)
    }
}

/// Installs the process-wide cryptography; later calls do nothing.
pub fn install_provider() {
    let _ = aws_lc_rs::default_provider().install_default();
}

/// The client side of TLS 1.3: the system's roots, and `extra_pem` besides.
///
/// # Errors
/// [`TlsError`] when `extra_pem` holds no certificate.
pub fn client_config(extra_pem: Option<&str>, alpn: &[&[u8]]) -> Result<rustls::ClientConfig, TlsError> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(pem) = extra_pem {
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            let source_path = || PathBuf::from("given certificate");
            roots.add(certificate.map_err(|source| TlsError::Pem { path: source_path(), source })?)?;
        }
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(config)
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::File { path: path.to_owned(), source })
}

pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), TlsError> {
    let write = || {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|source| TlsError::File { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_self_made_certificate_is_kept_private_and_reused() {
        let folder = tempfile::tempdir().unwrap();
        let first = Identity::self_made(folder.path(), "localhost").unwrap();
        let again = Identity::self_made(folder.path(), "localhost").unwrap();
        assert_eq!(first.self_made_pem(), again.self_made_pem());
        let mode = fs::metadata(folder.path().join("localhost.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(first.server_config(&[b"h2"]).is_ok());
    }

    #[test]
    fn a_missing_certificate_is_named() {
        let missing = Path::new("/nonexistent/tls.crt");
        assert!(matches!(Identity::from_files(missing, missing), Err(TlsError::File { path, .. }) if path == missing));
    }
}
