//! The control plane as the connector calls it: typed requests, signed where the machine speaks, and answers
//! of bounded size.

use std::sync::Arc;

use ::http::{HeaderName, Method, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::SigningKey;
use flydex_domain::encoding::{Label, Transcript, sha256};
use flydex_domain::error::ErrorCode;
use flydex_domain::id::{DeviceId, LocalConnectId, MachineId};
use flydex_domain::key;
use flydex_domain::limits::{API_ANSWER_BYTES_MAX, LONG_POLL_MAX};
use flydex_domain::rotation::KeyRotation;
use flydex_runtime::clock::Clock;
use flydex_runtime::tls;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::OnceCell;
use zeroize::Zeroizing;

use crate::regions::{Regions, ServerOrigin};

pub mod error;
mod http;
pub mod types;

pub use error::{ApiError, next_step};
pub use types::*;

use self::http::{base_client, is_json, transport_error};
use self::types::Whereabouts;

/// Where an origin says where its API is.
const WHERE_THE_API_IS: &str = "/.well-known/flydex.json";
const TIMESTAMP_HEADER: HeaderName = HeaderName::from_static("flydex-timestamp");
const SIGNATURE_HEADER: HeaderName = HeaderName::from_static("flydex-signature");

/// A client of one relay.
#[derive(Clone, Debug)]
pub struct Api {
    http: reqwest::Client,
    origin: ServerOrigin,
    /// Where requests go, once it is known.
    base: Arc<OnceCell<ServerOrigin>>,
    clock: Clock,
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
        Ok(Self { http, origin, base: Arc::default(), clock })
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
        let unchecked = Self { http, origin: origin.clone(), base: Arc::default(), clock: clock.clone() };
        let regions = unchecked.regions().await?;
        let Some(self_made) = regions.self_made_pem(&origin) else {
            return Err(untrusted);
        };
        let pem = extra_pem.map_or_else(|| self_made.clone(), |extra| format!("{extra}\n{self_made}"));
        Ok((Self::new(origin, Some(&pem), clock)?, Some(pem)))
    }

    /// The origin that the relay is known by.
    #[must_use]
    pub const fn origin(&self) -> &ServerOrigin {
        &self.origin
    }

    /// `GET /api/regions`.
    ///
    /// # Errors
    /// Each [`ApiError`].
    pub async fn regions(&self) -> Result<Regions, ApiError> {
        self.read(self.request(Method::GET, "/api/regions").await?).await
    }

    /// The server's clock by its `Date` header, in milliseconds since the epoch; whole seconds.
    ///
    /// # Errors
    /// Each [`ApiError`].
    pub async fn server_time_ms(&self) -> Result<u64, ApiError> {
        let answer = self.request(Method::GET, "/api/keys").await?.send().await.map_err(transport_error)?;
        let date = answer.headers().get(header::DATE).and_then(|date| date.to_str().ok());
        let date = date.and_then(|date| jiff::fmt::rfc2822::parse(date).ok()).ok_or(ApiError::Malformed)?;
        u64::try_from(date.timestamp().as_millisecond()).map_err(|_| ApiError::Malformed)
    }

    /// `POST /api/local-connect/start`.
    ///
    /// # Errors
    /// Each [`ApiError`].
    pub async fn start_local_connect(&self, request: &StartRequest) -> Result<StartAnswer, ApiError> {
        self.read(self.request(Method::POST, "/api/local-connect/start").await?.json(request)).await
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
        self.read(self.request(Method::GET, &path).await?.bearer_auth(token)).await
    }

    /// `POST /api/local-connect/{id}/agent-status` with `confirmed`.
    ///
    /// # Errors
    /// Each [`ApiError`].
    pub async fn confirm(&self, id: LocalConnectId, token: &str, mac: &[u8]) -> Result<ConfirmedAnswer, ApiError> {
        let body = AgentStatus::Confirmed { machine_mac: URL_SAFE_NO_PAD.encode(mac) };
        self.read(self.agent_status_request(id, token, &body).await?).await
    }

    /// `POST /api/local-connect/{id}/agent-status` with anything else.
    ///
    /// # Errors
    /// Each [`ApiError`].
    pub async fn agent_status(&self, id: LocalConnectId, token: &str, status: &AgentStatus) -> Result<(), ApiError> {
        self.send(self.agent_status_request(id, token, status).await?).await.map(drop)
    }

    async fn agent_status_request(
        &self,
        id: LocalConnectId,
        token: &str,
        body: &AgentStatus,
    ) -> Result<reqwest::RequestBuilder, ApiError> {
        let path = format!("/api/local-connect/{id}/agent-status");
        Ok(self.request(Method::POST, &path).await?.bearer_auth(token).json(body))
    }

    /// `POST /api/machines/{id}/credential`, proven by the machine key.
    ///
    /// # Errors
    /// Each [`ApiError`].
    pub async fn renew_credential(
        &self,
        machine: &MachineAuth<'_>,
        devices: &[DeviceId],
    ) -> Result<CredentialAnswer, ApiError> {
        self.machine_post(machine, "credential", &serde_json::json!({ "devices": devices })).await
    }

    /// `POST /api/machines/{id}/key`, proven by the machine key until now.
    ///
    /// # Errors
    /// Each [`ApiError`].
    pub async fn rotate_key(
        &self,
        machine: &MachineAuth<'_>,
        statement: &KeyRotation,
    ) -> Result<CredentialAnswer, ApiError> {
        self.machine_post(machine, "key", statement).await
    }

    /// `POST /api/machines/{id}/release`, proven by the machine key: it is in no account from then on.
    ///
    /// # Errors
    /// Each [`ApiError`].
    pub async fn release(&self, machine: &MachineAuth<'_>) -> Result<(), ApiError> {
        let body = serde_json::json!({});
        self.send(self.machine_request(machine, "release", &body).await?).await.map(drop)
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
        self.read(self.machine_request(machine, what, body).await?).await
    }

    async fn machine_request(
        &self,
        machine: &MachineAuth<'_>,
        what: &str,
        body: &impl Serialize,
    ) -> Result<reqwest::RequestBuilder, ApiError> {
        let path = format!("/api/machines/{}/{what}", machine.machine_id);
        let body = serde_json::to_vec(body).map_err(|error| ApiError::Client(error.into()))?;
        let now_ms = self.clock.unix_millis();
        let signature = machine.sign(&Method::POST, &path, &body, now_ms, self.origin.as_str());
        let request = self
            .request(Method::POST, &path)
            .await?
            .header(header::AUTHORIZATION, format!("FlyDex-Machine {}", machine.credential))
            .header(TIMESTAMP_HEADER, now_ms.to_string())
            .header(SIGNATURE_HEADER, signature)
            .header(header::CONTENT_TYPE, "application/json")
            .body(body);
        Ok(request)
    }

    async fn request(&self, method: Method, path: &str) -> Result<reqwest::RequestBuilder, ApiError> {
        let base = self.base.get_or_try_init(|| self.find()).await?;
        Ok(self.http.request(method, format!("{base}{path}")))
    }

    /// Asks the web app's origin, which is what the relay is known by, where its API is. One that has no answer has the
    /// API itself.
    async fn find(&self) -> Result<ServerOrigin, ApiError> {
        let request = self.http.get(format!("{}{WHERE_THE_API_IS}", self.origin));
        let answer = request.send().await.map_err(transport_error)?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(self.origin.clone());
        }
        let content = bounded(answer).await?;
        let found: Whereabouts = serde_json::from_slice(&content).map_err(|_| ApiError::Malformed)?;
        as_private(&found.api_origin, &self.origin).ok_or(ApiError::Malformed)
    }

    async fn read<A: DeserializeOwned>(&self, request: reqwest::RequestBuilder) -> Result<A, ApiError> {
        let content = self.send(request).await?;
        serde_json::from_slice(&content).map_err(|_| ApiError::Malformed)
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Zeroizing<Vec<u8>>, ApiError> {
        let answer = request.send().await.map_err(transport_error)?;
        let status = answer.status();
        let is_json = is_json(answer.headers());
        let content = bounded(answer).await?;
        if status.is_success() {
            return Ok(content);
        }
        let refusal = serde_json::from_slice::<ErrorAnswer>(&content).ok().filter(|_| is_json);
        let code = refusal.and_then(|refusal| ErrorCode::from_number(refusal.error.number));
        Err(code.map_or(ApiError::Malformed, ApiError::Refused))
    }
}

/// An API that may be called for a relay of that origin: one that is encrypted if the origin is.
fn as_private(found: &str, origin: &ServerOrigin) -> Option<ServerOrigin> {
    let base: ServerOrigin = found.parse().ok()?;
    (base.is_encrypted() || !origin.is_encrypted()).then_some(base)
}

async fn bounded(mut answer: reqwest::Response) -> Result<Zeroizing<Vec<u8>>, ApiError> {
    let mut content = Zeroizing::new(Vec::new());
    while let Some(chunk) = answer.chunk().await.map_err(transport_error)? {
        if content.len() + chunk.len() > API_ANSWER_BYTES_MAX {
            return Err(ApiError::Malformed);
        }
        content.extend_from_slice(&chunk);
    }
    Ok(content)
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

#[cfg(test)]
mod tests;
