//! A directory that goes away when a test says so; the leases in it last until they are taken out.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use flydex_domain::id::{Incarnation, TicketId};
use flydex_domain::placement::{LinkPlacement, LinkRecord, NodeRecord, OwnerRecord, Reassertion};
use flydex_domain::scope::MachineKey;
use flydex_domain::time::UnixMillis;
use flydex_store::directory::{
    Acquire, Acquired, Answer, Directory, DirectoryError, Holding, InProcessDirectory, Members, Renewal,
};

/// The directory.
pub(crate) struct Switched {
    inner: InProcessDirectory,
    trouble: Mutex<Option<DirectoryError>>,
    members_asked: AtomicUsize,
    found: AtomicUsize,
}

impl Default for Switched {
    fn default() -> Self {
        Self {
            inner: InProcessDirectory::with_lease(Duration::from_secs(1_000_000)),
            trouble: Mutex::default(),
            members_asked: AtomicUsize::default(),
            found: AtomicUsize::default(),
        }
    }
}

impl Switched {
    /// Answers nobody, or everybody again.
    pub(crate) fn set_away(&self, away: bool) {
        self.set_trouble(away.then_some(DirectoryError::Unavailable));
    }

    /// Answers everybody with that.
    pub(crate) fn set_trouble(&self, trouble: Option<DirectoryError>) {
        *self.trouble.lock().unwrap() = trouble;
    }

    /// How often it was asked for the nodes.
    pub(crate) fn members_asked(&self) -> usize {
        self.members_asked.load(Ordering::Relaxed)
    }

    /// How often it was asked for an owner.
    pub(crate) fn found(&self) -> usize {
        self.found.load(Ordering::Relaxed)
    }

    fn check(&self) -> Result<(), DirectoryError> {
        self.trouble.lock().unwrap().map_or(Ok(()), Err)
    }
}

impl Directory for Switched {
    fn renew(&self, record: NodeRecord, beat: u64) -> Answer<'_, Renewal> {
        Box::pin(async move {
            self.check()?;
            self.inner.renew(record, beat).await
        })
    }

    fn leave(&self, node: Incarnation) -> Answer<'_, ()> {
        Box::pin(async move {
            self.check()?;
            self.inner.leave(node).await
        })
    }

    fn members(&self) -> Answer<'_, Members> {
        Box::pin(async move {
            self.members_asked.fetch_add(1, Ordering::Relaxed);
            self.check()?;
            let mut answer = self.inner.members().await?;
            for member in &mut answer.members {
                member.silent_for = Duration::ZERO;
            }
            Ok(answer)
        })
    }

    fn find(&self, machine: MachineKey) -> Answer<'_, Option<OwnerRecord>> {
        Box::pin(async move {
            self.found.fetch_add(1, Ordering::Relaxed);
            self.check()?;
            tokio::task::yield_now().await;
            self.inner.find(machine).await
        })
    }

    fn acquire(&self, acquire: Acquire) -> Answer<'_, Acquired> {
        Box::pin(async move {
            self.check()?;
            self.inner.acquire(acquire).await
        })
    }

    fn reassert(&self, holdings: Vec<Holding>) -> Answer<'_, Vec<Reassertion>> {
        Box::pin(async move {
            self.check()?;
            self.inner.reassert(holdings).await
        })
    }

    fn release(&self, machine: MachineKey, holder: Incarnation) -> Answer<'_, ()> {
        Box::pin(async move {
            self.check()?;
            self.inner.release(machine, holder).await
        })
    }

    fn set_link(&self, machine: MachineKey, holder: Incarnation, link: LinkRecord) -> Answer<'_, LinkPlacement> {
        Box::pin(async move {
            self.check()?;
            self.inner.set_link(machine, holder, link).await
        })
    }

    fn spend_ticket(&self, ticket_id: TicketId, expires_at: UnixMillis, now: UnixMillis) -> Answer<'_, bool> {
        Box::pin(async move {
            self.check()?;
            self.inner.spend_ticket(ticket_id, expires_at, now).await
        })
    }
}
