//! Whose address a request comes from: its peer's, or what a trusted proxy says of the one before it.
//!
//! `X-Forwarded-For` grows to the right: each proxy appends the peer that it saw. From the right, entries are
//! believed as long as the party that wrote them is trusted, so the address is the right-most one that is not a
//! trusted proxy's. Everything left of it was written by that client or by proxies nobody vouches for.

use std::convert::Infallible;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{ConnectInfo, OptionalFromRequestParts, Request};
use axum::middleware::{self, Next};
use http::request::Parts;
use http::{Extensions, HeaderMap};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const FORWARDED_FOR: &str = "x-forwarded-for";

/// The address that a request's client has: as [`located`] found it, else the connection's peer. A handler takes
/// `Option<ClientAddress>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientAddress(pub IpAddr);

/// An address range, `address/prefix` or one address.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    first: IpAddr,
    prefix: u8,
}

/// A text is not an address range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an address range such as 10.0.0.0/8 or 2001:db8::/32")]
pub struct CidrError(String);

/// The ranges whose proxies are believed. Cheap to clone; none by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies(Arc<[Cidr]>);

/// Gives each request of a router its [`ClientAddress`], where the peer's [`ConnectInfo`] is known.
pub fn located(router: Router, proxies: TrustedProxies) -> Router {
    router.layer(middleware::from_fn(move |mut request: Request, next: Next| {
        let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip());
        if let Some(peer) = peer {
            let client = proxies.client(peer, request.headers());
            request.extensions_mut().insert(client);
        }
        next.run(request)
    }))
}

// === impl ClientAddress ===

impl ClientAddress {
    /// The client of a request with these extensions; nothing where not even the peer is known.
    #[must_use]
    pub fn of(extensions: &Extensions) -> Option<Self> {
        let peer = || extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| Self(peer.ip()));
        extensions.get::<Self>().copied().or_else(peer)
    }
}

impl<S: Sync> OptionalFromRequestParts<S> for ClientAddress {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Option<Self>, Infallible> {
        Ok(Self::of(&parts.extensions))
    }
}

// === impl TrustedProxies ===

impl TrustedProxies {
    /// The client of a request that came over a connection from `peer`.
    #[must_use]
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> ClientAddress {
        let mut client = peer.to_canonical();
        let written = headers.get_all(FORWARDED_FOR).into_iter().rev();
        // By bytes: a client that writes no text to the left must not hide what is right of it.
        for entry in written.flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b',')) {
            if !self.trusts(client) {
                break;
            }
            let Some(before) = str::from_utf8(entry).ok().and_then(|entry| address(entry.trim())) else {
                break;
            };
            client = before;
        }
        ClientAddress(client)
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|range| range.contains(address))
    }
}

impl FromIterator<Cidr> for TrustedProxies {
    fn from_iter<I: IntoIterator<Item = Cidr>>(ranges: I) -> Self {
        Self(ranges.into_iter().collect())
    }
}

impl<'de> Deserialize<'de> for TrustedProxies {
    /// From a list, or from one text with commas, as an environment variable has it.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            List(Vec<String>),
            Text(String),
        }
        let ranges = match Written::deserialize(deserializer)? {
            Written::List(ranges) => ranges,
            Written::Text(text) => text.split(',').map(|range| range.trim().to_owned()).collect(),
        };
        let ranges = ranges.iter().filter(|range| !range.is_empty()).map(|range| range.parse::<Cidr>());
        ranges.collect::<Result<_, _>>().map_err(D::Error::custom)
    }
}

impl Serialize for TrustedProxies {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(Cidr::to_string))
    }
}

// === impl Cidr ===

impl Cidr {
    fn contains(self, address: IpAddr) -> bool {
        match (self.first, address) {
            (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => {
                network(address, self.prefix) == self.first
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let error = || CidrError(text.to_owned());
        let (address, prefix) = match text.split_once('/') {
            None => (text, None),
            Some((address, prefix)) => (address, Some(prefix.parse::<u8>().map_err(|_| error())?)),
        };
        let address: IpAddr = address.parse().map_err(|_| error())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.unwrap_or(longest);
        if prefix > longest {
            return Err(error());
        }
        Ok(Self { first: network(address, prefix), prefix })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

impl fmt::Debug for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The first address of the range of `prefix` bits that an address is in.
fn network(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from(u32::from(address) & mask))
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from(u128::from(address) & mask))
        }
    }
}

/// An entry of the header: an address, with or without a port.
fn address(entry: &str) -> Option<IpAddr> {
    let bare = entry.parse().ok().or_else(|| entry.parse::<SocketAddr>().ok().map(|socket| socket.ip()));
    let bracketed = || entry.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    bare.or_else(bracketed).map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests;
