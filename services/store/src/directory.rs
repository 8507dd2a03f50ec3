//! Who owns a machine, and which tickets are spent: a hint that may be lost without harm.
//!
//! The connector is the fence (INV-FENCE): a directory that forgets or lies costs a `stale` answer and another
//! acquire, never a double effect. Therefore nothing here must be durable, and a record may be dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use flydex_domain::epoch::Epoch;
use flydex_domain::error::ErrorCode;
use flydex_domain::id::{Incarnation, TicketId};
use flydex_domain::limits::{DIRECTORY_MACHINES_MAX, DIRECTORY_TICKETS_MAX, TOKEN_SKEW_MAX};
use flydex_domain::scope::MachineKey;
use flydex_domain::time::UnixMillis;
use futures_util::future::BoxFuture;

/// Why the directory has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DirectoryError {
    /// It cannot be reached.
    #[error("directory is not reachable")]
    Unavailable,
    /// It holds as much as it may.
    #[error("directory is full")]
    Full,
}

impl DirectoryError {
    /// The code that peers are told.
    #[must_use]
    pub const fn code(self) -> ErrorCode {
        match self {
            Self::Unavailable => ErrorCode::StoreUnavailable,
            Self::Full => ErrorCode::Overloaded,
        }
    }
}

/// Ownerships and spent tickets of one region.
pub trait Directory: Send + Sync + 'static {
    /// Makes `holder` the owner of a machine and returns its epoch.
    ///
    /// The epoch is not below `floor`, and above every epoch on record of another holder. A holder that asks
    /// again gets the epoch that it has, unless `floor` is above that.
    ///
    /// # Errors
    /// [`DirectoryError`] when nothing was recorded.
    fn acquire(
        &self,
        machine: MachineKey,
        holder: Incarnation,
        floor: Epoch,
    ) -> BoxFuture<'_, Result<Epoch, DirectoryError>>;

    /// Ends an ownership if `holder` has it. The epoch stays on record.
    ///
    /// # Errors
    /// [`DirectoryError`] when nothing was recorded.
    fn release(&self, machine: MachineKey, holder: Incarnation) -> BoxFuture<'_, Result<(), DirectoryError>>;

    /// Spends a ticket: true exactly once for each, and never for an expired one.
    ///
    /// # Errors
    /// [`DirectoryError`] when it is not known whether the ticket was spent before.
    fn spend_ticket(
        &self,
        ticket_id: TicketId,
        expires_at: UnixMillis,
        now: UnixMillis,
    ) -> BoxFuture<'_, Result<bool, DirectoryError>>;
}

/// A directory in the memory of the one process that uses it.
#[derive(Debug)]
pub struct InProcessDirectory {
    records: Mutex<Records>,
    machines_max: usize,
    tickets_max: usize,
}

#[derive(Debug, Default)]
struct Records {
    owners: BTreeMap<MachineKey, Owner>,
    released: BTreeSet<MachineKey>,
    spent: BTreeSet<TicketId>,
    spent_until: BTreeSet<(UnixMillis, TicketId)>,
}

#[derive(Clone, Copy, Debug)]
struct Owner {
    holder: Option<Incarnation>,
    epoch: Epoch,
}

impl Default for InProcessDirectory {
    fn default() -> Self {
        Self::new()
    }
}

impl InProcessDirectory {
    /// An empty directory.
    #[must_use]
    pub fn new() -> Self {
        Self::with_bounds(DIRECTORY_MACHINES_MAX, DIRECTORY_TICKETS_MAX)
    }

    fn with_bounds(machines_max: usize, tickets_max: usize) -> Self {
        Self { records: Mutex::default(), machines_max, tickets_max }
    }

    fn records(&self) -> MutexGuard<'_, Records> {
        // Every change under the lock is a few map operations, so a poisoned lock holds whole records.
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Directory for InProcessDirectory {
    fn acquire(
        &self,
        machine: MachineKey,
        holder: Incarnation,
        floor: Epoch,
    ) -> BoxFuture<'_, Result<Epoch, DirectoryError>> {
        let answer = self.records().acquire(machine, holder, floor, self.machines_max);
        Box::pin(std::future::ready(answer))
    }

    fn release(&self, machine: MachineKey, holder: Incarnation) -> BoxFuture<'_, Result<(), DirectoryError>> {
        self.records().release(machine, holder);
        Box::pin(std::future::ready(Ok(())))
    }

    fn spend_ticket(
        &self,
        ticket_id: TicketId,
        expires_at: UnixMillis,
        now: UnixMillis,
    ) -> BoxFuture<'_, Result<bool, DirectoryError>> {
        let answer = self.records().spend(ticket_id, expires_at, now, self.tickets_max);
        Box::pin(std::future::ready(answer))
    }
}

impl Records {
    fn acquire(
        &mut self,
        machine: MachineKey,
        holder: Incarnation,
        floor: Epoch,
        machines_max: usize,
    ) -> Result<Epoch, DirectoryError> {
        let before = self.owners.get(&machine).copied();
        if let Some(owner) = before
            && owner.holder == Some(holder)
            && owner.epoch >= floor
        {
            return Ok(owner.epoch);
        }
        if before.is_none() && self.owners.len() >= machines_max {
            let forgotten = self.released.pop_first().ok_or(DirectoryError::Full)?;
            self.owners.remove(&forgotten);
        }
        let epoch = before.map_or(Epoch::ZERO, |owner| owner.epoch).max(floor).above(holder);
        self.released.remove(&machine);
        self.owners.insert(machine, Owner { holder: Some(holder), epoch });
        Ok(epoch)
    }

    fn release(&mut self, machine: MachineKey, holder: Incarnation) {
        let Some(owner) = self.owners.get_mut(&machine) else { return };
        if owner.holder == Some(holder) {
            owner.holder = None;
            self.released.insert(machine);
        }
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

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod tests;
