//! Signing in with a passkey and no user name: the authenticator says whose it is.

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use flydex_domain::error::ErrorCode;
use flydex_domain::id::UserId;
use flydex_domain::sign_in::SignInMethod;
use flydex_store::sql::{Attempt, AttemptKind};
use http::{HeaderMap, Method};

use super::begin::{WhoAmI, begin, membership};
use crate::attempts;
use crate::error::{ApiError, ErrorBody};
use crate::extract::{Address, ApiJson, NoBody};
use crate::passkeys::{AssertionBody, Options, verify_assertion};
use crate::principal::require_own_page;
use crate::service::App;

/// Begins a sign-in with a passkey: the options for `navigator.credentials.get`.
#[utoipa::path(post, path = "/api/sign-in/passkey/start", tag = "sign-in", security(()), responses(
    (status = 200, body = Options), (status = "default", body = ErrorBody)))]
pub(crate) async fn start(
    State(control): State<App>,
    address: Address,
    headers: HeaderMap,
    _: NoBody,
) -> Result<impl IntoResponse, ApiError> {
    require_own_page(&Method::POST, &headers, &control.config.public_origin)?;
    control.rates.attempts.check(address)?;
    let (options, state) = control.relying_party.assertion(&[])?;
    let attempt = Attempt { account_session_id: None, state };
    let cookie = attempts::begin(&control, AttemptKind::PasskeySignIn, &attempt).await?;
    Ok((cookie, Json(options)))
}

/// Verifies the passkey's assertion and begins an account session.
#[utoipa::path(post, path = "/api/sign-in/passkey/finish", tag = "sign-in", security(()),
    request_body = AssertionBody, responses((status = 200, body = WhoAmI), (status = "default", body = ErrorBody)))]
pub(crate) async fn finish(
    State(control): State<App>,
    address: Address,
    headers: HeaderMap,
    ApiJson(body): ApiJson<AssertionBody>,
) -> Result<impl IntoResponse, ApiError> {
    require_own_page(&Method::POST, &headers, &control.config.public_origin)?;
    control.rates.sign_in.check(address)?;
    let attempt = attempts::take(&control, AttemptKind::PasskeySignIn, &headers).await?;
    let user_id = UserId::from_uuid(body.user_id().ok_or(ErrorCode::PasskeyRefused)?);
    let mut tx = control.store.read().await?;
    let user = membership(&mut tx, user_id).await?.ok_or(ErrorCode::PasskeyRefused)?;
    drop(tx);
    let tx = verify_assertion(&control, &body, &attempt.state, &user, address).await?;
    begin(&control, tx, &user, SignInMethod::Passkey, address, &headers).await
}
