//! Makes an authority and the certificates of its processes: for tests and for a first cluster on one computer. A real
//! cluster takes them from its own authority, which renews them.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};

use super::identity::PeerIdentity;
use super::material::MutualConfig;
use crate::tls::{TlsError, write_private};

/// How long before its making a certificate already holds: clocks differ.
const MADE_BEFORE: Duration = Duration::from_secs(600);

/// An authority whose key lives in this value alone.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
pub struct Issued {
    /// The certificate.
    pub certificate_pem: String,
    /// The private key.
    pub key_pem: String,
}

impl Authority {
    /// Makes an authority that holds for a hundred years.
    ///
    /// # Errors
    /// When the cryptography fails.
    pub fn new() -> Result<Self, TlsError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = name("FlyDex processes");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_after = rcgen::date_time_ymd(2099, 1, 1);
        Ok(Self(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?))
    }

    /// The authority's certificate in PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Certifies a process from `now_unix_millis` on, for `lifetime`.
    ///
    /// # Errors
    /// When the cryptography fails.
    pub fn issue(&self, process: &PeerIdentity, now_unix_millis: u64, lifetime: Duration) -> Result<Issued, TlsError> {
        self.issue_uris(&[process.to_string()], now_unix_millis, lifetime)
    }

    /// Certifies whatever the URIs say, so that tests can ask for what must be refused.
    pub(super) fn issue_uris(
        &self,
        uris: &[String],
        now_unix_millis: u64,
        lifetime: Duration,
    ) -> Result<Issued, TlsError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = name("FlyDex process");
        params.subject_alt_names = uris
            .iter()
            .map(|uri| Ok(SanType::URI(uri.as_str().try_into()?)))
            .collect::<Result<Vec<_>, rcgen::Error>>()?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        let now = Duration::from_millis(now_unix_millis);
        params.not_before = epoch + now.saturating_sub(MADE_BEFORE);
        params.not_after = epoch + now + lifetime;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.0)?;
        Ok(Issued { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }

    /// Certifies a process and writes `<role>-<node id>.crt`, `.key` and `ca.crt` into a folder.
    ///
    /// # Errors
    /// When a file cannot be written, or the cryptography fails.
    pub fn write(
        &self,
        folder: &Path,
        process: &PeerIdentity,
        now_unix_millis: u64,
        lifetime: Duration,
    ) -> Result<MutualConfig, TlsError> {
        let issued = self.issue(process, now_unix_millis, lifetime)?;
        let file = |extension: &str| folder.join(format!("{}-{}.{extension}", process.role.name(), process.node_id));
        let config =
            MutualConfig { certificate_file: file("crt"), key_file: file("key"), ca_file: folder.join("ca.crt") };
        self.write_to(&config, &issued)?;
        Ok(config)
    }

    /// Writes a certificate, its key and the authority to where a process looks for them.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write_to(&self, config: &MutualConfig, issued: &Issued) -> Result<(), TlsError> {
        replace(&config.ca_file, &self.pem())?;
        replace(&config.key_file, &issued.key_pem)?;
        replace(&config.certificate_file, &issued.certificate_pem)
    }
}

/// Writes beside and renames, so that no reader sees a half of it.
fn replace(path: &Path, pem: &str) -> Result<(), TlsError> {
    let beside = path.with_added_extension("new");
    write_private(&beside, pem.as_bytes())?;
    fs::rename(&beside, path).map_err(|source| TlsError::File { path: path.to_owned(), source })
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}
