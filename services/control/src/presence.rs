//! A fresh assertion in a session that is there: what enrols, deletes or promotes asks for it.

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use flydex_domain::audit::{AuditEntry, AuditKind};
use flydex_domain::error::ErrorCode;
use flydex_store::sql::{Attempt, AttemptKind};
use http::HeaderMap;

use crate::error::{ApiError, ErrorBody};
use crate::extract::{Address, ApiJson, NoBody};
use crate::passkeys::{AssertionBody, Options, assert_presence, verify_assertion};
use crate::principal::Browser;
use crate::service::{App, random_token};
use crate::sign_in::begin::WhoAmI;
use crate::{attempts, cookie};

/// Begins a fresh assertion: the options for `navigator.credentials.get`. A user without a passkey signs in again
/// instead, and is told `not_found`.
#[utoipa::path(post, path = "/api/presence/start", tag = "sign-in", security(("cookie" = [])), responses(
    (status = 200, body = Options), (status = "default", body = ErrorBody)))]
pub(crate) async fn start(
    State(control): State<App>,
    address: Address,
    browser: Browser,
    _: NoBody,
) -> Result<impl IntoResponse, ApiError> {
    control.rates.attempts.check(address)?;
    let mut tx = control.store.read().await?;
    let passkeys = tx.passkeys(browser.scope(), browser.user.user_id).await?;
    drop(tx);
    if passkeys.is_empty() {
        return Err(ErrorCode::NotFound.into());
    }
    let (options, state) = control.relying_party.assertion(&passkeys)?;
    let attempt = Attempt { account_session_id: Some(browser.session.account_session_id), state };
    let cookie = attempts::begin(&control, AttemptKind::Assertion, &attempt).await?;
    Ok((cookie, Json(options)))
}

/// Verifies the assertion; the session gets another token and counts as fresh for five minutes.
#[utoipa::path(post, path = "/api/presence/finish", tag = "sign-in", security(("cookie" = [])),
    request_body = AssertionBody, responses((status = 200, body = WhoAmI), (status = "default", body = ErrorBody)))]
pub(crate) async fn finish(
    State(control): State<App>,
    address: Address,
    headers: HeaderMap,
    mut browser: Browser,
    ApiJson(body): ApiJson<AssertionBody>,
) -> Result<impl IntoResponse, ApiError> {
    control.rates.sign_in.check(address)?;
    let attempt = attempts::take_own(&control, AttemptKind::Assertion, &headers, &browser).await?;
    let user_id = browser.user.user_id;
    let mut tx = verify_assertion(&control, &body, &attempt.state, &browser.user, address).await?;
    let now = control.now();
    let token = random_token();
    assert_presence(&mut tx, &browser, &token, now).await?;
    let entry = control.audit_entry(AuditKind::PresenceAsserted, Some(address));
    tx.append_audit(browser.scope(), &AuditEntry { user_id: Some(user_id), ..entry }).await?;
    tx.commit().await?;
    browser.session.asserted_at = Some(now);
    Ok((cookie::set(&token), Json(WhoAmI::of(&browser))))
}
