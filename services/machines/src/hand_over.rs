//! Machines given to other nodes, each at the moment when nothing is under way to it: all by a node that goes, some by
//! one that has more than its share.
//!
//! A machine takes nothing new, then waits until its connector has what was forwarded, then is let go in the directory;
//! only then everybody is sent to the successor, its link first, and the successor thus need not take it by force. What
//! has no receipt yet is not lost: the connector has journalled it, and whoever asked asks the successor again under the
//! same id.
//!
//! A machine is without an owner from the moment it is let go until its successor has it. Only
//! [`HAND_OVERS_OPEN_MAX`] are at one time: a successor that is flooded would keep all of them waiting.

use flydex_domain::id::Incarnation;
use flydex_domain::limits::{
    ACTOR_CALL_TIMEOUT, HAND_OVER_LOOK_INTERVAL, HAND_OVER_TAKEN_WAIT, HAND_OVER_WAIT, HAND_OVERS_AT_ONCE,
    HAND_OVERS_OPEN_MAX,
};
use flydex_domain::machine::message::Input;
use flydex_domain::placement::{Member, Place, place};
use flydex_domain::scope::MachineKey;
use futures_util::StreamExt as _;
use tokio::sync::Semaphore;

use crate::ask;
use crate::handle::{MachineHandle, Snapshot};
use crate::host::Context;
use crate::metrics::HandOverCause;

/// The nodes that may take the machines of one that goes.
pub(crate) struct Successors {
    own: Incarnation,
    members: Vec<Member>,
}

impl Successors {
    /// Those that the directory knows; without a directory there is none, and everybody looks for a node anew.
    pub(crate) async fn look(context: &Context) -> Self {
        let members = ask::in_time(context.directory.members()).await.map(|members| members.members);
        Self { own: context.incarnation, members: members.unwrap_or_default() }
    }

    /// The node for one machine, which counts as having it from then on. The machine's id is random, and so serves as
    /// the draw of two candidates.
    pub(crate) fn choose(&mut self, machine: MachineKey) -> Option<Incarnation> {
        let [.., a, b, c, d, e, f, g, h] = *machine.machine_id().as_bytes();
        let draws = [[a, b, c, d], [e, f, g, h]].map(|bytes| u64::from(u32::from_be_bytes(bytes)));
        let node = match place(None, &self.members, |node| node == self.own, draws) {
            Place::Owner(node) | Place::Candidate { node, .. } => node,
            Place::Nowhere => return None,
        };
        let chosen = self.members.iter_mut().find(|member| member.record.incarnation == node);
        if let Some(chosen) = chosen {
            chosen.record.machines = chosen.record.machines.saturating_add(1);
        }
        Some(node)
    }
}

/// One machine, and the node that is to have it.
pub(crate) struct HandOver {
    pub(crate) machine: MachineKey,
    pub(crate) handle: MachineHandle,
    pub(crate) successor: Option<Incarnation>,
}

/// Hands machines over and waits for the end of their actors.
pub(crate) async fn all(context: &Context, cause: HandOverCause, hand_overs: Vec<HandOver>) {
    let open = Semaphore::new(HAND_OVERS_OPEN_MAX);
    let each = hand_overs.into_iter().map(|hand_over| async {
        one(context, hand_over, &open).await;
        context.metrics.handed_over(cause);
    });
    futures_util::stream::iter(each).buffer_unordered(HAND_OVERS_AT_ONCE).collect::<()>().await;
}

async fn one(context: &Context, hand_over: HandOver, open: &Semaphore) {
    let HandOver { machine, handle, successor } = hand_over;
    // An actor that has stopped has nothing to hand over; that it is gone shows below.
    let _ = handle.send_own(Input::HandOver);
    if successor.is_none() {
        let _ = handle.send_own(Input::Drain { successor });
        handle.retire_and_wait(ACTOR_CALL_TIMEOUT).await;
        return;
    }
    let _ = tokio::time::timeout(HAND_OVER_WAIT, delivered(&handle)).await;
    // The semaphore is never closed.
    let _open = open.acquire().await;
    let carries = handle.inspect().await.is_ok_and(Snapshot::carries);
    ask::release(context, machine).await;
    let _ = handle.send_own(Input::Drain { successor });
    handle.retire_and_wait(ACTOR_CALL_TIMEOUT).await;
    if carries {
        let _ = tokio::time::timeout(HAND_OVER_TAKEN_WAIT, taken(context, machine)).await;
    }
}

/// Completes when the connector has everything that was forwarded to it, or the actor is gone.
async fn delivered(handle: &MachineHandle) {
    while handle.inspect().await.is_ok_and(|seen| seen.undelivered > 0) {
        tokio::time::sleep(HAND_OVER_LOOK_INTERVAL).await;
    }
}

/// Completes when another node owns the machine, or the directory does not say.
async fn taken(context: &Context, machine: MachineKey) {
    while let Ok(record) = ask::in_time(context.directory.find(machine)).await
        && record.is_some_and(|record| record.holder.is_none())
    {
        tokio::time::sleep(HAND_OVER_LOOK_INTERVAL).await;
    }
}
