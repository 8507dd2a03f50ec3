//! The newest number of the revocation log and the regions that drain, looked up by one task for all followers.

use std::collections::BTreeSet;

use flydex_domain::error::ErrorCode;
use flydex_domain::limits::REVOCATION_POLL_INTERVAL;
use flydex_domain::time::UnixMillis;
use flydex_store::StoreError;
use tokio::sync::{Notify, watch};

use crate::service::Control;

/// The newest entry's number at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) number: u64,
    pub(super) at: UnixMillis,
}

/// Tells followers of the head.
pub(crate) struct Head {
    seen: watch::Sender<Option<Seen>>,
    drains: watch::Sender<BTreeSet<String>>,
    /// Entries before this end nothing any more.
    oldest: u64,
    changed: Notify,
}

impl Head {
    pub(crate) fn new(oldest: u64) -> Self {
        Self { seen: watch::Sender::new(None), drains: watch::Sender::default(), oldest, changed: Notify::new() }
    }

    /// Says that the log has grown.
    pub(crate) fn look(&self) {
        self.changed.notify_one();
    }

    /// The number that a follower begins after who knows nothing.
    pub(super) fn oldest(&self) -> u64 {
        self.oldest
    }

    /// Whether a region drains, as it was last seen.
    pub(super) fn drains(&self, region: &str) -> bool {
        self.drains.borrow().contains(region)
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Option<Seen>> {
        self.seen.subscribe()
    }
}

/// Looks whenever the log may have grown, and at least every 500 ms, for other processes write to it too.
pub(super) async fn follow(control: &Control) {
    let head = &control.head;
    let mut known = head.oldest;
    loop {
        match look(control, known).await {
            Ok((number, drains)) => {
                known = number;
                // First, so that whoever hears of the head hears of these as well.
                head.drains.send_if_modified(|before| std::mem::replace(before, drains.clone()) != drains);
                head.seen.send_replace(Some(Seen { number, at: control.now() }));
            }
            Err(error) => {
                tracing::warn!(error.code = ErrorCode::StoreUnavailable.name(), error = %error, "revocations late");
            }
        }
        tokio::select! {
            () = head.changed.notified() => {}
            () = tokio::time::sleep(REVOCATION_POLL_INTERVAL) => {}
        }
    }
}

async fn look(control: &Control, known: u64) -> Result<(u64, BTreeSet<String>), StoreError> {
    let number = newest(control, known).await?;
    Ok((number, control.store.read().await?.region_drains().await?))
}

async fn newest(control: &Control, mut known: u64) -> Result<u64, StoreError> {
    while let Some(entry) = control.revocations_after(known).await?.last() {
        known = entry.number;
    }
    Ok(known)
}
