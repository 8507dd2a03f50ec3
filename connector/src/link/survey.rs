//! The regions as this machine sees them: listed by the server, pinned by the account, measured by probes, and judged
//! by what happened to links. The rule is `flydex_domain::region`; here are its clock, its probes and its report.
//!
//! Where there is a choice, every region is probed before the first link, for a moment; later the near ones now and
//! then, one at a time. Where there is none, nothing is probed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flydex_domain::limits::{REGION_FIRST_GRACE, REGION_FIRST_WAIT_MAX, REGION_PROBES_AT_ONCE};
use flydex_domain::region::{Lost, Regions};
use flydex_domain::time::UnixMillis;
use flydex_domain::token::{MachineCredential, TokenVerifier};
use flydex_runtime::lifecycle::Shutdown;
use futures_util::{StreamExt as _, stream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::Config;
use super::probe::probe;
use super::trust::Trust;
use crate::api::SecretText;
use crate::paired::{MeasuredRegion, RegionEndpoint, RegionReport};

/// What is known of the regions; shared by the supervisor and the probes.
pub(super) struct Survey {
    config: Arc<Config>,
    trust: Arc<Trust>,
    known: Mutex<Known>,
    changed: watch::Sender<()>,
    began: AtomicBool,
}

struct Known {
    regions: Regions,
    endpoints: Vec<RegionEndpoint>,
    /// The credential whose pin is known.
    credential: SecretText,
    stuck: bool,
}

/// Where to dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) first: RegionEndpoint,
    /// Where to turn to when the first does not answer.
    pub(super) second: Option<RegionEndpoint>,
}

impl Survey {
    pub(super) fn new(config: Arc<Config>, trust: Arc<Trust>) -> Self {
        let known = Known {
            regions: Regions::default(),
            endpoints: Vec::new(),
            credential: SecretText::default(),
            stuck: false,
        };
        let changed = watch::Sender::default();
        Self { config, trust, known: Mutex::new(known), changed, began: AtomicBool::new(false) }
    }

    // === What to do ===

    /// Where to dial now; waits until there is a region to dial, and once, for a moment, until the nearest is known.
    pub(super) async fn ready(&self) -> Plan {
        let mut news = self.news();
        loop {
            if self.plan().is_some() && !self.began.swap(true, Ordering::Relaxed) {
                self.measure_first(&mut news).await;
            }
            if let Some(plan) = self.plan() {
                return plan;
            }
            news.next().await;
        }
    }

    /// Waits until another region is to be preferred.
    pub(super) async fn better_than(&self, region: &str) -> RegionEndpoint {
        let mut news = self.news();
        loop {
            if let Some(plan) = self.plan().filter(|plan| plan.first.region != region) {
                return plan.first;
            }
            news.next().await;
        }
    }

    /// Whether a link may be in this region.
    pub(super) fn permits(&self, region: &str) -> bool {
        self.look(|regions, _| regions.permits(region))
    }

    /// The region's entrance as it is listed now.
    pub(super) fn endpoint(&self, region: &str) -> Option<RegionEndpoint> {
        self.lock().endpoint(region)
    }

    // === What happened ===

    pub(super) fn linked(&self, region: &str, handshake: Duration) {
        self.lock().stuck = false;
        self.update(|regions, now| {
            regions.measured(region, handshake, now);
            regions.linked(region, now);
        });
    }

    pub(super) fn lost(&self, region: &str, lost: Lost) {
        let jitter = self.jitter();
        self.update(|regions, now| regions.lost(region, lost, jitter, now));
    }

    pub(super) fn failed(&self, region: &str) {
        let jitter = self.jitter();
        self.update(|regions, now| regions.failed(region, jitter, now));
    }

    pub(super) fn outrun(&self, region: &str) {
        self.update(|regions, now| regions.outrun(region, now));
    }

    pub(super) fn told_to_go(&self, region: &str, hint: &str) {
        self.update(|regions, now| regions.told_to_go(region, hint, now));
    }

    /// No region could be linked in.
    pub(super) fn stuck(&self) {
        self.lock().stuck = true;
        self.update(|_, _| ());
    }

    // === Probing ===

    /// Probes what is due until the stop.
    pub(super) async fn run(self: Arc<Self>, shutdown: Shutdown) {
        let (soft, mut news) = (shutdown.soft(), self.news());
        loop {
            let (due, at_once, next) = self.due();
            if !due.is_empty() {
                let probes = stream::iter(due).for_each_concurrent(at_once, |at| self.probe(at, &shutdown));
                tokio::select! {
                    biased; // the stop comes first
                    () = soft.cancelled() => return,
                    () = probes => continue,
                }
            }
            tokio::select! {
                biased; // the stop comes first
                () = soft.cancelled() => return,
                () = news.next() => {}
                () = at(next) => {}
            }
        }
    }

    async fn probe(&self, endpoint: RegionEndpoint, shutdown: &Shutdown) {
        let handshake = probe(&endpoint, &self.trust, shutdown).await;
        let jitter = self.jitter();
        self.update(|regions, now| regions.probed(&endpoint.region, handshake, jitter, now));
    }

    /// What is to be probed, how much of it at once, and when there will be more.
    fn due(&self) -> (Vec<RegionEndpoint>, usize, Option<Instant>) {
        let now = Instant::now().into_std();
        let mut known = self.lock();
        self.sync(&mut known);
        self.publish(&known, now);
        let due = known.regions.probes_due(now).filter_map(|name| known.endpoint(name)).collect();
        let at_once = if known.regions.is_measured(now) { 1 } else { REGION_PROBES_AT_ONCE };
        (due, at_once, known.regions.next_probe().map(|(_, at)| at.into()))
    }

    /// The nearest region answers first. The others get a moment more, lest noise decides.
    async fn measure_first(&self, news: &mut News) {
        if self.look(|regions, _| regions.choices() < 2) {
            return;
        }
        let answered = |regions: &Regions, now| regions.is_measured(now) || regions.is_surveyed(now);
        self.wait_until(answered, news, REGION_FIRST_WAIT_MAX).await;
        self.wait_until(Regions::is_surveyed, news, REGION_FIRST_GRACE).await;
    }

    async fn wait_until(&self, done: fn(&Regions, std::time::Instant) -> bool, news: &mut News, most: Duration) {
        let deadline = Instant::now() + most;
        while !self.look(done) && timeout_at(deadline, news.next()).await.is_ok() {}
    }

    fn plan(&self) -> Option<Plan> {
        let now = Instant::now().into_std();
        let mut known = self.lock();
        self.sync(&mut known);
        let choice = known.regions.choose(now);
        let first = known.endpoint(choice.link?)?;
        Some(Plan { first, second: choice.second.and_then(|second| known.endpoint(second)) })
    }

    // === What is shared ===

    fn look<R>(&self, look: impl FnOnce(&Regions, std::time::Instant) -> R) -> R {
        look(&self.lock().regions, Instant::now().into_std())
    }

    /// Lets the rule take note of something, and tells everybody.
    fn update(&self, change: impl FnOnce(&mut Regions, std::time::Instant)) {
        let now = Instant::now().into_std();
        let mut known = self.lock();
        self.sync(&mut known);
        change(&mut known.regions, now);
        self.publish(&known, now);
        drop(known);
        self.changed.send_replace(());
    }

    fn publish(&self, known: &Known, now: std::time::Instant) {
        let report = known.report(now);
        self.config.region_report.send_if_modified(|before| {
            let modified = *before != report;
            *before = report;
            modified
        });
    }

    /// Takes the newest list and the newest pin on. A credential that does not verify changes no pin.
    fn sync(&self, known: &mut Known) {
        let paired = &self.config.paired;
        if *paired.regions.borrow() != known.endpoints {
            known.endpoints.clone_from(&paired.regions.borrow());
            let names = known.endpoints.iter().map(|endpoint| endpoint.region.as_str());
            known.regions.list(names, Instant::now().into_std());
        }
        let credential = paired.credential.borrow();
        // Whatever its age: at the beginning of time nothing has expired.
        if *credential != known.credential
            && let Ok(claims) = paired.verifier.borrow().verify::<MachineCredential>(credential.expose(), UnixMillis(0))
        {
            known.credential.clone_from(&credential);
            known.regions.pin(claims.region_pin);
        }
    }

    fn news(&self) -> News {
        let paired = &self.config.paired;
        News {
            changed: self.changed.subscribe(),
            endpoints: paired.regions.clone(),
            credential: paired.credential.clone(),
            verifier: paired.verifier.clone(),
        }
    }

    fn jitter(&self) -> u8 {
        let [jitter] = self.config.entropy.bytes();
        jitter
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn endpoint(&self, region: &str) -> Option<RegionEndpoint> {
        self.endpoints.iter().find(|endpoint| endpoint.region == region).cloned()
    }

    fn report(&self, now: std::time::Instant) -> RegionReport {
        let choice = self.regions.choose(now);
        let measured =
            |region: &str| MeasuredRegion { region: region.to_owned(), handshake: self.regions.handshake(region, now) };
        let link = self.regions.present().or(choice.link);
        let pinned_elsewhere = self.regions.pinned().is_some() && self.regions.choices() == 0;
        RegionReport {
            link: link.map(measured),
            second: choice.second.filter(|second| Some(*second) != link).map(measured),
            pin: self.regions.pinned().map(str::to_owned),
            stuck: self.stuck || pinned_elsewhere,
        }
    }
}

/// Anything that may change the choice.
struct News {
    changed: watch::Receiver<()>,
    endpoints: watch::Receiver<Vec<RegionEndpoint>>,
    credential: watch::Receiver<SecretText>,
    verifier: watch::Receiver<Arc<TokenVerifier>>,
}

impl News {
    async fn next(&mut self) {
        // The survey itself is always there to tell; who keeps the others may be gone.
        tokio::select! {
            Ok(()) = self.changed.changed() => {}
            Ok(()) = self.endpoints.changed() => {}
            Ok(()) = self.credential.changed() => {}
            Ok(()) = self.verifier.changed() => {}
            else => std::future::pending().await,
        }
    }
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
