//! Tickets and grants: the passes with which a device opens a session.

use axum::Json;
use axum::extract::State;
use flydex_domain::error::ErrorCode;
use flydex_domain::id::TicketId;
use flydex_domain::limits::{GRANT_LIFETIME, TICKET_LIFETIME};
use flydex_domain::time::UnixMillis;
use flydex_domain::token::{EncodedKey, Grant, Ticket};
use flydex_store::sql::{Device, DeviceStanding};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::error::{ApiError, ErrorBody};
use crate::extract::ApiJson;
use crate::principal::Browser;
use crate::service::App;
use crate::wire::{PublicKeyJson, label};

/// What a device is called that did not say.
const LABEL_OF_NONE: &str = "unnamed device";

/// Which device wants to open a session, and where.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TicketBody {
    #[schema(value_type = PublicKeyJson)]
    device_key: EncodedKey,
    region: String,
    /// What the account calls a device that it does not know yet.
    #[serde(default)]
    device_label: Option<String>,
}

/// A pass for one session.
#[derive(Serialize, ToSchema)]
pub(crate) struct TicketJson {
    /// PASETO v4.public; used once, within its minute.
    ticket: String,
    /// PASETO v4.public; for owners of machines, a day.
    grant: String,
    /// The end of the ticket.
    #[schema(value_type = u64)]
    expires_at_ms: UnixMillis,
}

/// Issues a ticket and a grant. What the device may do is decided at each machine.
#[utoipa::path(post, path = "/api/tickets", tag = "tickets", security(("cookie" = [])),
    request_body = TicketBody, responses(
    (status = 200, body = TicketJson), (status = "default", body = ErrorBody)))]
pub(crate) async fn create(
    State(control): State<App>,
    browser: Browser,
    ApiJson(body): ApiJson<TicketBody>,
) -> Result<Json<TicketJson>, ApiError> {
    control.rates.tickets.check(browser.user.account_id)?;
    if !control.config.regions.iter().any(|region| region.region == body.region) {
        return Err(ErrorCode::NotFound.into());
    }
    let device_label = body.device_label.as_deref().map(label).transpose()?;
    let device_id = body.device_key.0.device_id();
    let now = control.now();
    let standing = control.store.read().await?.device_standing(browser.scope(), device_id).await?;
    match standing {
        DeviceStanding::Known => {}
        DeviceStanding::Revoked => return Err(ErrorCode::DeviceRevoked.into()),
        // Whatever opens a session is listed, and so can be removed, with its user or by itself: a machine may have
        // taken it by another device's word.
        DeviceStanding::Unknown => {
            let (key, user_id) = (body.device_key.0, browser.user.user_id);
            let label = device_label.unwrap_or_else(|| LABEL_OF_NONE.to_owned());
            let mut tx = control.store.write().await?;
            tx.meet_device(browser.scope(), &Device { device_id, key, user_id, label, created_at: now }).await?;
            tx.commit().await?;
        }
    }
    let user = &browser.user;
    let ticket = Ticket {
        ticket_id: TicketId::from_uuid(Uuid::new_v4()),
        region: body.region,
        account_id: user.account_id,
        user_id: user.user_id,
        role: user.role,
        device_id,
        expires_at: now.plus(TICKET_LIFETIME),
    };
    let grant = Grant {
        grant_id: browser.session.grant_id,
        account_id: user.account_id,
        user_id: user.user_id,
        role: user.role,
        device_key: body.device_key,
        expires_at: now.plus(GRANT_LIFETIME),
    };
    let expires_at_ms = ticket.expires_at;
    let (ticket, grant) = (control.tokens.sign(&ticket), control.tokens.sign(&grant));
    Ok(Json(TicketJson { ticket, grant, expires_at_ms }))
}
