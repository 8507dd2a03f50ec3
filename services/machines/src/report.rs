//! Tells control in which region machines are linked, so that devices look for them there.
//!
//! The actor of a machine notes each new link and goes on; a task of the node's own sends what was noted in batches to
//! any control process. Nothing here matters to what is linked: control may be away for as long as it likes. Once it has
//! been, and now and then, everything that is linked here is reported again, at a bounded rate and behind what is new.
//! That a link ended is not reported: where a machine was last is where to look for it.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flydex_domain::limits::{
    LINK_REPORT_ALL_INTERVAL, LINK_REPORT_DEBOUNCE, LINK_REPORT_INTERVAL_MIN, LINK_REPORT_RETRY_WAIT_MAX,
    LINK_REPORT_RETRY_WAIT_MIN, LINK_REPORT_TIMEOUT, LINK_REPORTS_MAX, LINK_REPORTS_WAITING_MAX,
};
use flydex_domain::scope::MachineKey;
use flydex_domain::time::UnixMillis;
use flydex_proto::v1;
use flydex_proto::v1::internal_client::InternalClient;
use tokio::sync::Notify;
use tokio::time::Instant;
use tonic::transport::Channel;

use crate::convert::copy;
use crate::host::Host;

/// A link that a machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Linked {
    /// The connector's count of its links.
    pub(crate) counter: u64,
    /// When it began.
    pub(crate) at: UnixMillis,
}

/// What is to be reported.
pub(crate) struct Reports {
    waiting: Mutex<Waiting>,
    noted: Notify,
    max: usize,
}

#[derive(Default)]
struct Waiting {
    /// Whether anybody reports: a node beside its control plane has nobody to tell.
    on: bool,
    links: BTreeMap<MachineKey, Linked>,
    /// Everything that is linked here is to be reported.
    all: bool,
}

impl Default for Reports {
    fn default() -> Self {
        Self::with_bound(LINK_REPORTS_WAITING_MAX)
    }
}

impl Reports {
    fn with_bound(max: usize) -> Self {
        Self { waiting: Mutex::default(), noted: Notify::new(), max }
    }

    /// Notes a new link, for later.
    pub(crate) fn note(&self, machine: MachineKey, linked: Linked) {
        let mut waiting = self.waiting();
        if waiting.on {
            waiting.add(machine, linked, self.max);
            self.noted.notify_one();
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Every change under the lock leaves it whole: a link that is lost is reported with all the others.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn add(&mut self, machine: MachineKey, linked: Linked, max: usize) {
        if self.links.len() >= max && !self.links.contains_key(&machine) {
            self.all = true;
            return;
        }
        let known = self.links.entry(machine).or_insert(linked);
        if known.counter < linked.counter {
            *known = linked;
        }
    }
}

/// Who takes reports.
pub(crate) trait Take: Send {
    /// Whether one was taken.
    fn take(&mut self, report: v1::ReportLinksRequest) -> impl Future<Output = bool> + Send;
}

/// Any control process; another one after each that did not answer.
pub(crate) struct ControlProcesses {
    channels: Vec<Channel>,
    next: usize,
}

impl ControlProcesses {
    pub(crate) const fn new(channels: Vec<Channel>, first: usize) -> Self {
        Self { channels, next: first }
    }
}

impl Take for ControlProcesses {
    async fn take(&mut self, report: v1::ReportLinksRequest) -> bool {
        let Some(channel) = self.channels.get(self.next % self.channels.len().max(1)) else { return false };
        let mut client = InternalClient::new(channel.clone());
        let answer = tokio::time::timeout(LINK_REPORT_TIMEOUT, client.report_links(report)).await;
        let taken = matches!(answer, Ok(Ok(_)));
        if !taken {
            self.next = self.next.wrapping_add(1);
        }
        taken
    }
}

/// Reports for as long as the node lives, beginning with all that is linked here.
pub(crate) async fn run(host: Arc<Host>, mut control: impl Take) {
    let reports = &host.context.reports;
    {
        let mut waiting = reports.waiting();
        (waiting.on, waiting.all) = (true, true);
    }
    let mut reporter = Reporter { host: &host, backlog: Vec::new(), wait: LINK_REPORT_RETRY_WAIT_MIN };
    let mut all_at = Instant::now() + LINK_REPORT_ALL_INTERVAL;
    loop {
        if Instant::now() >= all_at {
            reports.waiting().all = true;
            all_at = Instant::now() + LINK_REPORT_ALL_INTERVAL;
        }
        let batch = reporter.batch();
        if batch.is_empty() {
            tokio::select! {
                () = reports.noted.notified() => tokio::time::sleep(LINK_REPORT_DEBOUNCE).await,
                () = tokio::time::sleep_until(all_at) => {}
            }
            continue;
        }
        let pause = reporter.report(&mut control, batch).await;
        tokio::time::sleep(pause).await;
    }
}

struct Reporter<'a> {
    host: &'a Host,
    /// What is linked here and yet to be reported again.
    backlog: Vec<(MachineKey, Linked)>,
    /// The next wait after a report that nobody takes.
    wait: Duration,
}

impl Reporter<'_> {
    /// What is new, then what is reported again.
    fn batch(&mut self) -> BTreeMap<MachineKey, Linked> {
        let mut waiting = self.host.context.reports.waiting();
        let all = std::mem::take(&mut waiting.all);
        let mut batch = BTreeMap::new();
        while batch.len() < LINK_REPORTS_MAX
            && let Some((machine, linked)) = waiting.links.pop_first()
        {
            batch.insert(machine, linked);
        }
        drop(waiting);
        if all {
            self.backlog = self.host.links();
        }
        while batch.len() < LINK_REPORTS_MAX
            && let Some((machine, linked)) = self.backlog.pop()
        {
            // What is new is newer.
            batch.entry(machine).or_insert(linked);
        }
        batch
    }

    /// Sends a batch; how long to wait before the next.
    async fn report(&mut self, control: &mut impl Take, batch: BTreeMap<MachineKey, Linked>) -> Duration {
        let context = &self.host.context;
        let links = batch.iter().map(|(machine, linked)| wire(*machine, *linked)).collect();
        let taken = control.take(v1::ReportLinksRequest { region: context.region.clone(), links }).await;
        context.metrics.links_reported(taken, batch.len());
        if taken {
            self.wait = LINK_REPORT_RETRY_WAIT_MIN;
            return LINK_REPORT_INTERVAL_MIN;
        }
        // Some control process may have been told and forgotten: all is told again, what is new before the rest.
        let mut waiting = context.reports.waiting();
        waiting.all = true;
        for (machine, linked) in batch {
            waiting.add(machine, linked, context.reports.max);
        }
        drop(waiting);
        self.backlog.clear();
        let wait = self.wait;
        self.wait = (wait * 2).min(LINK_REPORT_RETRY_WAIT_MAX);
        // Between a half and the whole: nodes that lost control at once do not come back at once.
        let [spread, ..] = context.incarnation.as_bytes();
        wait / 2 + wait / 2 * u32::from(*spread) / 255
    }
}

fn wire(machine: MachineKey, linked: Linked) -> v1::LinkReport {
    v1::LinkReport {
        account_id: copy(machine.account_id().as_bytes()),
        machine_id: copy(machine.machine_id().as_bytes()),
        at_ms: linked.at.0,
        link_counter: linked.counter,
    }
}

#[cfg(test)]
mod tests;
