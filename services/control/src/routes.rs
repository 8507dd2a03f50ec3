//! Every route under `/api`, its description, and what holds for all of them.

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get};
use axum::{Json, Router};
use flydex_domain::error::ErrorCode;
use flydex_domain::limits::{API_BODY_BYTES_MAX, API_TIMEOUT};
use flydex_runtime::http::trace::{route, traced};
use http::{HeaderName, HeaderValue, header};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::error::{ApiError, Told};
use crate::principal::refuse_foreign_page;
use crate::security::SecuritySchemes;
use crate::service::App;
use crate::{
    account_sessions, accounts, agent_status, audit, billing, claims, devices, identities, invitations, local_connect,
    machine_keys, machines, members, passkeys, presence, recovery, regions, sign_in, tickets, ways_in,
};

/// Headers of every answer: nothing is kept, sniffed, framed or lent to other origins.
const HEADERS: [(HeaderName, HeaderValue); 4] = [
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
];

#[derive(OpenApi)]
#[openapi(
    info(
        title = "FlyDex control API",
        version = "1",
        description = "Bytes are base64url without padding; times are milliseconds since the Unix epoch. A route \
                       whose security is empty is public."
    ),
    modifiers(&SecuritySchemes)
)]
struct Description;

/// The routes over the shared state.
pub(crate) fn router(control: App) -> Router {
    let (api, description) = described().split_for_parts();
    let router = api
        .route("/api/openapi.json", get(async move || Json(description.clone())))
        .route("/api", any(unknown))
        .route("/api/{*rest}", any(unknown))
        .method_not_allowed_fallback(unknown)
        .layer(DefaultBodyLimit::max(API_BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(Arc::clone(&control), guard))
        .with_state(control);
    traced(router)
}

/// The description (OpenAPI 3.1) as JSON.
pub(crate) fn openapi_json() -> String {
    described().to_openapi().to_pretty_json().expect("the description is plain data")
}

fn described() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(sign_in::sign_in))
        .routes(routes!(sign_in::sign_out))
        .routes(routes!(sign_in::session))
        .routes(routes!(sign_in::create_link))
        .routes(routes!(sign_in::options::options))
        .routes(routes!(sign_in::passkey::start))
        .routes(routes!(sign_in::passkey::finish))
        .routes(routes!(sign_in::recovery::sign_in))
        .routes(routes!(identities::start_sign_in))
        .routes(routes!(identities::finish_sign_in))
        .routes(routes!(identities::start_link))
        .routes(routes!(identities::finish_link))
        .routes(routes!(identities::unlink))
        .routes(routes!(presence::start))
        .routes(routes!(presence::finish))
        .routes(routes!(ways_in::list))
        .routes(routes!(passkeys::start))
        .routes(routes!(passkeys::finish))
        .routes(routes!(passkeys::rename, passkeys::remove))
        .routes(routes!(recovery::create))
        .routes(routes!(account_sessions::list, account_sessions::end_all))
        .routes(routes!(account_sessions::end))
        .routes(routes!(billing::read))
        .routes(routes!(billing::webhook))
        .routes(routes!(accounts::list))
        .routes(routes!(accounts::switch))
        .routes(routes!(members::list))
        .routes(routes!(members::change_role, members::remove))
        .routes(routes!(members::leave))
        .routes(routes!(invitations::list, invitations::create))
        .routes(routes!(invitations::revoke))
        .routes(routes!(invitations::offer))
        .routes(routes!(invitations::accept))
        .routes(routes!(local_connect::start))
        .routes(routes!(local_connect::watch::get))
        .routes(routes!(local_connect::cancel))
        .routes(routes!(agent_status::report))
        .routes(routes!(claims::redeem))
        .routes(routes!(claims::finalize))
        .routes(routes!(devices::list))
        .routes(routes!(devices::revoke))
        .routes(routes!(machines::list))
        .routes(routes!(machines::rename, machines::revoke))
        .routes(routes!(machines::pin))
        .routes(routes!(machines::renew_credential))
        .routes(routes!(machine_keys::rotate))
        .routes(routes!(machine_keys::release))
        .routes(routes!(tickets::create))
        .routes(routes!(regions::list))
        .routes(routes!(regions::keys))
        .routes(routes!(audit::record_intent))
        .routes(routes!(audit::list))
        .routes(routes!(audit::export::export))
        .routes(routes!(audit::export::head))
        .routes(routes!(audit::policy::read, audit::policy::change))
        .routes(routes!(audit::upload::upload))
}

async fn guard(State(control): State<App>, request: Request, next: Next) -> Response {
    let route = route(&request).to_owned();
    let began = control.clock.instant();
    let mut response = answer(&control, request, next).await.unwrap_or_else(ApiError::into_response);
    let code = response.extensions().get::<Told>().map(|told| told.0);
    let took = control.clock.instant().saturating_duration_since(began);
    control.metrics.answered(&route, code, took);
    let (status, code) = (response.status().as_u16(), code.map(ErrorCode::name));
    tracing::debug!(http.status = status, error.code = code, duration_ms = took.as_millis(), "request answered");
    response.headers_mut().extend(HEADERS);
    response
}

async fn answer(control: &App, request: Request, next: Next) -> Result<Response, ApiError> {
    if !request.method().is_safe() {
        refuse_foreign_page(request.headers(), &control.config.public_origin)?;
    }
    let answered = tokio::time::timeout(API_TIMEOUT, next.run(request)).await;
    Ok(answered.map_err(|_| ErrorCode::DeadlineExceeded)?)
}

async fn unknown() -> ApiError {
    ErrorCode::NotFound.into()
}
