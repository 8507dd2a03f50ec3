//! Links to the relay: dialled, proven, kept alive, and opened again.
//!
//! One supervisor keeps one link. It tries QUIC first where the region has it, and falls back to a WebSocket
//! within [`QUIC_FALLBACK_AFTER`]; on a WebSocket it probes QUIC from time to time. A link that is told to go away
//! serves on until the next one has attached: the core ends the old one then.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flydex_domain::error::{ErrorCode, Retry};
use flydex_domain::id::BootId;
use flydex_domain::limits::{
    HANDSHAKE_TIMEOUT, LINK_SERVED_AFTER, QUIC_FALLBACK_AFTER, QUIC_PROBE_INTERVAL, RECONNECT_WAIT_MAX,
    RECONNECT_WAIT_MIN,
};
use flydex_proto::v1;
use flydex_runtime::clock::Clock;
use flydex_runtime::lifecycle::Shutdown;
use tokio::sync::{mpsc, oneshot};

use crate::core::{CoreConfig, LinkEvent, LinkNumber};
use crate::epoch::Fence;
use crate::paired::{Entropy, PairedState, RegionEndpoint, Transport};

mod hello;
mod quic;
mod serve;
mod wire;
mod ws;

use serve::Ended;
use wire::Wire;

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

/// Why a link could not be opened.
#[derive(Debug, thiserror::Error)]
enum DialError {
    /// The address, the network or the transport's handshake.
    #[error("reach the relay")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The address is plain and not on this machine.
    #[error("plain connections are made to this machine only")]
    Plain,
    /// It took too long.
    #[error("the relay did not answer in time")]
    Timeout,
    /// The relay said no.
    #[error("the relay refused the link: {code}")]
    Refused {
        /// Why.
        code: ErrorCode,
        /// When to come back.
        retry_after: Duration,
    },
    /// The link counter cannot be kept.
    #[error("keep the link counter")]
    Counter,
}

impl DialError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Unreachable(_) => ErrorCode::ServerUnreachable,
            Self::Plain => ErrorCode::UntrustedAddress,
            Self::Timeout => ErrorCode::DeadlineExceeded,
            Self::Refused { code, .. } => *code,
            Self::Counter => ErrorCode::JournalUnavailable,
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
        may_bind: true,
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
    /// False once the relay could not verify a bound proof: TLS ends on the way.
    may_bind: bool,
}

/// A link that serves in its own task.
struct Running {
    transport: Transport,
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
        let may_probe = link.transport == Transport::WebSocket && self.endpoint().is_some_and(|at| at.quic.is_some());
        tokio::select! {
            // Gone for good counts before gone soon.
            biased;
            () = soft.cancelled() => Next::Stop,
            ended = &mut link.ended => {
                let ended = ended.unwrap_or(Ended { code: ErrorCode::Internal, retry_after: Duration::ZERO });
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

    async fn open(&mut self) -> Result<Running, DialError> {
        let endpoint = self.next_endpoint().await;
        if let Some(quic) = &endpoint.quic {
            let dialled = tokio::time::timeout(
                QUIC_FALLBACK_AFTER,
                quic::dial(quic, endpoint.certificate_pem.as_deref(), &self.shutdown),
            );
            match dialled.await.unwrap_or(Err(DialError::Timeout)) {
                Ok(wire) => return self.greet(&endpoint, wire).await,
                Err(error) => tracing::info!(error = error.code().name(), "quic is not to be had; falling back"),
            }
        }
        let dialled = tokio::time::timeout(HANDSHAKE_TIMEOUT, ws::dial(&endpoint, &self.shutdown));
        let wire = dialled.await.unwrap_or(Err(DialError::Timeout))?;
        self.greet(&endpoint, wire).await
    }

    async fn probe(&mut self) -> Option<Running> {
        let endpoint = self.endpoint()?;
        let dialled = quic::dial(endpoint.quic.as_ref()?, endpoint.certificate_pem.as_deref(), &self.shutdown);
        let wire = tokio::time::timeout(QUIC_FALLBACK_AFTER, dialled).await.ok()?.ok()?;
        self.greet(&endpoint, wire).await.ok()
    }

    /// Proves this machine on a fresh connection and lets it serve.
    async fn greet(&mut self, endpoint: &RegionEndpoint, mut wire: Wire) -> Result<Running, DialError> {
        let must_bind = wire.transport == Transport::Quic;
        if !self.may_bind && !must_bind {
            wire.exporter = None;
        }
        let fence = self.config.fence.clone();
        let now = flydex_domain::time::UnixMillis(self.clock.unix_millis());
        let counted = tokio::task::spawn_blocking(move || fence.next_link(now)).await;
        let Ok(Ok(link_counter)) = counted else {
            return Err(DialError::Counter);
        };
        let bound = wire.exporter.is_some();
        let greeted =
            tokio::time::timeout(HANDSHAKE_TIMEOUT, hello::greet(&self.config, endpoint, &mut wire, link_counter));
        let greeted = greeted.await.unwrap_or(Err(DialError::Timeout));
        let pace = match greeted {
            Ok(pace) => pace,
            Err(error) => {
                wire.outbox.close(error.code());
                if error.code() == ErrorCode::ProofInvalid && bound && !must_bind {
                    tracing::warn!("the relay cannot verify a bound proof; tls seems to end on the way");
                    self.may_bind = false;
                }
                return Err(error);
            }
        };
        tracing::info!(transport = ?wire.transport, link.bound = bound, "link open");
        self.numbers += 1;
        let (ended_tx, ended) = oneshot::channel();
        let (away_tx, go_away) = mpsc::channel(1);
        let transport = wire.transport;
        let serving = serve::serve(wire, pace, self.numbers, self.events.clone(), away_tx);
        self.shutdown.spawn(async move {
            // Nobody waits any more when another link has taken over.
            let _ = ended_tx.send(serving.await);
        });
        Ok(Running { transport, since: self.clock.instant(), ended, go_away })
    }

    async fn failed(&mut self, error: &DialError) -> Duration {
        let (code, retry_after) = match error {
            DialError::Refused { code, retry_after } => (*code, *retry_after),
            DialError::Unreachable(_) | DialError::Plain | DialError::Timeout | DialError::Counter => {
                (error.code(), Duration::ZERO)
            }
        };
        tracing::info!(error.code = code.name(), "no link could be opened");
        self.failures = self.failures.saturating_add(1);
        self.numbers += 1;
        let down = LinkEvent::Down { link: self.numbers, code: Some(code) };
        // The core is gone only when the process ends.
        let _ = self.events.send(down).await;
        self.wait_after(code, retry_after)
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

#[cfg(test)]
mod tests;
