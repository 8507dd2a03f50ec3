//! The machines of this node: finding and starting their actors, ticks, eviction, failures and the drain.
//!
//! The map is this node's own (no ractor names or groups, which are global to a process). An actor is started
//! when a session or a link first asks for its machine, supervised, and retired once it has been idle for
//! `ACTOR_IDLE_AFTER`. When one fails, everything that it carried is told `internal`, to come again.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use bytes::Bytes;
use flydex_domain::error::ErrorCode;
use flydex_domain::id::{Incarnation, NodeId};
use flydex_domain::limits::{ACTOR_BUSY_RETRY_AFTER, ACTOR_TICK_INTERVAL, NODE_GATEWAY_STREAMS_MAX, NODE_MACHINES_MAX};
use flydex_domain::machine::Now;
use flydex_domain::machine::message::Input;
use flydex_domain::revocation::RevocationEntry;
use flydex_domain::scope::MachineKey;
use flydex_domain::time::UnixMillis;
use flydex_domain::token::TokenVerifier;
use flydex_proto::v1;
use flydex_proto::v1::node_frame::Kind;
use flydex_runtime::clock::Clock;
use flydex_runtime::lifecycle::Shutdown;
use flydex_store::directory::{Directory, Holding};
use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, ActorRuntime, SupervisionEvent};
use tokio_util::sync::CancellationToken;

use crate::convert::copy;
use crate::hand_over::{self, HandOver, Successors};
use crate::handle::{Gate, MachineHandle};
use crate::lease;
use crate::machine::{Arguments, MachineActor};
use crate::metrics::{HandOverCause, Metrics};
use crate::peer::{Outgoing, Peer};
use crate::rebalance;
use crate::report::{Linked, Reports};
use crate::revocations::Revocations;

/// What every actor of a node needs.
pub(crate) struct Context {
    pub(crate) node_id: NodeId,
    pub(crate) incarnation: Incarnation,
    pub(crate) address: String,
    pub(crate) region: String,
    pub(crate) directory: Arc<dyn Directory>,
    pub(crate) verifier: Arc<TokenVerifier>,
    pub(crate) clock: Clock,
    pub(crate) shutdown: Shutdown,
    pub(crate) metrics: Metrics,
    pub(crate) revocations: Revocations,
    pub(crate) reports: Reports,
    pub(crate) started: Instant,
    /// Some machine is to be asserted in the directory.
    pub(crate) assertions_due: AtomicBool,
}

impl Context {
    /// Both clocks, now.
    pub(crate) fn now(&self) -> Now {
        Now { instant: self.clock.instant(), unix: UnixMillis(self.clock.unix_millis()) }
    }

    /// An instant in milliseconds since the node began.
    pub(crate) fn count(&self, instant: Instant) -> u64 {
        u64::try_from(instant.saturating_duration_since(self.started).as_millis()).unwrap_or(u64::MAX)
    }
}

/// The machines and gateway streams of a node.
pub(crate) struct Host {
    pub(crate) context: Arc<Context>,
    supervisor: ActorRef<()>,
    machines: Mutex<Machines>,
    peers: Mutex<Peers>,
    drained: CancellationToken,
}

#[derive(Default)]
struct Machines {
    handles: BTreeMap<MachineKey, MachineHandle>,
    keys: HashMap<ActorId, MachineKey>,
    closed: bool,
}

#[derive(Default)]
struct Peers {
    open: BTreeMap<u64, Weak<Peer>>,
    opened: u64,
    closed: bool,
}

impl Host {
    /// A node without machines, and the task that looks after it. Needs a runtime.
    pub(crate) fn start(context: Context) -> Arc<Self> {
        let shutdown = context.shutdown.clone();
        let host = Arc::new_cyclic(|host: &Weak<Self>| {
            let (supervisor, _started) = ActorRuntime::spawn_instant(None, Supervisor, host.clone())
                .expect("an actor without a name clashes with none");
            Self {
                context: Arc::new(context),
                supervisor,
                machines: Mutex::default(),
                peers: Mutex::default(),
                drained: CancellationToken::new(),
            }
        });
        shutdown.spawn(look_after(Arc::clone(&host)));
        shutdown.spawn(lease::keep(Arc::clone(&host)));
        shutdown.spawn(rebalance::keep(Arc::clone(&host)));
        host
    }

    /// The actor of a machine, if there is one.
    pub(crate) fn find(&self, key: MachineKey) -> Option<MachineHandle> {
        self.machines().handles.get(&key).cloned()
    }

    /// The actor of a machine, started if need be.
    ///
    /// # Errors
    /// `moving` in a drain, `overloaded` when the node has as many as it may.
    pub(crate) fn find_or_start(&self, key: MachineKey) -> Result<MachineHandle, ErrorCode> {
        let mut machines = self.machines();
        if machines.closed {
            return Err(ErrorCode::Moving);
        }
        if let Some(handle) = machines.handles.get(&key) {
            return Ok(handle.clone());
        }
        if machines.handles.len() >= NODE_MACHINES_MAX {
            return Err(ErrorCode::Overloaded);
        }
        let gate = Gate::new();
        let arguments = Arguments { key, context: Arc::clone(&self.context), gate: Arc::clone(&gate) };
        let supervisor = self.supervisor.get_cell();
        let (actor, _started) = ActorRuntime::spawn_linked_instant(None, MachineActor, arguments, supervisor)
            .map_err(|_| ErrorCode::Internal)?;
        let handle = MachineHandle::new(actor, gate);
        machines.keys.insert(handle.actor_id(), key);
        machines.handles.insert(key, handle.clone());
        self.context.metrics.actor_started();
        Ok(handle)
    }

    /// Forgets an actor that refused a message because it has stopped.
    pub(crate) fn forget(&self, key: MachineKey, actor_id: ActorId) {
        let mut machines = self.machines();
        if machines.handles.get(&key).is_some_and(|handle| handle.actor_id() == actor_id) {
            machines.handles.remove(&key);
        }
    }

    /// Takes a gateway's stream on.
    ///
    /// # Errors
    /// `going_away` at the end of a drain, `overloaded` when the node has as many as it may.
    pub(crate) fn open_peer(&self) -> Result<(Arc<Peer>, Outgoing), ErrorCode> {
        let mut peers = self.peers();
        if peers.closed {
            return Err(ErrorCode::GoingAway);
        }
        if peers.open.len() >= NODE_GATEWAY_STREAMS_MAX {
            return Err(ErrorCode::Overloaded);
        }
        peers.opened += 1;
        let number = peers.opened;
        let (peer, outgoing) = Peer::open(number);
        peer.send_raw(Bytes::new(), Bytes::new(), Kind::Hello(self.hello()));
        peers.open.insert(number, Arc::downgrade(&peer));
        self.context.metrics.gateway_stream(1);
        Ok((peer, outgoing))
    }

    /// What a stream says first: which node this is, and which life of it.
    fn hello(&self) -> v1::NodeHello {
        v1::NodeHello {
            incarnation: copy(self.context.incarnation.as_bytes()),
            node_id: self.context.node_id.to_string(),
            region: self.context.region.clone(),
        }
    }

    /// Every machine that has an actor here, those after the bound first.
    pub(crate) fn machines_after(&self, after: Bound<MachineKey>) -> Vec<(MachineKey, MachineHandle)> {
        let machines = self.machines();
        let later = machines.handles.range((after, Bound::Unbounded));
        let earlier =
            machines.handles.iter().take_while(|(key, _)| matches!(after, Bound::Excluded(last) if **key <= last));
        later.chain(earlier).map(|(key, handle)| (*key, handle.clone())).collect()
    }

    /// How many machines have an actor here.
    pub(crate) fn machine_count(&self) -> u32 {
        u32::try_from(self.machines().handles.len()).unwrap_or(u32::MAX)
    }

    /// Every machine that is linked here.
    pub(crate) fn links(&self) -> Vec<(MachineKey, Linked)> {
        let machines = self.machines();
        machines.handles.iter().filter_map(|(key, handle)| Some((*key, handle.link()?))).collect()
    }

    /// Has the directory told of everything that is owned here.
    pub(crate) fn assert_all(&self) {
        for handle in self.machines().handles.values() {
            handle.assert_later(&self.context);
        }
    }

    /// What the directory is to be told, and by whom; it is then taken to be told.
    pub(crate) fn take_assertions(&self) -> Vec<(MachineHandle, Holding)> {
        if !self.context.assertions_due.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        let machines = self.machines();
        let due = |handle: &MachineHandle| Some((handle.clone(), handle.take_assertion()?));
        machines.handles.values().filter_map(due).collect()
    }

    /// Completes when the drain has come to its end.
    pub(crate) async fn drained(&self) {
        self.drained.cancelled().await;
    }

    /// Ends everything that a gateway's stream carried.
    pub(crate) fn close_peer(&self, peer: &Arc<Peer>) {
        self.peers().open.remove(&peer.number());
        self.context.metrics.gateway_stream(-1);
        peer.finish();
        let members = peer.take_members();
        for (named, key) in members.sessions {
            if let Some(handle) = self.find(key) {
                // A stopped actor has ended everything itself.
                let _ = handle.send_ending(peer, Input::SessionClosed(named.id));
            }
        }
        for (named, key) in members.links {
            if let Some(handle) = self.find(key) {
                let _ = handle.send_ending(peer, Input::LinkClosed(named.id));
            }
        }
    }

    /// Applies a revocation to everything here, and to everything that comes for a day.
    pub(crate) fn revoke(&self, entry: &RevocationEntry) {
        self.context.metrics.revocation();
        self.context.revocations.record(&entry.revocation, entry.at, self.context.now().unix);
        let account_id = entry.revocation.account_id();
        let handles: Vec<MachineHandle> = {
            let machines = self.machines();
            let of_account = machines.handles.iter().filter(|(key, _)| key.account_id() == account_id);
            of_account.map(|(_, handle)| handle.clone()).collect()
        };
        for handle in handles {
            let _ = handle.send_own(Input::Revoked(entry.revocation.clone()));
        }
    }

    /// Sends the ticks that are due and retires the idle.
    fn tick(&self) {
        let now = self.context.count(self.context.now().instant);
        let mut machines = self.machines();
        let mut idle = Vec::new();
        for (key, handle) in &machines.handles {
            if handle.is_idle() {
                idle.push(*key);
            } else if handle.take_tick(now) {
                let _ = handle.send_own(Input::Tick);
            }
        }
        for key in idle {
            if let Some(handle) = machines.handles.remove(&key) {
                handle.retire();
            }
        }
    }

    /// Hands every machine over, or ends it where nobody takes it, and waits for the actors.
    async fn drain(&self) {
        // They stay to be found until they are handed over: what is in flight still comes and goes.
        self.machines().closed = true;
        let mut successors = Successors::look(&self.context).await;
        let hand_overs = self.machines_after(Bound::Unbounded).into_iter().map(|(machine, handle)| {
            let successor = successors.choose(machine);
            HandOver { machine, handle, successor }
        });
        hand_over::all(&self.context, HandOverCause::Drain, hand_overs.collect()).await;
        self.machines().handles.clear();
        self.peers().closed = true;
        for peer in self.all_peers() {
            peer.end_all();
        }
        self.supervisor.stop(None);
        self.drained.cancel();
    }

    fn actor_ended(&self, actor: &ActorCell, failed: bool) {
        self.context.metrics.actor_ended(failed);
        let mut machines = self.machines();
        let Some(key) = machines.keys.remove(&actor.get_id()) else { return };
        if machines.handles.get(&key).is_some_and(|handle| handle.actor_id() == actor.get_id()) {
            machines.handles.remove(&key);
        }
        drop(machines);
        if failed {
            tracing::error!(
                "account.id" = %key.account_id(),
                "machine.id" = %key.machine_id(),
                "machine actor failed"
            );
            for peer in self.all_peers() {
                peer.machine_lost(key, ErrorCode::Internal, ACTOR_BUSY_RETRY_AFTER);
            }
        }
    }

    fn all_peers(&self) -> Vec<Arc<Peer>> {
        self.peers().open.values().filter_map(Weak::upgrade).collect()
    }

    fn machines(&self) -> MutexGuard<'_, Machines> {
        // Every change under the lock is a few map operations; the two maps need not agree at every moment.
        self.machines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn peers(&self) -> MutexGuard<'_, Peers> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn look_after(host: Arc<Host>) {
    let (soft, hard) = (host.context.shutdown.soft(), host.context.shutdown.hard());
    let mut interval = tokio::time::interval(ACTOR_TICK_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            // The drain goes before another tick.
            biased;
            () = soft.cancelled() => break,
            _ = interval.tick() => host.tick(),
        }
    }
    tokio::select! {
        biased;
        () = hard.cancelled() => {}
        () = host.drain() => {}
    }
}

/// Hears of the end of every machine actor.
struct Supervisor;

impl Actor for Supervisor {
    type Msg = ();
    type State = Weak<Host>;
    type Arguments = Weak<Host>;

    async fn pre_start(&self, _myself: ActorRef<()>, host: Weak<Host>) -> Result<Weak<Host>, ActorProcessingErr> {
        Ok(host)
    }

    /// The default would stop the supervisor, and with it every machine, when one ends.
    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<()>,
        event: SupervisionEvent,
        host: &mut Weak<Host>,
    ) -> Result<(), ActorProcessingErr> {
        let Some(host) = host.upgrade() else { return Ok(()) };
        match event {
            SupervisionEvent::ActorTerminated(actor, _, _) => host.actor_ended(&actor, false),
            SupervisionEvent::ActorFailed(actor, _) => host.actor_ended(&actor, true),
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => {}
        }
        Ok(())
    }
}
