//! Which node a machine is at: remembered, else asked of the directory, else agreed on without it.
//!
//! Whatever is found is a hint. A node that does not own the machine says who does, and the connector is the fence.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flydex_domain::id::Incarnation;
use flydex_domain::limits::{MEMBERS_FRESH_FOR, PLACE_KEPT, PLACES_MAX};
use flydex_domain::placement::{Member, Place, place, place_by_rendezvous};
use flydex_domain::scope::MachineKey;
use flydex_store::directory::Directory;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use tokio::time::Instant;

use crate::metrics::{Metrics, Source};
use crate::pool::Pool;

/// Finds the node of a machine.
pub(crate) struct Places {
    cache: Arc<Cache>,
    pool: Arc<Pool>,
    directory: Arc<dyn Directory>,
    metrics: Arc<Metrics>,
    /// One question for each machine, whoever waits for the answer.
    flights: Mutex<Flights>,
}

#[derive(Default)]
struct Flights {
    under_way: BTreeMap<MachineKey, (u64, WeakShared<Flight>)>,
    begun: u64,
}

type Flight = BoxFuture<'static, Option<Choice>>;

/// A node for a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) node: Incarnation,
    /// The owner on record that it takes over from without waiting.
    pub(crate) replacing: Option<Incarnation>,
}

impl Places {
    pub(crate) fn new(
        cache: Arc<Cache>,
        pool: Arc<Pool>,
        directory: Arc<dyn Directory>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self { cache, pool, directory, metrics, flights: Mutex::default() })
    }

    /// The node to open a machine at; nothing when no node takes machines on.
    pub(crate) async fn find(self: &Arc<Self>, machine: MachineKey) -> Option<Choice> {
        let remembered = self.cache.get(machine);
        // One that a node names in its place may have come after the members were asked for.
        if remembered.is_some_and(|node| !self.pool.knows(node)) {
            self.pool.refresh_since(Instant::now()).await;
        }
        if let Some(node) = remembered.filter(|node| !self.pool.is_lost(*node, machine)) {
            self.metrics.place(Source::Cache);
            return Some(Choice { node, replacing: None });
        }
        self.flight(machine).await
    }

    /// The question that is under way for a machine, or a new one.
    fn flight(self: &Arc<Self>, machine: MachineKey) -> Shared<Flight> {
        let mut flights = self.flights();
        if let Some(flight) = flights.under_way.get(&machine).and_then(|(_, flight)| flight.upgrade()) {
            return flight;
        }
        flights.begun += 1;
        let number = flights.begun;
        let landing = Landing { places: self.clone(), machine, number };
        let flight: Flight = Box::pin(async move {
            let choice = landing.places.ask(machine).await;
            if let Some(choice) = choice {
                landing.places.cache.put(machine, choice.node);
            }
            choice
        });
        let flight = flight.shared();
        if let Some(weak) = flight.downgrade() {
            flights.under_way.insert(machine, (number, weak));
        }
        flight
    }

    async fn ask(&self, machine: MachineKey) -> Option<Choice> {
        let is_lost = |node| self.pool.is_lost(node, machine);
        let (place, source) = match self.directory.find(machine).await {
            Ok(record) => {
                let holder = record.as_ref().and_then(|record| record.holder);
                // Who has just let it go says by now that it takes none on.
                if record.is_some() && holder.is_none() {
                    let now = Instant::now();
                    self.pool.refresh_since(now.checked_sub(MEMBERS_FRESH_FOR).unwrap_or(now)).await;
                }
                let members = self.members_with(holder).await;
                (place(record.as_ref(), &members, is_lost, rand::random()), Source::Directory)
            }
            Err(error) => {
                let error: &(dyn std::error::Error + 'static) = &error;
                tracing::debug!(error, "machine not looked up: the known nodes decide");
                (place_by_rendezvous(machine, &self.pool.members(), is_lost), Source::Rendezvous)
            }
        };
        let choice = match place {
            Place::Owner(node) => Choice { node, replacing: None },
            Place::Candidate { node, replacing } => Choice { node, replacing },
            Place::Nowhere => return None,
        };
        self.metrics.place(source);
        Some(choice)
    }

    /// The members; an owner that has just come, or a first node, is not taken for gone.
    async fn members_with(&self, holder: Option<Incarnation>) -> Arc<[Member]> {
        let members = self.pool.members();
        let knows = |holder| members.iter().any(|member| member.record.incarnation == holder);
        if !members.is_empty() && holder.is_none_or(knows) {
            return members;
        }
        self.pool.refresh_since(Instant::now()).await;
        self.pool.members()
    }

    fn flights(&self) -> MutexGuard<'_, Flights> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a question off the list when it is answered, or when nobody waits for the answer any more.
struct Landing {
    places: Arc<Places>,
    machine: MachineKey,
    number: u64,
}

impl Drop for Landing {
    fn drop(&mut self) {
        let mut flights = self.places.flights();
        // Another may have begun in the meantime.
        if flights.under_way.get(&self.machine).is_some_and(|(number, _)| *number == self.number) {
            flights.under_way.remove(&self.machine);
        }
    }
}

/// What is remembered: bounded in number and in time, corrected by nodes.
#[derive(Default)]
pub(crate) struct Cache {
    state: Mutex<Remembered>,
}

#[derive(Default)]
struct Remembered {
    nodes: BTreeMap<MachineKey, (Incarnation, Instant)>,
    by_age: BTreeSet<(Instant, MachineKey)>,
}

impl Cache {
    /// The node that a machine was at last.
    pub(crate) fn get(&self, machine: MachineKey) -> Option<Incarnation> {
        let mut state = self.state();
        let (node, since) = *state.nodes.get(&machine)?;
        if since.elapsed() < PLACE_KEPT {
            return Some(node);
        }
        state.remove(machine);
        None
    }

    /// Notes the node that a machine is opened at.
    pub(crate) fn put(&self, machine: MachineKey, node: Incarnation) {
        let mut state = self.state();
        state.remove(machine);
        if state.nodes.len() >= PLACES_MAX
            && let Some((_, oldest)) = state.by_age.first().copied()
        {
            state.remove(oldest);
        }
        let now = Instant::now();
        state.nodes.insert(machine, (node, now));
        state.by_age.insert((now, machine));
    }

    /// A node does not own a machine; perhaps it knows who does.
    pub(crate) fn correct(&self, machine: MachineKey, not: Incarnation, owner: Option<Incarnation>) {
        match owner {
            Some(owner) => self.put(machine, owner),
            None => {
                let mut state = self.state();
                if state.nodes.get(&machine).is_some_and(|(node, _)| *node == not) {
                    state.remove(machine);
                }
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, Remembered> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Remembered {
    fn remove(&mut self, machine: MachineKey) {
        if let Some((_, since)) = self.nodes.remove(&machine) {
            self.by_age.remove(&(since, machine));
        }
    }
}

#[cfg(test)]
mod tests;
