//! The control plane as the connector calls it: typed requests, signed where the machine speaks, and answers
//! of bounded size.

use std::error::Error as StdError;
use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::SigningKey;
use flydex_domain::encoding::{Label, Transcript, sha256};
use flydex_domain::error::ErrorCode;
use flydex_domain::id::{LocalConnectId, MachineId};
use flydex_domain::key;
use flydex_domain::limits::{API_ANSWER_BYTES_MAX, API_TIMEOUT, LONG_POLL_MAX};
use flydex_runtime::clock::Clock;
use flydex_runtime::tls;
use http::{HeaderMap, HeaderName, Method, header};
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::regions::{Regions, ServerOrigin};

pub mod types;

pub use types::*;

const TIMESTAMP_HEADER: HeaderName = HeaderName::from_static("flydex-timestamp");
const SIGNATURE_HEADER: HeaderName = HeaderName::from_static("flydex-signature");

/// A client of one server.
#[derive(Clone, Debug)]
pub struct Api {
    http: reqwest::Client,
    origin: ServerOrigin,
    clock: Clock,
}

/// Why a request had no good answer.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The server refused, and said why.
    #[error("the server answered: {}", .0.message())]
    Refused(ErrorCode),
    /// No connection, or it broke.
    #[error("the server cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    /// The server's certificate is not one that this machine trusts.
    #[error("the server's certificate is not trusted")]
    Untrusted(#[source] reqwest::Error),
    /// No answer in time.
    #[error("the server did not answer in time")]
    Timeout(#[source] reqwest::Error),
    /// Something answered, and it is no FlyDex server of a known version.
    #[error("the answer is not one of a FlyDex server")]
    Malformed,
    /// The client could not be built.
    #[error("prepare the connection")]
    Client(#[source] Box<dyn StdError + Send + Sync>),
}

impl ApiError {
    /// What a peer or a script is told.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Refused(code) => *code,
            Self::Unreachable(_) => ErrorCode::ServerUnreachable,
            Self::Untrusted(_) => ErrorCode::UntrustedAddress,
            Self::Timeout(_) => ErrorCode::DeadlineExceeded,
            Self::Malformed => ErrorCode::UnsupportedVersion,
            Self::Client(_) => ErrorCode::Internal,
        }
    }

    /// Whether the same request may succeed after a wait.
    #[must_use]
    pub fn may_retry(&self) -> bool {
        match self {
            Self::Refused(code) => code.retry() == flydex_domain::error::Retry::Later,
            Self::Unreachable(_) | Self::Timeout(_) => true,
            Self::Untrusted(_) | Self::Malformed | Self::Client(_) => false,
        }
    }

    /// What the person at the desk can do about it.
    #[must_use]
    pub fn next_step(&self) -> String {
        match self {
            Self::Refused(code) => next_step(*code).to_owned(),
            Self::Unreachable(_) | Self::Timeout(_) => {
                "check the address, that the server runs, and the network; flydex doctor looks at each".to_owned()
            }
            Self::Untrusted(_) => {
                "if you know the certificate, give it with --ca FILE; otherwise do not go on".to_owned()
            }
            Self::Malformed => "check the address; if it is right, update FlyDex on both sides".to_owned(),
            Self::Client(_) => "run flydex doctor".to_owned(),
        }
    }
}

/// What the person at the desk can do about a code of the server.
#[must_use]
pub fn next_step(code: ErrorCode) -> &'static str {
    const STEPS: &[(ErrorCode, &str)] = &[
        (ErrorCode::RateLimited, "wait a minute, then try again"),
        (ErrorCode::Overloaded, "wait a little, then try again"),
        (ErrorCode::ClaimExpired, "run flydex connect again for a new code, and scan it within two minutes"),
        (ErrorCode::ClaimUsed, "run flydex connect again for a new code"),
        (ErrorCode::ClaimInvalid, "run flydex connect again for a new code"),
        (ErrorCode::PairingEnded, "run flydex connect again"),
        (ErrorCode::PairingRefused, "run flydex connect again when you expect the request"),
        (ErrorCode::PairingTampered, "do not go on; check that the server's address is the one you mean"),
        (ErrorCode::Unauthenticated, "check this computer's clock, then try again"),
        (ErrorCode::MachineRevoked, "run flydex unpair, then flydex connect"),
        (ErrorCode::MachineKeyCloned, "run flydex unpair on one of the two computers, then flydex connect"),
        (ErrorCode::CredentialInvalid, "check this computer's clock; if it is right, run flydex connect"),
        (ErrorCode::UnsupportedVersion, "update FlyDex"),
        (ErrorCode::NotPaired, "run flydex connect"),
        (ErrorCode::DeviceListFull, "flydex devices list, then flydex devices remove <device>"),
        (ErrorCode::CodexNotFound, "install Codex, or name it with FLYDEX_CODEX"),
        (ErrorCode::JournalUnavailable, "free some disk space"),
        (ErrorCode::NotFound, "look with flydex devices list or flydex status"),
    ];
    let listed = STEPS.iter().find(|(listed, _)| *listed == code);
    listed.map_or("try again; flydex doctor looks for the cause", |(_, step)| step)
}

impl Api {
    /// A client of `origin` that trusts `extra_pem` besides the system's roots.
    ///
    /// # Errors
    /// [`ApiError::Client`] when the certificate or the system's cryptography cannot be used.
    pub fn new(origin: ServerOrigin, extra_pem: Option<&str>, clock: Clock) -> Result<Self, ApiError> {
        let tls =
            tls::client_config(extra_pem, &[b"h2", b"http/1.1"]).map_err(|error| ApiError::Client(error.into()))?;
        let mut builder = base_client().tls_backend_preconfigured(tls);
        if origin.is_loopback() {
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(|error| ApiError::Client(error.into()))?;
        Ok(Self { http, origin, clock })
    }

    /// Like [`Api::new`]; besides, a self-made certificate of a server on this machine is fetched and trusted.
    /// Gives the certificate that is now trusted.
    ///
    /// # Errors
    /// Each [`ApiError`].
    pub async fn trusting(
        origin: ServerOrigin,
        extra_pem: Option<String>,
        clock: Clock,
    ) -> Result<(Self, Option<String>), ApiError> {
        let api = Self::new(origin.clone(), extra_pem.as_deref(), clock.clone())?;
        let untrusted = match api.regions().await {
            Ok(_) => return Ok((api, extra_pem)),
            Err(error @ ApiError::Untrusted(_)) if origin.is_loopback() => error,
            Err(error) => return Err(error),
        };
        // Nobody is between two processes of one machine: this fetch is as good as one over plain http.
        let unchecked = base_client().no_proxy().danger_accept_invalid_certs(true);
        let http = unchecked.build().map_err(|error| ApiError::Client(error.into()))?;
        let regions = Self { http, origin: origin.clone(), clock: clock.clone() }.regions().await?;
        let Some(self_made) = regions.self_made_pem(&origin) else {
            return Err(untrusted);
        };
        let pem = extra_pem.map_or_else(|| self_made.clone(), |extra| format!("{extra}\n{self_made}"));
        Ok((Self::new(origin, Some(&pem), clock)?, Some(pem)))
    }

    /// The server.
    #[must_use]
    pub const fn origin(&self) -> &ServerOrigin {
        &self.origin
    }

    /// `GET /api/regions`.
    ///
    /// # Errors
    /// Each [`ApiError`].
    pub async fn regions(&self) -> Result<Regions, ApiError> {
        self.read(self.request(Method::GET, "/api/regions")).await
    }

    /// The server's clock by its `Date` header, in milliseconds since the epoch; whole seconds.
    ///
    /// # Errors
    /// Each [`ApiError`].
    pub async fn server_time_ms(&self) -> Result<u64, ApiError> {
        let answer = self.request(Method::GET, "/api/keys").send().await.map_err(transport_error)?;
        let date = answer.headers().get(header::DATE).and_then(|date| date.to_str().ok());
        let date = date.and_then(|date| jiff::fmt::rfc2822::parse(date).ok()).ok_or(ApiError::Malformed)?;
        u64::try_from(date.timestamp().as_millisecond()).map_err(|_| ApiError::Malformed)
    }

    /// `POST /api/local-connect/start`.
    ///
    /// # Errors
    /// Each [`ApiError`].
    pub async fn start_local_connect(&self, request: &StartRequest) -> Result<StartAnswer, ApiError> {
        self.read(self.request(Method::POST, "/api/local-connect/start").json(request)).await
    }

    /// `GET /api/local-connect/{id}`: at once, or when the status is no longer `after`, or after ten seconds.
    ///
    /// # Errors
    /// Each [`ApiError`].
    pub async fn local_connect(
        &self,
        id: LocalConnectId,
        token: &str,
        after: Option<&str>,
    ) -> Result<LocalConnectAnswer, ApiError> {
        let mut path = format!("/api/local-connect/{id}");
        if let Some(after) = after {
            path = format!("{path}?wait_ms={}&after={after}", LONG_POLL_MAX.as_millis());
        }
        self.read(self.request(Method::GET, &path).bearer_auth(token)).await
    }

    /// `POST /api/local-connect/{id}/agent-status` with `confirmed`.
    ///
    /// # Errors
    /// Each [`ApiError`].
    pub async fn confirm(&self, id: LocalConnectId, token: &str, mac: &[u8]) -> Result<ConfirmedAnswer, ApiError> {
        let body = AgentStatus::Confirmed { machine_mac: URL_SAFE_NO_PAD.encode(mac) };
        self.read(self.agent_status_request(id, token, &body)).await
    }

    /// `POST /api/local-connect/{id}/agent-status` with anything else.
    ///
    /// # Errors
    /// Each [`ApiError`].
    pub async fn agent_status(&self, id: LocalConnectId, token: &str, status: &AgentStatus) -> Result<(), ApiError> {
        self.send(self.agent_status_request(id, token, status)).await.map(drop)
    }

    fn agent_status_request(&self, id: LocalConnectId, token: &str, body: &AgentStatus) -> reqwest::RequestBuilder {
        let path = format!("/api/local-connect/{id}/agent-status");
        self.request(Method::POST, &path).bearer_auth(token).json(body)
    }

    /// `POST /api/machines/{id}/credential`, proven by the machine key.
    ///
    /// # Errors
    /// Each [`ApiError`].
    pub async fn renew_credential(&self, machine: &MachineAuth<'_>) -> Result<CredentialAnswer, ApiError> {
        self.machine_post(machine, "credential", &serde_json::json!({})).await
    }

    /// `POST /api/machines/{id}/audit`, proven by the machine key.
    ///
    /// # Errors
    /// Each [`ApiError`].
    pub async fn upload_audit(&self, machine: &MachineAuth<'_>, body: &AuditUpload) -> Result<AuditAnswer, ApiError> {
        self.machine_post(machine, "audit", body).await
    }

    async fn machine_post<A: DeserializeOwned>(
        &self,
        machine: &MachineAuth<'_>,
        what: &str,
        body: &impl Serialize,
    ) -> Result<A, ApiError> {
        let path = format!("/api/machines/{}/{what}", machine.machine_id);
        let body = serde_json::to_vec(body).map_err(|error| ApiError::Client(error.into()))?;
        let now_ms = self.clock.unix_millis();
        let signature = machine.sign(&Method::POST, &path, &body, now_ms, self.origin.as_str());
        let request = self
            .request(Method::POST, &path)
            .header(header::AUTHORIZATION, format!("FlyDex-Machine {}", machine.credential))
            .header(TIMESTAMP_HEADER, now_ms.to_string())
            .header(SIGNATURE_HEADER, signature)
            .header(header::CONTENT_TYPE, "application/json")
            .body(body);
        self.read(request).await
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.origin))
    }

    async fn read<A: DeserializeOwned>(&self, request: reqwest::RequestBuilder) -> Result<A, ApiError> {
        let content = self.send(request).await?;
        serde_json::from_slice(&content).map_err(|_| ApiError::Malformed)
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Zeroizing<Vec<u8>>, ApiError> {
        let mut answer = request.send().await.map_err(transport_error)?;
        let status = answer.status();
        let is_json = is_json(answer.headers());
        let mut content = Zeroizing::new(Vec::new());
        while let Some(chunk) = answer.chunk().await.map_err(transport_error)? {
            if content.len() + chunk.len() > API_ANSWER_BYTES_MAX {
                return Err(ApiError::Malformed);
            }
            content.extend_from_slice(&chunk);
        }
        if status.is_success() {
            return Ok(content);
        }
        let refusal = serde_json::from_slice::<ErrorAnswer>(&content).ok().filter(|_| is_json);
        let code = refusal.and_then(|refusal| ErrorCode::from_number(refusal.error.number));
        Err(code.map_or(ApiError::Malformed, ApiError::Refused))
    }
}

/// What a machine proves itself with.
#[derive(Clone, Copy)]
pub struct MachineAuth<'a> {
    /// The machine.
    pub machine_id: MachineId,
    /// Its key.
    pub key: &'a SigningKey,
    /// Control's newest word on it.
    pub credential: &'a str,
}

impl MachineAuth<'_> {
    fn sign(&self, method: &Method, path: &str, body: &[u8], now_ms: u64, origin: &str) -> String {
        let transcript = Transcript::new(Label::MachineRequest)
            .text(method.as_str())
            .text(path)
            .bytes(&sha256(body))
            .integer(now_ms)
            .text(origin);
        URL_SAFE_NO_PAD.encode(key::sign(self.key, transcript))
    }
}

fn base_client() -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(API_TIMEOUT)
        .timeout(API_TIMEOUT + LONG_POLL_MAX)
        .user_agent(concat!("flydex/", env!("CARGO_PKG_VERSION")))
}

fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    content_type.is_some_and(|content_type| content_type.starts_with("application/json"))
}

fn transport_error(error: reqwest::Error) -> ApiError {
    let error = error.without_url();
    if error.is_timeout() {
        ApiError::Timeout(error)
    } else if has_certificate_error(&error) {
        ApiError::Untrusted(error)
    } else {
        ApiError::Unreachable(error)
    }
}

fn has_certificate_error(error: &(dyn StdError + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let tls = inner.and_then(|inner| inner.downcast_ref()).or_else(|| error.downcast_ref());
        if matches!(tls, Some(rustls::Error::InvalidCertificate(_))) {
            return true;
        }
        next = inner.map(|inner| inner as &(dyn StdError + 'static)).or_else(|| error.source());
    }
    false
}
