//! One error type for every handler. The code goes out; the cause goes to the log and nowhere else.

use std::error::Error;
use std::time::Duration;

use axum::Json;
use axum::response::{IntoResponse, Response};
use flydex_domain::error::{ErrorCode, Retry};
use flydex_runtime::telemetry::log::chain;
use flydex_runtime::telemetry::trace::Traceparent;
use flydex_store::StoreError;
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use tracing::Span;
use utoipa::ToSchema;

/// A request that failed.
#[derive(Debug)]
pub(crate) struct ApiError {
    code: ErrorCode,
    retry_after: Option<Duration>,
    limit: Option<u64>,
    cause: Option<Box<dyn Error + Send + Sync>>,
}

/// The code of an answer, for the layer that counts it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told(pub(crate) ErrorCode);

/// The body of every answer that is an error.
#[derive(Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    error: ErrorJson,
}

#[derive(Serialize, ToSchema)]
struct ErrorJson {
    /// The stable name; it has a page in the documentation.
    code: &'static str,
    /// The stable number.
    number: u16,
    /// The cause in one line.
    message: &'static str,
    /// `never`, `later` or `refreshed`.
    retry: &'static str,
    /// When trying again may help.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    /// How many of it the account's plan allows.
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u64>,
    /// The trace of the request, where traces are kept: what to name when asking for help.
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
}

impl ApiError {
    /// The account has as many as its plan allows.
    pub(crate) fn at_limit(code: ErrorCode, limit: u64) -> Self {
        Self { limit: Some(limit), ..Self::from(code) }
    }

    /// What it is told as.
    pub(crate) const fn code(&self) -> ErrorCode {
        self.code
    }

    /// Trying again may help after a time.
    pub(crate) fn later(code: ErrorCode, retry_after: Duration) -> Self {
        Self { retry_after: Some(retry_after), ..Self::from(code) }
    }
}

impl From<ErrorCode> for ApiError {
    fn from(code: ErrorCode) -> Self {
        Self { code, retry_after: None, limit: None, cause: None }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let code = match &error {
            StoreError::NotFound => ErrorCode::NotFound,
            StoreError::Conflict => ErrorCode::Conflict,
            StoreError::Full => ErrorCode::Overloaded,
            StoreError::Malformed { .. } => ErrorCode::Internal,
            StoreError::Unavailable(_)
            | StoreError::Migration(_)
            | StoreError::Schema(_)
            | StoreError::Address
            | StoreError::File(_) => ErrorCode::StoreUnavailable,
        };
        Self { code, retry_after: None, limit: None, cause: Some(Box::new(error)) }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        if let (ErrorCode::Internal | ErrorCode::StoreUnavailable, Some(cause)) = (self.code, &self.cause) {
            tracing::error!(error.code = self.code.name(), error = %chain(cause.as_ref()), "request failed");
        }
        let retry = match self.code.retry() {
            Retry::Never => "never",
            Retry::Later => "later",
            Retry::Refreshed => "refreshed",
        };
        let retry_after_ms = self.retry_after.map(|duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
        let error = ErrorJson {
            code: self.code.name(),
            number: self.code.number(),
            message: self.code.message(),
            retry,
            retry_after_ms,
            limit: self.limit,
            trace_id: Traceparent::of(&Span::current()).map(Traceparent::trace_id_text),
        };
        let status = StatusCode::from_u16(self.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(ErrorBody { error })).into_response();
        response.extensions_mut().insert(Told(self.code));
        if let Some(retry_after) = self.retry_after {
            let seconds = HeaderValue::from(retry_after.as_secs() + 1);
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        response
    }
}
