//! The devices of an account.

use axum::Json;
use axum::extract::State;
use flydex_domain::audit::{AuditEntry, AuditKind};
use flydex_domain::id::{DeviceId, UserId};
use flydex_domain::revocation::Revocation;
use flydex_domain::scope::Role;
use flydex_domain::time::UnixMillis;
use flydex_domain::token::EncodedKey;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::{ApiError, ErrorBody};
use crate::extract::PathId;
use crate::principal::Browser;
use crate::service::App;
use crate::wire::PublicKeyJson;

/// The devices that were paired and not revoked.
#[derive(Serialize, ToSchema)]
pub(crate) struct Devices {
    devices: Vec<DeviceJson>,
}

#[derive(Serialize, ToSchema)]
struct DeviceJson {
    #[schema(value_type = String)]
    device_id: DeviceId,
    #[schema(value_type = PublicKeyJson)]
    device_key: EncodedKey,
    #[schema(value_type = String)]
    user_id: UserId,
    label: String,
    #[schema(value_type = u64)]
    created_at_ms: UnixMillis,
}

/// Lists the account's devices, newest first.
#[utoipa::path(get, path = "/api/devices", tag = "devices", security(("cookie" = [])), responses(
    (status = 200, body = Devices), (status = "default", body = ErrorBody)))]
pub(crate) async fn list(State(control): State<App>, browser: Browser) -> Result<Json<Devices>, ApiError> {
    let mut tx = control.store.read().await?;
    let devices = tx.devices(browser.scope()).await?.into_iter().map(|device| DeviceJson {
        device_id: device.device_id,
        device_key: EncodedKey(device.key),
        user_id: device.user_id,
        label: device.label,
        created_at_ms: device.created_at,
    });
    Ok(Json(Devices { devices: devices.collect() }))
}

/// Revokes a device for good: one's own, or as owner any.
#[utoipa::path(delete, path = "/api/devices/{id}", tag = "devices", security(("cookie" = [])),
    params(("id" = String, Path)), responses(
    (status = 204), (status = "default", body = ErrorBody)))]
pub(crate) async fn revoke(
    State(control): State<App>,
    browser: Browser,
    PathId(device_id): PathId<DeviceId>,
) -> Result<StatusCode, ApiError> {
    let scope = browser.scope();
    let now = control.now();
    let mut tx = control.store.write().await?;
    let device = tx.device(scope, device_id).await?;
    if device.user_id != browser.user.user_id {
        browser.require(Role::Owner)?;
    }
    browser.require_fresh(now)?;
    tx.revoke_device(scope, device_id, now).await?;
    let revocation = Revocation::Device { account_id: scope.account_id(), device_id, keeps: None };
    tx.append_revocation(scope, revocation, now).await?;
    let entry = control.audit_entry(AuditKind::DeviceRevoked, None);
    let user_id = Some(browser.user.user_id);
    tx.append_audit(scope, &AuditEntry { user_id, device_id: Some(device_id), ..entry }).await?;
    tx.commit().await?;
    control.revocations_committed();
    Ok(StatusCode::NO_CONTENT)
}
