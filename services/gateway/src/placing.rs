//! Opens a session's machine or a link at a node: finds one, binds to it, and only then sends.

use std::sync::Arc;

use bytes::Bytes;
use flydex_domain::id::{Incarnation, MachineId};
use flydex_domain::limits;
use flydex_domain::scope::MachineKey;
use flydex_proto::v1;
use flydex_proto::v1::gateway_frame::Kind as ToNode;
use tokio::time::Instant;

use crate::Gateway;
use crate::ending::Refusal;
use crate::node::{Bound, NodeError};
use crate::registry::{Link, Session};

/// What is opened.
trait Subject {
    /// The frame that opens it.
    fn open(&self, replacing: Bytes) -> ToNode;
    /// Binds it. False when nobody waits for it any more.
    fn bind(&self, bound: Bound) -> bool;
    /// Takes that back. False when somebody else did.
    fn unbind(&self) -> bool;
}

/// One opening of a machine in a session.
pub(crate) struct SessionOpening {
    pub(crate) session: Arc<Session>,
    pub(crate) machine_id: MachineId,
    pub(crate) opening: u64,
    pub(crate) grant: String,
}

/// Opens a machine for a session, or closes it with the reason why not.
pub(crate) async fn place_session(gateway: Arc<Gateway>, subject: SessionOpening) {
    let machine = MachineKey::new(subject.session.scope, subject.machine_id);
    if let Err(refusal) = open(&gateway, machine, None, &subject).await {
        subject.session.give_up(subject.machine_id, subject.opening, refusal);
    }
}

/// Opens a link, however long within [`limits::LINK_UNPLACED_MAX`] no node is there.
///
/// # Errors
/// Why the link had better come another way.
pub(crate) async fn place_link(gateway: Arc<Gateway>, link: Arc<Link>, frame: v1::OpenLink) -> Result<(), Refusal> {
    let since = Instant::now();
    let lost = link.lost();
    tokio::time::sleep(link.take_wait()).await;
    let machine = link.machine;
    let subject = LinkOpening { link, frame };
    loop {
        let placed = {
            // Many links lose their node at once; others open one by one.
            let _permit = if lost.is_some() { gateway.replacings.acquire().await.ok() } else { None };
            open(&gateway, machine, lost, &subject).await
        };
        let Err(refusal) = placed else { return Ok(()) };
        if since.elapsed() >= limits::LINK_UNPLACED_MAX {
            return Err(refusal);
        }
        tokio::time::sleep(limits::MOVING_RETRY_AFTER_MAX.mul_f64(rand::random_range(0.2..1.0))).await;
    }
}

/// Each try is at another place, since a node that does not answer is not found again.
async fn open(
    gateway: &Arc<Gateway>,
    machine: MachineKey,
    lost: Option<Incarnation>,
    subject: &impl Subject,
) -> Result<(), Refusal> {
    for _ in 0..=limits::FORWARDS_MAX {
        let choice = gateway.places.find(machine).await.ok_or_else(Refusal::moving)?;
        let Some(bound) = gateway.pool.bound(choice.node, machine).await else { continue };
        let replacing = choice.replacing.or(lost).filter(|replacing| *replacing != choice.node);
        let replacing = replacing.map_or_else(Bytes::new, |node| Bytes::copy_from_slice(node.as_bytes()));
        // Room first, so that nothing else can come between the bond and the frame.
        let room = match bound.room(limits::ACTOR_CALL_TIMEOUT, subject.open(replacing)).await {
            Ok(room) => room,
            Err(NodeError::Down) => continue,
            Err(error @ NodeError::Full) => return Err(error.code().into()),
        };
        if !subject.bind(bound.clone()) {
            return Ok(());
        }
        if !bound.is_over() {
            room.send();
            return Ok(());
        }
        if !subject.unbind() {
            return Ok(());
        }
    }
    Err(Refusal::moving())
}

impl Subject for SessionOpening {
    fn open(&self, replacing: Bytes) -> ToNode {
        let session_id = Bytes::copy_from_slice(self.session.session_id.as_bytes());
        ToNode::OpenSession(v1::OpenSession { session_id, grant: self.grant.clone(), replacing })
    }

    fn bind(&self, bound: Bound) -> bool {
        self.session.bind(self.machine_id, self.opening, bound)
    }

    fn unbind(&self) -> bool {
        self.session.unbind(self.machine_id, self.opening)
    }
}

struct LinkOpening {
    link: Arc<Link>,
    frame: v1::OpenLink,
}

impl Subject for LinkOpening {
    fn open(&self, replacing: Bytes) -> ToNode {
        ToNode::OpenLink(v1::OpenLink { replacing, ..self.frame.clone() })
    }

    fn bind(&self, bound: Bound) -> bool {
        self.link.bind(bound);
        true
    }

    fn unbind(&self) -> bool {
        self.link.unbind()
    }
}
