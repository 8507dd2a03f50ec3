//! The live sessions and links of this gateway: where a node's frames go, and what a revocation cuts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use bytes::Bytes;
use flydex_domain::error::ErrorCode;
use flydex_domain::id::{AccountId, DeviceId, GrantId, LinkId, MachineId, SessionId, UserId};
use flydex_domain::limits::SESSION_MACHINES_MAX;
use flydex_domain::revocation::Revocation;
use flydex_domain::scope::{AccountScope, MachineKey};
use flydex_proto::v1;
use tokio::sync::watch;

use crate::ending::{Ending, Refusal};
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
    open: Mutex<BTreeSet<MachineId>>,
}

/// Who a session is, from its verified ticket and grant.
pub(crate) struct SessionIdentity {
    pub(crate) scope: AccountScope,
    pub(crate) user_id: UserId,
    pub(crate) device_id: DeviceId,
    pub(crate) grant_id: GrantId,
}

/// A link after its welcome.
pub(crate) struct Link {
    pub(crate) link_id: LinkId,
    pub(crate) machine: MachineKey,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) ending: Ending,
}

/// Every live session and link.
pub(crate) struct Registry {
    sessions: RwLock<BTreeMap<SessionId, Arc<Session>>>,
    links: RwLock<BTreeMap<LinkId, Arc<Link>>>,
    live: watch::Sender<usize>,
}

/// Takes its session or link out of the registry on drop.
pub(crate) struct Registered {
    registry: Arc<Registry>,
    entry: Entry,
}

enum Entry {
    Session(SessionId),
    Link(LinkId),
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
        Arc::new(Self { session_id, scope, user_id, device_id, grant_id, outbox, ending, open: Mutex::default() })
    }

    /// Notes a machine as open. True when it was not open before.
    ///
    /// # Errors
    /// [`ErrorCode::Overloaded`] when the session has as many open as it may.
    pub(crate) fn open(&self, machine_id: MachineId) -> Result<bool, ErrorCode> {
        let mut open = self.lock_open();
        if open.len() >= SESSION_MACHINES_MAX && !open.contains(&machine_id) {
            return Err(ErrorCode::Overloaded);
        }
        Ok(open.insert(machine_id))
    }

    /// Notes a machine as closed. True when it was open.
    pub(crate) fn close(&self, machine_id: MachineId) -> bool {
        self.lock_open().remove(&machine_id)
    }

    /// Whether a machine is open.
    pub(crate) fn is_open(&self, machine_id: MachineId) -> bool {
        self.lock_open().contains(&machine_id)
    }

    /// The open machines.
    pub(crate) fn open_machines(&self) -> Vec<MachineId> {
        self.lock_open().iter().copied().collect()
    }

    /// Queues a message for the browser; a browser that reads too slowly is cut off.
    pub(crate) fn send(&self, kind: v1::session_down::Kind) {
        if let Err(error) = self.outbox.send(&v1::SessionDown { kind: Some(kind) }) {
            self.ending.begin(error.code());
        }
    }

    /// Closes a machine and tells the browser why; nothing when it is not open.
    pub(crate) fn close_with(&self, machine_id: MachineId, refusal: Refusal) {
        if self.close(machine_id) {
            self.tell_closed(machine_id, refusal);
        }
    }

    /// Tells the browser that a machine is not open.
    pub(crate) fn tell_closed(&self, machine_id: MachineId, refusal: Refusal) {
        self.send(v1::session_down::Kind::MachineClosed(v1::MachineClosed {
            machine_id: Bytes::copy_from_slice(machine_id.as_bytes()),
            code: refusal.code.number().into(),
            retry_after_ms: refusal.retry_after_ms,
        }));
    }

    fn lock_open(&self) -> MutexGuard<'_, BTreeSet<MachineId>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Link ===

impl Link {
    /// Queues a message for the connector; one that reads too slowly is cut off.
    pub(crate) fn send(&self, kind: v1::link_down::Kind) {
        if let Err(error) = self.outbox.send(&v1::LinkDown { kind: Some(kind) }) {
            self.ending.begin(error.code());
        }
    }
}

// === impl Registry ===

impl Default for Registry {
    fn default() -> Self {
        Self { sessions: RwLock::default(), links: RwLock::default(), live: watch::Sender::new(0) }
    }
}

impl Registry {
    pub(crate) fn add_session(self: &Arc<Self>, session: Arc<Session>) -> Registered {
        let session_id = session.session_id;
        self.sessions.write().unwrap_or_else(PoisonError::into_inner).insert(session_id, session);
        self.live.send_modify(|live| *live += 1);
        Registered { registry: self.clone(), entry: Entry::Session(session_id) }
    }

    pub(crate) fn add_link(self: &Arc<Self>, link: Arc<Link>) -> Registered {
        let link_id = link.link_id;
        self.links.write().unwrap_or_else(PoisonError::into_inner).insert(link_id, link);
        self.live.send_modify(|live| *live += 1);
        Registered { registry: self.clone(), entry: Entry::Link(link_id) }
    }

    /// The session with that id, if it belongs to that account.
    pub(crate) fn session(&self, account_id: AccountId, session_id: SessionId) -> Option<Arc<Session>> {
        let sessions = self.sessions.read().unwrap_or_else(PoisonError::into_inner);
        sessions.get(&session_id).filter(|session| session.scope.account_id() == account_id).cloned()
    }

    /// The link with that id, if it is that machine's.
    pub(crate) fn link(&self, account_id: AccountId, machine_id: MachineId, link_id: LinkId) -> Option<Arc<Link>> {
        let links = self.links.read().unwrap_or_else(PoisonError::into_inner);
        let is_its =
            |link: &&Arc<Link>| link.machine.account_id() == account_id && link.machine.machine_id() == machine_id;
        links.get(&link_id).filter(is_its).cloned()
    }

    /// Ends what a revocation takes the ground from. How many sessions and links it ended or closed a machine of.
    pub(crate) fn revoke(&self, revocation: &Revocation) -> usize {
        let mut count = 0;
        for session in self.all_sessions() {
            count += usize::from(revoke_session(&session, revocation));
        }
        for link in self.all_links() {
            if let Some(code) = link_end(link.machine, revocation) {
                link.ending.begin(code);
                count += 1;
            }
        }
        count
    }

    /// Tells everyone whose frames went over a lost stream to a node.
    pub(crate) fn node_lost(&self, went_over_it: impl Fn(MachineKey) -> bool) {
        for session in self.all_sessions() {
            for machine_id in session.open_machines() {
                if went_over_it(MachineKey::new(session.scope, machine_id)) {
                    session.close_with(machine_id, ErrorCode::Moving.into());
                }
            }
        }
        for link in self.all_links() {
            if went_over_it(link.machine) {
                link.ending.begin(ErrorCode::Moving);
            }
        }
    }

    /// Waits until no session and no link is left.
    pub(crate) async fn emptied(&self) {
        // The sender lives as long as the registry, so the wait cannot fail.
        let _ = self.live.subscribe().wait_for(|live| *live == 0).await;
    }

    fn all_sessions(&self) -> Vec<Arc<Session>> {
        self.sessions.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    fn all_links(&self) -> Vec<Arc<Link>> {
        self.links.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    fn remove(&self, entry: &Entry) {
        let removed = match entry {
            Entry::Session(session_id) => {
                self.sessions.write().unwrap_or_else(PoisonError::into_inner).remove(session_id).is_some()
            }
            Entry::Link(link_id) => {
                self.links.write().unwrap_or_else(PoisonError::into_inner).remove(link_id).is_some()
            }
        };
        if removed {
            self.live.send_modify(|live| *live -= 1);
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.registry.remove(&self.entry);
    }
}

/// Why a machine's link ends by a revocation, if it does.
fn link_end(machine: MachineKey, revocation: &Revocation) -> Option<ErrorCode> {
    let (machine_id, code) = match revocation {
        Revocation::Machine { machine_id, .. } => (machine_id, ErrorCode::MachineRevoked),
        Revocation::Quarantine { machine_id, .. } => (machine_id, ErrorCode::MachineKeyCloned),
        Revocation::User { .. } | Revocation::Grant { .. } | Revocation::Device { .. } => return None,
    };
    let is_its = machine.account_id() == revocation.account_id() && machine.machine_id() == *machine_id;
    is_its.then_some(code)
}

fn revoke_session(session: &Session, revocation: &Revocation) -> bool {
    let account_id = session.scope.account_id();
    match revocation {
        Revocation::User { account_id: of, user_id } if account_id == *of && session.user_id == *user_id => {
            session.ending.begin(ErrorCode::GrantInvalid);
            true
        }
        Revocation::Grant { account_id: of, grant_id } if account_id == *of && session.grant_id == *grant_id => {
            session.ending.begin(ErrorCode::GrantInvalid);
            true
        }
        Revocation::Device { account_id: of, device_id } if account_id == *of && session.device_id == *device_id => {
            session.ending.begin(ErrorCode::DeviceRevoked);
            true
        }
        Revocation::Machine { account_id: of, machine_id } if account_id == *of && session.is_open(*machine_id) => {
            session.close_with(*machine_id, ErrorCode::MachineRevoked.into());
            true
        }
        Revocation::User { .. }
        | Revocation::Grant { .. }
        | Revocation::Device { .. }
        | Revocation::Machine { .. }
        | Revocation::Quarantine { .. } => false,
    }
}
