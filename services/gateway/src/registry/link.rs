//! A link, and the node that it is open at.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flydex_domain::id::{Incarnation, LinkId};
use flydex_domain::limits::{LINK_REPLACE_SPREAD, RETRY_AFTER};
use flydex_domain::scope::MachineKey;
use flydex_proto::v1;
use tokio::sync::Notify;

use super::forwards::Forwards;
use crate::ending::{Ending, Refusal};
use crate::node::{Bound, Stream};
use crate::outbox::Outbox;

/// A link after its welcome.
pub(crate) struct Link {
    pub(crate) link_id: LinkId,
    pub(crate) machine: MachineKey,
    /// Of the credential that opened it.
    pub(crate) serial: u64,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) ending: Ending,
    place: Mutex<Place>,
    homeless: Notify,
}

#[derive(Default)]
struct Place {
    bound: Option<Bound>,
    forwards: Forwards,
    /// The node on whose lost stream it was last.
    lost: Option<Incarnation>,
    /// How long to wait before the next place is looked for.
    wait: Duration,
}

impl Link {
    pub(crate) fn new(
        link_id: LinkId,
        machine: MachineKey,
        serial: u64,
        outbox: Arc<Outbox>,
        ending: Ending,
    ) -> Arc<Self> {
        let homeless = Notify::new();
        homeless.notify_one();
        Arc::new(Self { link_id, machine, serial, outbox, ending, place: Mutex::default(), homeless })
    }

    /// The stream that it is open on.
    pub(crate) fn bound(&self) -> Option<Bound> {
        self.place().bound.clone()
    }

    /// Whether it is open on that stream.
    pub(crate) fn is_on(&self, stream: &Stream) -> bool {
        self.place().bound.as_ref().is_some_and(|bound| bound.is_on(stream))
    }

    /// Waits until a place is to be looked for: at first, and whenever one was lost.
    pub(crate) async fn homeless(&self) {
        self.homeless.notified().await;
    }

    /// The node on whose lost stream it was last.
    pub(crate) fn lost(&self) -> Option<Incarnation> {
        self.place().lost
    }

    /// Binds it to its place.
    pub(crate) fn bind(&self, bound: Bound) {
        self.place().bound = Some(bound);
    }

    /// Takes the place back that it was just bound to. False when it is bound there no more.
    pub(crate) fn unbind(&self) -> bool {
        self.place().bound.take().is_some()
    }

    /// The node does not own the machine: looks for another place, unless it was looked for too often. Whether it does.
    pub(crate) fn forward(&self, bound: &Bound) -> bool {
        let mut place = self.place();
        if !place.bound.as_ref().is_some_and(|at| at.is_same(bound)) {
            return false;
        }
        place.bound = None;
        place.lost = None;
        place.wait = Duration::ZERO;
        let again = place.forwards.again();
        if again {
            self.homeless.notify_one();
        } else {
            self.ending.begin(Refusal::moving());
        }
        again
    }

    /// The node takes the machine no more and does not know who does: looks for another place after a moment, or ends
    /// when it was looked for too often, or when the node advises a longer wait.
    pub(crate) fn move_later(&self, bound: &Bound, refusal: Refusal) {
        if Duration::from_millis(refusal.retry_after_ms.into()) > RETRY_AFTER {
            self.ending.begin(refusal);
        } else if self.forward(bound) {
            self.place().wait = Duration::from_millis(Refusal::moving().retry_after_ms.into());
        }
    }

    /// How long to wait before a place is looked for, once.
    pub(crate) fn take_wait(&self) -> Duration {
        std::mem::take(&mut self.place().wait)
    }

    /// Looks for another place if it was open on a stream which has ended.
    pub(crate) fn stream_lost(&self, stream: &Stream) {
        let mut place = self.place();
        if let Some(bound) = place.bound.take_if(|bound| bound.is_on(stream)) {
            place.lost = Some(bound.node());
            place.wait = LINK_REPLACE_SPREAD.mul_f64(rand::random());
            self.homeless.notify_one();
        }
    }

    /// Queues a message for the connector; one that reads too slowly is cut off.
    pub(crate) fn send(&self, kind: v1::link_down::Kind) {
        if let Err(error) = self.outbox.send(&v1::LinkDown { kind: Some(kind) }) {
            self.ending.begin(error.code());
        }
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
