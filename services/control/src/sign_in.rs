//! Signing in with a one-time link, signing out, and links for further browsers. The other ways in are beneath.

pub(crate) mod begin;
pub(crate) mod options;
pub(crate) mod passkey;
pub(crate) mod recovery;

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use flydex_domain::audit::{AuditEntry, AuditKind};
use flydex_domain::encoding::sha256;
use flydex_domain::error::ErrorCode;
use flydex_domain::id::{AccountId, AccountSessionId, UserId};
use flydex_domain::limits::SIGN_IN_LINK_LIFETIME;
use flydex_domain::revocation::Revocation;
use flydex_domain::scope::Role;
use flydex_domain::sign_in::SignInMethod;
use flydex_domain::time::UnixMillis;
use flydex_store::StoreError;
use flydex_store::sql::{Account, SignInLink, Tx, User};
use http::{HeaderMap, Method, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use self::begin::{WhoAmI, begin};
use crate::cookie;
use crate::error::{ApiError, ErrorBody};
use crate::extract::{Address, ApiJson, NoBody};
use crate::principal::{Browser, require_own_page};
use crate::service::{App, Control, random_token};
use crate::wire::Base64;

/// A one-time token, from the fragment of `<origin>/sign-in#<token>`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SignInBody {
    #[schema(value_type = String)]
    token: Base64<32>,
}

/// A link that signs one more browser in, once.
#[derive(Serialize, ToSchema)]
pub(crate) struct SignInLinkJson {
    url: String,
    #[schema(value_type = u64)]
    expires_at_ms: UnixMillis,
}

/// Uses a one-time link up and begins an account session.
#[utoipa::path(post, path = "/api/sign-in", tag = "sign-in", security(()), request_body = SignInBody, responses(
    (status = 200, body = WhoAmI), (status = "default", body = ErrorBody)))]
pub(crate) async fn sign_in(
    State(control): State<App>,
    address: Address,
    headers: HeaderMap,
    ApiJson(body): ApiJson<SignInBody>,
) -> Result<impl IntoResponse, ApiError> {
    require_own_page(&Method::POST, &headers, &control.config.public_origin)?;
    control.rates.sign_in.check(address)?;
    let mut tx = control.store.write().await?;
    let (user, method) = match tx.take_link(&sha256(&body.token.0), control.now()).await {
        Ok(SignInLink::User(user)) => (user, SignInMethod::Link),
        Ok(SignInLink::Owner) => (first_owner(&control, &mut tx, address).await?, SignInMethod::OwnerLink),
        Err(StoreError::NotFound) => return Err(ErrorCode::SignInLinkInvalid.into()),
        Err(error) => return Err(error.into()),
    };
    begin(&control, tx, &user, method, address, &headers).await
}

/// Ends this browser's account session.
#[utoipa::path(post, path = "/api/sign-out", tag = "sign-in", security(("cookie" = [])), responses(
    (status = 204), (status = "default", body = ErrorBody)))]
pub(crate) async fn sign_out(
    State(control): State<App>,
    browser: Browser,
    _: NoBody,
) -> Result<impl IntoResponse, ApiError> {
    end_session(&control, &browser, browser.session.account_session_id).await?;
    Ok((StatusCode::NO_CONTENT, cookie::clear()))
}

/// Who this browser is signed in as; its cookie is set anew.
#[utoipa::path(get, path = "/api/session", tag = "sign-in", security(("cookie" = [])), responses(
    (status = 200, body = WhoAmI), (status = "default", body = ErrorBody)))]
pub(crate) async fn session(browser: Browser) -> impl IntoResponse {
    (cookie::set(&browser.token), Json(WhoAmI::of(&browser)))
}

/// Makes a link that signs another browser of the same user in.
#[utoipa::path(post, path = "/api/sign-in-links", tag = "sign-in", security(("cookie" = [])), responses(
    (status = 200, body = SignInLinkJson), (status = "default", body = ErrorBody)))]
pub(crate) async fn create_link(
    State(control): State<App>,
    browser: Browser,
    _: NoBody,
) -> Result<Json<SignInLinkJson>, ApiError> {
    browser.require(Role::Owner)?;
    let token = random_token();
    let now = control.now();
    browser.require_fresh(now)?;
    let expires_at_ms = now.plus(SIGN_IN_LINK_LIFETIME);
    let mut tx = control.store.write().await?;
    tx.create_link(browser.scope(), &browser.user, &sha256(&token), now, expires_at_ms).await?;
    let entry = control.audit_entry(AuditKind::SignInLinkCreated, None);
    tx.append_audit(browser.scope(), &AuditEntry { user_id: Some(browser.user.user_id), ..entry }).await?;
    tx.commit().await?;
    Ok(Json(SignInLinkJson { url: control.sign_in_url(&token), expires_at_ms }))
}

/// Ends a session of the browser's own user, and with it every grant it got.
pub(crate) async fn end_session(
    control: &Control,
    browser: &Browser,
    account_session_id: AccountSessionId,
) -> Result<(), ApiError> {
    end_session_as(control, browser, account_session_id, AuditKind::SignedOut).await
}

/// The same, put on record as what it was.
pub(crate) async fn end_session_as(
    control: &Control,
    browser: &Browser,
    account_session_id: AccountSessionId,
    kind: AuditKind,
) -> Result<(), ApiError> {
    let scope = browser.scope();
    let mut tx = control.store.write().await?;
    let ended = tx.end_session(scope, browser.user.user_id, account_session_id).await?;
    let revocation = Revocation::Grant { account_id: scope.account_id(), grant_id: ended.grant_id };
    tx.append_revocation(scope, revocation, control.now()).await?;
    let entry = control.audit_entry(kind, None);
    tx.append_audit(scope, &AuditEntry { user_id: Some(browser.user.user_id), ..entry }).await?;
    tx.commit().await?;
    control.revocations_committed();
    Ok(())
}

async fn first_owner(control: &Control, tx: &mut Tx, address: Address) -> Result<User, ApiError> {
    if let Some(user) = tx.first_owner().await? {
        return Ok(user);
    }
    let now = control.now();
    let account_id = AccountId::from_uuid(Uuid::new_v4());
    let user = User { account_id, user_id: UserId::from_uuid(Uuid::new_v4()), role: Role::Owner };
    tx.create_account(&Account { account_id, name: control.config.account_name.clone() }, now).await?;
    tx.create_user(&user, now).await?;
    let entry = control.audit_entry(AuditKind::AccountCreated, Some(address));
    tx.append_audit(user.principal().scope(), &AuditEntry { user_id: Some(user.user_id), ..entry }).await?;
    Ok(user)
}
