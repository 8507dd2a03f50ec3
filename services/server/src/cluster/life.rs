//! The life of one role's process: its admin port, its signals and its drain.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use flydex_domain::token::TokenVerifier;
use flydex_runtime::admin::{self, Readiness};
use flydex_runtime::http;
use flydex_runtime::lifecycle::Shutdown;
use flydex_runtime::telemetry::{Telemetry, TelemetryConfig};
use tokio::net::TcpListener;

/// The condition of readiness that the process neither starts nor stops.
const LIFE: &str = "life";
/// The condition that keys and revocations are known.
const CONTROL: &str = "control";
/// Interval at which a start looks whether control was heard.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Time that what lies under the services has to end once they have.
const UNDER_GRACE: Duration = Duration::from_secs(1);

/// One role's process. The services end first; what they stand on, such as the connection to Redis, after them.
pub struct Life {
    /// What must hold before there is new work.
    pub readiness: Readiness,
    /// The stop of the services.
    pub shutdown: Shutdown,
    under: Shutdown,
    telemetry: Arc<Telemetry>,
}

impl Life {
    /// Begins with the admin port, so that a process that waits for something says for what.
    ///
    /// # Errors
    /// When telemetry or the admin port cannot be used.
    pub async fn start(
        admin_listen: SocketAddr,
        telemetry: &TelemetryConfig,
        say: impl Fn(&str),
    ) -> anyhow::Result<Self> {
        let telemetry = Arc::new(Telemetry::install("flydex-server", telemetry).context("install telemetry")?);
        let readiness = Readiness::default();
        readiness.fails(LIFE, "still starting");
        let listener = TcpListener::bind(admin_listen).await.context("listen on the admin address")?;
        say(&format!("admin on http://{}", listener.local_addr().context("read the admin address")?));
        let under = Shutdown::new();
        let router = admin::router(readiness.clone(), Arc::clone(&telemetry));
        let life = Self { readiness, shutdown: Shutdown::new(), under, telemetry };
        life.under.spawn(http::serve(listener, None, router, life.under.clone()));
        Ok(life)
    }

    /// Runs something that the services stand on, until they have ended.
    pub fn under(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stopped = self.under.soft();
        self.under.spawn(async move {
            tokio::select! {
                () = stopped.cancelled() => {}
                () = task => {}
            }
        });
    }

    /// The stop of what the services stand on.
    #[must_use]
    pub const fn after_services(&self) -> &Shutdown {
        &self.under
    }

    /// Holds readiness back until control was heard. It is not looked at again: a process that loses control goes on
    /// with what is open, and one that takes it out of service for that would end it.
    pub fn wait_for_control(&self, verifier: Arc<TokenVerifier>) {
        let readiness = self.readiness.clone();
        readiness.fails(CONTROL, "keys and revocations are not known yet");
        self.under(async move {
            while verifier.is_stale() {
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
            readiness.holds(CONTROL);
        });
    }

    /// Says that the process has started.
    pub fn started(&self) {
        self.readiness.holds(LIFE);
    }

    /// Waits for a signal, drains the services for at most twice `grace`, and ends; the drain is over as soon as they
    /// are.
    ///
    /// # Errors
    /// When signals cannot be listened for.
    pub async fn end(self, grace: Duration) -> anyhow::Result<()> {
        self.shutdown.on_signals().await.context("listen for signals")?;
        self.readiness.fails(LIFE, "stopping");
        self.finish(grace).await
    }

    /// Does the same, and says that it is ready until the end: kube-proxy cuts the UDP flows of what is not, and with
    /// them the links that are still to leave in order.
    ///
    /// # Errors
    /// When signals cannot be listened for.
    pub async fn end_while_ready(self, grace: Duration) -> anyhow::Result<()> {
        self.shutdown.on_signals().await.context("listen for signals")?;
        self.finish(grace).await
    }

    async fn finish(self, grace: Duration) -> anyhow::Result<()> {
        if !self.shutdown.drain(grace).await {
            tracing::warn!("stopped with tasks still running");
        }
        self.under.drain(UNDER_GRACE).await;
        self.telemetry.shutdown();
        Ok(())
    }
}
