//! One connection to the Redis that is the master now, kept up in the background.
//!
//! A request while there is none fails at once: nobody waits for a store that may be lost. Only a process that has just
//! begun waits for the end of its first try. A connection that breaks, times out, or turns out to lead to a replica or to
//! a Redis that is loading is dropped, and the keeper finds the master anew: the address itself, or what the sentinels
//! say.

use std::fmt;
use std::sync::Arc;

use flydex_domain::limits::{
    DIRECTORY_CONNECT_TIMEOUT, DIRECTORY_RECONNECT_WAIT_MAX, DIRECTORY_RECONNECT_WAIT_MIN, DIRECTORY_REQUEST_TIMEOUT,
    DIRECTORY_REQUESTS_MAX,
};
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo as _, RedisError,
    RedisResult, ServerErrorKind,
};
use tokio::sync::{Semaphore, watch};

use super::super::DirectoryError;

/// Where the directory is.
#[derive(Clone)]
pub enum Endpoint {
    /// One Redis.
    Alone(ConnectionInfo),
    /// Whichever Redis the sentinels name as master.
    Sentinel {
        /// Some of the sentinels.
        sentinels: Vec<ConnectionInfo>,
        /// What they call the master.
        master: String,
        /// How to talk to it; the address is replaced by what they say.
        template: ConnectionInfo,
    },
}

/// An address that names no Redis. It does not repeat the address, which may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed address of the directory")]
pub struct MalformedEndpoint;

impl Endpoint {
    /// One Redis at `redis://[user:password@]host:port[/database]`, or `rediss://` for TLS.
    ///
    /// # Errors
    /// When the address is of another form.
    pub fn alone(url: &str) -> Result<Self, MalformedEndpoint> {
        url.into_connection_info().map(Self::Alone).map_err(|_| MalformedEndpoint)
    }

    /// The master that `sentinels` call `master`; `template` is an address as for [`Endpoint::alone`] whose host and
    /// port are replaced.
    ///
    /// # Errors
    /// When an address is of another form, or there is no sentinel.
    pub fn sentinel(sentinels: &[String], master: &str, template: &str) -> Result<Self, MalformedEndpoint> {
        let sentinels: Result<Vec<_>, _> = sentinels.iter().map(|url| url.as_str().into_connection_info()).collect();
        let sentinels = sentinels.map_err(|_| MalformedEndpoint)?;
        let template = template.into_connection_info().map_err(|_| MalformedEndpoint)?;
        if sentinels.is_empty() || master.is_empty() {
            return Err(MalformedEndpoint);
        }
        Ok(Self::Sentinel { sentinels, master: master.to_owned(), template })
    }
}

impl fmt::Debug for Endpoint {
    /// Never the addresses: they may hold passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alone(_) => f.write_str("Endpoint::Alone"),
            Self::Sentinel { sentinels, .. } => write!(f, "Endpoint::Sentinel({})", sentinels.len()),
        }
    }
}

/// The way to the connection. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Keeper {
    state: watch::Receiver<State>,
    requests: Arc<Semaphore>,
}

/// What is known of the connection.
#[derive(Clone, Debug)]
enum State {
    /// The first try is not over.
    Beginning,
    Down,
    Up(Live),
}

/// A connection that is up until somebody finds that it is not.
#[derive(Clone)]
struct Live {
    connection: MultiplexedConnection,
    lost: watch::Sender<bool>,
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Live")
    }
}

impl Keeper {
    /// A keeper, and the task that keeps the connection up for as long as it is run.
    pub fn new(endpoint: Endpoint) -> (Self, impl Future<Output = ()> + Send) {
        let (sender, state) = watch::channel(State::Beginning);
        let keeper = Self { state, requests: Arc::new(Semaphore::new(DIRECTORY_REQUESTS_MAX)) };
        (keeper, keep_up(endpoint, sender))
    }

    /// Whether a connection is up.
    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(*self.state.borrow(), State::Up(_))
    }

    /// Waits until a connection is up.
    pub async fn up(&self) {
        if self.state.clone().wait_for(|state| matches!(state, State::Up(_))).await.is_err() {
            // The task is not run any more, so there will be none.
            std::future::pending::<()>().await;
        }
    }

    /// Runs one request over the connection.
    pub(super) async fn request<T>(
        &self,
        request: impl AsyncFnOnce(MultiplexedConnection) -> RedisResult<T>,
    ) -> Result<T, DirectoryError> {
        let live = self.live().await?;
        let answer = tokio::time::timeout(DIRECTORY_REQUEST_TIMEOUT, async {
            let _permit = self.requests.acquire().await;
            request(live.connection).await
        });
        let trouble = match answer.await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => Trouble::of(&error),
            Err(_) => Trouble::Connection("timeout"),
        };
        match trouble {
            Trouble::Format => return Err(DirectoryError::Format),
            Trouble::Connection(reason) => {
                tracing::debug!(reason, "connection to the directory given up");
                live.lost.send_replace(true);
            }
            Trouble::Request(reason) => tracing::warn!(reason, "directory refused a request"),
        }
        Err(DirectoryError::Unavailable)
    }

    async fn live(&self) -> Result<Live, DirectoryError> {
        let mut state = self.state.clone();
        let known = state.wait_for(|state| !matches!(state, State::Beginning));
        match tokio::time::timeout(DIRECTORY_REQUEST_TIMEOUT, known).await {
            Ok(Ok(state)) => match &*state {
                State::Up(live) => Ok(live.clone()),
                State::Beginning | State::Down => Err(DirectoryError::Unavailable),
            },
            Ok(Err(_)) | Err(_) => Err(DirectoryError::Unavailable),
        }
    }
}

/// What an error says about the connection.
enum Trouble {
    /// A record of another format; the connection is sound.
    Format,
    /// This Redis does not serve us, or not now.
    Connection(&'static str),
    /// It serves, but not this.
    Request(&'static str),
}

impl Trouble {
    fn of(error: &RedisError) -> Self {
        let kind = error.kind();
        if kind == ErrorKind::Extension && error.code() == Some("FORMAT") {
            return Self::Format;
        }
        let of_the_connection = [
            (ErrorKind::Io, "io"),
            (ErrorKind::AuthenticationFailed, "authentication"),
            (ErrorKind::Server(ServerErrorKind::ReadOnly), "read_only"),
            (ErrorKind::Server(ServerErrorKind::BusyLoading), "loading"),
            (ErrorKind::Server(ServerErrorKind::MasterDown), "master_down"),
            (ErrorKind::Server(ServerErrorKind::Moved), "redis_cluster"),
            (ErrorKind::Server(ServerErrorKind::Ask), "redis_cluster"),
        ];
        match of_the_connection.into_iter().find(|(of, _)| *of == kind) {
            Some((_, reason)) => Self::Connection(reason),
            None if error.is_unrecoverable_error() => Self::Connection("broken"),
            None => Self::Request("refused"),
        }
    }

    const fn reason(&self) -> &'static str {
        match self {
            Self::Format => "format",
            Self::Connection(reason) | Self::Request(reason) => reason,
        }
    }
}

async fn keep_up(endpoint: Endpoint, state: watch::Sender<State>) {
    let mut wait = DIRECTORY_RECONNECT_WAIT_MIN;
    loop {
        match tokio::time::timeout(DIRECTORY_CONNECT_TIMEOUT, connect(&endpoint)).await {
            Ok(Ok(connection)) => {
                let (lost, mut is_lost) = watch::channel(false);
                state.send_replace(State::Up(Live { connection, lost }));
                tracing::info!("connected to the directory");
                wait = DIRECTORY_RECONNECT_WAIT_MIN;
                // An error means that every sender is gone with the connection; both ways it is over.
                let _ = is_lost.wait_for(|lost| *lost).await;
                tracing::warn!("connection to the directory lost");
            }
            Ok(Err(error)) => tracing::debug!(reason = Trouble::of(&error).reason(), "directory not reached"),
            Err(_) => tracing::debug!(reason = "timeout", "directory not reached"),
        }
        state.send_replace(State::Down);
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(DIRECTORY_RECONNECT_WAIT_MAX);
    }
}

/// Connects to the master, and makes sure that it is one.
async fn connect(endpoint: &Endpoint) -> RedisResult<MultiplexedConnection> {
    match endpoint {
        Endpoint::Alone(info) => open_master(info.clone()).await,
        Endpoint::Sentinel { sentinels, master, template } => {
            let mut last = RedisError::from((ErrorKind::EmptySentinelList, "no sentinel"));
            for sentinel in sentinels {
                match ask_sentinel(sentinel, master).await {
                    Ok((host, port)) => match open_master(moved(template, host, port)).await {
                        Ok(connection) => return Ok(connection),
                        Err(error) => last = error,
                    },
                    Err(error) => last = error,
                }
            }
            Err(last)
        }
    }
}

async fn ask_sentinel(sentinel: &ConnectionInfo, master: &str) -> RedisResult<(String, u16)> {
    let mut connection = open(sentinel.clone()).await?;
    let found: Option<(String, u16)> =
        redis::cmd("SENTINEL").arg("get-master-addr-by-name").arg(master).query_async(&mut connection).await?;
    found.ok_or_else(|| RedisError::from((ErrorKind::MasterNameNotFoundBySentinel, "unknown master")))
}

fn moved(template: &ConnectionInfo, host: String, port: u16) -> ConnectionInfo {
    let address = match template.addr() {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
            ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
        }
        ConnectionAddr::Tcp(..) | ConnectionAddr::Unix(_) | _ => ConnectionAddr::Tcp(host, port),
    };
    template.clone().set_addr(address)
}

async fn open_master(info: ConnectionInfo) -> RedisResult<MultiplexedConnection> {
    let mut connection = open(info).await?;
    let role: Vec<redis::Value> = redis::cmd("ROLE").query_async(&mut connection).await?;
    let role = role.into_iter().next().map(redis::from_redis_value::<String>).transpose()?;
    match role.as_deref() {
        Some("master") => Ok(connection),
        Some(_) | None => Err(RedisError::from((ErrorKind::Server(ServerErrorKind::ReadOnly), "not the master"))),
    }
}

async fn open(info: ConnectionInfo) -> RedisResult<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(DIRECTORY_CONNECT_TIMEOUT))
        .set_response_timeout(Some(DIRECTORY_REQUEST_TIMEOUT));
    Client::open(info)?.get_multiplexed_async_connection_with_config(&config).await
}
