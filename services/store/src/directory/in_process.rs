//! A directory in the memory of the one process that uses it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flydex_domain::id::{Incarnation, TicketId};
use flydex_domain::limits::{
    DIRECTORY_MACHINES_MAX, DIRECTORY_TICKETS_MAX, LEASE_DEAD_AFTER, MEMBERS_MAX, TOKEN_SKEW_MAX,
};
use flydex_domain::placement::{self, LinkPlacement, LinkRecord, Member, NodeRecord, OwnerRecord, Reassertion};
use flydex_domain::scope::MachineKey;
use flydex_domain::time::UnixMillis;
use tokio::time::Instant;

use super::{Acquire, Acquired, Answer, Directory, DirectoryError, Holding, Life, Members, Renewal, exact};

/// Records in memory. Its life is the process's: it forgets only together with the nodes that it knows.
#[derive(Debug)]
pub struct InProcessDirectory {
    records: Mutex<Records>,
    bounds: Bounds,
}

#[derive(Clone, Copy, Debug)]
struct Bounds {
    machines_max: usize,
    tickets_max: usize,
    lease_dead_after: Duration,
}

#[derive(Debug, Default)]
struct Records {
    leases: BTreeMap<Incarnation, Lease>,
    owners: BTreeMap<MachineKey, OwnerRecord>,
    released: BTreeSet<MachineKey>,
    spent: BTreeSet<TicketId>,
    spent_until: BTreeSet<(UnixMillis, TicketId)>,
}

#[derive(Debug)]
struct Lease {
    record: NodeRecord,
    beat: u64,
    heard: Instant,
}

impl Default for InProcessDirectory {
    fn default() -> Self {
        Self::new()
    }
}

impl InProcessDirectory {
    const LIFE: Life = Life([0; 16]);

    /// An empty directory.
    #[must_use]
    pub fn new() -> Self {
        Self::with_lease(LEASE_DEAD_AFTER)
    }

    /// An empty directory whose leases end after another time, for tests that wait for it.
    #[must_use]
    pub fn with_lease(lease_dead_after: Duration) -> Self {
        let bounds =
            Bounds { machines_max: DIRECTORY_MACHINES_MAX, tickets_max: DIRECTORY_TICKETS_MAX, lease_dead_after };
        Self { records: Mutex::default(), bounds }
    }

    fn records(&self) -> MutexGuard<'_, Records> {
        // Every change under the lock is a few map operations, so a poisoned lock holds whole records.
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Directory for InProcessDirectory {
    fn renew(&self, record: NodeRecord, beat: u64) -> Answer<'_, Renewal> {
        let continuous = self.records().renew(record, beat, self.bounds);
        ready(continuous.map(|continuous| Renewal { life: Self::LIFE, continuous }))
    }

    fn leave(&self, node: Incarnation) -> Answer<'_, ()> {
        self.records().leases.remove(&node);
        ready(Ok(()))
    }

    fn members(&self) -> Answer<'_, Members> {
        let members = self.records().members(self.bounds);
        ready(Ok(Members { life: Self::LIFE, members }))
    }

    fn find(&self, machine: MachineKey) -> Answer<'_, Option<OwnerRecord>> {
        ready(Ok(self.records().owners.get(&machine).cloned()))
    }

    fn acquire(&self, acquire: Acquire) -> Answer<'_, Acquired> {
        ready(self.records().acquire(acquire, self.bounds))
    }

    fn reassert(&self, holdings: Vec<Holding>) -> Answer<'_, Vec<Reassertion>> {
        let mut records = self.records();
        let answers = holdings.into_iter().map(|holding| records.reassert(holding, self.bounds)).collect();
        ready(answers)
    }

    fn release(&self, machine: MachineKey, holder: Incarnation) -> Answer<'_, ()> {
        self.records().release(machine, holder);
        ready(Ok(()))
    }

    fn set_link(&self, machine: MachineKey, holder: Incarnation, link: LinkRecord) -> Answer<'_, LinkPlacement> {
        ready(Ok(self.records().set_link(machine, holder, link)))
    }

    fn spend_ticket(&self, ticket_id: TicketId, expires_at: UnixMillis, now: UnixMillis) -> Answer<'_, bool> {
        ready(self.records().spend(ticket_id, expires_at, now, self.bounds.tickets_max))
    }
}

impl Records {
    fn renew(&mut self, record: NodeRecord, beat: u64, bounds: Bounds) -> Result<bool, DirectoryError> {
        self.end_leases(bounds);
        let before = self.leases.get(&record.incarnation).map(|lease| lease.beat);
        if before.is_none() && self.leases.len() >= MEMBERS_MAX {
            return Err(DirectoryError::Full);
        }
        self.leases.insert(record.incarnation, Lease { record, beat, heard: Instant::now() });
        Ok(before.is_some_and(|before| before.saturating_add(1) >= beat))
    }

    fn members(&mut self, bounds: Bounds) -> Vec<Member> {
        self.end_leases(bounds);
        let member = |lease: &Lease| Member { record: lease.record.clone(), silent_for: lease.heard.elapsed() };
        self.leases.values().map(member).collect()
    }

    fn end_leases(&mut self, bounds: Bounds) {
        self.leases.retain(|_, lease| lease.heard.elapsed() < bounds.lease_dead_after);
    }

    fn acquire(&mut self, acquire: Acquire, bounds: Bounds) -> Result<Acquired, DirectoryError> {
        self.end_leases(bounds);
        let Acquire { machine, asker, floor, replacing, cause: _ } = acquire;
        exact(floor.counter)?;
        let before = self.owners.get(&machine);
        let holder = before.and_then(|record| record.holder);
        let leased = holder.is_some_and(|holder| self.leases.contains_key(&holder));
        let decided = placement::acquire(before, asker, floor, replacing, leased);
        if let placement::Acquisition::Owned(epoch) = decided {
            let link = before.and_then(|record| record.link.clone());
            self.put(machine, OwnerRecord { holder: Some(asker), epoch, link }, bounds)?;
        }
        Ok(Acquired::Decided(decided))
    }

    fn reassert(&mut self, holding: Holding, bounds: Bounds) -> Result<Reassertion, DirectoryError> {
        let Holding { machine, epoch, link } = holding;
        exact(epoch.counter)?;
        let before = self.owners.get(&machine);
        let decided = placement::reassert(before, epoch, link.is_some());
        if decided == Reassertion::Kept {
            let link = placement::newer_link(before.and_then(|record| record.link.clone()), link);
            self.put(machine, OwnerRecord { holder: Some(epoch.incarnation), epoch, link }, bounds)?;
        }
        Ok(decided)
    }

    /// Puts a record in; room is made by forgetting a machine that nobody holds.
    fn put(&mut self, machine: MachineKey, record: OwnerRecord, bounds: Bounds) -> Result<(), DirectoryError> {
        if !self.owners.contains_key(&machine) && self.owners.len() >= bounds.machines_max {
            let forgotten = self.released.pop_first().ok_or(DirectoryError::Full)?;
            self.owners.remove(&forgotten);
        }
        self.released.remove(&machine);
        self.owners.insert(machine, record);
        Ok(())
    }

    fn release(&mut self, machine: MachineKey, holder: Incarnation) {
        let Some(record) = self.owners.get_mut(&machine) else { return };
        if record.holder == Some(holder) {
            record.holder = None;
            self.released.insert(machine);
        }
    }

    fn set_link(&mut self, machine: MachineKey, holder: Incarnation, link: LinkRecord) -> LinkPlacement {
        let Some(record) = self.owners.get_mut(&machine) else { return LinkPlacement::NotHeld };
        if record.holder != Some(holder) {
            return LinkPlacement::NotHeld;
        }
        let decided = placement::set_link(record.link.as_ref().map(|link| link.counter), link.counter);
        if decided == LinkPlacement::Newest {
            record.link = Some(link);
        }
        decided
    }

    fn spend(
        &mut self,
        ticket_id: TicketId,
        expires_at: UnixMillis,
        now: UnixMillis,
        tickets_max: usize,
    ) -> Result<bool, DirectoryError> {
        // A verifier takes a ticket for this much longer, so it is remembered for as long.
        let until = expires_at.plus(TOKEN_SKEW_MAX);
        while let Some((ends, expired)) = self.spent_until.first().copied()
            && ends <= now
        {
            self.spent_until.pop_first();
            self.spent.remove(&expired);
        }
        if until <= now || self.spent.contains(&ticket_id) {
            return Ok(false);
        }
        if self.spent.len() >= tickets_max {
            return Err(DirectoryError::Full);
        }
        self.spent.insert(ticket_id);
        self.spent_until.insert((until, ticket_id));
        Ok(true)
    }
}

fn ready<'a, T: Send + 'a>(answer: Result<T, DirectoryError>) -> Answer<'a, T> {
    Box::pin(std::future::ready(answer))
}

#[cfg(test)]
mod tests;
