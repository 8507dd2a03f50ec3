//! Which server may be talked to, whom to believe that it is it, and where its regions take links.
//!
//! A server is an https origin, or plain http on this very machine; anything else is refused with the reason.
//! The system's roots decide, and besides them a certificate that the person at the desk names. A self-made
//! certificate is believed unasked only from a server on this machine, where no one is in between.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use flydex_domain::error::ErrorCode;
use serde::{Deserialize, Serialize};
use url::{Host, Url};

use crate::paired::{QuicEndpoint, RegionEndpoint};

/// The web origin of a relay that may be talked to: `https://host[:port]`, or `http://` on loopback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerOrigin {
    text: String,
    loopback: bool,
}

/// Why an address is not one of a relay that may be talked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    /// Not an address of the web.
    #[error("that is not a web address like https://relay.example")]
    Malformed,
    /// It has a path, a query, a fragment or a user name.
    #[error("that is more than an origin: only https://host[:port] is taken")]
    MoreThanOrigin,
    /// Plain http, and not on this machine.
    #[error("plain http is taken on this machine only (localhost): anyone on the way could read and change it")]
    PlainHttp,
}

impl OriginError {
    /// What a peer or a script is told.
    #[must_use]
    pub const fn code(self) -> ErrorCode {
        match self {
            Self::Malformed | Self::MoreThanOrigin | Self::PlainHttp => ErrorCode::UntrustedAddress,
        }
    }
}

impl ServerOrigin {
    /// The origin as an address bar shows it, without a trailing slash.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the server is on this machine.
    #[must_use]
    pub const fn is_loopback(&self) -> bool {
        self.loopback
    }

    /// Whether the connection to it is encrypted.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.text.starts_with("https://")
    }
}

impl FromStr for ServerOrigin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, OriginError> {
        let url = Url::parse(text.trim()).map_err(|_| OriginError::Malformed)?;
        let Some(host) = url.host() else {
            return Err(OriginError::Malformed);
        };
        let loopback = is_loopback(&host);
        match url.scheme() {
            "https" => {}
            "http" if loopback => {}
            "http" => return Err(OriginError::PlainHttp),
            _ => return Err(OriginError::Malformed),
        }
        let plain = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        if !plain || !url.username().is_empty() || url.password().is_some() {
            return Err(OriginError::MoreThanOrigin);
        }
        Ok(Self { text: url.origin().ascii_serialization(), loopback })
    }
}

impl fmt::Display for ServerOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn is_loopback(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => *name == "localhost" || name.ends_with(".localhost"),
        Host::Ipv4(address) => IpAddr::V4(*address).is_loopback(),
        Host::Ipv6(address) => IpAddr::V6(*address).is_loopback(),
    }
}

/// `GET /api/regions`, and the same kept in the state folder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Regions {
    /// The regions, best first.
    pub regions: Vec<Region>,
}

/// One region.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Region {
    /// Its name.
    pub region: String,
    /// Where links are opened.
    pub link_url: String,
    /// The same over QUIC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quic: Option<Quic>,
    /// The server's self-made certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_pem: Option<String>,
}

/// A region's entrance over QUIC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quic {
    /// `host:port`.
    pub address: String,
    /// The name in its certificate.
    pub server_name: String,
}

impl Regions {
    /// The self-made certificate that a server on this machine names; of any other server it is not believed.
    #[must_use]
    pub fn self_made_pem(&self, origin: &ServerOrigin) -> Option<String> {
        if !origin.is_loopback() {
            return None;
        }
        self.regions.iter().find_map(|region| region.certificate_pem.clone())
    }

    /// The entrances that may be dialled, each with what is trusted besides the system's roots: `extra_pem`, and
    /// its own certificate when a server on this machine names it.
    #[must_use]
    pub fn endpoints(&self, origin: &ServerOrigin, extra_pem: Option<&str>) -> Vec<RegionEndpoint> {
        let usable = self.regions.iter().filter(|region| may_dial(&region.link_url, origin));
        let endpoint = |region: &Region| RegionEndpoint {
            region: region.region.clone(),
            link_url: region.link_url.clone(),
            quic: region
                .quic
                .as_ref()
                .map(|quic| QuicEndpoint { address: quic.address.clone(), server_name: quic.server_name.clone() }),
            certificate_pem: trusted(region.certificate_pem.as_deref().filter(|_| origin.is_loopback()), extra_pem),
        };
        usable.map(endpoint).collect()
    }
}

fn trusted(self_made: Option<&str>, extra: Option<&str>) -> Option<String> {
    match (self_made, extra) {
        (Some(self_made), Some(extra)) if !extra.contains(self_made) => Some(format!("{extra}\n{self_made}")),
        (Some(pem), None) | (_, Some(pem)) => Some(pem.to_owned()),
        (None, None) => None,
    }
}

fn may_dial(link_url: &str, origin: &ServerOrigin) -> bool {
    let Ok(url) = Url::parse(link_url) else {
        return false;
    };
    match url.scheme() {
        "wss" => true,
        "ws" => origin.is_loopback() && url.host().is_some_and(|host| is_loopback(&host)),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
