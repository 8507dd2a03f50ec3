//! What the control plane is told at its start.

use flydex_runtime::origin::PublicOrigin;
use serde::Serialize;
use utoipa::ToSchema;

use crate::billing::Billing;
use crate::identities::IdentityProvider;

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
    /// How it bills; none: everything is free and without limits.
    pub billing: Option<Billing>,
    /// Where people may sign in as well.
    pub identity_provider: Option<IdentityProvider>,
}

impl Config {
    /// One region, whose gateway is behind the same origin.
    #[must_use]
    pub fn new(public_origin: PublicOrigin, region: &str) -> Self {
        let regions = vec![Region::behind(&public_origin, region)];
        Self {
            public_origin,
            region: region.to_owned(),
            regions,
            account_name: DEFAULT_ACCOUNT_NAME.to_owned(),
            billing: None,
            identity_provider: None,
        }
    }

    /// Whether there is such a region.
    pub(crate) fn has_region(&self, region: &str) -> bool {
        self.regions.iter().any(|known| known.region == region)
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
        Self {
            region: region.to_owned(),
            session_url: origin.websocket("/v1/session"),
            link_url: origin.websocket("/v1/link"),
            quic: None,
            certificate_pem: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_behind_the_origin_uses_its_sockets() {
        let origin = PublicOrigin::parse("https://relay.example").expect("the origin is trusted");
        let config = Config::new(origin, "local");
        assert_eq!(config.regions[0].session_url, "wss://relay.example/v1/session");
        assert_eq!(config.regions[0].link_url, "wss://relay.example/v1/link");
    }
}
