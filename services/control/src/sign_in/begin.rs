//! What every way in ends with: a session with a token of its own, and the end of the one that the browser had.

use axum::Json;
use axum::response::IntoResponse;
use flydex_domain::audit::{AuditEntry, AuditKind};
use flydex_domain::encoding::sha256;
use flydex_domain::id::{AccountId, AccountSessionId, GrantId, UserId};
use flydex_domain::limits::ACCOUNT_SESSION_LIFETIME;
use flydex_domain::revocation::Revocation;
use flydex_domain::scope::Role;
use flydex_domain::sign_in::SignInMethod;
use flydex_domain::time::UnixMillis;
use flydex_store::StoreError;
use flydex_store::sql::{AccountSession, SignedIn, Tx, User};
use http::HeaderMap;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::cookie;
use crate::error::ApiError;
use crate::extract::Address;
use crate::principal::Browser;
use crate::service::{Control, random_token};

/// Who a browser is signed in as.
#[derive(Serialize, ToSchema)]
pub(crate) struct WhoAmI {
    #[schema(value_type = String)]
    account_id: AccountId,
    #[schema(value_type = String)]
    user_id: UserId,
    #[schema(value_type = String)]
    role: Role,
    account_name: String,
    #[schema(value_type = u64)]
    expires_at_ms: UnixMillis,
    /// How many passkeys the person has.
    passkeys: u64,
    /// Until when actions that need a fresh proof of the person go through without another one.
    #[schema(value_type = Option<u64>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    fresh_until_ms: Option<UnixMillis>,
}

impl WhoAmI {
    /// Who a browser is that shows its cookie.
    pub(crate) fn of(browser: &Browser) -> Self {
        Self::new(&browser.user, browser.account_name.clone(), &browser.session, browser.passkeys)
    }

    /// Who a browser is that gets a session.
    pub(crate) fn new(user: &User, account_name: String, session: &AccountSession, passkeys: u64) -> Self {
        Self {
            account_id: user.account_id,
            user_id: user.user_id,
            role: user.role,
            account_name,
            expires_at_ms: session.expires_at,
            passkeys,
            fresh_until_ms: session.presence().fresh_until(passkeys > 0),
        }
    }
}

/// What a session goes back to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Proof {
    method: SignInMethod,
    signed_in_at: UnixMillis,
    asserted_at: Option<UnixMillis>,
}

impl Proof {
    /// A sign-in that was just now.
    pub(crate) fn now(method: SignInMethod, now: UnixMillis) -> Self {
        Self { method, signed_in_at: now, asserted_at: method.asserts_presence().then_some(now) }
    }

    /// The same as an earlier session: going on elsewhere proves nobody anew.
    pub(crate) const fn of(session: &AccountSession) -> Self {
        let AccountSession { method, signed_in_at, asserted_at, .. } = *session;
        Self { method, signed_in_at, asserted_at }
    }
}

/// The user that a person goes on as whose way in was found by one of their users: that one, or another where they are
/// no member any more.
pub(crate) async fn membership(tx: &mut Tx, user_id: UserId) -> Result<Option<User>, ApiError> {
    Ok(tx.memberships(user_id).await?.into_iter().next().map(|membership| membership.user))
}

/// Begins a session with that token; the caller commits and puts it on record.
pub(crate) async fn begin_session(
    control: &Control,
    tx: &mut Tx,
    user: &User,
    token: &[u8; 32],
    proof: Proof,
) -> Result<AccountSession, ApiError> {
    let now = control.now();
    let session = AccountSession {
        account_session_id: AccountSessionId::from_uuid(Uuid::new_v4()),
        grant_id: GrantId::from_uuid(Uuid::new_v4()),
        created_at: now,
        seen_at: now,
        expires_at: now.plus(ACCOUNT_SESSION_LIFETIME),
        method: proof.method,
        signed_in_at: proof.signed_in_at,
        asserted_at: proof.asserted_at,
    };
    let scope = user.principal().scope();
    if let Some(oldest) = tx.begin_session(scope, user.user_id, &session, &sha256(token)).await? {
        let revocation = Revocation::Grant { account_id: user.account_id, grant_id: oldest.grant_id };
        tx.append_revocation(scope, revocation, now).await?;
    }
    Ok(session)
}

/// Begins a session of a user who proved who they are, commits, and answers with its cookie.
pub(crate) async fn begin(
    control: &Control,
    mut tx: Tx,
    user: &User,
    method: SignInMethod,
    address: Address,
    headers: &HeaderMap,
) -> Result<impl IntoResponse + use<>, ApiError> {
    let token = random_token();
    let session = begin_session(control, &mut tx, user, &token, Proof::now(method, control.now())).await?;
    let scope = user.principal().scope();
    let entry = control.audit_entry(AuditKind::SignedIn, Some(address));
    tx.append_audit(scope, &AuditEntry { user_id: Some(user.user_id), ..entry }).await?;
    let account_name = tx.account(scope).await?.name;
    let passkeys = tx.passkeys(scope, user.user_id).await?.len();
    tx.commit().await?;
    end_earlier(control, headers).await?;
    control.revocations_committed();
    let passkeys = u64::try_from(passkeys).unwrap_or(u64::MAX);
    Ok((cookie::set(&token), Json(WhoAmI::new(user, account_name, &session, passkeys))))
}

/// Ends the session that the browser had before, in a change of its own: it may be of another account.
async fn end_earlier(control: &Control, headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(token) = cookie::token(headers) else { return Ok(()) };
    let mut tx = control.store.write().await?;
    let SignedIn { user, session, .. } = match tx.session_by_token(&sha256(&token), control.now()).await {
        Err(StoreError::NotFound) => return Ok(()),
        found => found?,
    };
    let scope = user.principal().scope();
    tx.end_session(scope, user.user_id, session.account_session_id).await?;
    let revocation = Revocation::Grant { account_id: user.account_id, grant_id: session.grant_id };
    tx.append_revocation(scope, revocation, control.now()).await?;
    let entry = control.audit_entry(AuditKind::SignedOut, None);
    tx.append_audit(scope, &AuditEntry { user_id: Some(user.user_id), ..entry }).await?;
    Ok(tx.commit().await?)
}
