//! How the CLI talks to the running connector: a socket in the state folder, one JSON line each way.
//!
//! The socket is 0600 in a 0700 folder, and the peer must be this user: whoever gets here could as well read
//! the machine key.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use flydex_domain::device::{DeviceList, Holder};
use flydex_domain::error::ErrorCode;
use flydex_domain::id::DeviceId;
use flydex_domain::limits::{CONTROL_CONNECTIONS_MAX, CONTROL_LINE_BYTES_MAX, CONTROL_TIMEOUT};
use flydex_domain::scope::Role;
use flydex_domain::token::EncodedKey;
use flydex_runtime::lifecycle::Shutdown;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::api::{Api, SecretText, TokenKey};
use crate::codex::CodexStatus;
use crate::credential::Keyring;
use crate::paired::{CoreStatus, DeskRequest, Entropy, RegionReport};
use crate::record::Settings;
use crate::state::StateDir;

pub mod status;

pub use status::{RegionStatus, RunningFacts, Status};

/// The socket's name in the state folder.
pub const SOCKET_FILE: &str = "control.sock";

/// What the CLI asks.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// How the connector stands.
    Status,
    /// The device list.
    Devices,
    /// Put a device on the list; the desk said yes in the CLI.
    Enrol {
        /// Its key.
        key: EncodedKey,
        /// What it may do.
        role: Role,
        /// Its name.
        label: String,
        /// The machine's credential since that pairing.
        credential: SecretText,
        /// Control's public keys.
        token_keys: Vec<TokenKey>,
    },
    /// Put a program's key on the list; the person at the desk typed it in.
    Trust {
        /// The key.
        key: EncodedKey,
        /// What it may do.
        role: Role,
        /// Its name.
        label: String,
    },
    /// Take a device off the list.
    Remove {
        /// Which.
        device_id: DeviceId,
    },
    /// Change the machine key.
    RotateKey,
    /// Let nothing act remotely.
    Pause,
    /// Let things act remotely again.
    Resume,
    /// Read the settings again.
    Reload,
    /// End the connector.
    Stop,
}

/// What the connector answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Done.
    Done,
    /// To `status`.
    Status(Box<Status>),
    /// To `devices`.
    Devices(Box<DeviceList>),
    /// Not done; the code's number says why.
    Refused(u16),
}

/// Why the running connector could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// No connector runs on this folder.
    #[error("no connector is running")]
    NotRunning,
    /// It runs and does not answer as it should.
    #[error("the running connector does not answer")]
    Silent(#[source] io::Error),
    /// It refused.
    #[error("{}", .0.message())]
    Refused(ErrorCode),
}

impl ControlError {
    /// What a script is told.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::NotRunning => ErrorCode::MachineOffline,
            Self::Silent(_) => ErrorCode::DeadlineExceeded,
            Self::Refused(code) => *code,
        }
    }

    /// What the person at the desk can do about it.
    #[must_use]
    pub fn next_step(&self) -> &'static str {
        match self {
            Self::NotRunning => "start it with flydex run",
            Self::Silent(_) => "stop it and start it again",
            Self::Refused(code) => crate::api::next_step(*code),
        }
    }
}

/// Asks the connector that runs on this state folder.
///
/// # Errors
/// [`ControlError::NotRunning`] when none does, or the others.
pub async fn ask(state: &StateDir, request: &Request) -> Result<Answer, ControlError> {
    let stream = match UnixStream::connect(state.file(SOCKET_FILE)).await {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Err(ControlError::NotRunning);
        }
        Err(error) => return Err(ControlError::Silent(error)),
    };
    let asked = tokio::time::timeout(CONTROL_TIMEOUT, exchange(stream, request)).await;
    let answer = asked.map_err(|_| ControlError::Silent(io::ErrorKind::TimedOut.into()))?;
    match answer.map_err(ControlError::Silent)? {
        Answer::Refused(number) => {
            let code = ErrorCode::from_number(u32::from(number)).unwrap_or(ErrorCode::Internal);
            Err(ControlError::Refused(code))
        }
        answer @ (Answer::Done | Answer::Status(_) | Answer::Devices(_)) => Ok(answer),
    }
}

async fn exchange(stream: UnixStream, request: &Request) -> io::Result<Answer> {
    let mut stream = BufReader::new(stream);
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    let answer = read_line(&mut stream).await?;
    Ok(serde_json::from_slice(&answer)?)
}

async fn read_line(stream: &mut BufReader<UnixStream>) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    stream.take(CONTROL_LINE_BYTES_MAX as u64).read_until(b'\n', &mut line).await?;
    if line.pop() != Some(b'\n') {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(line)
}

/// The running connector's side of the socket.
#[derive(Debug)]
pub struct Control {
    /// The state folder.
    pub state: StateDir,
    /// Where the core is asked.
    pub core: mpsc::Sender<DeskRequest>,
    /// How the core stands.
    pub core_status: watch::Receiver<Option<CoreStatus>>,
    /// How Codex stands.
    pub codex_status: watch::Receiver<CodexStatus>,
    /// Active threads that are not followed.
    pub unfollowed: watch::Receiver<usize>,
    /// In which region the machine is.
    pub region_report: watch::Receiver<RegionReport>,
    /// What the machine proves itself with.
    pub keyring: Arc<Keyring>,
    /// The control plane.
    pub api: Api,
    /// Where new keys come from.
    pub entropy: Entropy,
    /// What the desk chose.
    pub settings: watch::Sender<Settings>,
    /// What does not change while it runs.
    pub facts: RunningFacts,
    /// Ends the connector.
    pub shutdown: Shutdown,
}

impl Control {
    /// Takes the socket's place; the caller holds the folder's lock, so a socket that is there is a dead one's.
    ///
    /// # Errors
    /// When the path is too long for a socket, or the file system refuses.
    pub fn listen(&self) -> io::Result<UnixListener> {
        let path = self.state.file(SOCKET_FILE);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        Ok(listener)
    }

    /// Answers until the stop.
    pub async fn serve(self: Arc<Self>, listener: UnixListener) {
        let soft = self.shutdown.soft();
        let permits = Arc::new(Semaphore::new(CONTROL_CONNECTIONS_MAX));
        loop {
            let accepted = tokio::select! {
                biased; // the stop comes first
                () = soft.cancelled() => break,
                accepted = accept(&listener, &permits) => accepted,
            };
            let Some((stream, permit)) = accepted else { continue };
            let control = Arc::clone(&self);
            self.shutdown.spawn(async move {
                let _permit = permit;
                // A caller that went away has no use for an answer.
                let _ = tokio::time::timeout(CONTROL_TIMEOUT, control.converse(stream)).await;
            });
        }
        let _ = std::fs::remove_file(self.state.file(SOCKET_FILE));
    }

    async fn converse(&self, stream: UnixStream) -> io::Result<()> {
        let mut stream = BufReader::new(stream);
        let line = read_line(&mut stream).await?;
        let answer = match serde_json::from_slice(&line) {
            Ok(request) => self.answer(request).await.unwrap_or_else(|code| Answer::Refused(code.number())),
            Err(_) => Answer::Refused(ErrorCode::BadRequest.number()),
        };
        let mut line = serde_json::to_vec(&answer)?;
        line.push(b'\n');
        stream.write_all(&line).await
    }

    async fn answer(&self, request: Request) -> Result<Answer, ErrorCode> {
        match request {
            Request::Status => Ok(Answer::Status(Box::new(self.status().await?))),
            Request::Devices => Ok(Answer::Devices(Box::new(self.devices().await?))),
            Request::Enrol { key, role, label, credential, token_keys } => {
                self.keyring.adopt(credential, token_keys).map_err(|error| error.code())?;
                let holder = Holder::Browser;
                self.ask(|reply| DeskRequest::Enrol { holder, key: key.0, role, label, reply }).await??;
                Ok(Answer::Done)
            }
            Request::Trust { key, role, label } => {
                let holder = Holder::Program;
                self.ask(|reply| DeskRequest::Enrol { holder, key: key.0, role, label, reply }).await??;
                Ok(Answer::Done)
            }
            Request::Remove { device_id } => {
                self.ask(|reply| DeskRequest::Remove { device_id, reply }).await??;
                Ok(Answer::Done)
            }
            Request::RotateKey => {
                self.keyring.rotate(&self.api, &self.entropy).await.map_err(|error| error.code())?;
                Ok(Answer::Done)
            }
            Request::Pause => self.change(|settings| settings.paused = true),
            Request::Resume => self.change(|settings| settings.paused = false),
            Request::Reload => {
                let settings = Settings::load(&self.state).map_err(|error| error.code())?;
                self.settings.send_replace(settings);
                Ok(Answer::Done)
            }
            Request::Stop => {
                self.shutdown.begin();
                Ok(Answer::Done)
            }
        }
    }

    async fn status(&self) -> Result<Status, ErrorCode> {
        let devices = self.devices().await?.devices().count();
        let core = *self.core_status.borrow();
        let codex = self.codex_status.borrow().clone();
        let status = Status::of(&self.facts, core, &codex, self.settings.borrow().paused, devices);
        let regions = RegionStatus::of(&self.region_report.borrow());
        Ok(Status { threads_unfollowed: *self.unfollowed.borrow(), regions, ..status })
    }

    async fn devices(&self) -> Result<DeviceList, ErrorCode> {
        self.ask(|reply| DeskRequest::Devices { reply }).await
    }

    /// What was chosen is durable before it takes effect, so that a restart does not undo a pause.
    fn change(&self, change: impl FnOnce(&mut Settings)) -> Result<Answer, ErrorCode> {
        let mut settings = self.settings.borrow().clone();
        change(&mut settings);
        settings.store(&self.state).map_err(|error| error.code())?;
        self.settings.send_replace(settings);
        Ok(Answer::Done)
    }

    async fn ask<A>(&self, request: impl FnOnce(oneshot::Sender<A>) -> DeskRequest) -> Result<A, ErrorCode> {
        let (reply, answer) = oneshot::channel();
        self.core.send(request(reply)).await.map_err(|_| ErrorCode::GoingAway)?;
        answer.await.map_err(|_| ErrorCode::GoingAway)
    }
}

async fn accept(
    listener: &UnixListener,
    permits: &Arc<Semaphore>,
) -> Option<(UnixStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits).acquire_owned().await.ok()?;
    let (stream, _) = listener.accept().await.ok()?;
    let ours = stream.peer_cred().is_ok_and(|peer| peer.uid() == rustix::process::geteuid().as_raw());
    ours.then_some((stream, permit))
}
