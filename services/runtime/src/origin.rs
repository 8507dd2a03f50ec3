//! What address a server may be reached at: https by a name or address with a certificate, or plain http on this
//! computer alone, where no wire can be listened to.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use url::{Host, Url};

/// The one origin that browsers and connectors use, as browsers write it: `scheme://host[:port]`, lower case, no
/// default port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicOrigin {
    origin: String,
    host: String,
    https: bool,
}

/// Why an address is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
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
    /// Checks an origin and brings it into the form that browsers send.
    ///
    /// # Errors
    /// Each [`OriginError`] but the last.
    pub fn parse(text: &str) -> Result<Self, OriginError> {
        let url = Url::parse(text).map_err(|_| OriginError::NotAnOrigin)?;
        let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none() && url.port() != Some(0);
        let anonymous = url.username().is_empty() && url.password().is_none();
        let Some(host) = url.host().filter(|_| bare && anonymous) else {
            return Err(OriginError::NotAnOrigin);
        };
        let https = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return Err(OriginError::NotAnOrigin),
        };
        if !https && !is_loopback(&host) {
            return Err(OriginError::PlainBeyondLoopback(host.to_string()));
        }
        Ok(Self { origin: url.origin().ascii_serialization(), host: host.to_string(), https })
    }

    /// Checks that plain http stays on this computer.
    ///
    /// # Errors
    /// [`OriginError::PlainListenerExposed`].
    pub fn check_listener(&self, listen: SocketAddr) -> Result<(), OriginError> {
        if self.https || listen.ip().is_loopback() { Ok(()) } else { Err(OriginError::PlainListenerExposed(listen)) }
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
        format!("{}{path}", self.origin.replacen("http", "ws", 1))
    }
}

impl fmt::Display for PublicOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.origin)
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
        let taken = [
            "https://flydex.example.org",
            "https://192.0.2.7:8443",
            "http://localhost:48200",
            "http://127.0.0.1",
            "http://[::1]:8080",
        ];
        for origin in taken {
            assert_eq!(PublicOrigin::parse(origin).map(|parsed| parsed.to_string()), Ok(origin.to_owned()));
        }
        for origin in ["http://flydex.example.org", "http://192.168.1.5:80", "http://localhost.example.org"] {
            assert!(matches!(PublicOrigin::parse(origin), Err(OriginError::PlainBeyondLoopback(_))), "{origin}");
        }
    }

    #[test]
    fn what_is_more_or_less_than_an_origin_is_refused() {
        let refused = [
            "flydex.example.org",
            "https://h/path",
            "https://h?query",
            "https://h#fragment",
            "https://user@h",
            "https://h:0",
            "ftp://h",
            "wss://h",
            "https://",
            "",
        ];
        for text in refused {
            assert_eq!(PublicOrigin::parse(text), Err(OriginError::NotAnOrigin), "{text}");
        }
    }

    #[test]
    fn every_spelling_becomes_the_one_that_browsers_send() {
        for spelling in ["https://relay.example/", "https://relay.example:443", "https://Relay.Example"] {
            assert_eq!(PublicOrigin::parse(spelling).unwrap().as_str(), "https://relay.example", "{spelling}");
        }
    }

    #[test]
    fn plain_http_does_not_listen_to_other_computers() {
        let origin = PublicOrigin::parse("http://localhost:48200").unwrap();
        let exposed = "0.0.0.0:48200".parse().unwrap();
        assert_eq!(origin.check_listener(exposed), Err(OriginError::PlainListenerExposed(exposed)));
        assert_eq!(origin.check_listener("127.0.0.1:48200".parse().unwrap()), Ok(()));
        assert_eq!(PublicOrigin::parse("https://h").unwrap().check_listener(exposed), Ok(()));
    }

    #[test]
    fn the_websocket_address_follows_the_scheme() {
        assert_eq!(PublicOrigin::parse("https://http:1").unwrap().websocket("/v1/link"), "wss://http:1/v1/link");
        assert_eq!(
            PublicOrigin::parse("http://localhost:2").unwrap().websocket("/v1/link"),
            "ws://localhost:2/v1/link"
        );
    }
}
