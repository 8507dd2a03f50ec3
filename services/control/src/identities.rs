//! Signing in at an identity provider, and linking a user with an identity there.
//!
//! A page asks for the provider's address and goes there; the provider sends the browser back to the page, which
//! hands code and state over. So nothing here is reached by a redirect, and the cookie that binds the attempt to the
//! browser needs to cross no site. An identity is known by issuer and subject, never by an e-mail address.

mod http;
mod provider;

use std::sync::Arc;

use ::http::{HeaderMap, Method, StatusCode};
use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use flydex_domain::audit::{AuditEntry, AuditKind};
use flydex_domain::encoding::sha256;
use flydex_domain::error::ErrorCode;
use flydex_domain::id::IdentityId;
use flydex_domain::limits::PROVIDER_CODE_BYTES_MAX;
use flydex_domain::sign_in::SignInMethod;
use flydex_store::StoreError;
use flydex_store::sql::{Attempt, AttemptKind, Identity};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;
use utoipa::ToSchema;
use uuid::Uuid;

pub(crate) use self::provider::Provider;
use self::provider::{Begun, Vouched};
pub use self::provider::{IdentityProvider, ProviderError};
use crate::error::{ApiError, ErrorBody};
use crate::extract::{Address, ApiJson, NoBody, PathId};
use crate::principal::{Browser, require_own_page};
use crate::service::{App, Control};
use crate::sign_in::begin::{WhoAmI, begin, membership};
use crate::{attempts, ways_in};

/// Where the page goes next.
#[derive(Serialize, ToSchema)]
pub(crate) struct ProviderAddress {
    url: String,
}

/// What the provider sent the browser back with.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProviderAnswer {
    state: String,
    /// Absent where the provider said no.
    code: Option<String>,
    /// `iss`, where the provider names itself.
    issuer: Option<String>,
}

/// Begins a sign-in at the provider.
#[utoipa::path(post, path = "/api/sign-in/identity/start", tag = "sign-in", security(()), responses(
    (status = 200, body = ProviderAddress), (status = "default", body = ErrorBody)))]
pub(crate) async fn start_sign_in(
    State(control): State<App>,
    address: Address,
    headers: HeaderMap,
    _: NoBody,
) -> Result<impl IntoResponse, ApiError> {
    require_own_page(&Method::POST, &headers, &control.config.public_origin)?;
    control.rates.attempts.check(address)?;
    let Begun { url, state } = provider(&control)?.begin("sign-in").await?;
    let cookie = attempts::begin(&control, AttemptKind::Identity, &Attempt { account_session_id: None, state }).await?;
    Ok((cookie, Json(ProviderAddress { url })))
}

/// Verifies what the provider sent and begins an account session of the user who is linked with the identity.
#[utoipa::path(post, path = "/api/sign-in/identity/finish", tag = "sign-in", security(()),
    request_body = ProviderAnswer, responses((status = 200, body = WhoAmI), (status = "default", body = ErrorBody)))]
pub(crate) async fn finish_sign_in(
    State(control): State<App>,
    address: Address,
    headers: HeaderMap,
    ApiJson(body): ApiJson<ProviderAnswer>,
) -> Result<impl IntoResponse, ApiError> {
    require_own_page(&Method::POST, &headers, &control.config.public_origin)?;
    control.rates.sign_in.check(address)?;
    let attempt = attempts::take(&control, AttemptKind::Identity, &headers).await?;
    let Vouched { issuer, subject } = redeem(&control, &attempt, &body).await?;
    let mut tx = control.store.write().await?;
    let user = match tx.use_identity(&issuer, &subject, control.now()).await {
        Err(StoreError::NotFound) => return Err(ErrorCode::IdentityUnknown.into()),
        found => found?,
    };
    let user = membership(&mut tx, user.user_id).await?.ok_or(ErrorCode::IdentityUnknown)?;
    begin(&control, tx, &user, SignInMethod::Identity, address, &headers).await
}

/// Begins to link the browser's user with an identity at the provider.
#[utoipa::path(post, path = "/api/identities/start", tag = "ways in", security(("cookie" = [])), responses(
    (status = 200, body = ProviderAddress), (status = "default", body = ErrorBody)))]
pub(crate) async fn start_link(
    State(control): State<App>,
    address: Address,
    browser: Browser,
    _: NoBody,
) -> Result<impl IntoResponse, ApiError> {
    browser.require_fresh(control.now())?;
    control.rates.attempts.check(address)?;
    let Begun { url, state } = provider(&control)?.begin("link").await?;
    let attempt = Attempt { account_session_id: Some(browser.session.account_session_id), state };
    let cookie = attempts::begin(&control, AttemptKind::IdentityLink, &attempt).await?;
    Ok((cookie, Json(ProviderAddress { url })))
}

/// Links the user with the identity that the provider vouches for.
#[utoipa::path(post, path = "/api/identities/finish", tag = "ways in", security(("cookie" = [])),
    request_body = ProviderAnswer, responses((status = 204), (status = "default", body = ErrorBody)))]
pub(crate) async fn finish_link(
    State(control): State<App>,
    headers: HeaderMap,
    browser: Browser,
    ApiJson(body): ApiJson<ProviderAnswer>,
) -> Result<StatusCode, ApiError> {
    let attempt = attempts::take_own(&control, AttemptKind::IdentityLink, &headers, &browser).await?;
    let Vouched { issuer, subject } = redeem(&control, &attempt, &body).await?;
    let (scope, user_id) = (browser.scope(), browser.user.user_id);
    let identity_id = IdentityId::from_uuid(Uuid::new_v4());
    let identity = Identity { identity_id, issuer, subject, created_at: control.now(), used_at: None };
    let mut tx = control.store.write().await?;
    tx.link_identity(scope, user_id, &identity).await?;
    let entry = control.audit_entry(AuditKind::IdentityLinked, None);
    tx.append_audit(scope, &AuditEntry { user_id: Some(user_id), ..entry }).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Removes a link with an identity, unless it is the last way in.
#[utoipa::path(delete, path = "/api/identities/{id}", tag = "ways in", security(("cookie" = [])),
    params(("id" = String, Path)), responses(
    (status = 204), (status = "default", body = ErrorBody)))]
pub(crate) async fn unlink(
    State(control): State<App>,
    browser: Browser,
    PathId(identity_id): PathId<IdentityId>,
) -> Result<StatusCode, ApiError> {
    browser.require_fresh(control.now())?;
    let (scope, user_id) = (browser.scope(), browser.user.user_id);
    let mut tx = control.store.write().await?;
    let ways = ways_in::count(&mut tx, &control, &browser).await?;
    tx.unlink_identity(scope, user_id, identity_id).await?;
    if !ways.can_lose_identity() {
        return Err(ErrorCode::LastWayIn.into());
    }
    let entry = control.audit_entry(AuditKind::IdentityUnlinked, None);
    tx.append_audit(scope, &AuditEntry { user_id: Some(user_id), ..entry }).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The provider, where the server is set up with one.
fn provider(control: &Control) -> Result<&Arc<Provider>, ApiError> {
    control.provider.as_ref().ok_or_else(|| ErrorCode::NotFound.into())
}

/// Checks that the answer is to this attempt, and asks the provider whom its code stands for.
async fn redeem(control: &Control, attempt: &Attempt, body: &ProviderAnswer) -> Result<Vouched, ApiError> {
    let provider = provider(control)?;
    let pending = provider.pending(&attempt.state)?;
    // By hashes, whose comparison tells nothing of where they differ.
    let same_state: bool = sha256(pending.state.as_bytes()).ct_eq(&sha256(body.state.as_bytes())).into();
    if !same_state {
        return Err(ErrorCode::AttemptInvalid.into());
    }
    let code = body.code.as_ref().filter(|code| !code.is_empty() && code.len() <= PROVIDER_CODE_BYTES_MAX);
    let own_issuer = body.issuer.as_ref().is_none_or(|issuer| issuer == provider.issuer());
    let (Some(code), true) = (code, own_issuer) else {
        return Err(ErrorCode::IdentityRefused.into());
    };
    Ok(provider.redeem(code, &pending).await?)
}
