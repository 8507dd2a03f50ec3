//! How far away a region is: the time of one round trip of a real handshake.
//!
//! Over QUIC that is the whole handshake; over TCP it is that of TLS, and of TCP where there is no TLS. A probe says
//! nothing of this machine: no credential, no name. Where UDP is blocked, TCP answers.

use std::pin::pin;
use std::time::Duration;

use flydex_domain::limits::{REGION_PROBE_TCP_AFTER, REGION_PROBE_TIMEOUT, REGION_TICKET_WAIT};
use flydex_runtime::lifecycle::Shutdown;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::DialError;
use super::trust::Trust;
use super::ws::Transported;
use super::{quic, ws};
use crate::paired::{QuicEndpoint, RegionEndpoint};

/// Measures a region; `None` when it cannot be reached in time. The connection waits a moment for what a later
/// handshake resumes with, in a task of `shutdown`.
pub(super) async fn probe(endpoint: &RegionEndpoint, trust: &Trust, shutdown: &Shutdown) -> Option<Duration> {
    let probe = Probe { endpoint, trust, shutdown };
    tokio::time::timeout(REGION_PROBE_TIMEOUT, probe.run()).await.ok()?.ok()
}

struct Probe<'a> {
    endpoint: &'a RegionEndpoint,
    trust: &'a Trust,
    shutdown: &'a Shutdown,
}

impl Probe<'_> {
    async fn run(&self) -> Result<Duration, DialError> {
        let Some(at) = &self.endpoint.quic else {
            return self.over_tcp().await;
        };
        let mut udp = pin!(self.over_quic(at));
        match tokio::time::timeout(REGION_PROBE_TCP_AFTER, &mut udp).await {
            Ok(Ok(handshake)) => return Ok(handshake),
            Ok(Err(_)) => return self.over_tcp().await,
            Err(_) => {}
        }
        let mut tcp = pin!(self.over_tcp());
        tokio::select! {
            biased; // what links prefer
            handshake = &mut udp => match handshake {
                Ok(handshake) => Ok(handshake),
                Err(_) => tcp.await,
            },
            handshake = &mut tcp => match handshake {
                Ok(handshake) => Ok(handshake),
                Err(_) => udp.await,
            },
        }
    }

    async fn over_quic(&self, at: &QuicEndpoint) -> Result<Duration, DialError> {
        let (connection, handshake) = quic::connect(self.endpoint, at, self.trust).await?;
        let hard = self.shutdown.hard();
        self.shutdown.spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(REGION_TICKET_WAIT) => {}
                () = hard.cancelled() => {}
                _ = connection.closed() => {}
            }
            connection.close(0_u32.into(), &[]);
        });
        Ok(handshake)
    }

    async fn over_tcp(&self) -> Result<Duration, DialError> {
        let (stream, handshake) = ws::connect(self.endpoint, self.trust).await?;
        let Transported::Tls(mut stream) = stream else { return Ok(handshake) };
        let hard = self.shutdown.hard();
        self.shutdown.spawn(async move {
            // Nothing is to be read but TLS's own messages.
            let mut nothing = [0];
            tokio::select! {
                () = tokio::time::sleep(REGION_TICKET_WAIT) => {}
                () = hard.cancelled() => {}
                _ = stream.read(&mut nothing) => {}
            }
            // A peer that is gone needs no goodbye.
            let _ = stream.shutdown().await;
        });
        Ok(handshake)
    }
}
