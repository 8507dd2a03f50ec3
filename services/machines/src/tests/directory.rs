//! A directory that can be away, and that can forget.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use flydex_domain::id::{Incarnation, TicketId};
use flydex_domain::placement::{LinkPlacement, LinkRecord, NodeRecord, OwnerRecord, Reassertion};
use flydex_domain::scope::MachineKey;
use flydex_domain::time::UnixMillis;
use flydex_store::directory::{
    Acquire, Acquired, Answer, Directory, DirectoryError, Holding, InProcessDirectory, Members, Renewal,
};

#[derive(Default)]
pub(super) struct TestDirectory {
    records: Mutex<Arc<InProcessDirectory>>,
    away: AtomicBool,
}

impl TestDirectory {
    /// From here on it answers nobody, or everybody again.
    pub(super) fn set_away(&self, away: bool) {
        self.away.store(away, Ordering::SeqCst);
    }

    /// Everything is lost.
    pub(super) fn forget(&self) {
        *self.records.lock().unwrap() = Arc::default();
    }

    fn ask<T: Send + 'static>(
        &self,
        ask: impl for<'a> FnOnce(&'a InProcessDirectory) -> Answer<'a, T> + Send + 'static,
    ) -> Answer<'_, T> {
        let records = Arc::clone(&self.records.lock().unwrap());
        let away = self.away.load(Ordering::SeqCst);
        Box::pin(async move { if away { Err(DirectoryError::Unavailable) } else { ask(&records).await } })
    }
}

impl Directory for TestDirectory {
    fn renew(&self, record: NodeRecord, beat: u64) -> Answer<'_, Renewal> {
        self.ask(move |records| records.renew(record, beat))
    }

    fn leave(&self, node: Incarnation) -> Answer<'_, ()> {
        self.ask(move |records| records.leave(node))
    }

    fn members(&self) -> Answer<'_, Members> {
        self.ask(|records| records.members())
    }

    fn find(&self, machine: MachineKey) -> Answer<'_, Option<OwnerRecord>> {
        self.ask(move |records| records.find(machine))
    }

    fn acquire(&self, acquire: Acquire) -> Answer<'_, Acquired> {
        self.ask(move |records| records.acquire(acquire))
    }

    fn reassert(&self, holdings: Vec<Holding>) -> Answer<'_, Vec<Reassertion>> {
        self.ask(move |records| records.reassert(holdings))
    }

    fn release(&self, machine: MachineKey, holder: Incarnation) -> Answer<'_, ()> {
        self.ask(move |records| records.release(machine, holder))
    }

    fn set_link(&self, machine: MachineKey, holder: Incarnation, link: LinkRecord) -> Answer<'_, LinkPlacement> {
        self.ask(move |records| records.set_link(machine, holder, link))
    }

    fn spend_ticket(&self, ticket_id: TicketId, expires_at: UnixMillis, now: UnixMillis) -> Answer<'_, bool> {
        self.ask(move |records| records.spend_ticket(ticket_id, expires_at, now))
    }
}
