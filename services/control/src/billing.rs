//! Billing: what the account's plan is and how much of it is used, and the payment provider's events.
//!
//! An event is believed for its signature alone, counts once by its id, and counts by its own time. What is not for us
//! (another kind, a customer that nobody knows, a binding that is taken) is acknowledged, or the provider would send it
//! again for days. Of all that an event holds, names and states are kept and nothing else.

mod event;
mod signature;

use axum::Json;
use axum::extract::{Request, State};
use flydex_domain::billing::{Catalogue, Resource, Standing};
use flydex_domain::error::ErrorCode;
use flydex_domain::scope::AccountScope;
use flydex_domain::time::UnixMillis;
use flydex_store::StoreError;
use flydex_store::sql::Tx;
use serde::Serialize;
use utoipa::ToSchema;

use self::event::{Event, News};
pub use self::signature::WebhookSecret;
use crate::error::{ApiError, ErrorBody};
use crate::extract::body;
use crate::principal::Browser;
use crate::service::{App, Control};

/// How the server bills.
#[derive(Clone, Debug)]
pub struct Billing {
    /// What the payment provider signs with; several while one takes the place of another.
    pub secrets: Vec<WebhookSecret>,
    /// What is sold.
    pub catalogue: Catalogue,
}

/// The account's plan and its use. Without a limit there is none.
#[derive(Serialize, ToSchema)]
pub(crate) struct BillingJson {
    /// Its name; absent on a server that does not bill.
    plan: Option<String>,
    machines: UseJson,
    /// Members and open invitations.
    seats: UseJson,
    /// Where a payment is late: until when that changes nothing.
    #[schema(value_type = Option<u64>)]
    grace_until_ms: Option<UnixMillis>,
    /// Whether nothing can be added until a payment is made.
    frozen: bool,
}

#[derive(Serialize, ToSchema)]
struct UseJson {
    used: u64,
    limit: Option<u64>,
}

/// The provider need not send it again.
#[derive(Serialize, ToSchema)]
pub(crate) struct Received {
    received: bool,
}

/// The account's plan and how much of it is used.
#[utoipa::path(get, path = "/api/billing", tag = "billing", security(("cookie" = [])), responses(
    (status = 200, body = BillingJson), (status = "default", body = ErrorBody)))]
pub(crate) async fn read(State(control): State<App>, browser: Browser) -> Result<Json<BillingJson>, ApiError> {
    let scope = browser.scope();
    let mut tx = control.store.read().await?;
    let machines = tx.machine_count(scope).await?;
    let seats = seats_used(&mut tx, scope, control.now()).await?;
    let standing = standing(&control, &mut tx, scope).await?;
    let entitlements = standing.as_ref().map(|standing| standing.entitlements);
    Ok(Json(BillingJson {
        machines: UseJson { used: machines, limit: entitlements.map(|it| it.machines) },
        seats: UseJson { used: seats, limit: entitlements.map(|it| it.seats) },
        grace_until_ms: standing.as_ref().and_then(|standing| standing.grace_until),
        frozen: standing.as_ref().is_some_and(|standing| standing.frozen),
        plan: standing.map(|standing| standing.plan),
    }))
}

/// Takes an event of the payment provider, in Stripe's format, signed as `Stripe-Signature` says.
#[utoipa::path(post, path = "/api/billing/webhook", tag = "billing", security(("webhook" = [])), responses(
    (status = 200, body = Received), (status = "default", body = ErrorBody)))]
pub(crate) async fn webhook(State(control): State<App>, request: Request) -> Result<Json<Received>, ApiError> {
    let Some(billing) = &control.config.billing else { return Err(ErrorCode::NotFound.into()) };
    let now = control.now();
    let headers = request.headers().clone();
    let body = body(request, &control).await?;
    signature::verify(&headers, &body, &billing.secrets, now)?;
    let event = Event::parse(&body)?;
    let mut tx = control.store.write().await?;
    if tx.note_billing_event(&event.id, now).await? {
        let (kind, applied) = apply(&mut tx, event.news).await?;
        tx.commit().await?;
        tracing::info!(method = kind, count = u64::from(applied), "billing event taken");
    }
    Ok(Json(Received { received: true }))
}

/// Refuses what the account's plan has no room for. In a change, so that two who add at once are counted both.
pub(crate) async fn require_room(
    control: &Control,
    tx: &mut Tx,
    scope: AccountScope,
    resource: Resource,
    used: u64,
) -> Result<(), ApiError> {
    match standing(control, tx, scope).await? {
        None => Ok(()),
        Some(standing) => {
            standing.may_add(resource, used).map_err(|refusal| ApiError::at_limit(refusal.code, refusal.limit))
        }
    }
}

/// Members and those who are invited.
pub(crate) async fn seats_used(tx: &mut Tx, scope: AccountScope, now: UnixMillis) -> Result<u64, StoreError> {
    Ok(tx.member_count(scope).await? + tx.open_invitations(scope, now).await?)
}

async fn standing(control: &Control, tx: &mut Tx, scope: AccountScope) -> Result<Option<Standing>, StoreError> {
    let Some(billing) = &control.config.billing else { return Ok(None) };
    let subscription = tx.subscription(scope).await?;
    Ok(Some(billing.catalogue.standing(subscription.as_ref(), control.now())))
}

async fn apply(tx: &mut Tx, news: News) -> Result<(&'static str, bool), StoreError> {
    Ok(match news {
        News::Nothing => ("ignored", false),
        News::Bound { customer_id, account_id } => ("customer", tx.bind_customer(&customer_id, account_id).await?),
        News::Subscription { customer_id, subscription } => {
            ("subscription", tx.told_of_subscription(&customer_id, subscription).await?)
        }
    })
}
