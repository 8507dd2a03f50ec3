//! The account's strict policy: an approval acts only with control's receipt, so approvals wait while control is away.
//!
//! It travels in each machine's credential, which the machine verifies. A change ends the credentials so far: a machine
//! that is linked is back with the next one within seconds, and no other is linked before it has it.

use axum::Json;
use axum::extract::State;
use flydex_domain::audit::AuditKind;
use flydex_domain::member::require_owner;
use flydex_domain::revocation::Revocation;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::{ApiError, ErrorBody};
use crate::extract::ApiJson;
use crate::members::{append, asker};
use crate::principal::Browser;
use crate::service::App;

/// When an approval may act.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AuditPolicy {
    /// Only with control's receipt; else a machine that has none records the approval itself first.
    strict: bool,
}

/// Tells the policy.
#[utoipa::path(get, path = "/api/audit/policy", tag = "audit", security(("cookie" = [])), responses(
    (status = 200, body = AuditPolicy), (status = "default", body = ErrorBody)))]
pub(crate) async fn read(State(control): State<App>, browser: Browser) -> Result<Json<AuditPolicy>, ApiError> {
    let mut tx = control.store.read().await?;
    Ok(Json(AuditPolicy { strict: tx.strict_audit(browser.scope()).await? }))
}

/// Changes the policy. Machines follow with their next credential, which they fetch at once where they are linked: their
/// links so far end, and those with it begin, within seconds. A machine out of reach of the relay's word fetches it when
/// its credential is half a day old.
#[utoipa::path(put, path = "/api/audit/policy", tag = "audit", security(("cookie" = [])),
    request_body = AuditPolicy, responses((status = 204), (status = "default", body = ErrorBody)))]
pub(crate) async fn change(
    State(control): State<App>,
    browser: Browser,
    ApiJson(body): ApiJson<AuditPolicy>,
) -> Result<StatusCode, ApiError> {
    let scope = browser.scope();
    let now = control.now();
    let mut tx = control.store.write().await?;
    require_owner(asker(&mut tx, &browser).await?.role)?;
    browser.require_fresh(now)?;
    if !tx.set_strict_audit(scope, body.strict).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    let account_id = scope.account_id();
    for machine in tx.machines(scope).await? {
        let (machine_id, serial) = (machine.machine_id, machine.credential_serial);
        tx.append_revocation(scope, Revocation::Superseded { account_id, machine_id, serial }, now).await?;
    }
    let kind = if body.strict { AuditKind::StrictAuditBegun } else { AuditKind::StrictAuditEnded };
    append(&control, &mut tx, scope, kind, browser.user.user_id, None).await?;
    tx.commit().await?;
    control.revocations_committed();
    Ok(StatusCode::NO_CONTENT)
}
