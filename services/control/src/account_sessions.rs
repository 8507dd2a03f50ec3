//! The browsers that a user is signed in with.

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use flydex_domain::audit::{AuditEntry, AuditKind};
use flydex_domain::id::AccountSessionId;
use flydex_domain::revocation::Revocation;
use flydex_domain::time::UnixMillis;
use flydex_store::sql::{Membership, User};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::cookie;
use crate::error::{ApiError, ErrorBody};
use crate::extract::PathId;
use crate::principal::Browser;
use crate::service::{App, Control};
use crate::sign_in::end_session;

/// The account sessions of the user.
#[derive(Serialize, ToSchema)]
pub(crate) struct Sessions {
    sessions: Vec<SessionJson>,
}

#[derive(Serialize, ToSchema)]
struct SessionJson {
    #[schema(value_type = String)]
    session_id: AccountSessionId,
    /// Whether it is the one that asks.
    current: bool,
    #[schema(value_type = u64)]
    created_at_ms: UnixMillis,
    #[schema(value_type = u64)]
    last_seen_at_ms: UnixMillis,
    #[schema(value_type = u64)]
    expires_at_ms: UnixMillis,
    /// `owner_link`, `link`, `passkey`, `recovery_code` or `identity`.
    method: &'static str,
}

/// Lists the user's account sessions, newest first.
#[utoipa::path(get, path = "/api/sessions", tag = "sign-in", security(("cookie" = [])), responses(
    (status = 200, body = Sessions), (status = "default", body = ErrorBody)))]
pub(crate) async fn list(State(control): State<App>, browser: Browser) -> Result<Json<Sessions>, ApiError> {
    let mut tx = control.store.read().await?;
    let sessions = tx.sessions(browser.scope(), browser.user.user_id, control.now()).await?;
    let sessions = sessions.into_iter().map(|session| SessionJson {
        session_id: session.account_session_id,
        current: session.account_session_id == browser.session.account_session_id,
        created_at_ms: session.created_at,
        last_seen_at_ms: session.seen_at,
        expires_at_ms: session.expires_at,
        method: session.method.name(),
    });
    Ok(Json(Sessions { sessions: sessions.collect() }))
}

/// Ends every account session of the person, in all of their accounts and the one that asks included, and with them
/// every grant they got.
#[utoipa::path(delete, path = "/api/sessions", tag = "sign-in", security(("cookie" = [])), responses(
    (status = 204), (status = "default", body = ErrorBody)))]
pub(crate) async fn end_all(State(control): State<App>, browser: Browser) -> Result<impl IntoResponse, ApiError> {
    let mut tx = control.store.read().await?;
    let memberships = tx.memberships(browser.user.user_id).await?;
    drop(tx);
    for Membership { user, .. } in memberships {
        end_all_of(&control, &user).await?;
    }
    control.revocations_committed();
    Ok((StatusCode::NO_CONTENT, cookie::clear()))
}

/// Ends every account session of a user.
async fn end_all_of(control: &Control, user: &User) -> Result<(), ApiError> {
    let scope = user.principal().scope();
    let mut tx = control.store.write().await?;
    for ended in tx.end_sessions(scope, user.user_id).await? {
        let revocation = Revocation::Grant { account_id: user.account_id, grant_id: ended.grant_id };
        tx.append_revocation(scope, revocation, control.now()).await?;
    }
    let entry = control.audit_entry(AuditKind::SignedOutEverywhere, None);
    tx.append_audit(scope, &AuditEntry { user_id: Some(user.user_id), ..entry }).await?;
    Ok(tx.commit().await?)
}

/// Ends one of the user's account sessions.
#[utoipa::path(delete, path = "/api/sessions/{id}", tag = "sign-in", security(("cookie" = [])),
    params(("id" = String, Path)), responses(
    (status = 204), (status = "default", body = ErrorBody)))]
pub(crate) async fn end(
    State(control): State<App>,
    browser: Browser,
    PathId(id): PathId<AccountSessionId>,
) -> Result<StatusCode, ApiError> {
    end_session(&control, &browser, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
