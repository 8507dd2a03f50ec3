//! Invitations: an owner makes a single-use link, and whoever opens it becomes a member.
//!
//! The link's secret is in its fragment, which no server sees, and is kept as a hash. An invitation holds as long as
//! the owner who made it is one.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use flydex_domain::audit::AuditKind;
use flydex_domain::billing::Resource;
use flydex_domain::encoding::sha256;
use flydex_domain::error::ErrorCode;
use flydex_domain::id::{AccountId, InvitationId, UserId};
use flydex_domain::limits::INVITATION_LIFETIME;
use flydex_domain::member::require_owner;
use flydex_domain::scope::Role;
use flydex_domain::sign_in::SignInMethod;
use flydex_domain::time::UnixMillis;
use flydex_store::StoreError;
use flydex_store::sql::{Invitation, Invited, Member, Tx, User};
use http::{HeaderMap, Method, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::billing::{require_room, seats_used};
use crate::cookie;
use crate::error::{ApiError, ErrorBody};
use crate::extract::{Address, ApiJson, PathId};
use crate::members::{append, asker, require_proof_for_promotion};
use crate::principal::{Browser, Visitor, require_own_page};
use crate::service::{App, Control, random_token};
use crate::sign_in::begin::{Proof, begin_session};
use crate::wire::{Base64, label};

/// Whom an owner wants in.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct InviteBody {
    #[schema(value_type = String)]
    role: Role,
    /// What the member will be called.
    label: String,
}

/// A new invitation; its link is told this once.
#[derive(Serialize, ToSchema)]
pub(crate) struct Created {
    #[schema(value_type = String)]
    invitation_id: InvitationId,
    /// `<origin>/invite#<token>`.
    url: String,
    #[schema(value_type = u64)]
    expires_at_ms: UnixMillis,
}

/// The open invitations.
#[derive(Serialize, ToSchema)]
pub(crate) struct Invitations {
    invitations: Vec<InvitationJson>,
}

#[derive(Serialize, ToSchema)]
struct InvitationJson {
    #[schema(value_type = String)]
    invitation_id: InvitationId,
    #[schema(value_type = String)]
    role: Role,
    label: String,
    #[schema(value_type = u64)]
    created_at_ms: UnixMillis,
    #[schema(value_type = u64)]
    expires_at_ms: UnixMillis,
}

/// The secret of an invitation, from the fragment of its link.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct InvitationBody {
    #[schema(value_type = String)]
    token: Base64<32>,
}

/// What an invitation offers.
#[derive(Serialize, ToSchema)]
pub(crate) struct Offer {
    account_name: String,
    #[schema(value_type = String)]
    role: Role,
    label: String,
    #[schema(value_type = u64)]
    expires_at_ms: UnixMillis,
}

/// The new membership.
#[derive(Serialize, ToSchema)]
pub(crate) struct Joined {
    #[schema(value_type = String)]
    account_id: AccountId,
    #[schema(value_type = String)]
    user_id: UserId,
    #[schema(value_type = String)]
    role: Role,
    account_name: String,
    /// Whether this browser is signed in as the new member now; else it stays in the account that it is in.
    signed_in: bool,
}

/// Makes an invitation.
#[utoipa::path(post, path = "/api/invitations", tag = "members", security(("cookie" = [])),
    request_body = InviteBody, responses((status = 200, body = Created), (status = "default", body = ErrorBody)))]
pub(crate) async fn create(
    State(control): State<App>,
    browser: Browser,
    ApiJson(body): ApiJson<InviteBody>,
) -> Result<Json<Created>, ApiError> {
    let scope = browser.scope();
    let mut tx = control.store.write().await?;
    require_owner(asker(&mut tx, &browser).await?.role)?;
    if body.role == Role::Owner {
        require_proof_for_promotion(&control, &browser)?;
    }
    let now = control.now();
    let invitation = Invitation {
        invitation_id: InvitationId::from_uuid(Uuid::new_v4()),
        role: body.role,
        label: label(&body.label)?,
        user_id: browser.user.user_id,
        created_at: now,
        expires_at: now.plus(INVITATION_LIFETIME),
    };
    let used = seats_used(&mut tx, scope, now).await?;
    require_room(&control, &mut tx, scope, Resource::Seat, used).await?;
    let token = random_token();
    tx.create_invitation(scope, &invitation, &sha256(&token)).await?;
    append(&control, &mut tx, scope, AuditKind::MemberInvited, browser.user.user_id, None).await?;
    tx.commit().await?;
    let url = format!("{}/invite#{}", control.config.public_origin, URL_SAFE_NO_PAD.encode(token));
    Ok(Json(Created { invitation_id: invitation.invitation_id, url, expires_at_ms: invitation.expires_at }))
}

/// Lists the open invitations, newest first.
#[utoipa::path(get, path = "/api/invitations", tag = "members", security(("cookie" = [])), responses(
    (status = 200, body = Invitations), (status = "default", body = ErrorBody)))]
pub(crate) async fn list(State(control): State<App>, browser: Browser) -> Result<Json<Invitations>, ApiError> {
    browser.require(Role::Owner)?;
    let mut tx = control.store.read().await?;
    let invitations = tx.invitations(browser.scope(), control.now()).await?;
    let invitations = invitations.into_iter().map(|invitation| InvitationJson {
        invitation_id: invitation.invitation_id,
        role: invitation.role,
        label: invitation.label,
        created_at_ms: invitation.created_at,
        expires_at_ms: invitation.expires_at,
    });
    Ok(Json(Invitations { invitations: invitations.collect() }))
}

/// Takes an invitation back.
#[utoipa::path(delete, path = "/api/invitations/{id}", tag = "members", security(("cookie" = [])),
    params(("id" = String, Path)), responses(
    (status = 204), (status = "default", body = ErrorBody)))]
pub(crate) async fn revoke(
    State(control): State<App>,
    browser: Browser,
    PathId(id): PathId<InvitationId>,
) -> Result<StatusCode, ApiError> {
    let scope = browser.scope();
    let mut tx = control.store.write().await?;
    let asker = asker(&mut tx, &browser).await?;
    tx.revoke_invitation(scope, id).await?;
    require_owner(asker.role)?;
    append(&control, &mut tx, scope, AuditKind::InvitationRevoked, asker.user_id, None).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Says what an invitation offers, and leaves it open.
#[utoipa::path(post, path = "/api/invitations/offer", tag = "members", security(()),
    request_body = InvitationBody, responses((status = 200, body = Offer), (status = "default", body = ErrorBody)))]
pub(crate) async fn offer(
    State(control): State<App>,
    address: Address,
    headers: HeaderMap,
    ApiJson(body): ApiJson<InvitationBody>,
) -> Result<Json<Offer>, ApiError> {
    require_own_page(&Method::POST, &headers, &control.config.public_origin)?;
    control.rates.sign_in.check(address)?;
    let mut tx = control.store.read().await?;
    let Invited { account_name, invitation, .. } = open(&mut tx, &body.token, control.now()).await?;
    let Invitation { role, label, expires_at, .. } = invitation;
    Ok(Json(Offer { account_name, role, label, expires_at_ms: expires_at }))
}

/// Uses an invitation up. A browser that is signed in stays where it is, and its person is a member here too; another
/// one is signed in as a new member.
#[utoipa::path(post, path = "/api/invitations/accept", tag = "members", security((), ("cookie" = [])),
    request_body = InvitationBody, responses((status = 200, body = Joined), (status = "default", body = ErrorBody)))]
pub(crate) async fn accept(
    State(control): State<App>,
    address: Address,
    Visitor(visitor): Visitor,
    ApiJson(body): ApiJson<InvitationBody>,
) -> Result<Response, ApiError> {
    control.rates.sign_in.check(address)?;
    let mut tx = control.store.write().await?;
    let invited = open(&mut tx, &body.token, control.now()).await?;
    let user = join(&control, &mut tx, &invited, visitor.as_ref(), address).await?;
    let joined = Joined {
        account_id: user.account_id,
        user_id: user.user_id,
        role: user.role,
        account_name: invited.account_name,
        signed_in: visitor.is_none(),
    };
    if visitor.is_some() {
        tx.commit().await?;
        return Ok(Json(joined).into_response());
    }
    let token = random_token();
    begin_session(&control, &mut tx, &user, &token, Proof::now(SignInMethod::Link, control.now())).await?;
    append(&control, &mut tx, invited.scope, AuditKind::SignedIn, user.user_id, Some(address)).await?;
    tx.commit().await?;
    Ok((cookie::set(&token), Json(joined)).into_response())
}

/// The invitation of a token, if who made it may still invite.
async fn open(tx: &mut Tx, token: &Base64<32>, now: UnixMillis) -> Result<Invited, ApiError> {
    let invalid = |error: StoreError| {
        if matches!(error, StoreError::NotFound) { ErrorCode::InvitationInvalid.into() } else { ApiError::from(error) }
    };
    let invited = tx.invited(&sha256(&token.0), now).await.map_err(invalid)?;
    let inviter = tx.member(invited.scope, invited.invitation.user_id).await.map_err(invalid)?;
    require_owner(inviter.user.role).map_err(|_| ErrorCode::InvitationInvalid)?;
    Ok(invited)
}

async fn join(
    control: &Control,
    tx: &mut Tx,
    invited: &Invited,
    visitor: Option<&Browser>,
    address: Address,
) -> Result<User, ApiError> {
    let Invited { scope, invitation, .. } = invited;
    tx.revoke_invitation(*scope, invitation.invitation_id).await?;
    // The plan may have shrunk since.
    let used = tx.member_count(*scope).await?;
    require_room(control, tx, *scope, Resource::Seat, used).await?;
    let user_id = UserId::from_uuid(Uuid::new_v4());
    let user = User { account_id: scope.account_id(), user_id, role: invitation.role };
    let member = Member { user, label: invitation.label.clone(), joined_at: control.now() };
    match tx.add_member(*scope, &member, visitor.map(|browser| browser.user.user_id)).await {
        Err(StoreError::Conflict) => return Err(ErrorCode::AlreadyMember.into()),
        added => added?,
    }
    append(control, tx, *scope, AuditKind::MemberJoined, user_id, Some(address)).await?;
    Ok(user)
}
