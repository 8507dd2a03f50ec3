//! The only way to a machine actor.
//!
//! A ractor mailbox has no bound, so nothing but this module sends to one. What peers send takes a permit for
//! one message and for its bytes, which travels with it and is given back when the actor has handled it; without
//! room the sender is told [`SendError::Overloaded`] at once (INV-BOUND). What ends things (a session closed, a
//! link lost, a tick, a revocation) needs no room: it is bounded by what was let in before.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flydex_domain::limits::{ACTOR_CALL_TIMEOUT, ACTOR_MAILBOX_BYTES_MAX, ACTOR_MAILBOX_MESSAGES_MAX};
use flydex_domain::machine::message::Input;
use flydex_domain::status::MachineStatus;
use flydex_store::directory::Holding;
use ractor::{ActorId, ActorRef, RpcReplyPort};

use crate::host::Context;
use crate::peer::Peer;
use crate::report::Linked;

/// A message to a machine actor.
pub(crate) enum Envelope {
    /// Something happens to the machine.
    Input {
        /// What.
        input: Box<Input>,
        /// The stream that it came over; none when it is the node's own word.
        peer: Option<Arc<Peer>>,
        /// Its place in the mailbox, given back when it is dropped.
        permit: Option<Permit>,
    },
    /// Somebody looks.
    Inspect(RpcReplyPort<Snapshot>),
    /// A defect, for tests of what follows one.
    #[cfg(test)]
    Fail,
}

/// The part of a mailbox that a message holds; given back on drop.
pub(crate) struct Permit {
    gate: Arc<Gate>,
    held: u64,
}

/// What an actor says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The machine's status.
    pub status: MachineStatus,
    /// Sessions that have it open.
    pub sessions: usize,
    /// Commands in flight.
    pub in_flight: usize,
    /// Commands that the connector has not yet said to have.
    pub undelivered: usize,
}

impl Snapshot {
    /// Whether somebody has the machine open, or its link is here.
    pub(crate) fn carries(self) -> bool {
        self.sessions > 0 || self.status != MachineStatus::Offline
    }

    /// Whether it can move unnoticed: nothing is in flight, and no link is about to attach.
    pub(crate) fn is_quiet(self) -> bool {
        self.carries() && self.in_flight == 0 && self.status != MachineStatus::Connecting
    }
}

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SendError {
    /// The mailbox is full; nothing was taken.
    #[error("machine actor is overloaded")]
    Overloaded,
    /// The actor has stopped.
    #[error("machine actor has stopped")]
    Stopped,
}

/// Why a question has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No actor, or it stopped.
    #[error("machine actor is not there")]
    NotThere,
    /// No answer within [`ACTOR_CALL_TIMEOUT`].
    #[error("machine actor does not answer")]
    TimedOut,
}

/// A way to one machine actor. Cheap to clone.
#[derive(Clone)]
pub(crate) struct MachineHandle {
    actor: ActorRef<Envelope>,
    gate: Arc<Gate>,
}

/// One message in [`Gate::held`]. Bytes stay below it: twice the bound fits.
const ONE_MESSAGE: u64 = 1 << 32;
const _: () = assert!((ACTOR_MAILBOX_BYTES_MAX as u64) * 2 < ONE_MESSAGE, "bytes do not run over into messages");

/// What an actor and its senders share.
pub(crate) struct Gate {
    /// What the mailbox holds: messages in the upper half, their bytes in the lower.
    held: AtomicU64,
    /// When a tick is due, in milliseconds of the node's own count; `u64::MAX` for never.
    tick_at: AtomicU64,
    idle: AtomicBool,
    holding: Mutex<Option<Holding>>,
    /// The newest link that attached.
    linked: Mutex<Option<Linked>>,
    /// The directory is to be told of the holding.
    assert_due: AtomicBool,
}

impl Gate {
    /// The bounds of one mailbox, all of it free.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            held: AtomicU64::new(0),
            tick_at: AtomicU64::new(u64::MAX),
            idle: AtomicBool::new(false),
            holding: Mutex::default(),
            linked: Mutex::default(),
            assert_due: AtomicBool::new(false),
        })
    }

    /// The actor says when it wants a tick, and whether it has nothing to do.
    pub(crate) fn publish(&self, tick_at: Option<u64>, idle: bool) {
        self.tick_at.store(tick_at.unwrap_or(u64::MAX), Ordering::Release);
        self.idle.store(idle, Ordering::Release);
    }

    /// The actor says what it owns.
    pub(crate) fn hold(&self, holding: Option<Holding>) {
        *self.holding() = holding;
    }

    /// The actor says since when it has its link.
    pub(crate) fn linked(&self, linked: Linked) {
        *self.linked.lock().unwrap_or_else(PoisonError::into_inner) = Some(linked);
    }

    fn holding(&self) -> MutexGuard<'_, Option<Holding>> {
        // Every change under the lock is one assignment.
        self.holding.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn permit(self: &Arc<Self>, bytes: usize) -> Option<Permit> {
        if bytes > ACTOR_MAILBOX_BYTES_MAX {
            return None;
        }
        let more = ONE_MESSAGE + bytes as u64;
        let fits = |held: u64| {
            let held = held + more;
            let bounded = held / ONE_MESSAGE <= ACTOR_MAILBOX_MESSAGES_MAX as u64
                && held % ONE_MESSAGE <= ACTOR_MAILBOX_BYTES_MAX as u64;
            bounded.then_some(held)
        };
        self.held.fetch_update(Ordering::AcqRel, Ordering::Relaxed, fits).ok()?;
        Some(Permit { gate: Arc::clone(self), held: more })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.gate.held.fetch_sub(self.held, Ordering::Release);
    }
}

impl MachineHandle {
    pub(crate) const fn new(actor: ActorRef<Envelope>, gate: Arc<Gate>) -> Self {
        Self { actor, gate }
    }

    /// Sends what a peer sent, if there is room for its bytes.
    pub(crate) fn send(&self, peer: &Arc<Peer>, input: Input, bytes: usize) -> Result<(), SendError> {
        let permit = self.gate.permit(bytes).ok_or(SendError::Overloaded)?;
        self.deliver(Envelope::Input { input: Box::new(input), peer: Some(Arc::clone(peer)), permit: Some(permit) })
    }

    /// Sends that something of a peer has ended: always taken.
    pub(crate) fn send_ending(&self, peer: &Arc<Peer>, input: Input) -> Result<(), SendError> {
        self.deliver(Envelope::Input { input: Box::new(input), peer: Some(Arc::clone(peer)), permit: None })
    }

    /// Sends the node's own word: always taken.
    pub(crate) fn send_own(&self, input: Input) -> Result<(), SendError> {
        self.deliver(Envelope::Input { input: Box::new(input), peer: None, permit: None })
    }

    /// Asks the actor what it is doing.
    pub(crate) async fn inspect(&self) -> Result<Snapshot, CallError> {
        self.inspect_within(ACTOR_CALL_TIMEOUT).await
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that calls, always with a deadline")]
    async fn inspect_within(&self, timeout: Duration) -> Result<Snapshot, CallError> {
        match self.actor.call(Envelope::Inspect, Some(timeout)).await {
            Ok(ractor::rpc::CallResult::Success(snapshot)) => Ok(snapshot),
            Ok(ractor::rpc::CallResult::Timeout) => Err(CallError::TimedOut),
            Ok(ractor::rpc::CallResult::SenderError) | Err(_) => Err(CallError::NotThere),
        }
    }

    /// Whether a tick is due at this moment of the node's count; it is then taken to be sent.
    pub(crate) fn take_tick(&self, now: u64) -> bool {
        let tick_at = self.gate.tick_at.load(Ordering::Acquire);
        if tick_at > now {
            return false;
        }
        // The exchange fails when the actor has just published another time: then that one is looked at next.
        let taken = self.gate.tick_at.compare_exchange(tick_at, u64::MAX, Ordering::AcqRel, Ordering::Relaxed);
        taken.is_ok()
    }

    /// Whether the actor has long had nothing to do and nothing waits for it.
    pub(crate) fn is_idle(&self) -> bool {
        self.gate.idle.load(Ordering::Acquire) && self.gate.held.load(Ordering::Acquire) == 0
    }

    /// Has the directory told of what is owned here, with the next renewal that it answers.
    pub(crate) fn assert_later(&self, context: &Context) {
        self.gate.assert_due.store(true, Ordering::Release);
        context.assertions_due.store(true, Ordering::Release);
    }

    /// What the directory is to be told; it is then taken to be told.
    pub(crate) fn take_assertion(&self) -> Option<Holding> {
        if self.gate.assert_due.swap(false, Ordering::AcqRel) { self.gate.holding().clone() } else { None }
    }

    /// The link that the machine has.
    pub(crate) fn link(&self) -> Option<Linked> {
        let counter = self.gate.holding().as_ref()?.link.as_ref()?.counter;
        let linked = *self.gate.linked.lock().unwrap_or_else(PoisonError::into_inner);
        linked.filter(|linked| linked.counter == counter)
    }

    pub(crate) fn actor_id(&self) -> ActorId {
        self.actor.get_id()
    }

    /// Lets the actor handle what waits, then stop. What is sent afterwards is refused.
    pub(crate) fn retire(&self) {
        // An error says that it has stopped already.
        let _ = self.actor.drain();
    }

    /// [`Self::retire`], and waits for the end.
    ///
    /// An actor that is drained before it has started never starts, and what waits for it is lost without a
    /// word (ractor 0.16.5); so it is asked something first.
    pub(crate) async fn retire_and_wait(&self, timeout: Duration) {
        let _ = self.inspect_within(timeout).await;
        // An error says that it has stopped already, or that time is up: both end the wait.
        let _ = self.actor.drain_and_wait(Some(timeout)).await;
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that sends, after the permit was given")]
    fn deliver(&self, envelope: Envelope) -> Result<(), SendError> {
        self.actor.send_message(envelope).map_err(|_| SendError::Stopped)
    }

    #[cfg(test)]
    pub(crate) fn send_defect(&self) {
        let _ = self.deliver(Envelope::Fail);
    }
}

#[cfg(test)]
mod tests;
