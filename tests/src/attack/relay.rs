//! The relay that is attacked: one process, or a cluster.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use flydex_loadtest::account::Account;
use flydex_loadtest::device::Device;
use flydex_loadtest::session::Session;
use flydex_store::sql::Sql;
use reqwest::Method;
use serde_json::json;

use super::tally::Tally;
use crate::cluster::{Cluster, Region};
use crate::process::Process;
use crate::server::{Server, Settings, StoppedServer};
use crate::{account, canary};

/// The region of a relay with every role in one process.
pub const REGION: &str = "local";

/// What is attacked.
#[derive(Clone)]
pub enum Ground {
    /// A relay with every role in one process, a fresh one for each attack.
    One,
    /// A cluster that all attacks share, each with an account of its own.
    Cluster(Arc<Cluster>),
}

impl Ground {
    /// How many regions it has.
    #[must_use]
    pub fn regions(&self) -> usize {
        match self {
            Self::One => 1,
            Self::Cluster(cluster) => cluster.regions.len(),
        }
    }
}

/// Where the roles of a relay are.
pub enum Place {
    /// In one process.
    One(Box<Server>),
    /// In a cluster's.
    Cluster(Arc<Cluster>),
}

impl Place {
    /// The origin of the web app, by which a relay is known.
    #[must_use]
    pub fn origin(&self) -> &str {
        match self {
            Self::One(server) => server.origin(),
            Self::Cluster(cluster) => cluster.origin(),
        }
    }

    /// The process, where it is one.
    ///
    /// # Panics
    /// Where it is many.
    #[must_use]
    pub fn process(&self) -> &Process {
        match self {
            Self::One(server) => server.process(),
            Self::Cluster(_) => panic!("a cluster is many processes"),
        }
    }

    /// Its folder, where it is one process.
    ///
    /// # Panics
    /// Where it is many.
    #[must_use]
    pub fn data(&self) -> &Path {
        match self {
            Self::One(server) => server.data(),
            Self::Cluster(_) => panic!("a cluster has no folder of data"),
        }
    }

    /// Stops the process, where it is one.
    ///
    /// # Errors
    /// When it does not end in time, or is many.
    pub async fn stop(self) -> anyhow::Result<StoppedServer> {
        match self {
            Self::One(server) => server.stop().await,
            Self::Cluster(_) => bail!("a cluster that others use is not stopped"),
        }
    }

    /// What signs the certificate that it shows, where that is not known anyway.
    #[must_use]
    pub fn certificate_pem(&self) -> Option<&str> {
        match self {
            Self::One(_) => None,
            Self::Cluster(cluster) => Some(cluster.certificate_pem()),
        }
    }
}

/// A relay with one account.
pub struct Relay {
    /// Where it is.
    pub server: Place,
    /// The account's owner, signed in.
    pub account: Account,
    /// What attacks were stopped by.
    pub tally: Tally,
}

impl Relay {
    /// A fresh one in one process.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(Settings::default()).await
    }

    /// The same with these settings.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start_with(settings: Settings) -> anyhow::Result<Self> {
        flydex_runtime::tls::install_provider();
        let server = Server::start_with(settings).await?;
        let account = sign_in(server.owner_link(), None).await?;
        Ok(Self { server: Place::One(Box::new(server)), account, tally: Tally::default() })
    }

    /// A fresh one, or a fresh account of the cluster.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn on(ground: &Ground, tally: &Tally) -> anyhow::Result<Self> {
        let relay = match ground {
            Ground::One => Self::start().await?,
            Ground::Cluster(cluster) => {
                let account = sign_in(&cluster.account().await?, Some(cluster.certificate_pem())).await?;
                Self { server: Place::Cluster(cluster.clone()), account, tally: Tally::default() }
            }
        };
        Ok(Self { tally: tally.clone(), ..relay })
    }

    /// Another account of the same relay.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn another_account(&self) -> anyhow::Result<Account> {
        let link = match &self.server {
            Place::One(server) => {
                let sql = Sql::open_sqlite(&server.data().join("flydex.sqlite")).await?;
                account::create(sql, server.origin()).await?
            }
            Place::Cluster(cluster) => cluster.account().await?,
        };
        sign_in(&link, self.server.certificate_pem()).await
    }

    /// Somebody who follows an invitation.
    ///
    /// # Errors
    /// When it lets nobody in.
    pub async fn join(&self, link: &str) -> anyhow::Result<Account> {
        Account::join(link, self.server.certificate_pem()).await
    }

    /// The logs of its processes may hold lines with this text at WARN or above, for that reason.
    ///
    /// # Panics
    /// Where a process of it does not run.
    pub fn may_log(&self, text: &'static str, why: &'static str) {
        match &self.server {
            Place::One(server) => server.process().may_log(text, why),
            Place::Cluster(cluster) => {
                for part in cluster.parts().filter(|part| part.runs()) {
                    part.process().expect("a process that runs").may_log(text, why);
                }
            }
        }
    }

    /// The same relay with its data and an empty memory.
    ///
    /// # Errors
    /// When it does not end or come up in time.
    pub async fn restarted(self) -> anyhow::Result<Self> {
        let server = Place::One(Box::new(self.server.stop().await?.start().await?));
        Ok(Self { server, ..self })
    }

    /// The same relay, after `meanwhile` without one.
    ///
    /// # Errors
    /// When it does not end or come up in time, or what happens meanwhile fails.
    pub async fn away(self, meanwhile: impl AsyncFnOnce() -> anyhow::Result<()>) -> anyhow::Result<Self> {
        let stopped = self.server.stop().await?;
        meanwhile().await?;
        let server = Place::One(Box::new(stopped.start().await?));
        Ok(Self { server, ..self })
    }

    /// The regions, the one in which everything is first.
    #[must_use]
    pub fn regions(&self) -> Vec<String> {
        match &self.server {
            Place::One(_) => vec![REGION.to_owned()],
            Place::Cluster(cluster) => cluster.regions.iter().map(|region| region.name.clone()).collect(),
        }
    }

    /// Where sessions of the first region are opened.
    #[must_use]
    pub fn session_url(&self) -> String {
        self.session_urls().swap_remove(0)
    }

    /// Where sessions of each region are opened.
    #[must_use]
    pub fn session_urls(&self) -> Vec<String> {
        match &self.server {
            Place::One(server) => vec![format!("{}/v1/session", server.origin().replacen("http", "ws", 1))],
            Place::Cluster(cluster) => {
                let url = |region: &Region| format!("wss://localhost:{}/v1/session", region.balancer.port());
                cluster.regions.iter().map(url).collect()
            }
        }
    }

    /// Another browser that is signed in to the same account.
    ///
    /// # Errors
    /// When it cannot sign in.
    pub async fn another_browser(&self) -> anyhow::Result<Account> {
        let (status, link) = self.account.call(Method::POST, "/api/sign-in-links", Some(json!({}))).await?;
        ensure!(status.is_success(), "no link but {link}");
        sign_in(link["url"].as_str().context("a link")?, self.server.certificate_pem()).await
    }

    /// A socket on which nothing was said.
    ///
    /// # Errors
    /// When it is not opened.
    pub async fn socket(&self) -> anyhow::Result<Session> {
        self.socket_in(0, self.server.origin()).await
    }

    /// A socket in the region of that number, by a page of that origin.
    ///
    /// # Errors
    /// When it is not opened.
    pub async fn socket_in(&self, region: usize, origin: &str) -> anyhow::Result<Session> {
        let urls = self.session_urls();
        Session::connect_trusting(&urls[region], origin, self.server.certificate_pem()).await
    }

    /// An open session.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn session(&self, account: &Account, device: &Device) -> anyhow::Result<Session> {
        let (ticket, grant) = account.ticket(device, &self.regions()[0]).await?;
        for (what, token) in [("ticket", &ticket), ("grant", &grant)] {
            canary::plant_signed(what, token);
        }
        let mut session = self.socket().await?;
        session.enter(&ticket, &grant, device, account.origin()).await?;
        Ok(session)
    }
}

/// Signs in with a one-time link.
///
/// # Errors
/// When it is refused.
pub async fn sign_in(link: &str, extra_pem: Option<&str>) -> anyhow::Result<Account> {
    let account = Account::sign_in_trusting(link, extra_pem).await?;
    canary::plant_token("cookie", account.cookie());
    Ok(account)
}
