//! Links to the relay: dialled, proven, kept alive, and opened again.
//!
//! One supervisor keeps one link. It tries QUIC first where the region has it, and falls back to a WebSocket
//! within two seconds; on a WebSocket it probes QUIC from time to time. A link ends with the credential that
//! opened it; long before, the gateway tells it to go away. The next one has the newest credential, and the old one
//! serves until the next has attached: the core ends it then.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flydex_domain::error::{ErrorCode, Retry};
use flydex_domain::id::BootId;
use flydex_domain::limits::{LINK_SERVED_AFTER, QUIC_PROBE_INTERVAL, RECONNECT_WAIT_MAX, RECONNECT_WAIT_MIN};
use flydex_proto::v1;
use flydex_runtime::clock::Clock;
use flydex_runtime::lifecycle::Shutdown;
use tokio::sync::{mpsc, oneshot, watch};

use crate::core::{CoreConfig, LinkEvent, LinkNumber};
use crate::epoch::Fence;
use crate::outbox::Outbox;
use crate::paired::{Channel, DeskPolicy, Entropy, PairedState, RegionEndpoint, Transport};

mod error;
mod hello;
mod open;
mod quic;
mod serve;
mod wire;
mod ws;

use error::DialError;
use serve::Ended;

/// What links need to know.
#[derive(Clone)]
pub struct Config {
    paired: PairedState,
    boot_id: BootId,
    connector_version: String,
    fence: Fence,
    entropy: Entropy,
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
        }
    }
}

/// Starts the supervisor.
pub fn start(config: Config, events: mpsc::Sender<LinkEvent>, clock: Clock, shutdown: &Shutdown) {
    let supervisor = Supervisor {
        config: Arc::new(config),
        events,
        clock,
        shutdown: shutdown.clone(),
        numbers: 0,
        failures: 0,
        proxied: None,
    };
    shutdown.spawn(Box::pin(supervisor.run()));
}

struct Supervisor {
    config: Arc<Config>,
    events: mpsc::Sender<LinkEvent>,
    clock: Clock,
    shutdown: Shutdown,
    numbers: LinkNumber,
    /// In a row; a link that served resets it.
    failures: u32,
    /// The entrance before which TLS ends on the way: its gateway took the proof only without the channel.
    proxied: Option<String>,
}

/// A link that serves in its own task.
struct Running {
    channel: Channel,
    outbox: Outbox,
    since: Instant,
    ended: oneshot::Receiver<Ended>,
    go_away: mpsc::Receiver<v1::GoAway>,
}

/// What the supervisor does next.
enum Next {
    /// Opens another link at once; the old one may still serve.
    Replace,
    /// Tries QUIC beside the WebSocket that serves.
    Probe,
    /// Waits, then opens another.
    Wait(Duration),
    /// The process stops.
    Stop,
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
                Some(link) => self.watch(link).await,
                None => {
                    let opened = tokio::select! {
                        opened = self.open() => opened,
                        () = soft.cancelled() => return,
                    };
                    match opened {
                        Ok(link) => {
                            running = Some(link);
                            continue;
                        }
                        Err(error) => Next::Wait(self.failed(&error).await),
                    }
                }
            };
            match next {
                Next::Replace => running = None,
                Next::Probe => {
                    if let Some(quic) = self.probe().await {
                        running = Some(quic);
                    }
                }
                Next::Wait(wait) => {
                    running = None;
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        () = soft.cancelled() => return,
                    }
                }
                Next::Stop => return,
            }
        }
    }

    /// Waits until something must be done about the link that serves.
    async fn watch(&mut self, link: &mut Running) -> Next {
        let soft = self.shutdown.soft();
        let may_probe =
            link.channel.transport == Transport::WebSocket && self.endpoint().is_some_and(|at| at.quic.is_some());
        let mut policy = self.config.paired.policy.clone();
        tokio::select! {
            // Gone for good counts before gone soon.
            biased;
            () = soft.cancelled() => Next::Stop,
            Ok(()) = binding_required(&mut policy), if !link.channel.bound => {
                link.outbox.close(ErrorCode::ChannelNotBound);
                Next::Replace
            }
            ended = &mut link.ended => {
                let ended = ended.unwrap_or(ErrorCode::Internal.into());
                self.outrank(&ended).await;
                let served = self.clock.instant().saturating_duration_since(link.since) >= LINK_SERVED_AFTER;
                self.failures = if served { 0 } else { self.failures.saturating_add(1) };
                Next::Wait(self.wait_after(ended.code, ended.retry_after))
            }
            Some(away) = link.go_away.recv() => {
                tokio::time::sleep(Duration::from_millis(away.reconnect_in_ms.into()).min(RECONNECT_WAIT_MAX)).await;
                Next::Replace
            }
            () = tokio::time::sleep(QUIC_PROBE_INTERVAL), if may_probe => Next::Probe,
        }
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
        self.numbers += 1;
        let down = LinkEvent::Down { link: self.numbers, code: Some(code) };
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

    fn endpoint(&self) -> Option<RegionEndpoint> {
        self.config.paired.regions.borrow().first().cloned()
    }

    async fn next_endpoint(&self) -> RegionEndpoint {
        let mut regions = self.config.paired.regions.clone();
        loop {
            if let Some(endpoint) = self.endpoint() {
                return endpoint;
            }
            if regions.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Waits until the desk wants links bound to their TLS connection; an error when nothing will change any more.
async fn binding_required(policy: &mut watch::Receiver<DeskPolicy>) -> Result<(), watch::error::RecvError> {
    policy.wait_for(|policy| policy.require_channel_binding).await.map(drop)
}

#[cfg(test)]
mod tests;
