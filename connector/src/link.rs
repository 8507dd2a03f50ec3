//! Links to the relay: dialled, proven, kept alive, and opened again.
//!
//! One supervisor keeps one link, in the region that the survey prefers. It tries QUIC first where the region has it,
//! and falls back to a WebSocket within two seconds; on a WebSocket it probes QUIC from time to time. A link ends with
//! the credential that opened it; long before, the gateway tells it to go away. The next one has the newest credential,
//! and the old one serves until the next has attached: the core ends it then.
//!
//! When a link is lost, its region and the second are dialled in a short race. A move that nothing forces is tried
//! beside the link that serves, and done only when an owner has attached over there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;
use flydex_domain::error::{ErrorCode, Retry};
use flydex_domain::id::BootId;
use flydex_domain::limits::{
    LINK_SERVED_AFTER, QUIC_PROBE_INTERVAL, RECONNECT_WAIT_MAX, RECONNECT_WAIT_MIN, REGION_HEAD_START,
    REGION_HEAD_START_SERVED, REGION_HOLD_MIN,
};
use flydex_domain::region::{DRAIN_HINT, Lost};
use flydex_proto::v1;
use flydex_runtime::clock::Clock;
use flydex_runtime::lifecycle::Shutdown;
use tokio::sync::{mpsc, oneshot, watch};

use crate::api::SecretText;
use crate::core::{CoreConfig, LinkEvent};
use crate::epoch::Fence;
use crate::outbox::Outbox;
use crate::paired::{Channel, DeskPolicy, Entropy, PairedState, RegionEndpoint, RegionReport, Transport};

mod error;
mod hello;
mod open;
mod probe;
mod quic;
mod race;
mod relocate;
mod serve;
mod survey;
mod trust;
mod wire;
mod ws;

use error::{DialError, blames_region};
use open::Dialler;
use serve::Ended;
use survey::Survey;
use trust::Trust;

/// What links need to know.
#[derive(Clone)]
pub struct Config {
    paired: PairedState,
    boot_id: BootId,
    connector_version: String,
    fence: Fence,
    entropy: Entropy,
    region_report: watch::Sender<RegionReport>,
}

impl Config {
    /// The core's own.
    #[must_use]
    pub fn of(core: &CoreConfig) -> Self {
        Self {
            paired: core.paired.clone(),
            boot_id: core.boot_id,
            connector_version: core.connector_version.clone(),
            fence: core.fence.clone(),
            entropy: core.entropy.clone(),
            region_report: core.region_report.clone(),
        }
    }
}

/// Starts the supervisor, and the survey of regions beside it.
pub fn start(config: Config, events: mpsc::Sender<LinkEvent>, clock: Clock, shutdown: &Shutdown) {
    let (config, trust) = (Arc::new(config), Arc::new(Trust::default()));
    let survey = Arc::new(Survey::new(Arc::clone(&config), Arc::clone(&trust)));
    shutdown.spawn(Arc::clone(&survey).run(shutdown.clone()));
    let dialler = Dialler::new(Arc::clone(&config), trust, events.clone(), clock.clone(), shutdown.clone());
    let (credential, machine_key) = (config.paired.credential.clone(), config.paired.machine_key.clone());
    let supervisor = Supervisor {
        config,
        credential,
        machine_key,
        survey,
        dialler,
        events,
        clock,
        shutdown: shutdown.clone(),
        failures: 0,
        served: false,
        stay_until: tokio::time::Instant::now(),
    };
    shutdown.spawn(Box::pin(supervisor.run()));
}

/// How far away a region is, by one handshake that says nothing of this machine; `None` when it is not to be reached.
pub async fn measure(endpoint: &RegionEndpoint, shutdown: &Shutdown) -> Option<Duration> {
    probe::probe(endpoint, &Trust::default(), shutdown).await
}

struct Supervisor {
    config: Arc<Config>,
    /// Seen up to the one that the last link was opened with.
    credential: watch::Receiver<SecretText>,
    /// Seen up to the one that the last link was proven with.
    machine_key: watch::Receiver<Arc<SigningKey>>,
    survey: Arc<Survey>,
    dialler: Dialler,
    events: mpsc::Sender<LinkEvent>,
    clock: Clock,
    shutdown: Shutdown,
    /// In a row; a link that served resets it.
    failures: u32,
    /// The link before was only asked to go, and serves until the next one is there.
    served: bool,
    /// A move that failed is not tried again before.
    stay_until: tokio::time::Instant,
}

/// A link that serves in its own task.
struct Running {
    endpoint: RegionEndpoint,
    channel: Channel,
    handshake: Duration,
    outbox: Outbox,
    since: Instant,
    ended: oneshot::Receiver<Ended>,
    go_away: mpsc::Receiver<v1::GoAway>,
    owned: watch::Receiver<bool>,
}

/// What the supervisor does next.
enum Next {
    /// Opens another link at once; the old one may still serve.
    Replace,
    /// This one serves from now on.
    Took(Running),
    /// The one that serves goes on.
    Stay,
    /// Waits, then opens another.
    Wait(Duration),
    /// The process stops.
    Stop,
}

/// What became of a link that serves.
enum Watched {
    /// This follows.
    Next(Next),
    /// It is time to try QUIC beside the WebSocket.
    Probe,
    /// It is time to try another region beside it.
    Move(RegionEndpoint),
}

impl Supervisor {
    async fn run(mut self) {
        let soft = self.shutdown.soft();
        let mut running: Option<Running> = None;
        loop {
            if soft.is_cancelled() {
                return;
            }
            let next = match running.as_mut() {
                Some(link) => self.attend(link).await,
                None => tokio::select! {
                    next = self.open() => next,
                    () = soft.cancelled() => return,
                },
            };
            match next {
                Next::Replace => running = None,
                Next::Took(link) => running = Some(link),
                Next::Stay => {}
                Next::Wait(wait) => {
                    running = None;
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        // What was refused may be taken with a newer one.
                        Ok(()) = self.credential.changed() => {}
                        () = soft.cancelled() => return,
                    }
                }
                Next::Stop => return,
            }
        }
    }

    async fn open(&mut self) -> Next {
        let plan = self.survey.ready().await;
        self.credential.mark_unchanged();
        self.machine_key.mark_unchanged();
        let head_start = if self.served { REGION_HEAD_START_SERVED } else { REGION_HEAD_START };
        match Box::pin(race::open(&self.dialler, &self.survey, &plan, head_start)).await {
            Ok(link) => {
                self.served = false;
                self.took(link)
            }
            Err(error) => Next::Wait(self.failed(&error).await),
        }
    }

    fn took(&self, link: Running) -> Next {
        self.survey.linked(&link.endpoint.region, link.handshake);
        Next::Took(link)
    }

    /// Watches over the link that serves, and tries another beside it where that may be better.
    async fn attend(&mut self, link: &mut Running) -> Next {
        match self.watch(link).await {
            Watched::Next(next) => next,
            Watched::Probe => self.probe(link).await,
            Watched::Move(to) => Box::pin(self.relocate(link, &to)).await,
        }
    }

    /// Waits until something must be done about the link that serves.
    async fn watch(&mut self, link: &mut Running) -> Watched {
        let soft = self.shutdown.soft();
        let region = link.endpoint.region.as_str();
        let may_probe = link.channel.transport == Transport::WebSocket
            && self.survey.endpoint(region).is_some_and(|at| at.quic.is_some());
        let mut policy = self.config.paired.policy.clone();
        let mut machine_key = self.machine_key.clone();
        let (survey, stay_until) = (&self.survey, self.stay_until);
        let better = async {
            tokio::time::sleep_until(stay_until).await;
            survey.better_than(region).await
        };
        tokio::select! {
            // Gone for good counts before gone soon, and both before what is better.
            biased;
            () = soft.cancelled() => Watched::Next(Next::Stop),
            Ok(()) = binding_required(&mut policy), if !link.channel.bound => {
                link.outbox.close(ErrorCode::ChannelNotBound);
                Watched::Next(Next::Replace)
            }
            ended = &mut link.ended => Watched::Next(self.ended(link, ended).await),
            Ok(()) = machine_key.changed() => {
                // The next link is proven with the new key; this one serves until that is there.
                self.served = true;
                Watched::Next(Next::Replace)
            }
            Some(away) = link.go_away.recv() => Watched::Next(self.told_to_go(link, &away).await),
            to = better => Watched::Move(to),
            () = tokio::time::sleep(QUIC_PROBE_INTERVAL), if may_probe => Watched::Probe,
        }
    }

    /// Another link is opened when the gateway asks for it, or when this one has not lasted that long. Where only the region
    /// drains, the move to another one is made as any move is, and who has no other stays.
    async fn told_to_go(&mut self, link: &mut Running, away: &v1::GoAway) -> Next {
        self.survey.told_to_go(&link.endpoint.region, &away.hint);
        let wait = Duration::from_millis(away.reconnect_in_ms.into()).min(RECONNECT_WAIT_MAX);
        tokio::select! {
            biased; // what has ended is known to have ended
            ended = &mut link.ended => self.ended(link, ended).await,
            () = tokio::time::sleep(wait), if away.hint == DRAIN_HINT => Next::Stay,
            () = tokio::time::sleep(wait) => {
                self.served = true;
                Next::Replace
            }
        }
    }

    async fn ended(&mut self, link: &Running, ended: Result<Ended, oneshot::error::RecvError>) -> Next {
        let ended = ended.unwrap_or(ErrorCode::Internal.into());
        self.outrank(&ended).await;
        let served = self.clock.instant().saturating_duration_since(link.since) >= LINK_SERVED_AFTER;
        self.failures = if served { 0 } else { self.failures.saturating_add(1) };
        let never_owned = !*link.owned.borrow() && blames_region(ended.code);
        let lost = if served {
            Lost::Served
        } else if never_owned {
            Lost::NeverOwned
        } else {
            Lost::Young
        };
        self.survey.lost(&link.endpoint.region, lost);
        if matches!(ended.code, ErrorCode::CredentialInvalid | ErrorCode::MachineWrongRegion) {
            self.survey.stuck();
        }
        Next::Wait(self.wait_after(ended.code, ended.retry_after))
    }

    async fn probe(&self, link: &Running) -> Next {
        let Some(endpoint) = self.survey.endpoint(&link.endpoint.region) else { return Next::Stay };
        match self.dialler.open_quic(&endpoint).await {
            Some(quic) => self.took(quic),
            None => Next::Stay,
        }
    }

    /// Moves to another region: the link that serves is left when an owner has attached over there. One that may not
    /// stay where it is ends all the same.
    async fn relocate(&mut self, link: &mut Running, to: &RegionEndpoint) -> Next {
        let soft = self.shutdown.soft();
        let arrived = tokio::select! {
            // The old link ends when the new one has arrived, and that is no loss.
            biased;
            () = soft.cancelled() => return Next::Stop,
            arrived = relocate::arrive(&self.dialler, to) => arrived,
            ended = &mut link.ended => return self.ended(link, ended).await,
        };
        if let Ok(there) = arrived {
            tracing::info!(region = %to.region, "moved to another region");
            return self.took(there);
        }
        tracing::info!(region = %to.region, "no move to another region");
        self.survey.failed(&to.region);
        self.stay_until = tokio::time::Instant::now() + REGION_HOLD_MIN;
        if self.survey.permits(&link.endpoint.region) {
            return Next::Stay;
        }
        link.outbox.close(ErrorCode::GoingAway);
        Next::Replace
    }

    /// A machine that has lost its count of links counts on from the newest one.
    async fn outrank(&self, ended: &Ended) {
        if ended.code != ErrorCode::LinkSuperseded || ended.link_counter == 0 {
            return;
        }
        let (fence, link_counter) = (self.config.fence.clone(), ended.link_counter);
        let noted = tokio::task::spawn_blocking(move || fence.outrank(link_counter)).await;
        if !matches!(noted, Ok(Ok(()))) {
            tracing::warn!("the count of links cannot be kept");
        }
    }

    async fn failed(&mut self, error: &DialError) -> Duration {
        let code = error.code();
        tracing::info!(error.code = code.name(), "no link could be opened");
        self.failures = self.failures.saturating_add(1);
        self.survey.stuck();
        let down = LinkEvent::Down { link: self.dialler.next_number(), code: Some(code) };
        // The core is gone only when the process ends.
        let _ = self.events.send(down).await;
        self.wait_after(code, error.retry_after())
    }

    /// Doubles with each failure, with jitter so that a whole fleet does not come back at once.
    fn wait_after(&self, code: ErrorCode, retry_after: Duration) -> Duration {
        let hopeless = code.retry() == Retry::Never && code != ErrorCode::LinkSuperseded;
        let doubled = RECONNECT_WAIT_MIN.saturating_mul(1 << self.failures.min(7));
        let base = if hopeless { RECONNECT_WAIT_MAX } else { doubled.min(RECONNECT_WAIT_MAX) };
        let [random] = self.config.entropy.bytes::<1>();
        let jittered = base.mul_f64(0.5 + f64::from(random) / 512.0);
        jittered.max(retry_after.min(RECONNECT_WAIT_MAX))
    }
}

/// Waits until the desk wants links bound to their TLS connection; an error when nothing will change any more.
async fn binding_required(policy: &mut watch::Receiver<DeskPolicy>) -> Result<(), watch::error::RecvError> {
    policy.wait_for(|policy| policy.require_channel_binding).await.map(drop)
}

#[cfg(test)]
pub(crate) mod tests;
