//! Every role in one process: SQLite, an in-process directory, and gateway and actors joined by the same gRPC
//! service as in a cluster, over an in-memory duplex.

mod node;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use flydex_control::{QuicEndpoint, Region};
use flydex_domain::id::{Incarnation, NodeId};
use flydex_domain::token::TokenVerifier;
use flydex_runtime::admin::{self, Readiness};
use flydex_runtime::client::located;
use flydex_runtime::clock::Clock;
use flydex_runtime::http::{self, trace::traced};
use flydex_runtime::lifecycle::Shutdown;
use flydex_runtime::origin::PublicOrigin;
use flydex_runtime::telemetry::Telemetry;
use flydex_runtime::tls::Identity;
use flydex_store::directory::{Directory, InProcessDirectory};
use flydex_store::sql::Sql;
use tokio::net::TcpListener;

use crate::config::{AllConfig, IdentityProviderConfig};
use crate::{assets, quic, web};

/// Time that sessions and links have to go elsewhere on a stop; here there is nowhere, so it is short.
const DRAIN_GRACE: Duration = Duration::from_secs(5);

/// The condition of readiness that the process neither starts nor stops.
const LIFE: &str = "life";

/// Runs until a signal. `say` prints a line for the person who started it.
///
/// # Errors
/// When an address cannot be used, a file cannot be opened or a role does not start; each names its cause.
pub async fn run(config: AllConfig, owner_link: bool, say: impl Fn(&str)) -> anyhow::Result<()> {
    let telemetry = Arc::new(Telemetry::install("flydex-server", &config.telemetry).context("install telemetry")?);
    let (listener, origin) = listen(&config).await?;
    let address = listener.local_addr().context("read the listening address")?;
    let identity = identity(&config, &origin)?;
    let shutdown = Shutdown::new();
    let readiness = Readiness::default();
    readiness.fails(LIFE, "still starting");

    let roles = Roles::start(&config, &origin, address, &identity, &shutdown).await?;
    let tls = if origin.is_https() { Some(Arc::new(identity.server_config(&[b"h2", b"http/1.1"])?)) } else { None };
    let router = located(roles.router(&origin), config.trusted_proxies.clone());
    shutdown.spawn(http::serve(listener, tls, router, shutdown.clone()));
    watch(&readiness, roles.sql.clone(), roles.gateway.handle());
    let admin = TcpListener::bind(config.admin_listen).await.context("listen on the admin address")?;
    let admin_address = admin.local_addr().context("read the admin address")?;
    let admin_router = admin::router(readiness.clone(), Arc::clone(&telemetry));
    shutdown.spawn(http::serve(admin, None, admin_router, shutdown.clone()));
    readiness.holds(LIFE);

    announce(&config, &origin, &identity, admin_address, &say);
    roles.announce_owner_link(owner_link, &say).await?;
    shutdown.on_signals().await.context("listen for signals")?;
    readiness.fails(LIFE, "stopping");
    if !shutdown.drain(DRAIN_GRACE).await {
        tracing::warn!("stopped with tasks still running");
    }
    telemetry.shutdown();
    Ok(())
}

async fn listen(config: &AllConfig) -> anyhow::Result<(TcpListener, PublicOrigin)> {
    let configured = config.public_origin.as_deref().map(PublicOrigin::parse).transpose()?;
    if let Some(origin) = &configured {
        origin.check_listener(config.listen)?;
    }
    let listener = TcpListener::bind(config.listen).await.with_context(|| format!("listen on {}", config.listen))?;
    let address = listener.local_addr().context("read the listening address")?;
    let origin = match configured {
        Some(origin) => origin,
        None => PublicOrigin::parse(&format!("http://localhost:{}", address.port()))?,
    };
    origin.check_listener(address)?;
    Ok((listener, origin))
}

fn identity(config: &AllConfig, origin: &PublicOrigin) -> anyhow::Result<Identity> {
    match (&config.tls.certificate_file, &config.tls.key_file) {
        (Some(certificate), Some(key)) => Identity::from_files(certificate, key).context("load the certificate"),
        (None, None) => {
            let name = origin.host().trim_matches(['[', ']']);
            Identity::self_made(&config.data_dir.join("tls"), name).context("make a certificate")
        }
        _ => anyhow::bail!("tls.certificate_file and tls.key_file go together: set both or neither"),
    }
}

fn announce(config: &AllConfig, origin: &PublicOrigin, identity: &Identity, admin: SocketAddr, say: &impl Fn(&str)) {
    if !assets::is_embedded() {
        say("the web app is not part of this build: run `cargo xtask web` and build again");
    }
    if !origin.is_https() {
        say("plain http, on this computer alone: for phones use --public-origin https://...");
    } else if identity.self_made_pem().is_some() {
        let folder = config.data_dir.join("tls");
        say(&format!("self-made certificate: browsers warn until they trust the .crt file in {}", folder.display()));
    }
    say(&format!("admin on http://{admin}"));
    say(&format!("listening on {}", origin.as_str()));
}

struct Roles {
    sql: Sql,
    control: flydex_control::Service,
    gateway: flydex_gateway::Service,
}

impl Roles {
    async fn start(
        config: &AllConfig,
        origin: &PublicOrigin,
        address: SocketAddr,
        identity: &Identity,
        shutdown: &Shutdown,
    ) -> anyhow::Result<Self> {
        let clock = Clock::system();
        let node_id = NodeId::try_from("all".to_owned()).context("name the node")?;
        let directory: Arc<dyn Directory> = Arc::new(InProcessDirectory::default());
        let sql = Sql::open_sqlite(&config.data_dir.join("flydex.sqlite")).await.context("open the database")?;
        let control_config = control_config(config, origin, address, identity)?;
        let control = flydex_control::Service::start(control_config, sql.clone(), clock.clone(), shutdown.clone())
            .await
            .context("start the control plane")?;
        let verifier: Arc<TokenVerifier> = control.verifier();

        let machines = flydex_machines::Service::new(
            flydex_machines::Config {
                node_id: node_id.clone(),
                incarnation: Incarnation::from_bytes(rand::random()),
                address: "memory://all".to_owned(),
                region: config.region.clone(),
            },
            Arc::clone(&directory),
            Arc::clone(&verifier),
            clock.clone(),
            shutdown.clone(),
        );
        let machines_handle = machines.handle();
        let dial = node::in_memory(machines.into_grpc(), shutdown);
        let gateway = flydex_gateway::Service::new(
            flydex_gateway::Config {
                gateway_id: node_id,
                region: config.region.clone(),
                public_origin: origin.as_str().to_owned(),
                public_url: origin.websocket(""),
                drain_for: DRAIN_GRACE,
            },
            flydex_gateway::Ways::to(dial),
            directory,
            verifier,
            clock,
            shutdown.clone(),
        );
        if config.quic {
            let (links, endpoint) = (gateway.clone(), quic::endpoint(address, identity)?);
            shutdown.spawn(async move { links.serve_quic(endpoint).await });
        }
        node::forward_revocations(control.clone(), gateway.handle(), machines_handle, shutdown);
        Ok(Self { sql, control, gateway })
    }

    fn router(&self, origin: &PublicOrigin) -> Router {
        let router = self.control.router().merge(traced(self.gateway.router())).merge(assets::router(origin));
        web::with_headers(router, origin, &[])
    }

    async fn announce_owner_link(&self, wanted: bool, say: &impl Fn(&str)) -> anyhow::Result<()> {
        if let Some(link) = self.control.owner_link() {
            say(&format!("first sign-in at {link}"));
        } else if wanted {
            let link = self.control.new_owner_link().await.context("make an owner link")?;
            say(&format!("sign in at {link}"));
        }
        Ok(())
    }
}

/// Adds what must hold for new work to be served.
fn watch(readiness: &Readiness, sql: Sql, gateway: flydex_gateway::Handle) {
    readiness.look("database", "it does not answer", move || {
        let sql = sql.clone();
        async move { sql.ping().await.is_ok() }
    });
    readiness.look("node", "none is reached on every stream", move || std::future::ready(gateway.is_ready()));
}

fn control_config(
    config: &AllConfig,
    origin: &PublicOrigin,
    address: SocketAddr,
    identity: &Identity,
) -> anyhow::Result<flydex_control::Config> {
    let quic = config.quic.then(|| QuicEndpoint {
        address: format!("{}:{}", origin.host(), address.port()),
        server_name: origin.host().trim_matches(['[', ']']).to_owned(),
    });
    let region = Region {
        region: config.region.clone(),
        session_url: origin.websocket("/v1/session"),
        link_url: origin.websocket("/v1/link"),
        quic,
        certificate_pem: identity.self_made_pem().map(str::to_owned),
    };
    Ok(flydex_control::Config {
        public_origin: origin.clone(),
        region: config.region.clone(),
        regions: vec![region],
        account_name: config.account_name.clone(),
        billing: None,
        identity_provider: config.identity_provider.as_ref().map(IdentityProviderConfig::read).transpose()?,
    })
}

#[cfg(test)]
mod tests;
