//! How a cluster comes to be: ports, certificates and configurations first, then the processes in the order of what they
//! need.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use flydex_runtime::clock::Clock;
use flydex_runtime::mutual::authority::Authority;
use flydex_runtime::mutual::{PeerIdentity, Role};
use flydex_runtime::tls::Identity;
use futures_util::future::try_join_all;
use tempfile::TempDir;
use toml::{Table, Value};

use super::balancer::Balancer;
use super::island::Island;
use super::part::{Kind, Part};
use super::{Cluster, Region, RegionSettings, Settings, Store};
use crate::postgres::Postgres;
use crate::process::{self, Process};
use crate::redis::{self, MASTER_NAME, Redis, Sentinel};

/// Lifetime of the certificates between processes: longer than any run.
const CERTIFICATE_LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);
/// Gateways and nodes beside those that run, so that a rolling restart begins a new one before it ends an old one.
const SPARES: usize = 1;
/// Where everything listens.
const LOOPBACK: &str = "127.0.0.1";

/// What is known before anything runs.
pub(super) struct Plan {
    settings: Settings,
    folder: TempDir,
    authority: Authority,
    /// Where the web app will be: an origin of its own.
    app: Balancer,
    front: Balancer,
    origin: String,
    certificate_pem: String,
    island: Option<Island>,
    /// Where each control process listens: in public, and inside.
    control_ports: Vec<(u16, u16)>,
}

impl Plan {
    pub(super) async fn draw(settings: Settings) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("fx-cluster").tempdir()?;
        let identity = Identity::self_made(folder.path(), "localhost")?;
        let (app, front) = tokio::try_join!(Balancer::start(settings.port), Balancer::start(0))?;
        let origin = format!("https://localhost:{}", app.port());
        let mut control_ports = Vec::new();
        for _ in 0..settings.controls {
            control_ports.push((redis::free_port().await?, redis::free_port().await?));
        }
        let certificate_pem = identity.self_made_pem().context("the certificate is self-made")?.to_owned();
        let island = if settings.island { Some(Island::rise().await?) } else { None };
        let authority = Authority::new()?;
        Ok(Self { settings, folder, authority, app, front, origin, certificate_pem, island, control_ports })
    }

    pub(super) async fn build(self) -> anyhow::Result<Cluster> {
        let (postgres, stores) = tokio::try_join!(Postgres::start(), self.stores())?;
        self.migrate(&postgres).await?;
        let mut regions = Vec::new();
        for (settings, store) in self.settings.regions.iter().zip(stores) {
            regions.push(self.region(settings, store).await?);
        }
        let mut controls = self.controls(&postgres, &regions)?;
        try_join_all(controls.iter_mut().map(Part::start)).await?;
        for control in &controls {
            self.front.put(&control.name, control.address()?, control.admin()?);
        }
        let mut web = self.web(&regions)?;
        web.start().await?;
        self.app.put(&web.name, web.address()?, web.admin()?);
        for (region, settings) in regions.iter_mut().zip(&self.settings.regions) {
            try_join_all(region.nodes[..settings.nodes].iter_mut().map(Part::start)).await?;
            try_join_all(region.gateways[..settings.gateways].iter_mut().map(Part::start)).await?;
            for gateway in &region.gateways[..settings.gateways] {
                region.balancer.put(&gateway.name, gateway.address()?, gateway.admin()?);
            }
        }
        Ok(Cluster {
            regions,
            web,
            controls,
            app: self.app,
            front: self.front,
            postgres,
            island: self.island,
            origin: self.origin,
            certificate_pem: self.certificate_pem,
            folder: self.folder,
        })
    }

    async fn stores(&self) -> anyhow::Result<Vec<Store>> {
        let mut stores = Vec::new();
        for _ in &self.settings.regions {
            stores.push(if self.settings.sentinel {
                Store::Sentinel(Box::new(Sentinel::start().await?))
            } else {
                // The island is not loopback, where alone Redis takes clients without a password.
                let reached = ["--bind", "0.0.0.0", "--protected-mode", "no"];
                let arguments = if self.island.is_some() { &reached[..] } else { &[] };
                Store::Alone(Box::new(Redis::start_with(arguments).await?))
            });
        }
        Ok(stores)
    }

    async fn migrate(&self, postgres: &Postgres) -> anyhow::Result<()> {
        let path = self.folder.path().join("migrate.toml");
        fs::write(&path, toml::to_string(&self.database(postgres))?)?;
        let mut command = tokio::process::Command::new(process::binary("flydex-server")?);
        let mut migrate = Process::start("migrate", command.args(["migrate", "--config"]).arg(&path))?;
        let status = migrate.ended().await?;
        anyhow::ensure!(status.success(), "{}", migrate.story());
        Ok(())
    }

    fn database(&self, postgres: &Postgres) -> Table {
        table([("database", table([("url", postgres.url().into())]).into())])
    }

    async fn region(&self, settings: &RegionSettings, store: Store) -> anyhow::Result<Region> {
        let balancer = Balancer::start(0).await?;
        let mut nodes = Vec::new();
        for number in 1..=settings.nodes + SPARES {
            let name = format!("{}-node-{number}", settings.name);
            let island = self.island.as_ref().filter(|_| number == settings.nodes);
            let mut config = self.member(&name, settings.name, Role::Machines, &store, island)?;
            let host = island.map_or(LOOPBACK, Island::address);
            config
                .extend(table([("listen", format!("{host}:0").into()), ("admin_listen", format!("{host}:0").into())]));
            nodes.push(self.part(&name, Kind::Node, &config, island)?);
        }
        let mut gateways = Vec::new();
        for number in 1..=settings.gateways + SPARES {
            let name = format!("{}-gateway-{number}", settings.name);
            let mut config = self.member(&name, settings.name, Role::Gateway, &store, None)?;
            config.extend(table([
                ("listen", format!("{LOOPBACK}:0").into()),
                ("public_origin", self.origin.clone().into()),
                ("quic", self.settings.quic.into()),
                ("tls", self.tls().into()),
            ]));
            gateways.push(self.part(&name, Kind::Gateway, &config, None)?);
        }
        Ok(Region { name: settings.name.to_owned(), balancer, gateways, nodes, store })
    }

    fn controls(&self, postgres: &Postgres, regions: &[Region]) -> anyhow::Result<Vec<Part>> {
        let regions: Vec<Value> = regions.iter().map(|region| self.entrance(region).into()).collect();
        let inside = if self.island.is_some() { "0.0.0.0" } else { LOOPBACK };
        let mut parts = Vec::new();
        for (index, (public, internal)) in self.control_ports.iter().enumerate() {
            let name = format!("control-{}", index + 1);
            let mut config = self.database(postgres);
            config.extend(self.common(&name, "global", Role::Control)?);
            config.extend(table([
                ("listen", format!("{LOOPBACK}:{public}").into()),
                ("internal_listen", format!("{inside}:{internal}").into()),
                ("public_origin", self.origin.clone().into()),
                ("api_origin", self.api_origin().into()),
                ("regions", regions.clone().into()),
                ("tls", self.tls().into()),
            ]));
            if let Some(secret) = self.settings.webhook_secret {
                config.insert("billing".to_owned(), self.billing(secret)?.into());
            }
            parts.push(self.part(&name, Kind::Control, &config, None)?);
        }
        Ok(parts)
    }

    fn web(&self, regions: &[Region]) -> anyhow::Result<Part> {
        let gateways: Vec<Value> = regions.iter().map(|region| gateway_url(region).into()).collect();
        let config = table([
            ("listen", format!("{LOOPBACK}:0").into()),
            ("public_origin", self.origin.clone().into()),
            ("api_origin", self.api_origin().into()),
            ("gateways", gateways.into()),
            ("tls", self.tls().into()),
        ]);
        self.part("web", Kind::Web, &config, None)
    }

    fn api_origin(&self) -> String {
        format!("https://localhost:{}", self.front.port())
    }

    /// What clients are told of a region.
    fn entrance(&self, region: &Region) -> Table {
        let port = region.balancer.port();
        let mut entrance = table([
            ("region", region.name.clone().into()),
            ("gateway_url", gateway_url(region).into()),
            ("certificate_file", self.file("localhost.crt")),
        ]);
        if self.settings.quic {
            entrance.insert("quic_address".to_owned(), format!("localhost:{port}").into());
        }
        entrance
    }

    /// What gateways and nodes have in common.
    fn member(
        &self,
        name: &str,
        region: &str,
        role: Role,
        store: &Store,
        island: Option<&Island>,
    ) -> anyhow::Result<Table> {
        let mut config = self.common(name, region, role)?;
        let host = island.map_or(LOOPBACK, Island::mainland);
        let control = self.control_ports.iter().map(|(_, internal)| Value::from(format!("{host}:{internal}")));
        let control: Vec<_> = control.collect();
        config.extend(table([("control", control.into()), ("redis", store.config(host).into())]));
        Ok(config)
    }

    fn common(&self, name: &str, region: &str, role: Role) -> anyhow::Result<Table> {
        let process = PeerIdentity { region: region.to_owned(), role, node_id: name.to_owned() };
        let now = Clock::system().unix_millis();
        let mutual = self.authority.write(self.folder.path(), &process, now, CERTIFICATE_LIFETIME)?;
        let mut config = table([("mutual", Value::try_from(mutual)?)]);
        let Settings { otlp_endpoint, log_filter, .. } = &self.settings;
        let telemetry = [("otlp_endpoint", otlp_endpoint), ("log_filter", log_filter)];
        let telemetry =
            telemetry.into_iter().filter_map(|(name, given)| Some((name.to_owned(), given.clone()?.into())));
        config.insert("telemetry".to_owned(), Value::Table(telemetry.collect()));
        Ok(config)
    }

    fn part(&self, name: &str, kind: Kind, config: &Table, island: Option<&Island>) -> anyhow::Result<Part> {
        Part::new(name, kind, self.folder.path(), config, island.map(Island::name))
    }

    /// One of each is free, and a team gets ten.
    fn billing(&self, secret: &str) -> anyhow::Result<Table> {
        fs::write(self.folder.path().join("webhook"), secret)?;
        let limits = |count: i64| [("machines", Value::from(count)), ("seats", count.into())];
        let [machines, seats] = limits(10);
        let team = table([("name", "team".into()), ("price", "price_team".into()), machines, seats]);
        let plans: Vec<Value> = vec![team.into()];
        Ok(table([
            ("webhook_secret_file", self.file("webhook")),
            ("free", table(limits(1)).into()),
            ("plans", plans.into()),
        ]))
    }

    fn tls(&self) -> Table {
        table([("certificate_file", self.file("localhost.crt")), ("key_file", self.file("localhost.key"))])
    }

    fn file(&self, name: &str) -> Value {
        let path: PathBuf = self.folder.path().join(name);
        path.to_string_lossy().into_owned().into()
    }
}

impl Store {
    /// How gateways and nodes are told of it that reach it at `host`.
    fn config(&self, host: &str) -> Table {
        match self {
            Self::Alone(redis) => table([("url", format!("redis://{host}:{}", redis.port()).into())]),
            Self::Sentinel(sentinel) => table([
                ("url", sentinel.master.url().into()),
                ("master", MASTER_NAME.into()),
                ("sentinels", vec![Value::from(sentinel.url())].into()),
            ]),
        }
    }
}

fn gateway_url(region: &Region) -> String {
    format!("wss://localhost:{}", region.balancer.port())
}

fn table<const N: usize>(entries: [(&str, Value); N]) -> Table {
    entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}
