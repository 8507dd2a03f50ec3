//! The browsers that a user is signed in with.

use axum::Json;
use axum::extract::State;
use flydex_domain::id::AccountSessionId;
use flydex_domain::time::UnixMillis;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::{ApiError, ErrorBody};
use crate::extract::PathId;
use crate::principal::Browser;
use crate::service::App;
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
    });
    Ok(Json(Sessions { sessions: sessions.collect() }))
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
