//! In which region each machine is linked, as nodes report it, and in which one its owner keeps it.
//!
//! Reports come late, repeated and out of order. A link is newer when its counter, which the connector counts up with
//! every link wherever it is, is higher; or when it began so much later that the connector must have lost its counter. A
//! row is written only when the region changes, so the counter on record is that of the first link there, and every link
//! elsewhere before it has a lower one. The end of a link changes nothing: where a machine was last is where to look.

use flydex_domain::id::{AccountId, MachineId};
use flydex_domain::limits::LINK_COUNTER_LOST_AFTER;
use flydex_domain::scope::AccountScope;
use flydex_domain::time::UnixMillis;

use super::query::query;
use super::row::{integer, millis};
use super::{StoreError, Tx};

const REPORT: &str = "UPDATE machines SET link_region = $1, link_counter = $2, linked_at = $3 \
     WHERE account_id = $4 AND machine_id = $5 AND revoked_at IS NULL \
     AND (link_region IS NULL OR (link_region <> $1 AND (link_counter < $2 OR linked_at < $6)))";

/// A link that a node has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkReport {
    /// The machine's account.
    pub account_id: AccountId,
    /// The machine.
    pub machine_id: MachineId,
    /// The connector's count of its links.
    pub link_counter: u64,
    /// When the link began, by the node's clock.
    pub linked_at: UnixMillis,
}

impl Tx {
    /// Takes what a node of a region reports; the number of machines that moved there. For the cluster's own
    /// processes: a machine that is not in the account it is named with is passed over.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn report_links(
        &mut self,
        region: &str,
        mut reports: Vec<LinkReport>,
        now: UnixMillis,
    ) -> Result<u64, StoreError> {
        // Two reports at once take the rows they share in one order, or they could wait for each other.
        reports.sort_by_key(|report| (report.account_id, report.machine_id));
        let mut moved = 0;
        for report in reports {
            let linked_at = report.linked_at.min(now);
            moved += query(REPORT)
                .bind(region)
                .bind(integer(report.link_counter))
                .bind(millis(linked_at))
                .bind(report.account_id.as_bytes().as_slice())
                .bind(report.machine_id.as_bytes().as_slice())
                .bind(millis(linked_at.minus(LINK_COUNTER_LOST_AFTER)))
                .execute(self)
                .await?
                .rows_affected();
        }
        Ok(moved)
    }

    /// Keeps a machine in one region from its next credential on, or lets it go anywhere.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn pin_machine(
        &mut self,
        scope: AccountScope,
        machine_id: MachineId,
        region: Option<&str>,
    ) -> Result<(), StoreError> {
        self.take_turn(scope).await?;
        let changed = query(
            "UPDATE machines SET region_pin = $1 WHERE account_id = $2 AND machine_id = $3 AND revoked_at IS NULL",
        )
        .bind(region)
        .bind(scope.account_id().as_bytes().as_slice())
        .bind(machine_id.as_bytes().as_slice())
        .execute(self)
        .await?;
        if changed.rows_affected() == 0 { Err(StoreError::NotFound) } else { Ok(()) }
    }
}
