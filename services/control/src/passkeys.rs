//! A user's passkeys: adding, naming and removing them.

mod assertion;
mod relying_party;

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use flydex_domain::audit::{AuditEntry, AuditKind};
use flydex_domain::encoding::sha256;
use flydex_domain::error::ErrorCode;
use flydex_domain::id::PasskeyId;
use flydex_store::StoreError;
use flydex_store::sql::{Attempt, AttemptKind, Passkey};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use utoipa::ToSchema;
use uuid::Uuid;
use webauthn_rs::prelude::RegisterPublicKeyCredential;

pub(crate) use self::assertion::{AssertionBody, verify_assertion};
pub(crate) use self::relying_party::{Options, RelyingParty};
use crate::error::{ApiError, ErrorBody};
use crate::extract::{Address, ApiJson, NoBody, PathId};
use crate::principal::Browser;
use crate::service::{App, random_token};
use crate::ways_in::PasskeyJson;
use crate::wire::label;
use crate::{attempts, cookie, ways_in};

/// What the authenticator made, and what the user calls it.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AddBody {
    label: String,
    /// `PublicKeyCredential.toJSON()`.
    #[schema(value_type = Object)]
    credential: RegisterPublicKeyCredential,
}

/// A passkey's new name.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PasskeyLabelBody {
    label: String,
}

/// Begins to add a passkey: the options for `navigator.credentials.create`.
#[utoipa::path(post, path = "/api/passkeys/start", tag = "ways in", security(("cookie" = [])), responses(
    (status = 200, body = Options), (status = "default", body = ErrorBody)))]
pub(crate) async fn start(
    State(control): State<App>,
    address: Address,
    browser: Browser,
    _: NoBody,
) -> Result<impl IntoResponse, ApiError> {
    browser.require_fresh(control.now())?;
    control.rates.attempts.check(address)?;
    let mut tx = control.store.read().await?;
    let passkeys = tx.passkeys(browser.scope(), browser.user.user_id).await?;
    drop(tx);
    let (options, state) = control.relying_party.registration(&browser.user, &browser.account_name, passkeys)?;
    let attempt = Attempt { account_session_id: Some(browser.session.account_session_id), state };
    let cookie = attempts::begin(&control, AttemptKind::PasskeyAddition, &attempt).await?;
    Ok((cookie, Json(options)))
}

/// Adds the passkey. It counts as a fresh assertion, and the session gets another token.
#[utoipa::path(post, path = "/api/passkeys/finish", tag = "ways in", security(("cookie" = [])),
    request_body = AddBody, responses((status = 200, body = PasskeyJson), (status = "default", body = ErrorBody)))]
pub(crate) async fn finish(
    State(control): State<App>,
    headers: HeaderMap,
    browser: Browser,
    ApiJson(body): ApiJson<AddBody>,
) -> Result<impl IntoResponse, ApiError> {
    let label = label(&body.label)?;
    let attempt = attempts::take_own(&control, AttemptKind::PasskeyAddition, &headers, &browser).await?;
    let (credential_id, public_key) = control.relying_party.register(&body.credential, &attempt.state)?;
    let now = control.now();
    let passkey_id = PasskeyId::from_uuid(Uuid::new_v4());
    let passkey = Passkey { passkey_id, credential_id, public_key, label, created_at: now, used_at: None };
    let scope = browser.scope();
    let token = random_token();
    let mut tx = control.store.write().await?;
    match tx.add_passkey(scope, browser.user.user_id, &passkey).await {
        // Somebody else's: an authenticator never makes the same twice.
        Err(StoreError::Conflict) => return Err(ErrorCode::PasskeyRefused.into()),
        added => added?,
    }
    assert_presence(&mut tx, &browser, &token, now).await?;
    let entry = control.audit_entry(AuditKind::PasskeyAdded, None);
    tx.append_audit(scope, &AuditEntry { user_id: Some(browser.user.user_id), ..entry }).await?;
    tx.commit().await?;
    Ok((cookie::set(&token), Json(PasskeyJson::from(passkey))))
}

/// Renames a passkey.
#[utoipa::path(patch, path = "/api/passkeys/{id}", tag = "ways in", security(("cookie" = [])),
    params(("id" = String, Path)),
    request_body = PasskeyLabelBody, responses((status = 204), (status = "default", body = ErrorBody)))]
pub(crate) async fn rename(
    State(control): State<App>,
    browser: Browser,
    PathId(passkey_id): PathId<PasskeyId>,
    ApiJson(body): ApiJson<PasskeyLabelBody>,
) -> Result<StatusCode, ApiError> {
    let label = label(&body.label)?;
    let mut tx = control.store.write().await?;
    tx.rename_passkey(browser.scope(), browser.user.user_id, passkey_id, &label).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Removes a passkey, unless it is the last way in.
#[utoipa::path(delete, path = "/api/passkeys/{id}", tag = "ways in", security(("cookie" = [])),
    params(("id" = String, Path)), responses(
    (status = 204), (status = "default", body = ErrorBody)))]
pub(crate) async fn remove(
    State(control): State<App>,
    browser: Browser,
    PathId(passkey_id): PathId<PasskeyId>,
) -> Result<StatusCode, ApiError> {
    browser.require_fresh(control.now())?;
    let scope = browser.scope();
    let user_id = browser.user.user_id;
    let mut tx = control.store.write().await?;
    let ways = ways_in::count(&mut tx, &control, &browser).await?;
    tx.remove_passkey(scope, user_id, passkey_id).await?;
    if !ways.can_lose_passkey() {
        return Err(ErrorCode::LastWayIn.into());
    }
    let entry = control.audit_entry(AuditKind::PasskeyRemoved, None);
    tx.append_audit(scope, &AuditEntry { user_id: Some(user_id), ..entry }).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Notes in the browser's session that its person was there, under a new token.
pub(crate) async fn assert_presence(
    tx: &mut flydex_store::sql::Tx,
    browser: &Browser,
    token: &[u8; 32],
    now: flydex_domain::time::UnixMillis,
) -> Result<(), ApiError> {
    match tx.assert_presence(browser.scope(), browser.session.account_session_id, &sha256(token), now).await {
        Err(StoreError::NotFound) => Err(ErrorCode::Unauthenticated.into()),
        asserted => Ok(asserted?),
    }
}
