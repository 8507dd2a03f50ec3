//! Opening a link in one region: QUIC where it is to be had, else a WebSocket, proven over its channel where that
//! reaches the gateway.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flydex_domain::error::ErrorCode;
use flydex_domain::limits::{HANDSHAKE_TIMEOUT, QUIC_FALLBACK_AFTER, REGIONS_MAX};
use flydex_domain::time::UnixMillis;
use flydex_runtime::clock::Clock;
use flydex_runtime::lifecycle::Shutdown;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use super::error::DialError;
use super::serve::Signals;
use super::trust::Trust;
use super::wire::Wire;
use super::{Config, Running, hello, quic, serve, ws};
use crate::core::{LinkEvent, LinkNumber};
use crate::paired::RegionEndpoint;

/// Opens links, and counts them.
pub(super) struct Dialler {
    config: Arc<Config>,
    trust: Arc<Trust>,
    events: mpsc::Sender<LinkEvent>,
    clock: Clock,
    shutdown: Shutdown,
    numbers: AtomicU64,
    /// One link is greeted at a time: each greeting counts as a link, and the newest wins.
    greeting: Semaphore,
    /// The entrances before which TLS ends on the way: their gateways took the proof only without the channel.
    proxied: Mutex<BTreeSet<String>>,
}

impl Dialler {
    pub(super) fn new(
        config: Arc<Config>,
        trust: Arc<Trust>,
        events: mpsc::Sender<LinkEvent>,
        clock: Clock,
        shutdown: Shutdown,
    ) -> Self {
        let (numbers, greeting, proxied) = (AtomicU64::new(0), Semaphore::new(1), Mutex::default());
        Self { config, trust, events, clock, shutdown, numbers, greeting, proxied }
    }

    /// Opens a link that is welcomed within `welcome_wait` of its greeting. Nothing is left behind when it is dropped.
    pub(super) async fn open(&self, endpoint: &RegionEndpoint, welcome_wait: Duration) -> Result<Running, DialError> {
        match self.dial_quic(endpoint).await {
            Some(Ok(wire)) => return self.greet(endpoint, wire, welcome_wait).await,
            Some(Err(error)) => tracing::info!(error = error.code().name(), "quic is not to be had; falling back"),
            None => {}
        }
        self.open_websocket(endpoint, welcome_wait).await
    }

    /// Opens a link over QUIC or none.
    pub(super) async fn open_quic(&self, endpoint: &RegionEndpoint) -> Option<Running> {
        let wire = self.dial_quic(endpoint).await?.ok()?;
        self.greet(endpoint, wire, HANDSHAKE_TIMEOUT).await.ok()
    }

    /// The number of the next link.
    pub(super) fn next_number(&self) -> LinkNumber {
        self.numbers.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The proof covers the TLS connection. Where a proxy ends TLS on the way, such a proof cannot hold: one more
    /// connection is opened without it, unless the desk forbids that. What was learnt is kept, and told with the
    /// link.
    async fn open_websocket(&self, endpoint: &RegionEndpoint, welcome_wait: Duration) -> Result<Running, DialError> {
        let mut wire = self.dial_websocket(endpoint).await?;
        if !self.proxied().contains(&endpoint.link_url) || self.requires_binding() {
            let bindable = wire.exporter.is_some();
            match self.greet(endpoint, wire, welcome_wait).await {
                Err(error) if bindable && error.code() == ErrorCode::ProofInvalid => {}
                settled => return settled,
            }
            if self.requires_binding() {
                return Err(DialError::Unbound);
            }
            wire = self.dial_websocket(endpoint).await?;
        }
        wire.exporter = None;
        let running = self.greet(endpoint, wire, welcome_wait).await?;
        let mut proxied = self.proxied();
        while proxied.len() >= REGIONS_MAX {
            proxied.pop_first();
        }
        if proxied.insert(endpoint.link_url.clone()) {
            tracing::warn!("tls ends on the way to the relay; the link is not bound to its connection");
        }
        Ok(running)
    }

    async fn dial_quic(&self, endpoint: &RegionEndpoint) -> Option<Result<Wire, DialError>> {
        let dialled = quic::dial(endpoint, endpoint.quic.as_ref()?, &self.trust, &self.shutdown);
        Some(tokio::time::timeout(QUIC_FALLBACK_AFTER, dialled).await.unwrap_or(Err(DialError::Timeout)))
    }

    async fn dial_websocket(&self, endpoint: &RegionEndpoint) -> Result<Wire, DialError> {
        let dialled = tokio::time::timeout(HANDSHAKE_TIMEOUT, ws::dial(endpoint, &self.trust, &self.shutdown));
        dialled.await.unwrap_or(Err(DialError::Timeout))
    }

    fn requires_binding(&self) -> bool {
        self.config.paired.policy.borrow().require_channel_binding
    }

    fn proxied(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.proxied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Proves this machine on a fresh connection and lets it serve.
    async fn greet(
        &self,
        endpoint: &RegionEndpoint,
        mut wire: Wire,
        welcome_wait: Duration,
    ) -> Result<Running, DialError> {
        if !wire.channel().bound && self.requires_binding() {
            return Err(DialError::Unbound);
        }
        // It is never closed.
        let _turn = self.greeting.acquire().await;
        let fence = self.config.fence.clone();
        let now = UnixMillis(self.clock.unix_millis());
        let counted = tokio::task::spawn_blocking(move || fence.next_link(now)).await;
        let Ok(Ok(link_counter)) = counted else {
            return Err(DialError::Counter);
        };
        let greeted = tokio::time::timeout(welcome_wait, hello::greet(&self.config, endpoint, &mut wire, link_counter));
        match greeted.await.unwrap_or(Err(DialError::Timeout)) {
            Ok(pace) => Ok(self.serve(endpoint, wire, pace)),
            Err(error) => {
                wire.outbox.close(error.code());
                Err(error)
            }
        }
    }

    fn serve(&self, endpoint: &RegionEndpoint, wire: Wire, pace: hello::Pace) -> Running {
        let (channel, handshake) = (wire.channel(), wire.handshake);
        let region = &endpoint.region;
        tracing::info!(%region, transport = ?channel.transport, link.bound = channel.bound, "link open");
        let (ended_tx, ended) = oneshot::channel();
        let (away_tx, go_away) = mpsc::channel(1);
        let (owned_tx, owned) = watch::channel(false);
        let outbox = wire.outbox.clone();
        let signals = Signals { go_away: away_tx, owned: owned_tx };
        let serving = serve::serve(wire, pace, self.next_number(), self.events.clone(), signals);
        self.shutdown.spawn(async move {
            // Nobody waits any more when another link has taken over.
            let _ = ended_tx.send(serving.await);
        });
        let (endpoint, since) = (endpoint.clone(), self.clock.instant());
        Running { endpoint, channel, handshake, outbox, since, ended, go_away, owned }
    }
}
