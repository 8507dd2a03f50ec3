//! A cluster on this computer: gateways, nodes and control as processes of their own, with a real Redis for each region
//! and a real PostgreSQL, and a [`balancer`] before whatever clients reach.
//!
//! ```text
//! clients --> balancer of a region --> its gateways --mTLS--> its nodes --> its Redis
//!    |------> balancer of control --> control processes --> PostgreSQL
//!    '------> balancer of the web app --> its process, which knows nobody
//! ```

pub mod balancer;
pub mod fault;
pub mod island;
pub mod part;
mod plan;
pub mod region;
pub mod suite;

use std::path::Path;

use flydex_store::sql::Sql;
use futures_util::future::try_join_all;
use tempfile::TempDir;

use self::balancer::Balancer;
use self::island::Island;
use self::part::Part;
use self::plan::Plan;
use crate::account;
use crate::postgres::Postgres;
use crate::redis::{Redis, Sentinel};

/// One region of a cluster.
#[derive(Clone, Debug)]
pub struct RegionSettings {
    /// Its name.
    pub name: &'static str,
    /// How many gateways it has.
    pub gateways: usize,
    /// How many nodes it has.
    pub nodes: usize,
}

/// What a cluster is made of.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The regions, best first.
    pub regions: Vec<RegionSettings>,
    /// How many control processes there are.
    pub controls: usize,
    /// Whether each region's Redis is a master and a replica under a sentinel.
    pub sentinel: bool,
    /// Port of the web app; 0 takes a free one.
    pub port: u16,
    /// Whether links may use QUIC.
    pub quic: bool,
    /// Whether the last node of the first region lives in a network of its own, which can be cut off. Needs root.
    pub island: bool,
    /// Where spans go.
    pub otlp_endpoint: Option<String>,
    /// What is logged, where it is not as shipped.
    pub log_filter: Option<String>,
    /// What the payment provider signs with; none: nothing is sold.
    pub webhook_secret: Option<&'static str>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            regions: vec![RegionSettings { name: "one", gateways: 3, nodes: 3 }],
            controls: 2,
            sentinel: false,
            port: 0,
            quic: true,
            island: false,
            otlp_endpoint: None,
            log_filter: None,
            webhook_secret: None,
        }
    }
}

/// A running cluster. Everything ends when it is dropped.
pub struct Cluster {
    // In this order they end.
    /// The regions, in the order of the settings.
    pub regions: Vec<Region>,
    /// The web app.
    pub web: Part,
    /// The control processes.
    pub controls: Vec<Part>,
    /// Before the web app: an origin of its own.
    pub app: Balancer,
    /// Before the control processes.
    pub front: Balancer,
    /// What control stands on.
    pub postgres: Postgres,
    island: Option<Island>,
    origin: String,
    certificate_pem: String,
    folder: TempDir,
}

/// A region of a running cluster.
pub struct Region {
    /// Its name.
    pub name: String,
    /// Before its gateways.
    pub balancer: Balancer,
    /// Its gateways.
    pub gateways: Vec<Part>,
    /// Its nodes.
    pub nodes: Vec<Part>,
    /// Its directory.
    pub store: Store,
}

/// The Redis of a region.
pub enum Store {
    /// One alone.
    Alone(Box<Redis>),
    /// A master and a replica under a sentinel.
    Sentinel(Box<Sentinel>),
}

impl Cluster {
    /// Starts everything and waits until every process is ready.
    ///
    /// # Errors
    /// When something does not come up; the error holds what it wrote.
    pub async fn start(settings: Settings) -> anyhow::Result<Self> {
        Plan::draw(settings).await?.build().await
    }

    /// The origin of the web app.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The origin of the API.
    #[must_use]
    pub fn api_origin(&self) -> String {
        format!("https://localhost:{}", self.front.port())
    }

    /// The certificate that clients must be told to trust.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Where its configurations, certificates and logs are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The first region.
    ///
    /// # Panics
    /// Never: there is one.
    #[must_use]
    pub fn region(&self) -> &Region {
        &self.regions[0]
    }

    /// The first region, to do something to it.
    ///
    /// # Panics
    /// Never: there is one.
    pub fn region_mut(&mut self) -> &mut Region {
        &mut self.regions[0]
    }

    /// The network of the node that can be cut off.
    #[must_use]
    pub const fn island(&self) -> Option<&Island> {
        self.island.as_ref()
    }

    /// Every process of ours.
    pub fn parts(&self) -> impl Iterator<Item = &Part> {
        let regions = self.regions.iter().flat_map(|region| region.gateways.iter().chain(&region.nodes));
        regions.chain(&self.controls).chain([&self.web])
    }

    /// The logs of all of them may hold lines with this text at WARN or above, for that reason.
    pub fn may_log(&mut self, text: &'static str, why: &'static str) {
        let regions = self.regions.iter_mut();
        let gateways_and_nodes = regions.flat_map(|region| region.gateways.iter_mut().chain(&mut region.nodes));
        for part in gateways_and_nodes.chain(&mut self.controls).chain([&mut self.web]) {
            part.may_log(text, why);
        }
    }

    /// Makes an account with an owner, and returns the one-time link that signs the owner in.
    ///
    /// # Errors
    /// When the database does not take it.
    pub async fn account(&self) -> anyhow::Result<String> {
        let sql = Sql::connect_postgres(&self.postgres.url().parse()?).await?;
        account::create(sql, &self.origin).await
    }

    /// Stops every process as an orchestrator would: what follows control first, then control.
    ///
    /// # Errors
    /// When one does not end in time.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let regions = self.regions.iter_mut();
        stop_all(regions.flat_map(|region| region.gateways.iter_mut().chain(&mut region.nodes)).collect()).await?;
        stop_all(self.controls.iter_mut().chain([&mut self.web]).collect()).await
    }
}

async fn stop_all(parts: Vec<&mut Part>) -> anyhow::Result<()> {
    try_join_all(parts.into_iter().filter(|part| part.runs()).map(Part::stop)).await.map(drop)
}
