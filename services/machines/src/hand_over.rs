//! A draining node gives its machines to others, each at the moment when nothing is under way to it.
//!
//! A machine takes nothing new, then waits until its connector has what was forwarded, then is let go in the directory;
//! only then everybody is sent to the successor, which thus need not take it by force. What has no receipt yet is not
//! lost: the connector has journalled it, and whoever asked asks the successor again under the same id.

use flydex_domain::id::Incarnation;
use flydex_domain::limits::{ACTOR_CALL_TIMEOUT, HAND_OVER_LOOK_INTERVAL, HAND_OVER_WAIT};
use flydex_domain::machine::message::Input;
use flydex_domain::placement::{Member, Place, place};
use flydex_domain::scope::MachineKey;

use crate::ask;
use crate::handle::MachineHandle;
use crate::host::Context;

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

    /// The node for one machine. Its id is random, and so serves as the draw of two candidates.
    pub(crate) fn of(&self, machine: MachineKey) -> Option<Incarnation> {
        let [.., a, b, c, d, e, f, g, h] = *machine.machine_id().as_bytes();
        let draws = [[a, b, c, d], [e, f, g, h]].map(|bytes| u64::from(u32::from_be_bytes(bytes)));
        match place(None, &self.members, |node| node == self.own, draws) {
            Place::Owner(node) | Place::Candidate { node, .. } => Some(node),
            Place::Nowhere => None,
        }
    }
}

/// Hands one machine over and waits for the end of its actor.
pub(crate) async fn one(context: &Context, machine: MachineKey, handle: MachineHandle, successor: Option<Incarnation>) {
    // An actor that has stopped has nothing to hand over; that it is gone shows below.
    let _ = handle.send_own(Input::HandOver);
    if successor.is_some() {
        let _ = tokio::time::timeout(HAND_OVER_WAIT, delivered(&handle)).await;
        ask::release(context, machine).await;
    }
    let _ = handle.send_own(Input::Drain { successor });
    handle.retire_and_wait(ACTOR_CALL_TIMEOUT).await;
}

/// Completes when the connector has everything that was forwarded to it, or the actor is gone.
async fn delivered(handle: &MachineHandle) {
    while handle.inspect().await.is_ok_and(|seen| seen.undelivered > 0) {
        tokio::time::sleep(HAND_OVER_LOOK_INTERVAL).await;
    }
}
