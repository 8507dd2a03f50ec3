//! The live sessions and links of this gateway: where a node's frames go, and what a revocation cuts.

mod forwards;
mod link;
mod session;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use flydex_domain::error::ErrorCode;
use flydex_domain::id::{AccountId, LinkId, MachineId, SessionId};
use flydex_domain::revocation::Revocation;
use tokio::sync::watch;

pub(crate) use self::link::Link;
pub(crate) use self::session::{Home, Session, SessionIdentity};
use crate::node::Stream;
use crate::revoked::cut_code;

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
            if let Some(code) = link_end(&link, revocation) {
                link.ending.begin(code);
                count += 1;
            }
        }
        count
    }

    /// Tells everyone who was bound to a stream that has ended: machines are closed in their sessions, since what the
    /// node knew of them is gone; links are placed again.
    pub(crate) fn stream_lost(&self, stream: &Stream) {
        for session in self.all_sessions() {
            session.stream_lost(stream);
        }
        for link in self.all_links() {
            link.stream_lost(stream);
        }
    }

    /// How many sessions and links there are.
    pub(crate) fn live(&self) -> usize {
        *self.live.borrow()
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
fn link_end(link: &Link, revocation: &Revocation) -> Option<ErrorCode> {
    let machine = link.machine;
    let (machine_id, code) = match revocation {
        Revocation::Machine { machine_id, .. } => (machine_id, ErrorCode::MachineRevoked),
        Revocation::Quarantine { machine_id, serial, .. } if link.serial <= *serial => {
            (machine_id, ErrorCode::MachineKeyCloned)
        }
        Revocation::Superseded { machine_id, serial, .. } if link.serial <= *serial => {
            (machine_id, ErrorCode::CredentialInvalid)
        }
        Revocation::Quarantine { .. } | Revocation::Superseded { .. } => return None,
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
        Revocation::Device { account_id: of, device_id, keeps }
            if account_id == *of && session.device_id == *device_id =>
        {
            session.ending.begin(cut_code(*keeps));
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
        | Revocation::Quarantine { .. }
        | Revocation::Superseded { .. } => false,
    }
}
