//! Keeping attached to Codex: to the shared daemon where there is one, else to an app-server of our own.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use flydex_domain::error::ErrorCode;
use flydex_domain::id::Generation;
use flydex_domain::limits::{RECONNECT_WAIT_MAX, RECONNECT_WAIT_MIN};
use flydex_runtime::clock::Clock;
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::api::{CodexEvent, CodexStatus};
use super::config::{Allowed, CodexConfig};
use super::life::{self, End, Life};
use super::methods::Method;
use super::order::Order;
use super::pages::Cursors;
use super::rpc::Client;
use super::transport::Connection;
use super::version::{self, Version};
use super::{generation, json::text, process, socket, surface, transport};

/// A life that lasted this long was a good one: the next wait is short again.
const GOOD_LIFE: Duration = Duration::from_secs(30);

/// What the handle needs of the current life.
#[derive(Clone)]
pub(super) struct Session {
    /// Asks without order.
    pub(super) client: Client,
    /// The version is newer than known.
    pub(super) read_only: bool,
}

/// The task that attaches, again and again.
pub(super) struct Keeper {
    pub(super) config: CodexConfig,
    pub(super) allowed: watch::Receiver<Allowed>,
    pub(super) clock: Clock,
    pub(super) cursors: Arc<Mutex<Cursors>>,
    pub(super) unfollowed: watch::Sender<usize>,
    pub(super) status: watch::Sender<CodexStatus>,
    pub(super) session: watch::Sender<Option<Session>>,
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) events: mpsc::Sender<CodexEvent>,
    pub(super) stopped: CancellationToken,
}

/// An app-server that answered the handshake.
struct Attached {
    connection: Connection,
    generation: Generation,
    version: Version,
    shared: bool,
}

impl Keeper {
    /// Runs until the connector stops.
    pub(super) async fn run(mut self) {
        let mut wait = RECONNECT_WAIT_MIN;
        while !self.stopped.is_cancelled() {
            self.tell(CodexStatus::Starting).await;
            let code = match self.attach().await {
                Err(code) => code,
                Ok(attached) => {
                    let since = self.clock.instant();
                    let end = self.live(attached).await;
                    tracing::info!(reason = ?end, "codex detached");
                    if end == End::DaemonFound || self.clock.instant() - since > GOOD_LIFE {
                        wait = RECONNECT_WAIT_MIN;
                    }
                    if end != End::Lost {
                        continue;
                    }
                    ErrorCode::CodexUnavailable
                }
            };
            if self.stopped.is_cancelled() {
                return;
            }
            tracing::warn!(error.code = code.name(), retry_in_ms = millis(wait), "codex is not available");
            self.tell(CodexStatus::Unavailable(code)).await;
            self.refuse_for(wait, code).await;
            wait = (wait * 2).min(RECONNECT_WAIT_MAX);
        }
    }

    async fn live(&mut self, attached: Attached) -> End {
        let Attached { mut connection, generation, version, shared } = attached;
        tracing::info!(
            codex.version = %version.text,
            codex.shared = shared,
            codex.read_only = version.read_only,
            "codex attached"
        );
        let client = connection.client.clone();
        self.session.send_replace(Some(Session { client: client.clone(), read_only: version.read_only }));
        let read_only = version.read_only;
        self.tell(CodexStatus::Ready { version: version.text, generation, read_only }).await;
        let mut life = Life::new(
            self.allowed.clone(),
            self.clock.clone(),
            client,
            generation,
            Arc::clone(&self.cursors),
            self.unfollowed.clone(),
        );
        let daemon = if shared { None } else { process::codex_home(&self.config).map(|home| socket::path(&home)) };
        let end = life::run(
            &mut life,
            &mut connection.inbound,
            &mut self.orders,
            &self.events,
            &self.stopped,
            daemon.as_deref(),
        )
        .await;
        self.session.send_replace(None);
        drop((connection.stop, connection.inbound));
        connection.tasks.wait().await;
        end
    }

    async fn attach(&self) -> Result<Attached, ErrorCode> {
        let (connection, pid, shared) = self.open().await?;
        let result = connection
            .client
            .request(Method::Initialize, surface::initialize(&self.config.connector_version))
            .await
            .map_err(|_| ErrorCode::CodexUnavailable)?;
        let version = version::judge(text(&result, "userAgent"))?;
        let initialized = json!({"method": "initialized"}).to_string();
        connection.client.write_now(initialized).map_err(|_| ErrorCode::CodexUnavailable)?;
        Ok(Attached { connection, generation: generation::read(pid), version, shared })
    }

    /// The shared daemon, else a process of our own. A daemon that is there and not safe is not gone around:
    /// it holds the user's threads, and something is wrong.
    async fn open(&self) -> Result<(Connection, Option<u32>, bool), ErrorCode> {
        if let Some(codex_home) = process::codex_home(&self.config) {
            match socket::attach(&socket::path(&codex_home)).await {
                Ok(socket::Attached { stream, pid }) => {
                    let connection = transport::over_socket(stream).await.map_err(|error| {
                        tracing::warn!(error = %error, "the daemon did not open a websocket");
                        ErrorCode::CodexUnavailable
                    })?;
                    return Ok((connection, pid, true));
                }
                Err(socket::Error::Absent) => {}
                Err(error @ (socket::Error::Unsafe(_) | socket::Error::Io(_))) => {
                    tracing::error!(error = %error, "the shared codex daemon is not used");
                    return Err(ErrorCode::CodexUnavailable);
                }
            }
        }
        let program = process::find(&self.config).ok_or(ErrorCode::CodexNotFound)?;
        let (connection, pid) =
            transport::over_child(process::app_server(&program, &self.config)).map_err(|error| {
                tracing::warn!(error = %error, "codex did not start");
                ErrorCode::CodexNotFound
            })?;
        Ok((connection, pid, false))
    }

    async fn tell(&self, status: CodexStatus) {
        self.status.send_replace(status.clone());
        // Without a core there is nobody to tell.
        let _ = self.stopped.run_until_cancelled(self.events.send(CodexEvent::Status(status))).await;
    }

    /// Waits, and answers what is asked meanwhile.
    async fn refuse_for(&mut self, wait: Duration, code: ErrorCode) {
        let stopped = self.stopped.clone();
        let waited = tokio::time::sleep(wait);
        tokio::pin!(waited);
        loop {
            let order = tokio::select! {
                biased;
                () = stopped.cancelled() => return,
                () = &mut waited => return,
                order = self.orders.recv() => order,
            };
            let Some(order) = order else { return stopped.cancelled().await };
            if let Some((thread_id, watch_id)) = order.refuse(code) {
                let event = CodexEvent::Watched { watch_id, thread_id, outcome: Err(code.into()) };
                let _ = stopped.run_until_cancelled(self.events.send(event)).await;
            }
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
