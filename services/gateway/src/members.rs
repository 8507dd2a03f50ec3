//! Which nodes there are, as the directory said last, or as they were found while it says nothing.
//!
//! The view outlives the directory: while it does not answer, the last one holds. A node that is missing from an answer
//! is kept for as long as its lease could still be believed, since a directory that has lost its memory hears of every
//! node again within one renewal; a node that has left in order said before that it drains.
//!
//! Nodes that were found in another way count beside the last view for as long as the directory is away. Once it answers,
//! they are kept like nodes that are missing from an answer: its word holds.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flydex_domain::id::Incarnation;
use flydex_domain::limits::{LEASE_SUSPECT_AFTER, MEMBERS_MAX};
use flydex_domain::placement::Member;
use flydex_store::directory::Directory;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::seeds::Found;

/// The nodes of the region.
pub(crate) struct Members {
    directory: Arc<dyn Directory>,
    view: Mutex<View>,
    /// Whether the directory did not answer when it was asked last.
    away: watch::Sender<bool>,
    /// Held while the directory is asked, so that those who find the view stale ask once.
    asking: tokio::sync::Mutex<()>,
}

struct View {
    seen: BTreeMap<Incarnation, Seen>,
    /// The nodes that were found without the directory.
    found: Found,
    members: Arc<[Member]>,
    asked_at: Option<Instant>,
}

struct Seen {
    member: Member,
    at: Instant,
}

impl Members {
    /// Knows no node yet.
    pub(crate) fn new(directory: Arc<dyn Directory>) -> Self {
        let view = View { seen: BTreeMap::new(), found: Found::new(), members: Arc::new([]), asked_at: None };
        Self {
            directory,
            view: Mutex::new(view),
            away: watch::Sender::new(false),
            asking: tokio::sync::Mutex::default(),
        }
    }

    /// The nodes by the last answer.
    pub(crate) fn list(&self) -> Arc<[Member]> {
        self.view().members.clone()
    }

    /// Whether the directory did not answer when it was asked last.
    pub(crate) fn is_away(&self) -> bool {
        *self.away.borrow()
    }

    /// Waits until the directory does not answer.
    pub(crate) async fn away(&self) {
        // The sender lives as long as the members.
        let _ = self.away.subscribe().wait_for(|away| *away).await;
    }

    /// The nodes that were found without the directory.
    pub(crate) fn found(&self) -> Found {
        self.view().found.clone()
    }

    /// Takes note of the nodes that were found without the directory, in place of those before; in vain once it answers.
    pub(crate) fn set_found(&self, found: Found) {
        let mut view = self.view();
        if self.is_away() {
            view.found = found;
            view.list_found();
        }
    }

    /// Asks the directory; the view stays as it is when there is no answer.
    pub(crate) async fn refresh(&self) {
        let _asking = self.asking.lock().await;
        self.ask().await;
    }

    /// Asks the directory unless somebody else has since `since`.
    pub(crate) async fn refresh_since(&self, since: Instant) {
        let _asking = self.asking.lock().await;
        let is_fresh = self.view().asked_at.is_some_and(|at| at >= since);
        if !is_fresh {
            self.ask().await;
        }
    }

    async fn ask(&self) {
        let asked_at = Instant::now();
        let answer = self.directory.members().await;
        let mut view = self.view();
        view.asked_at = Some(asked_at);
        let was_away = self.away.send_replace(answer.is_err());
        match answer {
            Ok(answer) => view.note(answer.members),
            Err(error) if !was_away => {
                let error: &(dyn std::error::Error + 'static) = &error;
                tracing::warn!(error, "nodes not asked for: the last view holds");
            }
            Err(_) => {}
        }
    }

    fn view(&self) -> MutexGuard<'_, View> {
        // A poisoned lock holds whole values: each is replaced at once.
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl View {
    fn note(&mut self, members: Vec<Member>) {
        let now = Instant::now();
        for record in std::mem::take(&mut self.found).into_values() {
            let found = self.seen.entry(record.incarnation);
            let member = Member { record, silent_for: Duration::ZERO };
            found.and_modify(|seen| seen.at = now).or_insert(Seen { member, at: now });
        }
        for member in members.into_iter().take(MEMBERS_MAX) {
            self.seen.insert(member.record.incarnation, Seen { member, at: now });
        }
        self.seen.retain(|_, seen| now.duration_since(seen.at) < LEASE_SUSPECT_AFTER);
        let aged = |seen: &Seen| {
            let silent_for = seen.member.silent_for + now.duration_since(seen.at);
            Member { silent_for, ..seen.member.clone() }
        };
        self.members = self.seen.values().map(aged).collect();
    }

    /// The last view, and beside it those that were found.
    fn list_found(&mut self) {
        let seen = self.seen.values().map(|seen| seen.member.clone());
        let found = self.found.values().filter(|record| !self.seen.contains_key(&record.incarnation));
        let found = found.map(|record| Member { record: record.clone(), silent_for: Duration::ZERO });
        self.members = seen.chain(found).take(MEMBERS_MAX).collect();
    }
}

#[cfg(test)]
mod tests;
