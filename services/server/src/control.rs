//! The role `control`: the API and the web app in public, and what gateways and nodes ask inside.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use flydex_control::{QuicEndpoint, Region};
use flydex_runtime::client::{TrustedProxies, located};
use flydex_runtime::clock::Clock;
use flydex_runtime::http as server;
use flydex_runtime::mutual::{self, Allowed, MutualConfig, Role};
use flydex_runtime::origin::PublicOrigin;
use flydex_runtime::telemetry::TelemetryConfig;
use flydex_runtime::tls::Identity;
use flydex_store::sql::Sql;
use http::{HeaderValue, Method, header};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tonic::service::Routes;
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::billing::BillingConfig;
use crate::cluster::{self, BadField, Life};
use crate::config::{IdentityProviderConfig, TlsFiles};
use crate::machines::default_admin_listen;
use crate::migrate::DatabaseConfig;
use crate::{assets, web};

/// Time that requests have to end on a stop; a long poll takes at most 10 s.
const DRAIN_GRACE: Duration = Duration::from_secs(12);
/// Time that a browser remembers what pages of the web app's origin may call: an hour, in which a roll changes nothing.
const PREFLIGHT_KEPT: Duration = Duration::from_secs(3600);

/// One control process of several on one database.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ControlConfig {
    /// Address and port of the API and the web app. Default `127.0.0.1:48220`; port 0 takes a free one.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// Address and port for gateways and nodes, over mTLS. Default `0.0.0.0:48221`.
    #[serde(default = "default_internal_listen")]
    pub internal_listen: SocketAddr,
    /// The origin that browsers and connectors know the relay by, `https://host[:port]`; `http` on this computer alone.
    /// It is the web app's. Needed.
    pub public_origin: String,
    /// The origin of this API where the web app has one of its own, served by `flydex-server web`. Cookies travel between
    /// the two only within one site: `https://app.example.org` and `https://api.example.org`, say. Default: the public
    /// origin, and then this process serves the web app as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_origin: Option<String>,
    /// Address of `/livez`, `/readyz` and `/metrics`. Default `127.0.0.1:0`, a free port that is printed.
    #[serde(default = "default_admin_listen")]
    pub admin_listen: SocketAddr,
    /// Name of the account that the first sign-in makes. Default `home`.
    #[serde(default = "default_account_name")]
    pub account_name: String,
    /// Address ranges of proxies in front that are believed about whom they speak for. Default none.
    #[serde(default)]
    pub trusted_proxies: TrustedProxies,
    /// Every region, at least one; new machines are recorded in the first.
    pub regions: Vec<RegionConfig>,
    /// Certificate for an https origin; needed for one unless `tls_in_front`.
    #[serde(default)]
    pub tls: TlsFiles,
    /// Whether a proxy in front speaks https and this process http to it alone. Default false.
    #[serde(default)]
    pub tls_in_front: bool,
    /// Where people may sign in as well. Default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity_provider: Option<IdentityProviderConfig>,
    /// The database. Needed.
    pub database: DatabaseConfig,
    /// Who this process is, and whom it trusts. Needed; the role in the certificate is `control`.
    pub mutual: MutualConfig,
    /// Plans and the payment provider. Default none: no limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub billing: Option<BillingConfig>,
    /// Logs, traces and metrics.
    #[serde(default)]
    pub telemetry: TelemetryConfig,
}

/// Where a region's gateways are reached.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RegionConfig {
    /// The region, as in the certificates of its gateways and nodes.
    pub region: String,
    /// `wss://host[:port]` of the region's gateways. Default: the public origin's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway_url: Option<String>,
    /// `host:port` of QUIC. Default none: links use WebSocket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quic_address: Option<String>,
    /// The name in the certificate of QUIC. Default: the host of `quic_address`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quic_server_name: Option<String>,
    /// A certificate in PEM that clients must be told to trust, when no public authority made it. Default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_file: Option<PathBuf>,
}

/// Runs until a signal. `say` prints a line for the person who started it.
///
/// # Errors
/// [`BadField`] for a value that cannot be used; else what did not start, and why.
pub async fn run(config: ControlConfig, owner_link: bool, say: impl Fn(&str)) -> anyhow::Result<()> {
    let origin = PublicOrigin::parse(&config.public_origin).map_err(|error| BadField::new("public_origin", error))?;
    let api = api_origin(config.api_origin.as_deref(), &origin)?;
    let regions = regions(&config.regions, &origin)?;
    let tls = public_tls(&config.tls, &api, config.tls_in_front)?;
    let life = Life::start(config.admin_listen, &config.telemetry, &say).await?;
    let (mutual, node_id) = cluster::member(&config.mutual, Role::Control, &life)?;
    life.readiness.fails("database", "it was not reached yet");
    let sql = tokio::select! {
        sql = config.database.open() => sql?,
        signalled = life.shutdown.on_signals() => return signalled.context("listen for signals"),
    };
    let pinged = sql.clone();
    life.readiness.look("database", "it does not answer", move || {
        let sql = pinged.clone();
        async move { sql.ping().await.is_ok() }
    });
    let control = start(&config, &origin, regions, sql, &life).await?;

    let listener = listen(config.listen).await?;
    let address = listener.local_addr().context("read the listening address")?;
    let router = located(public_router(&control, &config, &origin, &api), config.trusted_proxies.clone());
    life.shutdown.spawn(server::serve(listener, tls, router, life.shutdown.clone()));
    let internal = listen(config.internal_listen).await?;
    let internal_address = internal.local_addr().context("read the internal address")?;
    let allowed = Allowed { roles: vec![Role::Gateway, Role::Machines], region: None };
    let router = Routes::new(control.internal()).into_axum_router();
    let stop = life.shutdown.soft();
    life.shutdown.spawn(mutual::serve(internal, mutual, allowed, router, stop, life.shutdown.clone()));
    life.started();
    say(&format!("control {node_id}: internal on {internal_address}"));
    say(&format!("listening on {address} for {api}"));
    let link = if owner_link { Some(control.new_owner_link().await?) } else { control.owner_link() };
    if let Some(link) = link {
        say(&format!("sign in at {link}"));
    }
    life.end(DRAIN_GRACE).await
}

async fn start(
    config: &ControlConfig,
    origin: &PublicOrigin,
    regions: Vec<Region>,
    sql: Sql,
    life: &Life,
) -> anyhow::Result<flydex_control::Service> {
    let control = flydex_control::Config {
        public_origin: origin.clone(),
        region: regions[0].region.clone(),
        regions,
        account_name: config.account_name.clone(),
        billing: config.billing.as_ref().map(BillingConfig::read).transpose()?,
        identity_provider: config.identity_provider.as_ref().map(IdentityProviderConfig::read).transpose()?,
    };
    flydex_control::Service::start(control, sql, Clock::system(), life.shutdown.clone())
        .await
        .context("start the control plane")
}

fn public_router(
    control: &flydex_control::Service,
    config: &ControlConfig,
    origin: &PublicOrigin,
    api: &PublicOrigin,
) -> Router {
    if api != origin {
        return for_pages_of(origin, web::with_headers(control.router(), api, &[]));
    }
    let gateways: Vec<&str> = config.regions.iter().filter_map(|region| region.gateway_url.as_deref()).collect();
    web::with_headers(control.router().merge(assets::router(origin)), origin, &gateways)
}

/// Lets pages of one other origin call, with their cookie; for every other one the browser refuses.
fn for_pages_of(origin: &PublicOrigin, api: Router) -> Router {
    let origin = HeaderValue::from_str(origin.as_str()).expect("an origin that was parsed is a header value");
    let allowed = CorsLayer::new()
        .allow_origin(AllowOrigin::exact(origin))
        .allow_credentials(true)
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers([header::CONTENT_TYPE])
        .max_age(PREFLIGHT_KEPT);
    api.layer(allowed)
}

/// Where the API is: an origin of its own, or the web app's.
pub(crate) fn api_origin(configured: Option<&str>, origin: &PublicOrigin) -> Result<PublicOrigin, BadField> {
    let Some(configured) = configured else { return Ok(origin.clone()) };
    let api = PublicOrigin::parse(configured).map_err(|error| BadField::new("api_origin", error))?;
    if origin.is_https() && !api.is_https() {
        return Err(BadField::new("api_origin", "the web app's origin is https, and so must this one be"));
    }
    Ok(api)
}

/// TLS in public, where it ends here.
pub(crate) fn public_tls(
    files: &TlsFiles,
    origin: &PublicOrigin,
    in_front: bool,
) -> Result<Option<Arc<rustls::ServerConfig>>, BadField> {
    if in_front || !origin.is_https() {
        return Ok(None);
    }
    Ok(Some(Arc::new(identity(files)?.server_config(&[b"h2", b"http/1.1"]).map_err(|e| BadField::new("tls", e))?)))
}

/// The certificate for the public, from its files.
pub(crate) fn identity(files: &TlsFiles) -> Result<Identity, BadField> {
    let (Some(certificate), Some(key)) = (&files.certificate_file, &files.key_file) else {
        return Err(BadField::new("tls", "an https origin needs tls.certificate_file and tls.key_file"));
    };
    Identity::from_files(certificate, key)
        .map_err(|error| BadField::new("tls", flydex_runtime::telemetry::log::chain(&error)))
}

fn regions(configured: &[RegionConfig], origin: &PublicOrigin) -> Result<Vec<Region>, BadField> {
    if configured.is_empty() {
        return Err(BadField::new("regions", "name at least one"));
    }
    configured.iter().map(|region| region.public(origin)).collect()
}

impl RegionConfig {
    fn public(&self, origin: &PublicOrigin) -> Result<Region, BadField> {
        let url = |path: &str| match &self.gateway_url {
            Some(url) if is_websocket(url) => Ok(format!("{url}{path}")),
            Some(_) => Err(BadField::new("regions.gateway_url", "it is not wss://host[:port]")),
            None => Ok(origin.websocket(path)),
        };
        let quic = self.quic_address.as_ref().map(|address| {
            let (host, _) =
                address.rsplit_once(':').ok_or_else(|| BadField::new("regions.quic_address", "it is not host:port"))?;
            let server_name = self.quic_server_name.clone().unwrap_or_else(|| host.trim_matches(['[', ']']).to_owned());
            Ok(QuicEndpoint { address: address.clone(), server_name })
        });
        let certificate_pem = self.certificate_file.as_ref().map(|path| {
            std::fs::read_to_string(path).map_err(|error| {
                BadField::new("regions.certificate_file", format!("cannot read {}: {error}", path.display()))
            })
        });
        Ok(Region {
            region: self.region.clone(),
            session_url: url("/v1/session")?,
            link_url: url("/v1/link")?,
            quic: quic.transpose()?,
            certificate_pem: certificate_pem.transpose()?,
        })
    }
}

/// Whether it is a WebSocket origin, so that it can stand in a header as well; `ws` on this computer alone.
pub(crate) fn is_websocket(url: &str) -> bool {
    let parsed = match url.split_once("://") {
        Some(("wss", rest)) => PublicOrigin::parse(&format!("https://{rest}")),
        Some(("ws", rest)) => PublicOrigin::parse(&format!("http://{rest}")),
        _ => return false,
    };
    parsed.is_ok_and(|origin| origin.websocket("") == url)
}

pub(crate) async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("listen on {address}"))
}

fn default_listen() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 48220))
}

fn default_internal_listen() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::UNSPECIFIED, 48221))
}

fn default_account_name() -> String {
    "home".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(gateway_url: Option<&str>) -> RegionConfig {
        RegionConfig {
            region: "eu".to_owned(),
            gateway_url: gateway_url.map(str::to_owned),
            quic_address: Some("eu.flydex.example:443".to_owned()),
            quic_server_name: None,
            certificate_file: None,
        }
    }

    #[test]
    fn a_region_is_reached_at_its_gateways_or_at_the_public_origin() {
        let origin = PublicOrigin::parse("https://flydex.example").unwrap();
        let own = region(Some("wss://eu.flydex.example")).public(&origin).unwrap();
        assert_eq!(own.session_url, "wss://eu.flydex.example/v1/session");
        assert_eq!(own.quic.unwrap().server_name, "eu.flydex.example");
        assert_eq!(region(None).public(&origin).unwrap().link_url, "wss://flydex.example/v1/link");
    }

    #[test]
    fn a_gateway_address_that_is_no_websocket_origin_is_named() {
        let origin = PublicOrigin::parse("https://flydex.example").unwrap();
        for url in ["https://eu.example", "wss://eu.example/path", "wss://eu.example; script-src *", "eu.example"] {
            let refused = region(Some(url)).public(&origin).unwrap_err();
            assert!(refused.to_string().starts_with("regions.gateway_url"), "{url}");
        }
    }
}
