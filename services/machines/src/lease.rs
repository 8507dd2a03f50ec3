//! The node's lease in the directory: renewed for as long as the process lives, ended when it has drained.
//!
//! A directory that is away changes nothing for what is here: the connectors are the fence (INV-FENCE). The node goes
//! on, says so once, and renews as before when the directory is back.

use std::sync::Arc;

use flydex_domain::limits::{LEASE_RENEW_INTERVAL, LEASE_SUSPECT_AFTER};
use flydex_domain::placement::{NodeRecord, NodeState};
use flydex_store::directory::{DirectoryError, Renewal};
use tokio::time::MissedTickBehavior;

use crate::host::Host;

/// Keeps the lease until the node has drained, then leaves.
pub(crate) async fn keep(host: Arc<Host>) {
    let hard = host.context.shutdown.hard();
    tokio::select! {
        biased;
        () = hard.cancelled() => {}
        () = keep_and_leave(host) => {}
    }
}

async fn keep_and_leave(host: Arc<Host>) {
    let soft = host.context.shutdown.soft();
    let mut lease = Lease { host, beat: 0, away: false };
    let mut interval = tokio::time::interval(LEASE_RENEW_INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut state = NodeState::Active;
    loop {
        tokio::select! {
            biased;
            () = lease.host.drained() => break,
            // Said at once: no machine shall be placed here any more.
            () = soft.cancelled(), if state == NodeState::Active => state = NodeState::Draining,
            _ = interval.tick() => {}
        }
        lease.renew(state).await;
    }
    lease.leave().await;
}

struct Lease {
    host: Arc<Host>,
    /// Renewals that were answered.
    beat: u64,
    away: bool,
}

impl Lease {
    async fn renew(&mut self, state: NodeState) {
        let context = &self.host.context;
        let record = NodeRecord {
            incarnation: context.incarnation,
            node_id: context.node_id.clone(),
            address: context.address.clone(),
            state,
            machines: self.host.machine_count(),
        };
        let renewing = context.directory.renew(record, self.beat + 1);
        let answer = tokio::time::timeout(LEASE_SUSPECT_AFTER, renewing).await;
        self.answered(answer.unwrap_or(Err(DirectoryError::Unavailable)));
    }

    fn answered(&mut self, answer: Result<Renewal, DirectoryError>) {
        let metrics = &self.host.context.metrics;
        match answer {
            Ok(_) => {
                metrics.lease_renewed(None);
                self.beat += 1;
                if std::mem::take(&mut self.away) {
                    tracing::info!("directory is back");
                }
            }
            Err(error) => {
                metrics.lease_renewed(Some(error.code()));
                if !std::mem::replace(&mut self.away, true) {
                    tracing::warn!(error.code = error.code().name(), "directory is away; the node goes on without it");
                }
            }
        }
    }

    async fn leave(&self) {
        let context = &self.host.context;
        let leaving = context.directory.leave(context.incarnation);
        // A lease that cannot be ended ends by itself.
        if !matches!(tokio::time::timeout(LEASE_SUSPECT_AFTER, leaving).await, Ok(Ok(()))) {
            tracing::debug!("lease was not ended");
        }
    }
}
