//! The role `web`: the web app at an origin of its own, and nothing else.
//!
//! Whoever serves the app's code could make it misuse the device keys that browsers hold for that origin. So this
//! process holds no secret, reaches no database and no other process, and answers nothing but files: a break-in at
//! control, a gateway or a database does not reach that code.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use flydex_runtime::http;
use flydex_runtime::origin::PublicOrigin;
use flydex_runtime::telemetry::TelemetryConfig;
use serde::{Deserialize, Serialize};
use tower_http::set_header::SetResponseHeaderLayer;

use crate::assets;
use crate::cluster::{self, BadField, Life};
use crate::config::TlsFiles;
use crate::control::{api_origin, is_websocket, listen, public_tls};
use crate::machines::default_admin_listen;

/// Time that answers have to end on a stop: files are small.
const DRAIN_GRACE: Duration = Duration::from_secs(5);

/// One process that serves the web app.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct WebConfig {
    /// Address and port of the web app. Default `127.0.0.1:48230`; port 0 takes a free one.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// The origin that browsers and connectors know the relay by, as control has it. Needed.
    pub public_origin: String,
    /// The origin of the API, as control has it. Needed.
    pub api_origin: String,
    /// `wss://host[:port]` of every region's gateways, or one text with commas: where the app may open sockets. Needed.
    #[serde(deserialize_with = "cluster::list")]
    pub gateways: Vec<String>,
    /// Address of `/livez`, `/readyz` and `/metrics`. Default `127.0.0.1:0`, a free port that is printed.
    #[serde(default = "default_admin_listen")]
    pub admin_listen: SocketAddr,
    /// Certificate for an https origin; needed for one unless `tls_in_front`.
    #[serde(default)]
    pub tls: TlsFiles,
    /// Whether a proxy in front speaks https and this process http to it alone. Default false.
    #[serde(default)]
    pub tls_in_front: bool,
    /// Logs, traces and metrics.
    #[serde(default)]
    pub telemetry: TelemetryConfig,
}

/// Runs until a signal. `say` prints a line for the person who started it.
///
/// # Errors
/// [`BadField`] for a value that cannot be used; else what did not start, and why.
pub async fn run(config: WebConfig, say: impl Fn(&str)) -> anyhow::Result<()> {
    let origin = PublicOrigin::parse(&config.public_origin).map_err(|error| BadField::new("public_origin", error))?;
    let api = api_origin(Some(&config.api_origin), &origin)?;
    if api == origin {
        return Err(BadField::new("api_origin", "it is the web app's own; then control serves the web app").into());
    }
    if let Some(wrong) = config.gateways.iter().find(|url| !is_websocket(url)) {
        return Err(BadField::new("gateways", format!("{wrong} is not wss://host[:port]")).into());
    }
    if !assets::is_embedded() {
        anyhow::bail!("the web app is not part of this build: run `cargo xtask web` and build again");
    }
    let tls = public_tls(&config.tls, &origin, config.tls_in_front)?;
    let life = Life::start(config.admin_listen, &config.telemetry, &say).await?;
    let listener = listen(config.listen).await?;
    let address = listener.local_addr().context("read the listening address")?;
    let elsewhere: Vec<&str> =
        std::iter::once(api.as_str()).chain(config.gateways.iter().map(String::as_str)).collect();
    let router = with_headers(assets::router(&api), &origin, &elsewhere);
    life.shutdown.spawn(http::serve(listener, tls, router, life.shutdown.clone()));
    life.started();
    say(&format!("listening on {address} for {origin}"));
    life.end(DRAIN_GRACE).await
}

/// Adds the security headers of the web app to whatever has none of its own.
pub(crate) fn with_headers(mut router: Router, origin: &PublicOrigin, elsewhere: &[&str]) -> Router {
    for (name, value) in assets::security_headers(origin.is_https(), elsewhere) {
        router = router.layer(SetResponseHeaderLayer::if_not_present(name, value));
    }
    router
}

fn default_listen() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 48230))
}
