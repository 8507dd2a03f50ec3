//! The accounts of one person. An account session speaks for one of them; going on in another begins a new session
//! there, and ends the old one with every grant it got.

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use flydex_domain::audit::AuditKind;
use flydex_domain::error::ErrorCode;
use flydex_domain::id::AccountId;
use flydex_domain::scope::Role;
use http::HeaderName;
use serde::Serialize;
use utoipa::ToSchema;

use crate::cookie;
use crate::error::{ApiError, ErrorBody};
use crate::extract::{Address, NoBody, PathId};
use crate::members::append;
use crate::principal::Browser;
use crate::service::{App, random_token};
use crate::sign_in::begin::{Proof, WhoAmI, begin_session};
use crate::sign_in::end_session_as;

/// The accounts that the person who is signed in is a member of.
#[derive(Serialize, ToSchema)]
pub(crate) struct Accounts {
    accounts: Vec<AccountJson>,
}

#[derive(Serialize, ToSchema)]
struct AccountJson {
    #[schema(value_type = String)]
    account_id: AccountId,
    account_name: String,
    /// What the person is there.
    #[schema(value_type = String)]
    role: Role,
    /// Whether the session that asks speaks for it.
    current: bool,
}

/// Lists the accounts of the person, first the one that the session speaks for.
#[utoipa::path(get, path = "/api/accounts", tag = "members", security(("cookie" = [])), responses(
    (status = 200, body = Accounts), (status = "default", body = ErrorBody)))]
pub(crate) async fn list(State(control): State<App>, browser: Browser) -> Result<Json<Accounts>, ApiError> {
    let mut tx = control.store.read().await?;
    let accounts = tx.memberships(browser.user.user_id).await?.into_iter().map(|membership| AccountJson {
        account_id: membership.user.account_id,
        account_name: membership.account_name,
        role: membership.user.role,
        current: membership.user.account_id == browser.user.account_id,
    });
    Ok(Json(Accounts { accounts: accounts.collect() }))
}

/// Goes on in another account: this browser gets a new session there, and the old one ends.
#[utoipa::path(post, path = "/api/accounts/{id}/switch", tag = "members", security(("cookie" = [])),
    params(("id" = String, Path)), responses(
    (status = 200, body = WhoAmI), (status = "default", body = ErrorBody)))]
pub(crate) async fn switch(
    State(control): State<App>,
    address: Address,
    browser: Browser,
    PathId(account_id): PathId<AccountId>,
    _: NoBody,
) -> Result<impl IntoResponse + use<>, ApiError> {
    control.rates.sign_in.check(address)?;
    if account_id == browser.user.account_id {
        return Err(ErrorCode::Conflict.into());
    }
    let mut tx = control.store.write().await?;
    let memberships = tx.memberships(browser.user.user_id).await?;
    let next = memberships.into_iter().find(|membership| membership.user.account_id == account_id);
    let next = next.ok_or(ErrorCode::NotFound)?;
    let token = random_token();
    let session = begin_session(&control, &mut tx, &next.user, &token, Proof::of(&browser.session)).await?;
    let scope = next.user.principal().scope();
    append(&control, &mut tx, scope, AuditKind::SignedIn, next.user.user_id, Some(address)).await?;
    tx.commit().await?;
    // Nobody has the new session's token before the old session has ended; of two who ask at once, one gets there.
    let old = browser.session.account_session_id;
    end_session_as(&control, &browser, old, AuditKind::AccountSwitched).await?;
    let cookie: [(HeaderName, http::HeaderValue); 1] = cookie::set(&token);
    Ok((cookie, Json(WhoAmI::new(&next.user, next.account_name, &session, browser.passkeys))))
}
