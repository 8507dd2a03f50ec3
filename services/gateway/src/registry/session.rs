//! A session, and at which node each of its machines is open.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use flydex_domain::error::ErrorCode;
use flydex_domain::id::{DeviceId, GrantId, MachineId, SessionId, UserId};
use flydex_domain::limits::SESSION_MACHINES_MAX;
use flydex_domain::scope::AccountScope;
use flydex_proto::v1;
use tokio::sync::Notify;

use super::forwards::Forwards;
use crate::ending::{Ending, Refusal};
use crate::node::{Bound, Stream};
use crate::outbox::Outbox;

/// A session after its welcome.
pub(crate) struct Session {
    pub(crate) session_id: SessionId,
    pub(crate) scope: AccountScope,
    pub(crate) user_id: UserId,
    pub(crate) device_id: DeviceId,
    pub(crate) grant_id: GrantId,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) ending: Ending,
    machines: Mutex<Machines>,
    homeless: Notify,
}

/// Who a session is, from its verified ticket and grant.
pub(crate) struct SessionIdentity {
    pub(crate) scope: AccountScope,
    pub(crate) user_id: UserId,
    pub(crate) device_id: DeviceId,
    pub(crate) grant_id: GrantId,
}

#[derive(Default)]
struct Machines {
    open: BTreeMap<MachineId, Open>,
    /// Those that the device was told are closed: what it still says to them came before it heard.
    closed: BTreeSet<MachineId>,
    openings: u64,
}

struct Open {
    /// Tells this opening of the machine from others.
    opening: u64,
    home: Home,
    forwards: Forwards,
    /// Whether the device has spoken to the machine at its present home: then it must know when that is lost.
    spoken: bool,
}

/// Where a machine is open for a session.
#[derive(Clone)]
pub(crate) enum Home {
    /// Nowhere yet, and nobody looks for a place.
    Homeless,
    /// A place is looked for.
    Placing,
    /// There.
    At(Bound),
}

// === impl Session ===

impl Session {
    pub(crate) fn new(
        session_id: SessionId,
        identity: SessionIdentity,
        outbox: Arc<Outbox>,
        ending: Ending,
    ) -> Arc<Self> {
        let SessionIdentity { scope, user_id, device_id, grant_id } = identity;
        let (machines, homeless) = (Mutex::default(), Notify::new());
        Arc::new(Self { session_id, scope, user_id, device_id, grant_id, outbox, ending, machines, homeless })
    }

    /// Notes a machine as open without a place.
    ///
    /// # Errors
    /// [`ErrorCode::Overloaded`] when the session has as many open as it may.
    pub(crate) fn open(&self, machine_id: MachineId) -> Result<(), ErrorCode> {
        let mut machines = self.machines();
        if machines.open.len() >= SESSION_MACHINES_MAX && !machines.open.contains_key(&machine_id) {
            return Err(ErrorCode::Overloaded);
        }
        machines.closed.remove(&machine_id);
        machines.openings += 1;
        let opening = machines.openings;
        let open = Open { opening, home: Home::Homeless, forwards: Forwards::default(), spoken: false };
        machines.open.insert(machine_id, open);
        self.homeless.notify_one();
        Ok(())
    }

    /// Notes a machine as closed. Where it was open.
    pub(crate) fn close(&self, machine_id: MachineId) -> Option<Home> {
        self.machines().open.remove(&machine_id).map(|open| open.home)
    }

    /// Whether a machine is open.
    pub(crate) fn is_open(&self, machine_id: MachineId) -> bool {
        self.machines().open.contains_key(&machine_id)
    }

    /// Whether the device was told that a machine is closed, and has not opened it since.
    pub(crate) fn is_told_closed(&self, machine_id: MachineId) -> bool {
        self.machines().closed.contains(&machine_id)
    }

    /// Where a machine is open, for the device to speak to it.
    pub(crate) fn home(&self, machine_id: MachineId) -> Option<Home> {
        let mut machines = self.machines();
        let open = machines.open.get_mut(&machine_id)?;
        open.spoken |= matches!(open.home, Home::At(_));
        Some(open.home.clone())
    }

    /// The stream that a machine is open on.
    pub(crate) fn bound(&self, machine_id: MachineId) -> Option<Bound> {
        match &self.machines().open.get(&machine_id)?.home {
            Home::At(bound) => Some(bound.clone()),
            Home::Homeless | Home::Placing => None,
        }
    }

    /// Whether a machine is open on that stream; nothing when it is not open at all.
    pub(crate) fn is_on(&self, machine_id: MachineId, stream: &Stream) -> Option<bool> {
        match &self.machines().open.get(&machine_id)?.home {
            Home::At(bound) => Some(bound.is_on(stream)),
            Home::Homeless | Home::Placing => Some(false),
        }
    }

    /// The open machines.
    pub(crate) fn open_machines(&self) -> Vec<MachineId> {
        self.machines().open.keys().copied().collect()
    }

    /// Waits until a machine may be without a place that nobody looks for.
    pub(crate) async fn homeless(&self) {
        self.homeless.notified().await;
    }

    /// The machines and openings without a place; from now on somebody looks for one.
    pub(crate) fn take_homeless(&self) -> Vec<(MachineId, u64)> {
        let mut machines = self.machines();
        let homeless = machines.open.iter_mut().filter(|(_, open)| matches!(open.home, Home::Homeless));
        homeless
            .map(|(machine_id, open)| {
                open.home = Home::Placing;
                (*machine_id, open.opening)
            })
            .collect()
    }

    /// Binds an opening to its place. False when nobody waits for it any more.
    pub(crate) fn bind(&self, machine_id: MachineId, opening: u64, bound: Bound) -> bool {
        let mut machines = self.machines();
        let Some(open) = machines.open.get_mut(&machine_id).filter(|open| open.opening == opening) else {
            return false;
        };
        open.home = Home::At(bound);
        open.spoken = false;
        true
    }

    /// Takes the place back that an opening was just bound to. False when it is bound there no more.
    pub(crate) fn unbind(&self, machine_id: MachineId, opening: u64) -> bool {
        let mut machines = self.machines();
        let Some(open) = machines.open.get_mut(&machine_id).filter(|open| open.opening == opening) else {
            return false;
        };
        open.home = Home::Placing;
        true
    }

    /// Ends an opening for which no place was found.
    pub(crate) fn give_up(&self, machine_id: MachineId, opening: u64, refusal: Refusal) {
        let is_it = self.machines().open.get(&machine_id).is_some_and(|open| open.opening == opening);
        if is_it {
            self.close_with(machine_id, refusal);
        }
    }

    /// The node does not own the machine: looks for another place, unless the device has spoken to this one or it was
    /// looked for too often. Whether it does.
    pub(crate) fn forward(&self, machine_id: MachineId, bound: &Bound) -> bool {
        let mut machines = self.machines();
        let Some(open) = machines.open.get_mut(&machine_id) else { return false };
        if !matches!(&open.home, Home::At(at) if at.is_same(bound)) {
            return false;
        }
        if !open.spoken && open.forwards.again() {
            open.home = Home::Homeless;
            self.homeless.notify_one();
            return true;
        }
        drop(machines);
        self.close_with(machine_id, Refusal::moving());
        false
    }

    /// Closes the machines that were open on a stream which has ended.
    pub(crate) fn stream_lost(&self, stream: &Stream) {
        let on_it = |(machine_id, open): (&MachineId, &Open)| match &open.home {
            Home::At(bound) if bound.is_on(stream) => Some(*machine_id),
            Home::At(_) | Home::Homeless | Home::Placing => None,
        };
        let closed: Vec<MachineId> = self.machines().open.iter().filter_map(on_it).collect();
        for machine_id in closed {
            self.close_with(machine_id, Refusal::moving());
        }
    }

    /// Queues a message for the browser; a browser that reads too slowly is cut off.
    pub(crate) fn send(&self, kind: v1::session_down::Kind) {
        if let Err(error) = self.outbox.send(&v1::SessionDown { kind: Some(kind) }) {
            self.ending.begin(error.code());
        }
    }

    /// Closes a machine and tells the browser why; nothing when it is not open.
    pub(crate) fn close_with(&self, machine_id: MachineId, refusal: Refusal) {
        if self.close(machine_id).is_some() {
            self.refuse(machine_id, refusal);
        }
    }

    /// Tells the browser that a machine is closed; what it has said to it until it hears of that is dropped.
    pub(crate) fn refuse(&self, machine_id: MachineId, refusal: Refusal) {
        let mut machines = self.machines();
        if machines.closed.len() >= SESSION_MACHINES_MAX {
            machines.closed.clear();
        }
        machines.closed.insert(machine_id);
        drop(machines);
        self.tell_closed(machine_id, refusal);
    }

    /// Tells the browser that a machine is not open.
    pub(crate) fn tell_closed(&self, machine_id: MachineId, refusal: Refusal) {
        self.send(v1::session_down::Kind::MachineClosed(v1::MachineClosed {
            machine_id: Bytes::copy_from_slice(machine_id.as_bytes()),
            code: refusal.code.number().into(),
            retry_after_ms: refusal.retry_after_ms,
        }));
    }

    fn machines(&self) -> MutexGuard<'_, Machines> {
        self.machines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
