//! A directory that can be away, and that can forget.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use flydex_domain::epoch::Epoch;
use flydex_domain::id::{Incarnation, NodeId, TicketId};
use flydex_domain::placement::{
    Acquisition, Cause, LinkPlacement, LinkRecord, NodeRecord, NodeState, OwnerRecord, Reassertion,
};
use flydex_domain::scope::MachineKey;
use flydex_domain::time::UnixMillis;
use flydex_store::directory::{
    Acquire, Acquired, Answer, Directory, DirectoryError, Holding, InProcessDirectory, Members, Renewal,
};
use tokio::sync::{OwnedRwLockWriteGuard, RwLock};

#[derive(Default)]
pub(super) struct TestDirectory {
    records: Mutex<Arc<InProcessDirectory>>,
    away: AtomicBool,
    answering: Arc<RwLock<()>>,
    refused: AtomicUsize,
}

impl TestDirectory {
    /// From here on it answers nobody, or everybody again.
    pub(super) fn set_away(&self, away: bool) {
        self.away.store(away, Ordering::SeqCst);
    }

    /// How often it has answered nobody.
    pub(super) fn refused(&self) -> usize {
        self.refused.load(Ordering::SeqCst)
    }

    /// Everything is lost.
    pub(super) fn forget(&self) {
        *self.records.lock().unwrap() = Arc::default();
    }

    /// From here until the guard is dropped nobody gets an answer.
    pub(super) async fn hold_answers(&self) -> OwnedRwLockWriteGuard<()> {
        Arc::clone(&self.answering).write_owned().await
    }

    /// Another node registers, whether or not this one can see it.
    pub(super) async fn join(&self, node: Incarnation) {
        let records = Arc::clone(&self.records.lock().unwrap());
        let record = NodeRecord {
            incarnation: node,
            node_id: NodeId::try_from("another".to_owned()).unwrap(),
            address: "memory://another".to_owned(),
            state: NodeState::Active,
            machines: 0,
        };
        records.renew(record, 1).await.unwrap();
    }

    pub(super) async fn is_member(&self, node: Incarnation) -> bool {
        let members = self.members().await.map_or_else(|_| Vec::new(), |members| members.members);
        members.iter().any(|member| member.record.incarnation == node)
    }

    /// Another node registers and takes a machine with its link, whether or not this one can see it.
    pub(super) async fn take_over(&self, machine: MachineKey, by: Incarnation, counter: u64) {
        self.join(by).await;
        let records = Arc::clone(&self.records.lock().unwrap());
        let epoch = Epoch { counter, incarnation: by };
        let gateway_id = NodeId::try_from("gateway-2".to_owned()).unwrap();
        let holding = Holding { machine, epoch, link: Some(LinkRecord { counter: 1, gateway_id }) };
        assert_eq!(records.reassert(vec![holding]).await.unwrap(), [Reassertion::Kept]);
    }

    /// Another node registers and takes a machine from its owner, sent by a gateway that does not reach that one.
    pub(super) async fn force(&self, machine: MachineKey, by: Incarnation, replacing: Incarnation) {
        self.join(by).await;
        let records = Arc::clone(&self.records.lock().unwrap());
        let (floor, replacing, cause) = (Epoch::ZERO, Some(replacing), Cause::Session);
        let asked = Acquire { machine, asker: by, floor, replacing, cause };
        let Acquired::Decided(Acquisition::Owned(_)) = records.acquire(asked).await.unwrap() else {
            panic!("it is taken");
        };
    }

    fn ask<T: Send + 'static>(
        &self,
        ask: impl for<'a> FnOnce(&'a InProcessDirectory) -> Answer<'a, T> + Send + 'static,
    ) -> Answer<'_, T> {
        let records = Arc::clone(&self.records.lock().unwrap());
        let away = self.away.load(Ordering::SeqCst);
        self.refused.fetch_add(usize::from(away), Ordering::SeqCst);
        let answering = Arc::clone(&self.answering);
        Box::pin(async move {
            let _answering = answering.read().await;
            if away { Err(DirectoryError::Unavailable) } else { ask(&records).await }
        })
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
