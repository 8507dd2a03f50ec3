//! The configuration of `flydex-server all`: defaults that work on one computer.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use flydex_runtime::client::TrustedProxies;
use flydex_runtime::telemetry::TelemetryConfig;
use serde::{Deserialize, Serialize};

use crate::cluster::BadField;

/// Every role in one process.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct AllConfig {
    /// Address and port of HTTP (TCP) and QUIC (UDP). Default `127.0.0.1:48200`; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The origin that browsers and connectors use, `https://host[:port]`; `http` on this computer alone. Default
    /// `http://localhost` with the port of `listen`.
    pub public_origin: Option<String>,
    /// Folder of the database and of self-made certificates. Default `var`.
    pub data_dir: PathBuf,
    /// Address of `/livez`, `/readyz` and `/metrics`. Default `127.0.0.1:0`, a free port that is printed; keep it off
    /// public networks.
    pub admin_listen: SocketAddr,
    /// Name of the only region. Default `local`.
    pub region: String,
    /// Name of the account that the first sign-in makes. Default `home`.
    pub account_name: String,
    /// Whether connectors may use QUIC beside WebSocket. Default true.
    pub quic: bool,
    /// Address ranges of proxies in front, such as `["10.0.0.0/8"]`, or one text with commas. Only they are believed
    /// about whom they speak for (`X-Forwarded-For`, from the right), which the rates per address count by. Default
    /// none: the address of each connection counts.
    pub trusted_proxies: TrustedProxies,
    /// Certificate for an https origin.
    pub tls: TlsFiles,
    /// Where people may sign in as well. Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity_provider: Option<IdentityProviderConfig>,
    /// Logs, traces and metrics.
    pub telemetry: TelemetryConfig,
}

/// Files of a certificate; without them an https origin gets a self-made one.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsFiles {
    /// Chain in PEM, leaf first.
    pub certificate_file: Option<PathBuf>,
    /// Private key in PEM.
    pub key_file: Option<PathBuf>,
}

/// An OpenID provider where people may sign in: code flow with PKCE. It must know `<public_origin>/sign-in/identity` as
/// the address to send browsers back to.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct IdentityProviderConfig {
    /// What people call it, on the button. Needed.
    pub name: String,
    /// What it calls itself, `https://…`, as in its `/.well-known/openid-configuration`; `http` on this computer alone.
    /// Needed.
    pub issuer: String,
    /// What it calls this server. Needed.
    pub client_id: String,
    /// File of the secret that goes with it. Needed.
    pub client_secret_file: PathBuf,
}

impl IdentityProviderConfig {
    /// Reads the secret.
    ///
    /// # Errors
    /// [`BadField`] when the file cannot be read or is empty.
    pub fn read(&self) -> Result<flydex_control::IdentityProvider, BadField> {
        let field = "identity_provider.client_secret_file";
        let secret = std::fs::read_to_string(&self.client_secret_file).map_err(|error| BadField::new(field, error))?;
        if secret.trim().is_empty() {
            return Err(BadField::new(field, "the file is empty"));
        }
        Ok(flydex_control::IdentityProvider {
            name: self.name.clone(),
            issuer: self.issuer.clone(),
            client_id: self.client_id.clone(),
            client_secret: secret.trim().into(),
        })
    }
}

impl Default for AllConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 48200)),
            public_origin: None,
            data_dir: PathBuf::from("var"),
            admin_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            region: "local".to_owned(),
            account_name: "home".to_owned(),
            quic: true,
            trusted_proxies: TrustedProxies::default(),
            tls: TlsFiles::default(),
            identity_provider: None,
            telemetry: TelemetryConfig::default(),
        }
    }
}
