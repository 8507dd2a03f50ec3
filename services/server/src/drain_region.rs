//! The role `drain-region`: lets a region drain or be used again, and ends. Gateways hear of it from control.

use anyhow::Context as _;
use flydex_domain::time::UnixMillis;
use flydex_runtime::clock::Clock;
use serde::{Deserialize, Serialize};

use crate::cluster::BadField;
use crate::migrate::DatabaseConfig;

/// What it needs of the file of control, whose other keys it leaves alone.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct DrainConfig {
    /// The database. Needed.
    pub database: DatabaseConfig,
    /// The regions that there are. Without them any name is taken.
    #[serde(default)]
    pub regions: Vec<NamedRegion>,
}

/// A region by its name.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct NamedRegion {
    /// As machines and gateways know it.
    pub region: String,
}

/// Says in the database that a region drains, or no more, and to the person what follows.
///
/// # Errors
/// [`BadField`] for a region that is none; a database that does not answer.
pub async fn run(config: DrainConfig, region: &str, end: bool, say: impl Fn(&str)) -> anyhow::Result<()> {
    let known = &config.regions;
    if !known.is_empty() && known.iter().all(|known| known.region != region) {
        return Err(BadField::new("region", format!("{region} is none of [[regions]]")).into());
    }
    let store = config.database.open().await?;
    let mut tx = store.write().await?;
    if end {
        tx.end_region_drain(region).await.context("end the drain")?;
    } else {
        tx.drain_region(region, UnixMillis(Clock::system().unix_millis())).await.context("begin the drain")?;
    }
    tx.commit().await.context("keep it")?;
    store.close().await;
    say(&if end {
        format!("region {region} takes machines again")
    } else {
        format!("region {region} drains: its gateways tell their machines to go to other regions")
    });
    Ok(())
}
