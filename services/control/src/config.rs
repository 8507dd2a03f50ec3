//! What the control plane is told at its start, checked once.

use std::fmt;
use std::net::IpAddr;

use flydex_domain::error::ErrorCode;
use http::Uri;
use serde::Serialize;
use utoipa::ToSchema;

/// The name of an account that its owner has not named.
const DEFAULT_ACCOUNT_NAME: &str = "Personal";

/// The settings of the control plane.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where browsers and connectors reach this server.
    pub public_origin: PublicOrigin,
    /// The region that new machines are recorded in.
    pub region: String,
    /// Every region, as `GET /api/regions` lists them.
    pub regions: Vec<Region>,
    /// The name of the account that the owner link makes.
    pub account_name: String,
}

impl Config {
    /// One region, whose gateway is behind the same origin.
    ///
    /// # Errors
    /// `untrusted_address` when the origin is not one that browsers and connectors may trust.
    pub fn new(public_origin: &str, region: &str) -> Result<Self, ErrorCode> {
        let public_origin = PublicOrigin::parse(public_origin)?;
        let regions = vec![Region::behind(&public_origin, region)];
        Ok(Self { public_origin, region: region.to_owned(), regions, account_name: DEFAULT_ACCOUNT_NAME.to_owned() })
    }
}

/// Where one region is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Region {
    /// The region's name.
    pub region: String,
    /// Where a device opens its session.
    pub session_url: String,
    /// Where a connector opens its link over WebSocket.
    pub link_url: String,
    /// Where a connector opens its link over QUIC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quic: Option<QuicEndpoint>,
    /// The certificate to trust, where the server made its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_pem: Option<String>,
}

/// A UDP endpoint that speaks QUIC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct QuicEndpoint {
    /// `host:port`.
    pub address: String,
    /// The name in its certificate.
    pub server_name: String,
}

impl Region {
    /// A region whose gateway is behind the public origin, without QUIC.
    #[must_use]
    pub fn behind(origin: &PublicOrigin, region: &str) -> Self {
        let socket = origin.as_str().replacen("http", "ws", 1);
        Self {
            region: region.to_owned(),
            session_url: format!("{socket}/v1/session"),
            link_url: format!("{socket}/v1/link"),
            quic: None,
            certificate_pem: None,
        }
    }
}

/// A web origin exactly as browsers write it: `scheme://host[:port]`, lower case, no default port.
///
/// It is https, or http to a loopback host, where no wire can be listened to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicOrigin(String);

impl PublicOrigin {
    /// Checks an origin.
    ///
    /// # Errors
    /// `untrusted_address` when it is of another form, or is http elsewhere than on a loopback host.
    pub fn parse(text: &str) -> Result<Self, ErrorCode> {
        Self::checked(text).ok_or(ErrorCode::UntrustedAddress)
    }

    /// The origin.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn checked(text: &str) -> Option<Self> {
        let uri: Uri = text.parse().ok()?;
        let authority = uri.authority()?;
        let host = authority.host();
        let default_port = match uri.scheme_str()? {
            "https" => 443,
            "http" if is_loopback(host) => 80,
            _ => return None,
        };
        let port = match authority.port_u16() {
            None => String::new(),
            Some(port) if port == default_port || port == 0 => return None,
            Some(port) => format!(":{port}"),
        };
        // Exact equality refuses paths, users, upper case, stray zeros and every other spelling.
        let canonical = format!("{}://{}{port}", uri.scheme_str()?, host.to_ascii_lowercase());
        (!host.is_empty() && canonical == text).then_some(Self(canonical))
    }
}

impl fmt::Display for PublicOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn https_anywhere_and_http_on_loopback_are_trusted() {
        let trusted = [
            "https://relay.example",
            "https://relay.example:8443",
            "http://localhost:8080",
            "http://127.0.0.1:8080",
            "http://[::1]:8080",
        ];
        for origin in trusted {
            assert_eq!(PublicOrigin::parse(origin).map(|origin| origin.0), Ok(origin.to_owned()));
        }
    }

    #[test]
    fn other_addresses_and_other_spellings_are_refused() {
        let refused = [
            "http://relay.example",
            "http://192.168.1.7:8080",
            "http://localhost.example:8080",
            "https://relay.example/",
            "https://relay.example:443",
            "https://Relay.example",
            "https://user@relay.example",
            "https://relay.example/path",
            "https://relay.example?query",
            "wss://relay.example",
            "relay.example",
            "https://",
            "",
        ];
        for origin in refused {
            assert_eq!(PublicOrigin::parse(origin), Err(ErrorCode::UntrustedAddress), "{origin}");
        }
    }

    #[test]
    fn a_region_behind_the_origin_uses_its_sockets() {
        let config = Config::new("https://relay.example", "local").expect("the origin is trusted");
        assert_eq!(config.regions[0].session_url, "wss://relay.example/v1/session");
        assert_eq!(config.regions[0].link_url, "wss://relay.example/v1/link");
    }
}
