//! What address the server may be reached at: https by a name or address with a certificate, or plain http on
//! this computer alone.

use std::net::{IpAddr, SocketAddr};

use url::{Host, Url};

/// The one origin that browsers and connectors use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicOrigin {
    origin: String,
    host: String,
    https: bool,
}

/// Why an address is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not `https://host[:port]` or `http://host[:port]`.
    #[error("the public origin must be https://host[:port] without a path, for example https://flydex.example.org")]
    NotAnOrigin,
    /// Plain http beyond this computer.
    #[error(
        "plain http is for this computer alone: at {0} browsers keep device keys only over https. Use \
         --public-origin https://{0} with tls.certificate_file and tls.key_file, or http://localhost"
    )]
    PlainBeyondLoopback(String),
    /// Plain http, but other computers could connect.
    #[error(
        "plain http would be reachable from other computers on {0}: use --listen 127.0.0.1:PORT, or an https origin"
    )]
    PlainListenerExposed(SocketAddr),
}

impl PublicOrigin {
    /// Checks an origin.
    ///
    /// # Errors
    /// Each [`AddressError`] but the last.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let url = Url::parse(text).map_err(|_| AddressError::NotAnOrigin)?;
        let bare = matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none();
        let Some(host) = url.host().filter(|_| bare && url.username().is_empty() && url.password().is_none()) else {
            return Err(AddressError::NotAnOrigin);
        };
        let https = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return Err(AddressError::NotAnOrigin),
        };
        if !https && !is_loopback(&host) {
            return Err(AddressError::PlainBeyondLoopback(host.to_string()));
        }
        Ok(Self { origin: url.origin().ascii_serialization(), host: host.to_string(), https })
    }

    /// Checks that plain http stays on this computer.
    ///
    /// # Errors
    /// [`AddressError::PlainListenerExposed`].
    pub fn check_listener(&self, listen: SocketAddr) -> Result<(), AddressError> {
        if self.https || listen.ip().is_loopback() { Ok(()) } else { Err(AddressError::PlainListenerExposed(listen)) }
    }

    /// The origin as browsers send it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.origin
    }

    /// The host: a name, or an address (IPv6 in brackets).
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Whether TLS is spoken at this origin.
    #[must_use]
    pub const fn is_https(&self) -> bool {
        self.https
    }

    /// The same origin as a WebSocket address with a path.
    #[must_use]
    pub fn websocket(&self, path: &str) -> String {
        let rest = self.origin.trim_start_matches("https").trim_start_matches("http");
        format!("{}{rest}{path}", if self.https { "wss" } else { "ws" })
    }
}

fn is_loopback(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => *name == "localhost",
        Host::Ipv4(address) => IpAddr::V4(*address).is_loopback(),
        Host::Ipv6(address) => IpAddr::V6(*address).is_loopback(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn https_is_taken_anywhere_and_http_on_this_computer_alone() {
        for origin in
            ["https://flydex.example.org", "https://192.0.2.7:8443", "http://localhost:48200", "http://127.0.0.1"]
        {
            assert_eq!(PublicOrigin::parse(origin).map(|parsed| parsed.as_str().to_owned()), Ok(origin.to_owned()));
        }
        for origin in ["http://flydex.example.org", "http://192.168.1.5:80", "http://localhost.example.org"] {
            assert!(matches!(PublicOrigin::parse(origin), Err(AddressError::PlainBeyondLoopback(_))), "{origin}");
        }
        for text in ["flydex.example.org", "https://h/path", "https://user@h", "ftp://h", "https://h#f", ""] {
            assert_eq!(PublicOrigin::parse(text), Err(AddressError::NotAnOrigin), "{text}");
        }
    }

    #[test]
    fn plain_http_does_not_listen_to_other_computers() {
        let origin = PublicOrigin::parse("http://localhost:48200").unwrap();
        let exposed = "0.0.0.0:48200".parse().unwrap();
        assert_eq!(origin.check_listener(exposed), Err(AddressError::PlainListenerExposed(exposed)));
        assert_eq!(origin.check_listener("127.0.0.1:48200".parse().unwrap()), Ok(()));
        assert_eq!(PublicOrigin::parse("https://h").unwrap().check_listener(exposed), Ok(()));
    }

    #[test]
    fn the_websocket_address_follows_the_scheme() {
        assert_eq!(PublicOrigin::parse("https://h:1").unwrap().websocket("/v1/link"), "wss://h:1/v1/link");
        assert_eq!(
            PublicOrigin::parse("http://localhost:2").unwrap().websocket("/v1/link"),
            "ws://localhost:2/v1/link"
        );
    }
}
