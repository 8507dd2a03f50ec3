//! Opening a link: QUIC where it is to be had, else a WebSocket, proven over its channel where that reaches the
//! gateway.

use flydex_domain::error::ErrorCode;
use flydex_domain::limits::{HANDSHAKE_TIMEOUT, QUIC_FALLBACK_AFTER};
use flydex_domain::time::UnixMillis;
use tokio::sync::{mpsc, oneshot};

use super::error::DialError;
use super::wire::Wire;
use super::{Running, Supervisor, hello, quic, serve, ws};
use crate::paired::RegionEndpoint;

impl Supervisor {
    pub(super) async fn open(&mut self) -> Result<Running, DialError> {
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
        self.open_websocket(&endpoint).await
    }

    /// The proof covers the TLS connection. Where a proxy ends TLS on the way, such a proof cannot hold: one more
    /// connection is opened without it, unless the desk forbids that. What was learnt is kept, and told with the
    /// link.
    async fn open_websocket(&mut self, endpoint: &RegionEndpoint) -> Result<Running, DialError> {
        let mut wire = self.dial_websocket(endpoint).await?;
        if self.proxied.as_ref() != Some(&endpoint.link_url) || self.requires_binding() {
            let bindable = wire.exporter.is_some();
            match self.greet(endpoint, wire).await {
                Err(error) if bindable && error.code() == ErrorCode::ProofInvalid => {}
                settled => return settled,
            }
            if self.requires_binding() {
                return Err(DialError::Unbound);
            }
            wire = self.dial_websocket(endpoint).await?;
        }
        wire.exporter = None;
        let running = self.greet(endpoint, wire).await?;
        if self.proxied.replace(endpoint.link_url.clone()).as_ref() != Some(&endpoint.link_url) {
            tracing::warn!("tls ends on the way to the relay; the link is not bound to its connection");
        }
        Ok(running)
    }

    async fn dial_websocket(&self, endpoint: &RegionEndpoint) -> Result<Wire, DialError> {
        let dialled = tokio::time::timeout(HANDSHAKE_TIMEOUT, ws::dial(endpoint, &self.shutdown));
        dialled.await.unwrap_or(Err(DialError::Timeout))
    }

    fn requires_binding(&self) -> bool {
        self.config.paired.policy.borrow().require_channel_binding
    }

    pub(super) async fn probe(&mut self) -> Option<Running> {
        let endpoint = self.endpoint()?;
        let dialled = quic::dial(endpoint.quic.as_ref()?, endpoint.certificate_pem.as_deref(), &self.shutdown);
        let wire = tokio::time::timeout(QUIC_FALLBACK_AFTER, dialled).await.ok()?.ok()?;
        self.greet(&endpoint, wire).await.ok()
    }

    /// Proves this machine on a fresh connection and lets it serve.
    async fn greet(&mut self, endpoint: &RegionEndpoint, mut wire: Wire) -> Result<Running, DialError> {
        let channel = wire.channel();
        if !channel.bound && self.requires_binding() {
            return Err(DialError::Unbound);
        }
        let fence = self.config.fence.clone();
        let now = UnixMillis(self.clock.unix_millis());
        let counted = tokio::task::spawn_blocking(move || fence.next_link(now)).await;
        let Ok(Ok(link_counter)) = counted else {
            return Err(DialError::Counter);
        };
        let greeted =
            tokio::time::timeout(HANDSHAKE_TIMEOUT, hello::greet(&self.config, endpoint, &mut wire, link_counter));
        let greeted = greeted.await.unwrap_or(Err(DialError::Timeout));
        let pace = match greeted {
            Ok(pace) => pace,
            Err(error) => {
                wire.outbox.close(error.code());
                return Err(error);
            }
        };
        tracing::info!(transport = ?channel.transport, link.bound = channel.bound, "link open");
        self.numbers += 1;
        let (ended_tx, ended) = oneshot::channel();
        let (away_tx, go_away) = mpsc::channel(1);
        let outbox = wire.outbox.clone();
        let serving = serve::serve(wire, pace, self.numbers, self.events.clone(), away_tx);
        self.shutdown.spawn(async move {
            // Nobody waits any more when another link has taken over.
            let _ = ended_tx.send(serving.await);
        });
        Ok(Running { channel, outbox, since: self.clock.instant(), ended, go_away })
    }
}
