//! The certificate of a process, kept up to date.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::signal::unix::{SignalKind, signal};

use super::connector::Connector;
use super::identity::{Allowed, Expected, PeerIdentity};
use super::material::{Files, Material, MutualConfig, MutualError};
use super::metrics::{Metrics, Side};
use crate::clock::Clock;
use crate::lifecycle::Shutdown;

/// Interval at which the files are looked at: orchestrators renew certificates hours before they end.
const RELOAD_INTERVAL: Duration = Duration::from_secs(10);

/// Who this process is to its peers, and whom it trusts. Cheap to clone.
#[derive(Clone)]
pub struct MutualTls(Arc<Inner>);

struct Inner {
    config: MutualConfig,
    clock: Clock,
    current: Arc<ArcSwap<Material>>,
    /// What was last read, taken or not, so that a broken file is spoken of once.
    read: Mutex<Files>,
    metrics: Metrics,
}

impl MutualTls {
    /// Reads and checks the files.
    ///
    /// # Errors
    /// Each [`MutualError`] but [`MutualError::OtherProcess`].
    pub fn load(config: MutualConfig, clock: Clock) -> Result<Self, MutualError> {
        let files = Files::read(&config)?;
        let material = Material::parse(&files, &config, since_epoch(&clock))?;
        let current = Arc::new(ArcSwap::from_pointee(material));
        let metrics = Metrics::new(Arc::clone(&current));
        Ok(Self(Arc::new(Inner { config, clock, current, read: Mutex::new(files), metrics })))
    }

    /// Who this process is.
    #[must_use]
    pub fn identity(&self) -> PeerIdentity {
        self.0.current.load().identity.clone()
    }

    /// When the own certificate ends, in seconds since the epoch.
    #[must_use]
    pub fn holds_until(&self) -> u64 {
        self.0.current.load().holds_until
    }

    /// Looks at the files every 10 s and on SIGHUP, until the hard stop.
    ///
    /// # Errors
    /// When SIGHUP cannot be listened for.
    pub fn watch(&self, shutdown: &Shutdown) -> std::io::Result<()> {
        let (mutual, stopped) = (self.clone(), shutdown.soft());
        let mut hangup = signal(SignalKind::hangup())?;
        shutdown.spawn(async move {
            loop {
                tokio::select! {
                    () = stopped.cancelled() => return,
                    _ = hangup.recv() => {}
                    () = tokio::time::sleep(RELOAD_INTERVAL) => {}
                }
                let mutual = mutual.clone();
                // Files may lie on a disk that hangs.
                if tokio::task::spawn_blocking(move || mutual.look()).await.is_err() {
                    tracing::error!("looking at the certificate files failed");
                }
            }
        });
        Ok(())
    }

    /// Looks once and says what came of it.
    fn look(&self) {
        let metrics = &self.0.metrics;
        match self.reload() {
            Ok(false) => {}
            Ok(true) => {
                metrics.reloaded(true);
                tracing::info!("new certificate files are in use");
            }
            Err(error) => {
                metrics.reloaded(false);
                let error: &(dyn std::error::Error + 'static) = &error;
                tracing::warn!(error, "new certificate files cannot be used; the ones before stay in use");
            }
        }
    }

    /// Takes the files if they changed since they were last looked at; true if they are new and in use.
    ///
    /// # Errors
    /// Each [`MutualError`]; what was in use stays in use.
    pub fn reload(&self) -> Result<bool, MutualError> {
        let inner = &self.0;
        let files = Files::read(&inner.config)?;
        let mut read = inner.read.lock().unwrap_or_else(PoisonError::into_inner);
        if files == *read {
            return Ok(false);
        }
        let parsed = Material::parse(&files, &inner.config, since_epoch(&inner.clock));
        *read = files;
        let (found, known) = (parsed?, self.identity());
        if found.identity != known {
            return Err(MutualError::OtherProcess { known, found: found.identity });
        }
        inner.current.store(Arc::new(found));
        Ok(true)
    }

    /// The server side of TLS for the next connection.
    ///
    /// # Errors
    /// When the cryptography does not offer TLS 1.3.
    pub fn server_config(&self, allowed: &Arc<Allowed>) -> Result<rustls::ServerConfig, rustls::Error> {
        self.0.current.load().server(Arc::clone(allowed))
    }

    /// The client side of TLS for the next connection.
    ///
    /// # Errors
    /// When the cryptography does not offer TLS 1.3.
    pub fn client_config(&self, expected: &Arc<Expected>) -> Result<rustls::ClientConfig, rustls::Error> {
        self.0.current.load().client(Arc::clone(expected))
    }

    /// Opens connections to one server, for an HTTP/2 client such as tonic's `Endpoint`.
    #[must_use]
    pub fn connector(&self, expected: Expected) -> Connector {
        Connector::new(self.clone(), expected)
    }

    pub(super) fn refused(&self, side: Side) {
        self.0.metrics.refused(side);
    }
}

fn since_epoch(clock: &Clock) -> Duration {
    Duration::from_millis(clock.unix_millis())
}
