//! The node's lease in the directory: renewed for as long as the process lives, ended when it has drained.
//!
//! A directory that is away changes nothing for what is here: the connectors are the fence (INV-FENCE). The node goes
//! on, says so once, and renews as before when the directory is back. One that has forgotten is told again what this
//! node owns, in batches; where it knows a later ownership, the machine is given up. Now and then everything is asserted
//! without a reason, for an owner is not told when another takes a machine from it by force.

use std::sync::Arc;
use std::time::Duration;

use flydex_domain::limits::{
    ASSERT_ALL_INTERVAL, LEASE_RENEW_INTERVAL, LEASE_SUSPECT_AFTER, REASSERT_BATCH, REASSERT_PER_SECOND_MAX,
};
use flydex_domain::machine::message::Input;
use flydex_domain::placement::{NodeRecord, NodeState, Reassertion};
use flydex_store::directory::{DirectoryError, Holding, Life, Renewal};
use tokio::sync::Mutex;
use tokio::time::MissedTickBehavior;

use crate::ask::in_time;
use crate::handle::MachineHandle;
use crate::host::{Context, Host};

/// [`ASSERT_ALL_INTERVAL`] in renewals.
const BEATS_BETWEEN_ASSERTIONS: u64 = (ASSERT_ALL_INTERVAL.as_millis() / LEASE_RENEW_INTERVAL.as_millis()) as u64;

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
    let mut lease = Lease { host, beat: 0, life: None, away: false, asserting: Arc::default() };
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
    life: Option<Life>,
    /// Held by the task that asserts: one at a time.
    asserting: Arc<Mutex<()>>,
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
        if state == NodeState::Active && !self.away {
            self.assert_what_is_due();
        }
    }

    /// In a task of its own: the lease must be renewed meanwhile.
    fn assert_what_is_due(&self) {
        let Ok(asserting) = Arc::clone(&self.asserting).try_lock_owned() else { return };
        let due = self.host.take_assertions();
        if !due.is_empty() {
            let host = Arc::clone(&self.host);
            self.host.context.shutdown.spawn(async move {
                let soft = host.context.shutdown.soft();
                // What has not been asserted when the drain begins is handed over instead.
                let _ = soft.run_until_cancelled(assert(&host.context, due)).await;
                drop(asserting);
            });
        }
    }

    fn answered(&mut self, answer: Result<Renewal, DirectoryError>) {
        let metrics = &self.host.context.metrics;
        match answer {
            Ok(Renewal { life, continuous }) => {
                metrics.lease_renewed(None);
                self.beat += 1;
                let before = self.life.replace(life);
                if !continuous || before != Some(life) {
                    self.forgotten(before.is_some());
                } else if self.beat.is_multiple_of(BEATS_BETWEEN_ASSERTIONS) {
                    self.host.assert_all();
                }
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

    fn forgotten(&self, registered_before: bool) {
        if registered_before {
            self.host.context.metrics.amnesia();
            tracing::warn!("directory has forgotten; what is owned here is asserted again");
        }
        self.host.assert_all();
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

/// Tells the directory what is owned here; what it does not take is due again.
async fn assert(context: &Context, due: Vec<(MachineHandle, Holding)>) {
    let pace = Duration::from_secs(1) * u32::try_from(REASSERT_BATCH).unwrap_or(u32::MAX) / REASSERT_PER_SECOND_MAX;
    let mut pace = tokio::time::interval(pace);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for batch in due.chunks(REASSERT_BATCH) {
        pace.tick().await;
        let holdings = batch.iter().map(|(_, holding)| holding.clone()).collect();
        match in_time(context.directory.reassert(holdings)).await {
            Ok(answers) => {
                for ((handle, _), answer) in batch.iter().zip(answers) {
                    context.metrics.asserted(&answer);
                    if let Reassertion::Lost(record) = answer {
                        // An actor that has stopped owns nothing.
                        let _ = handle.send_own(Input::Overtaken(record));
                    }
                }
            }
            Err(error) => {
                tracing::debug!(error.code = error.code().name(), count = batch.len(), "ownerships were not asserted");
                for (handle, _) in batch {
                    handle.assert_later(context);
                }
            }
        }
    }
}
