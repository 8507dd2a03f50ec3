//! From a node's stream to sessions and links.
//!
//! A frame is passed on only if its session or link is of the account and machine that it names (INV-SCOPE), and is
//! bound to the very stream that it came on: a node that was never asked about a machine cannot speak for it, and one
//! that no longer holds it is not heard any more.

use std::sync::Arc;

use flydex_domain::error::ErrorCode;
use flydex_domain::id::{AccountId, Incarnation, LinkId, MachineId, SessionId};
use flydex_domain::scope::MachineKey;
use flydex_proto::v1;
use flydex_proto::v1::node_frame::Kind as FromNode;

use crate::ending::{End, Refusal};
use crate::metrics::Dropped;
use crate::node::{Bound, Context, Stream};
use crate::registry::{Link, Session};

/// Where a frame came from and what it is about.
struct Route<'a> {
    context: &'a Context,
    stream: &'a Stream,
    account_id: AccountId,
    machine_id: MachineId,
}

/// Passes one frame of the node on. It never waits: a peer without room is cut off, not waited for.
pub(crate) fn route(context: &Context, stream: &Stream, frame: v1::NodeFrame) {
    let account_id = AccountId::try_from(frame.account_id.as_ref());
    let machine_id = MachineId::try_from(frame.machine_id.as_ref());
    let (Ok(account_id), Ok(machine_id), Some(kind)) = (account_id, machine_id, frame.kind) else {
        context.metrics.dropped(Dropped::Malformed);
        return;
    };
    let route = Route { context, stream, account_id, machine_id };
    match kind {
        FromNode::Hello(_) => context.metrics.dropped(Dropped::Malformed),
        FromNode::SessionOpened(_) | FromNode::LinkOpened(_) => {}
        FromNode::ToSession(to) => {
            if let Some(session) = route.session(&to.session_id) {
                session.send(v1::session_down::Kind::FromMachine(v1::FromMachine {
                    machine_id: frame.machine_id,
                    message: to.message,
                }));
            }
        }
        FromNode::EndSession(end) => {
            if let Some(session) = route.session(&end.session_id) {
                let refusal = refusal(end.code, end.retry_after_ms);
                route.forget_place(MachineKey::new(session.scope, machine_id), refusal, session.bound(machine_id));
                session.close_with(machine_id, refusal);
            }
        }
        FromNode::ToLink(to) => {
            if let (Some(link), Some(frame)) = (route.link(&to.link_id), to.frame) {
                link.send(v1::link_down::Kind::Frame(frame));
            }
        }
        FromNode::EndLink(end) => {
            if let Some(link) = route.link(&end.link_id) {
                let mut refusal = refusal(end.code, end.retry_after_ms);
                if refusal.code == ErrorCode::LinkSuperseded {
                    refusal.link_counter = end.link_counter;
                }
                let bound = link.bound();
                route.forget_place(link.machine, refusal, bound.clone());
                match (refusal.code, bound) {
                    (ErrorCode::Moving, Some(bound)) => link.move_later(&bound, refusal),
                    _ => link.ending.begin(End::Refused(refusal)),
                }
            }
        }
        FromNode::NotOwner(not_owner) => route.not_owner(&not_owner),
    }
}

impl Route<'_> {
    /// Corrects where the machine is, and has opened there what was opened here.
    fn not_owner(&self, not_owner: &v1::NotOwner) {
        if let Some(session) = self.find_session(&not_owner.subject_id) {
            let machine = MachineKey::new(session.scope, self.machine_id);
            if let Some(bound) = self.on_this_stream(session.bound(self.machine_id)) {
                self.correct(machine, &bound, &not_owner.owner);
                self.count(session.forward(self.machine_id, &bound));
            }
        } else if let Some(link) = self.find_link(&not_owner.subject_id) {
            if let Some(bound) = self.on_this_stream(link.bound()) {
                self.correct(link.machine, &bound, &not_owner.owner);
                self.count(link.forward(&bound));
            }
        } else {
            self.context.metrics.dropped(Dropped::NoSession);
        }
    }

    fn correct(&self, machine: MachineKey, bound: &Bound, owner: &[u8]) {
        self.context.metrics.not_owner();
        let owner = Incarnation::try_from(owner).ok().filter(|owner| *owner != bound.node());
        self.context.places.correct(machine, bound.node(), owner);
    }

    /// A node that takes the machine no more is not asked about it again; without its word on who does, somebody else is.
    fn forget_place(&self, machine: MachineKey, refusal: Refusal, bound: Option<Bound>) {
        if let (ErrorCode::Moving, Some(bound)) = (refusal.code, bound) {
            self.context.places.correct(machine, bound.node(), None);
        }
    }

    fn count(&self, forwarded: bool) {
        if forwarded {
            self.context.metrics.forward();
        }
    }

    fn on_this_stream(&self, bound: Option<Bound>) -> Option<Bound> {
        let bound = bound.filter(|bound| bound.is_on(self.stream));
        if bound.is_none() {
            self.context.metrics.dropped(Dropped::NotBound);
        }
        bound
    }

    fn session(&self, session_id: &[u8]) -> Option<Arc<Session>> {
        let session = SessionId::try_from(session_id).ok();
        let session = session.and_then(|session_id| self.context.registry.session(self.account_id, session_id));
        let dropped = match session.as_ref().and_then(|session| session.is_on(self.machine_id, self.stream)) {
            Some(true) => return session,
            Some(false) => Dropped::NotBound,
            None => Dropped::NoSession,
        };
        self.context.metrics.dropped(dropped);
        None
    }

    fn link(&self, link_id: &[u8]) -> Option<Arc<Link>> {
        let Some(link) = self.find_link(link_id) else {
            self.context.metrics.dropped(Dropped::NoLink);
            return None;
        };
        if link.is_on(self.stream) {
            return Some(link);
        }
        self.context.metrics.dropped(Dropped::NotBound);
        None
    }

    /// The session with that id, if it is of that account and has that machine open.
    fn find_session(&self, session_id: &[u8]) -> Option<Arc<Session>> {
        let session_id = SessionId::try_from(session_id).ok()?;
        self.context.registry.session(self.account_id, session_id).filter(|session| session.is_open(self.machine_id))
    }

    /// The link with that id, if it is that machine's.
    fn find_link(&self, link_id: &[u8]) -> Option<Arc<Link>> {
        let link_id = LinkId::try_from(link_id).ok()?;
        self.context.registry.link(self.account_id, self.machine_id, link_id)
    }
}

fn refusal(code: u32, retry_after_ms: u32) -> Refusal {
    match ErrorCode::from_number(code) {
        Some(code) => Refusal { code, retry_after_ms, link_counter: 0 },
        None => ErrorCode::Internal.into(),
    }
}
