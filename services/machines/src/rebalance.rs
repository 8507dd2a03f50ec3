//! Gives machines to nodes that have fewer, a few at a time, so that a node which has just come gets its share.
//!
//! [`flydex_domain::rebalance`] says how many and to whom. What moves is quiet: its link has attached or is away, and no
//! command is in flight. It goes the way of a drain: the link stays on its socket, and nobody loses anything.

use std::ops::Bound;
use std::sync::Arc;

use flydex_domain::limits::REBALANCE_INTERVAL;
use flydex_domain::rebalance::plan;
use flydex_domain::scope::MachineKey;
use tokio::time::MissedTickBehavior;

use crate::ask;
use crate::hand_over::{self, HandOver};
use crate::handle::Snapshot;
use crate::host::Host;
use crate::metrics::HandOverCause;

/// Looks now and then, until the node drains; what is being handed over then is handed over by the drain.
pub(crate) async fn keep(host: Arc<Host>) {
    let soft = host.context.shutdown.soft();
    let mut interval = tokio::time::interval(REBALANCE_INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick is at once, when nobody knows of this node yet.
    interval.reset();
    let mut last = None;
    let rounds = async {
        loop {
            interval.tick().await;
            round(&host, &mut last).await;
        }
    };
    let _: Option<()> = soft.run_until_cancelled(rounds).await;
}

/// One round; `last` is the machine that moved last, after which the search goes on.
async fn round(host: &Host, last: &mut Option<MachineKey>) {
    let context = &host.context;
    // Without a directory nobody knows who has fewer.
    let Ok(members) = ask::in_time(context.directory.members()).await else { return };
    let mut targets = plan(context.incarnation, host.machine_count(), &members.members).into_iter();
    let mut hand_overs = Vec::new();
    let after = last.map_or(Bound::Unbounded, Bound::Excluded);
    for (machine, handle) in host.machines_after(after) {
        let Some(successor) = targets.as_slice().first().copied() else { break };
        if handle.inspect().await.is_ok_and(Snapshot::is_quiet) {
            targets.next();
            *last = Some(machine);
            hand_overs.push(HandOver { machine, handle, successor: Some(successor) });
        }
    }
    if !hand_overs.is_empty() {
        tracing::info!(count = hand_overs.len(), "machines go to nodes that have fewer");
        hand_over::all(context, HandOverCause::Rebalance, hand_overs).await;
    }
}
