//! The browser's half of a pairing: it redeems the claim and proves the device.

use axum::Json;
use axum::extract::State;
use flydex_domain::audit::{AuditEntry, AuditKind};
use flydex_domain::billing::Resource;
use flydex_domain::encoding::sha256;
use flydex_domain::error::ErrorCode;
use flydex_domain::id::{AccountId, ClaimId, LocalConnectId, MachineId};
use flydex_domain::local_connect::{RedeemTry, Stage, Step};
use flydex_domain::scope::{AccountScope, Role};
use flydex_domain::time::UnixMillis;
use flydex_domain::token::EncodedKey;
use flydex_store::StoreError;
use flydex_store::sql::{BrowserSide, DeviceStanding, LocalConnect, Tx};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;
use utoipa::ToSchema;

use crate::billing::require_room;
use crate::error::{ApiError, ErrorBody};
use crate::extract::{Address, ApiJson, PathId};
use crate::principal::Browser;
use crate::service::{App, Control};
use crate::wire::{Base64, PublicKeyJson, label};

/// What a browser shows to redeem a claim.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RedeemBody {
    /// From the secret in the QR code.
    #[schema(value_type = String)]
    redeem_key: Base64<32>,
    #[schema(value_type = PublicKeyJson)]
    device_key: EncodedKey,
    device_label: String,
}

/// What both sides' MACs will cover, except the secret.
#[derive(Serialize, ToSchema)]
pub(crate) struct Redeemed {
    #[schema(value_type = String)]
    local_connect_id: LocalConnectId,
    #[schema(value_type = String)]
    machine_id: MachineId,
    #[schema(value_type = PublicKeyJson)]
    machine_key: EncodedKey,
    machine_label: String,
    #[schema(value_type = String)]
    account_id: AccountId,
    #[schema(value_type = String)]
    role: Role,
    origin: String,
    #[schema(value_type = u64)]
    expires_at_ms: UnixMillis,
}

/// The device's proof that it has the secret and agrees to the terms.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FinalizeBody {
    #[schema(value_type = String)]
    device_mac: Base64<32>,
}

/// Redeems a claim for the browser's account. A wrong key and an unknown claim give the same answer.
#[utoipa::path(post, path = "/api/claims/{id}/redeem", tag = "pairing", security(("cookie" = [])),
    params(("id" = String, Path)),
    request_body = RedeemBody, responses((status = 200, body = Redeemed), (status = "default", body = ErrorBody)))]
pub(crate) async fn redeem(
    State(control): State<App>,
    address: Address,
    browser: Browser,
    PathId(claim_id): PathId<ClaimId>,
    ApiJson(body): ApiJson<RedeemBody>,
) -> Result<Json<Redeemed>, ApiError> {
    control.rates.claims.check(address)?;
    let device_label = label(&body.device_label)?;
    browser.require_fresh(control.now())?;
    let mut tx = control.store.write().await?;
    let mut local_connect = match tx.local_connect_by_claim(claim_id).await {
        Err(StoreError::NotFound) => return Err(ErrorCode::ClaimInvalid.into()),
        found => found?,
    };
    let side = BrowserSide {
        account_id: browser.user.account_id,
        user_id: browser.user.user_id,
        account_session_id: browser.session.account_session_id,
        device_key: body.device_key.0,
        device_label,
        device_mac: None,
    };
    let key_fits: bool = sha256(&body.redeem_key.0).ct_eq(&local_connect.redeem_sha256).into();
    if key_fits {
        check_eligible(&control, &mut tx, &browser, &local_connect, &side).await?;
    }
    let same_browser = local_connect.browser.as_ref().is_some_and(|known| is_same(known, &side));
    match local_connect.lifecycle.redeem(RedeemTry { key_fits, same_browser }, control.now()) {
        Ok(Step::Changed(lifecycle)) => {
            local_connect.lifecycle = lifecycle;
            local_connect.browser = Some(side);
            tx.update_local_connect(&local_connect).await?;
            append(&control, &mut tx, &browser, AuditKind::ClaimRedeemed, address, local_connect.machine_id).await?;
        }
        Ok(Step::Repeated) => {}
        Err(refused) => {
            if let Some(lifecycle) = refused.changed {
                local_connect.lifecycle = lifecycle;
                wrong_try(&control, tx, &browser, address, &local_connect).await?;
            }
            return Err(refused.code.into());
        }
    }
    tx.commit().await?;
    control.waiters.wake(local_connect.local_connect_id);
    Ok(Json(Redeemed {
        local_connect_id: local_connect.local_connect_id,
        machine_id: local_connect.machine_id,
        machine_key: EncodedKey(local_connect.machine_key),
        machine_label: local_connect.machine_label,
        account_id: browser.user.account_id,
        role: local_connect.role,
        origin: control.config.public_origin.as_str().to_owned(),
        expires_at_ms: local_connect.lifecycle.claim_expires_at,
    }))
}

/// Hands the device's MAC on to the connector.
#[utoipa::path(post, path = "/api/claims/{id}/finalize", tag = "pairing", security(("cookie" = [])),
    params(("id" = String, Path)),
    request_body = FinalizeBody, responses((status = 204), (status = "default", body = ErrorBody)))]
pub(crate) async fn finalize(
    State(control): State<App>,
    address: Address,
    browser: Browser,
    PathId(claim_id): PathId<ClaimId>,
    ApiJson(body): ApiJson<FinalizeBody>,
) -> Result<StatusCode, ApiError> {
    control.rates.claims.check(address)?;
    let mut tx = control.store.write().await?;
    let mut local_connect = match tx.local_connect_by_claim(claim_id).await {
        Err(StoreError::NotFound) => return Err(ErrorCode::ClaimInvalid.into()),
        found => found?,
    };
    let Some(side) = local_connect.browser.as_mut().filter(|side| is_redeemer(side, &browser)) else {
        return Err(ErrorCode::ClaimInvalid.into());
    };
    let same_mac = side.device_mac.is_some_and(|mac| mac.ct_eq(&body.device_mac.0).into());
    if let Step::Changed(lifecycle) = local_connect.lifecycle.finalize(same_mac, control.now())? {
        side.device_mac = Some(body.device_mac.0);
        local_connect.lifecycle = lifecycle;
        tx.update_local_connect(&local_connect).await?;
        tx.commit().await?;
        control.waiters.wake(local_connect.local_connect_id);
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Whether a browser is the one that redeemed a claim: same session, same account.
pub(crate) fn is_redeemer(side: &BrowserSide, browser: &Browser) -> bool {
    side.account_id == browser.user.account_id && side.account_session_id == browser.session.account_session_id
}

fn is_same(known: &BrowserSide, asking: &BrowserSide) -> bool {
    known.account_id == asking.account_id
        && known.account_session_id == asking.account_session_id
        && known.device_key == asking.device_key
}

async fn check_eligible(
    control: &Control,
    tx: &mut Tx,
    browser: &Browser,
    local_connect: &LocalConnect,
    side: &BrowserSide,
) -> Result<(), ApiError> {
    if local_connect.pinned_account_id.is_some_and(|pinned| pinned != side.account_id) {
        return Err(ErrorCode::ClaimInvalid.into());
    }
    // Whoever has the computer in the account already lets in by role; a computer that is new to it is an owner's to add.
    browser.require(if local_connect.pinned_account_id.is_none() { Role::Owner } else { local_connect.role })?;
    require_room_for(control, tx, browser.scope(), local_connect.machine_id).await?;
    if tx.device_standing(browser.scope(), side.device_key.device_id()).await? == DeviceStanding::Revoked {
        return Err(ErrorCode::DeviceRevoked.into());
    }
    Ok(())
}

/// A computer that is new to the account wants room in its plan; one that is there is not counted again.
pub(crate) async fn require_room_for(
    control: &Control,
    tx: &mut Tx,
    scope: AccountScope,
    machine_id: MachineId,
) -> Result<(), ApiError> {
    match tx.machine(scope, machine_id).await {
        Ok(_) => Ok(()),
        Err(StoreError::NotFound) => {
            let used = tx.machine_count(scope).await?;
            require_room(control, tx, scope, Resource::Machine, used).await
        }
        Err(error) => Err(error.into()),
    }
}

async fn wrong_try(
    control: &Control,
    mut tx: Tx,
    browser: &Browser,
    address: Address,
    local_connect: &LocalConnect,
) -> Result<(), ApiError> {
    tx.update_local_connect(local_connect).await?;
    if matches!(local_connect.lifecycle.stage, Stage::Failed(_)) {
        append(control, &mut tx, browser, AuditKind::ClaimExhausted, address, local_connect.machine_id).await?;
    }
    tx.commit().await?;
    control.waiters.wake(local_connect.local_connect_id);
    Ok(())
}

async fn append(
    control: &Control,
    tx: &mut Tx,
    browser: &Browser,
    kind: AuditKind,
    address: Address,
    machine_id: MachineId,
) -> Result<(), ApiError> {
    let entry = control.audit_entry(kind, Some(address));
    let user_id = Some(browser.user.user_id);
    tx.append_audit(browser.scope(), &AuditEntry { user_id, machine_id: Some(machine_id), ..entry }).await?;
    Ok(())
}
