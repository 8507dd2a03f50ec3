//! The loopback helper: a sign of life for the relay's page, and the connector's own pairing page (INV-LOCAL).
//!
//! It listens on 127.0.0.1 only. Every request must name that host (against DNS rebinding), and must come from
//! where it may come from: the relay's origin for `/v1/health` and `/v1/connect`, this page for its own form.
//! Everything else is refused with `local_origin_refused`. Nothing here is secret but the page, which opens
//! with the token in the address that the terminal shows.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use flydex_domain::encoding::sha256;
use flydex_domain::error::ErrorCode;
use flydex_domain::limits::{HELPER_BODY_BYTES_MAX, HELPER_REQUESTS_IN_FLIGHT_MAX, HELPER_TIMEOUT};
use flydex_runtime::lifecycle::Shutdown;
use subtle::ConstantTimeEq as _;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use zeroize::Zeroizing;

use crate::pair::desk::DeskPort;
use crate::paired::Entropy;
use crate::regions::ServerOrigin;

mod guard;
mod page;

const PRIVATE_NETWORK_REQUEST: HeaderName = HeaderName::from_static("access-control-request-private-network");
const PRIVATE_NETWORK_ALLOW: HeaderName = HeaderName::from_static("access-control-allow-private-network");

/// Opens the pairing page; known to whoever reads the terminal.
#[derive(Clone)]
pub struct PageToken(Zeroizing<String>);

flydex_domain::never_implements!(PageToken: fmt::Display, serde::Serialize, PartialEq, AsRef<str>);

impl PageToken {
    /// Draws a token.
    #[must_use]
    pub fn draw(entropy: &Entropy) -> Self {
        Self(Zeroizing::new(URL_SAFE_NO_PAD.encode(entropy.bytes::<32>())))
    }

    /// Whether `given` is the token; takes the same time for every wrong one.
    #[must_use]
    pub fn is(&self, given: &str) -> bool {
        // Hashes, so that its length is not told either.
        sha256(given.as_bytes()).ct_eq(&sha256(self.0.as_bytes())).into()
    }

    /// The token, for the address in the terminal and for the page's own form.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PageToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PageToken(redacted)")
    }
}

/// How far the connector is, as the relay's page may know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// A pairing is going on.
    Pairing,
    /// Paired, and no link yet.
    Connecting,
    /// Linked; Codex is starting.
    CodexStarting,
    /// Linked, and Codex answers.
    CodexReady,
    /// Linked, and Codex does not answer.
    CodexUnavailable,
}

impl Readiness {
    const fn name(self) -> &'static str {
        match self {
            Self::Pairing => "pairing",
            Self::Connecting => "connecting",
            Self::CodexStarting => "codex_starting",
            Self::CodexReady => "codex_ready",
            Self::CodexUnavailable => "codex_unavailable",
        }
    }
}

/// What the helper serves from.
#[derive(Debug)]
pub struct HelperConfig {
    /// The relay whose pages may ask.
    pub origin: ServerOrigin,
    /// Opens the pairing page.
    pub token: PageToken,
    /// What the desk sees, and where it answers.
    pub desk: DeskPort,
    /// Takes the wish of the relay's page to pair.
    pub staged: mpsc::Sender<()>,
    /// How far the connector is.
    pub readiness: watch::Receiver<Readiness>,
}

/// A bound helper.
#[derive(Debug)]
pub struct Helper {
    listener: TcpListener,
    port: u16,
}

/// Why the helper is not served.
#[derive(Debug, thiserror::Error)]
pub enum HelperError {
    /// Another program, or another user's FlyDex, has the port.
    #[error("port {port} is taken by another program")]
    PortTaken {
        /// The port.
        port: u16,
    },
    /// The system refused.
    #[error("cannot listen on this machine")]
    Listen(#[source] io::Error),
}

impl HelperError {
    /// What a script is told.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::PortTaken { .. } | Self::Listen(_) => ErrorCode::LocalPortTaken,
        }
    }
}

impl Helper {
    /// Takes a port on 127.0.0.1; 0 takes any.
    ///
    /// # Errors
    /// [`HelperError`].
    pub async fn bind(port: u16) -> Result<Self, HelperError> {
        let bound = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await;
        let refused = |error: io::Error| {
            let taken = error.kind() == io::ErrorKind::AddrInUse;
            if taken { HelperError::PortTaken { port } } else { HelperError::Listen(error) }
        };
        let listener = bound.map_err(refused)?;
        let port = listener.local_addr().map_err(HelperError::Listen)?.port();
        Ok(Self { listener, port })
    }

    /// The port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The address of the pairing page. It holds the token: it is shown in the terminal, and never logged.
    #[must_use]
    pub fn page_url(&self, token: &PageToken) -> Zeroizing<String> {
        Zeroizing::new(format!("http://127.0.0.1:{}/?t={}", self.port, token.expose()))
    }

    /// Serves until the stop.
    pub fn serve(self, config: HelperConfig, shutdown: &Shutdown) {
        let router =
            router(Arc::new(Site { port: self.port, config, permits: Semaphore::new(HELPER_REQUESTS_IN_FLIGHT_MAX) }));
        let soft = shutdown.soft();
        shutdown.spawn(async move {
            let serving = axum::serve(self.listener, router).with_graceful_shutdown(soft.cancelled_owned());
            if serving.await.is_err() {
                tracing::warn!(error.code = ErrorCode::LocalPortTaken.name(), "helper ended");
            }
        });
    }
}

struct Site {
    port: u16,
    config: HelperConfig,
    permits: Semaphore,
}

fn router(site: Arc<Site>) -> Router {
    Router::new()
        .route("/v1/health", get(health))
        .route("/v1/connect", post(connect))
        .route("/", get(show))
        .route("/answer", post(answer))
        .fallback(async || refused())
        .method_not_allowed_fallback(async || refused())
        .layer(DefaultBodyLimit::max(HELPER_BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(Arc::clone(&site), watch_the_door))
        .with_state(site)
}

/// Every request passes here: bounded in number and time, checked, and answered with the headers that keep a
/// browser from doing more with it than it should.
async fn watch_the_door(State(site): State<Arc<Site>>, request: Request, next: Next) -> Response {
    let Ok(_permit) = site.permits.try_acquire() else {
        return refusal(ErrorCode::Overloaded);
    };
    let relay = site.config.origin.as_str();
    let admission = guard::admit(request.method(), request.uri(), request.headers(), site.port, relay);
    let mut response = match admission {
        guard::Admission::Refused => refused(),
        guard::Admission::Preflight => preflight(request.headers()),
        guard::Admission::Page | guard::Admission::Relay => {
            let answered = tokio::time::timeout(HELPER_TIMEOUT, next.run(request)).await;
            answered.unwrap_or_else(|_| refusal(ErrorCode::DeadlineExceeded))
        }
    };
    let headers = response.headers_mut();
    if matches!(admission, guard::Admission::Relay | guard::Admission::Preflight)
        && let Ok(origin) = HeaderValue::from_str(relay)
    {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    }
    headers.insert(header::VARY, HeaderValue::from_static("origin"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static("default-src 'none'"));
    response
}

fn preflight(asked: &HeaderMap) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("content-type"));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("60"));
    if asked.contains_key(PRIVATE_NETWORK_REQUEST) {
        headers.insert(PRIVATE_NETWORK_ALLOW, HeaderValue::from_static("true"));
    }
    response
}

async fn health(State(site): State<Arc<Site>>) -> Response {
    let readiness = *site.config.readiness.borrow();
    axum::Json(serde_json::json!({
        "product": "flydex",
        "version": env!("CARGO_PKG_VERSION"),
        "readiness": readiness.name(),
    }))
    .into_response()
}

/// Stages a pairing. Nothing is drawn and nobody is told anything until the desk says yes.
async fn connect(State(site): State<Arc<Site>>) -> Response {
    let pairing = *site.config.readiness.borrow() == Readiness::Pairing;
    if !pairing && let Err(mpsc::error::TrySendError::Closed(())) = site.config.staged.try_send(()) {
        return refusal(ErrorCode::GoingAway);
    }
    (StatusCode::ACCEPTED, axum::Json(serde_json::json!({ "status": "awaiting_desk" }))).into_response()
}

async fn show(State(site): State<Arc<Site>>, request: Request) -> Response {
    let token = request.uri().query().and_then(|query| field(query.as_bytes(), "t"));
    if !token.is_some_and(|token| site.config.token.is(&token)) {
        return page::locked();
    }
    let stage = site.config.desk.stage.borrow().clone();
    page::of(&stage, &site.config.token)
}

async fn answer(State(site): State<Arc<Site>>, body: Bytes) -> Response {
    if !field(&body, "t").is_some_and(|token| site.config.token.is(&token)) {
        return refused();
    }
    let question = field(&body, "question").and_then(|number| number.parse().ok());
    let (Some(number), Some(answer)) = (question, field(&body, "answer")) else {
        return refusal(ErrorCode::BadRequest);
    };
    let answer = crate::pair::desk::DeskAnswer { yes: answer.as_str() == "yes", question: Some(number) };
    if site.config.desk.answers.try_send(answer).is_err() {
        return refusal(ErrorCode::Conflict);
    }
    let back = format!("/?t={}", site.config.token.expose());
    (StatusCode::SEE_OTHER, [(header::LOCATION, back)]).into_response()
}

fn field(form: &[u8], name: &str) -> Option<Zeroizing<String>> {
    let found = url::form_urlencoded::parse(form).find(|(key, _)| key == name);
    found.map(|(_, value)| Zeroizing::new(value.into_owned()))
}

fn refused() -> Response {
    refusal(ErrorCode::LocalOriginRefused)
}

fn refusal(code: ErrorCode) -> Response {
    let status = StatusCode::from_u16(code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = serde_json::json!({
        "error": { "code": code.name(), "number": code.number(), "message": code.message() },
    });
    (status, axum::Json(body)).into_response()
}

#[cfg(test)]
mod tests;
