//! Regions that an operator empties. They belong to the server and to no account.

use std::collections::BTreeSet;

use flydex_domain::time::UnixMillis;

use super::query::query;
use super::row::{Columns, millis};
use super::turn::Turn;
use super::{StoreError, Tx};

impl Tx {
    /// The regions that drain.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn region_drains(&mut self) -> Result<BTreeSet<String>, StoreError> {
        let rows = query("SELECT region FROM region_drains").fetch_all(self).await?;
        rows.iter().map(|row| Columns(row).text("region")).collect()
    }

    /// Lets a region drain from now on; one that does already goes on.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn drain_region(&mut self, region: &str, now: UnixMillis) -> Result<(), StoreError> {
        self.take_turn_of(Turn::Server).await?;
        query("INSERT INTO region_drains (region, since) VALUES ($1, $2) ON CONFLICT (region) DO NOTHING")
            .bind(region)
            .bind(millis(now))
            .execute(self)
            .await?;
        Ok(())
    }

    /// Ends a region's drain, if it drains.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn end_region_drain(&mut self, region: &str) -> Result<(), StoreError> {
        self.take_turn_of(Turn::Server).await?;
        query("DELETE FROM region_drains WHERE region = $1").bind(region).execute(self).await?;
        Ok(())
    }
}
