//! Who is in the account: the list, roles, removal and leaving.
//!
//! What takes rights away ends, in the same transaction, everything that rested on them: account sessions or the
//! grants they gave, one-time links and invitations that the member made, and at every machine what the member's
//! devices may do. Gateways and nodes hear of it through the log of revocations. A grant dies by its id and not by
//! its time, so that one which is being signed at that moment, by whatever process and clock, is dead too.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use flydex_domain::audit::{AuditEntry, AuditKind};
use flydex_domain::error::ErrorCode;
use flydex_domain::id::{GrantId, UserId};
use flydex_domain::member::{Case, Change};
use flydex_domain::revocation::Revocation;
use flydex_domain::scope::{AccountScope, Role};
use flydex_domain::time::UnixMillis;
use flydex_store::StoreError;
use flydex_store::sql::{Member, Tx, User};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::cookie;
use crate::error::{ApiError, ErrorBody};
use crate::extract::{Address, ApiJson, NoBody, PathId};
use crate::principal::Browser;
use crate::service::{App, Control, random_token};
use crate::sign_in::begin::{Proof, WhoAmI, begin_session};

/// Everyone in the account.
#[derive(Serialize, ToSchema)]
pub(crate) struct Members {
    members: Vec<MemberJson>,
}

#[derive(Serialize, ToSchema)]
struct MemberJson {
    #[schema(value_type = String)]
    user_id: UserId,
    /// What the owners call them; empty for who made the account.
    label: String,
    #[schema(value_type = String)]
    role: Role,
    /// Whether it is the one that asks.
    you: bool,
    #[schema(value_type = u64)]
    joined_at_ms: UnixMillis,
}

/// What a member is to be.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RoleBody {
    #[schema(value_type = String)]
    role: Role,
}

/// What became of a browser that left an account.
#[derive(Serialize, ToSchema)]
pub(crate) struct Left {
    /// Who it is signed in as now; none: it is signed out.
    now: Option<WhoAmI>,
}

/// Lists the account's members, in the order in which they came.
#[utoipa::path(get, path = "/api/members", tag = "members", security(("cookie" = [])), responses(
    (status = 200, body = Members), (status = "default", body = ErrorBody)))]
pub(crate) async fn list(State(control): State<App>, browser: Browser) -> Result<Json<Members>, ApiError> {
    let mut tx = control.store.read().await?;
    let members = tx.members(browser.scope()).await?.into_iter().map(|member| MemberJson {
        user_id: member.user.user_id,
        label: member.label,
        role: member.user.role,
        you: member.user.user_id == browser.user.user_id,
        joined_at_ms: member.joined_at,
    });
    Ok(Json(Members { members: members.collect() }))
}

/// Gives a member another role. Machines hear of a lower one; a higher one has yet to be granted at each of them.
#[utoipa::path(patch, path = "/api/members/{id}", tag = "members", security(("cookie" = [])),
    params(("id" = String, Path)), request_body = RoleBody, responses(
    (status = 204), (status = "default", body = ErrorBody)))]
pub(crate) async fn change_role(
    State(control): State<App>,
    browser: Browser,
    PathId(user_id): PathId<UserId>,
    ApiJson(body): ApiJson<RoleBody>,
) -> Result<StatusCode, ApiError> {
    let scope = browser.scope();
    let mut tx = control.store.write().await?;
    let (member, case) = case(&mut tx, &browser, user_id).await?;
    match case.change_role(body.role)? {
        Change::Same => return Ok(StatusCode::NO_CONTENT),
        Change::Promotion => require_proof_for_promotion(&control, &browser)?,
        Change::Demotion => {}
    }
    tx.set_role(scope, user_id, body.role).await?;
    renew_grants(&control, &mut tx, scope, user_id).await?;
    let kind = if body.role < member.user.role {
        lower_devices(&control, &mut tx, scope, user_id, body.role).await?;
        tx.revoke_invitations_of(scope, user_id).await?;
        AuditKind::MemberDemoted
    } else {
        AuditKind::MemberPromoted
    };
    append(&control, &mut tx, scope, AuditKind::MemberRoleChanged, browser.user.user_id, None).await?;
    append(&control, &mut tx, scope, kind, user_id, None).await?;
    tx.commit().await?;
    control.revocations_committed();
    Ok(StatusCode::NO_CONTENT)
}

/// Removes another member, with every session and device of theirs.
#[utoipa::path(delete, path = "/api/members/{id}", tag = "members", security(("cookie" = [])),
    params(("id" = String, Path)), responses(
    (status = 204), (status = "default", body = ErrorBody)))]
pub(crate) async fn remove(
    State(control): State<App>,
    browser: Browser,
    PathId(user_id): PathId<UserId>,
) -> Result<StatusCode, ApiError> {
    let scope = browser.scope();
    let mut tx = control.store.write().await?;
    let (_, case) = case(&mut tx, &browser, user_id).await?;
    if case.own {
        // Leaving has a route of its own, which sees to the browser that asks.
        return Err(ErrorCode::Conflict.into());
    }
    case.remove()?;
    append(&control, &mut tx, scope, AuditKind::MemberRemoved, browser.user.user_id, None).await?;
    remove_with_everything(&control, &mut tx, scope, user_id).await?;
    tx.commit().await?;
    control.revocations_committed();
    Ok(StatusCode::NO_CONTENT)
}

/// Leaves the account. A person with other accounts goes on in one of them.
#[utoipa::path(post, path = "/api/members/leave", tag = "members", security(("cookie" = [])), responses(
    (status = 200, body = Left), (status = "default", body = ErrorBody)))]
pub(crate) async fn leave(
    State(control): State<App>,
    address: Address,
    browser: Browser,
    _: NoBody,
) -> Result<Response, ApiError> {
    let scope = browser.scope();
    let mut tx = control.store.write().await?;
    let (_, case) = case(&mut tx, &browser, browser.user.user_id).await?;
    case.remove()?;
    remove_with_everything(&control, &mut tx, scope, browser.user.user_id).await?;
    tx.commit().await?;
    control.revocations_committed();
    let mut tx = control.store.write().await?;
    let Some(next) = tx.memberships(browser.user.user_id).await?.into_iter().next() else {
        return Ok((cookie::clear(), Json(Left { now: None })).into_response());
    };
    let token = random_token();
    let session = begin_session(&control, &mut tx, &next.user, &token, Proof::of(&browser.session)).await?;
    let scope = next.user.principal().scope();
    append(&control, &mut tx, scope, AuditKind::SignedIn, next.user.user_id, Some(address)).await?;
    tx.commit().await?;
    control.revocations_committed();
    let now = Some(WhoAmI::new(&next.user, next.account_name, &session, browser.passkeys));
    Ok((cookie::set(&token), Json(Left { now })).into_response())
}

/// What a promotion, and an invitation as owner, wants beside an owner's session: a fresh proof of the person.
pub(crate) fn require_proof_for_promotion(control: &Control, browser: &Browser) -> Result<(), ApiError> {
    browser.require_fresh(control.now())
}

/// The asker's own membership, as it is in this very transaction: rights that were just taken count no more.
pub(crate) async fn asker(tx: &mut Tx, browser: &Browser) -> Result<User, ApiError> {
    match tx.member(browser.scope(), browser.user.user_id).await {
        Ok(member) => Ok(member.user),
        Err(StoreError::NotFound) => Err(ErrorCode::Unauthenticated.into()),
        Err(error) => Err(error.into()),
    }
}

/// A membership that is to be changed, and what the rules want to know of it.
async fn case(tx: &mut Tx, browser: &Browser, user_id: UserId) -> Result<(Member, Case), ApiError> {
    let scope = browser.scope();
    let asker = asker(tx, browser).await?;
    let member = tx.member(scope, user_id).await?;
    let owners = tx.owner_count(scope).await?;
    let own = user_id == asker.user_id;
    let case = Case { asker: asker.role, own, role: member.user.role, owners };
    Ok((member, case))
}

async fn remove_with_everything(
    control: &Control,
    tx: &mut Tx,
    scope: AccountScope,
    user_id: UserId,
) -> Result<(), ApiError> {
    let now = control.now();
    let account_id = scope.account_id();
    for ended in tx.end_sessions(scope, user_id).await? {
        tx.append_revocation(scope, Revocation::Grant { account_id, grant_id: ended.grant_id }, now).await?;
    }
    for device_id in tx.devices_of(scope, user_id).await? {
        tx.revoke_device(scope, device_id, now).await?;
        tx.append_revocation(scope, Revocation::Device { account_id, device_id, keeps: None }, now).await?;
    }
    tx.remove_links_of(scope, user_id).await?;
    tx.revoke_invitations_of(scope, user_id).await?;
    tx.remove_member(scope, user_id, now).await?;
    if tx.memberships(user_id).await?.is_empty() {
        tx.forget_ways_in(user_id).await?;
    }
    append(control, tx, scope, AuditKind::MemberLeft, user_id, None).await
}

/// Ends every grant of a user's sessions; the sessions themselves stay, and get grants of the present role.
async fn renew_grants(control: &Control, tx: &mut Tx, scope: AccountScope, user_id: UserId) -> Result<(), ApiError> {
    let now = control.now();
    for session in tx.sessions(scope, user_id, now).await? {
        let grant_id = GrantId::from_uuid(Uuid::new_v4());
        tx.renew_grant(scope, session.account_session_id, grant_id).await?;
        let before = Revocation::Grant { account_id: scope.account_id(), grant_id: session.grant_id };
        tx.append_revocation(scope, before, now).await?;
    }
    Ok(())
}

/// Tells every machine that a user's devices may do no more than a role.
async fn lower_devices(
    control: &Control,
    tx: &mut Tx,
    scope: AccountScope,
    user_id: UserId,
    role: Role,
) -> Result<(), ApiError> {
    for device_id in tx.devices_of(scope, user_id).await? {
        let lowered = Revocation::Device { account_id: scope.account_id(), device_id, keeps: Some(role) };
        tx.append_revocation(scope, lowered, control.now()).await?;
    }
    Ok(())
}

/// Puts on record what a user did, or what happened to them.
pub(crate) async fn append(
    control: &Control,
    tx: &mut Tx,
    scope: AccountScope,
    kind: AuditKind,
    user_id: UserId,
    address: Option<Address>,
) -> Result<(), ApiError> {
    let entry = control.audit_entry(kind, address);
    tx.append_audit(scope, &AuditEntry { user_id: Some(user_id), ..entry }).await?;
    Ok(())
}
