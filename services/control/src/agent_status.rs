//! The connector's half of a pairing: the desk's yes or no, and what became of Codex.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use flydex_domain::audit::{AuditEntry, AuditKind};
use flydex_domain::error::ErrorCode;
use flydex_domain::id::{AccountId, LocalConnectId, MachineId};
use flydex_domain::local_connect::{Stage, Step};
use flydex_domain::scope::{AccountScope, Principal};
use flydex_store::StoreError;
use flydex_store::sql::{BrowserSide, Device, LocalConnect, Machine, NewMachine, Tx};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;
use utoipa::ToSchema;

use crate::claims::require_room_for;
use crate::error::{ApiError, ErrorBody};
use crate::extract::{Address, ApiJson, PathId};
use crate::local_connect::{bearer, of_connector};
use crate::machine_keys::release_elsewhere;
use crate::machines::credential_json;
use crate::service::{App, Control};
use crate::wire::{Base64, TokenKey};

/// What a connector reports.
#[derive(Deserialize, ToSchema)]
#[serde(tag = "status", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum AgentStatus {
    /// The desk said yes.
    Confirmed {
        /// The machine's proof that it has the secret and agrees to the terms.
        #[schema(value_type = String)]
        machine_mac: Base64<32>,
    },
    /// Codex answers.
    CodexReady {},
    /// The desk said no.
    Refused {},
    /// It failed.
    Failed {
        /// An error code's name.
        code: String,
    },
}

/// The answer to the desk's yes: the machine is paired.
#[derive(Serialize, ToSchema)]
pub(crate) struct Paired {
    #[schema(value_type = String)]
    account_id: AccountId,
    #[schema(value_type = String)]
    machine_id: MachineId,
    /// PASETO v4.public, a day.
    credential: String,
    token_keys: Vec<TokenKey>,
}

/// Takes a connector's report on its pairing.
#[utoipa::path(post, path = "/api/local-connect/{id}/agent-status", tag = "pairing", security(("local_connect" = [])),
    params(("id" = String, Path)),
    request_body = AgentStatus, responses((status = 200, description = "`confirmed`", body = Paired), (status = 204),
    (status = "default", body = ErrorBody)))]
pub(crate) async fn report(
    State(control): State<App>,
    address: Address,
    headers: HeaderMap,
    PathId(id): PathId<LocalConnectId>,
    ApiJson(status): ApiJson<AgentStatus>,
) -> Result<Response, ApiError> {
    control.rates.claims.check(address)?;
    let token_sha256 = bearer(&headers)?;
    let mut tx = control.store.write().await?;
    let local_connect = of_connector(&mut tx, id, &token_sha256).await?;
    let now = control.now();
    let step = match status {
        AgentStatus::Confirmed { machine_mac } => {
            let paired = confirm(&control, tx, local_connect, machine_mac.0).await?;
            return Ok(Json(paired).into_response());
        }
        AgentStatus::CodexReady {} => local_connect.lifecycle.codex_ready(now)?,
        AgentStatus::Refused {} => {
            local_connect.lifecycle.end(Stage::Cancelled(Some(ErrorCode::PairingRefused)), now)?
        }
        AgentStatus::Failed { code } => {
            let code = ErrorCode::from_name(&code).ok_or(ErrorCode::BadRequest)?;
            local_connect.lifecycle.end(Stage::Failed(code), now)?
        }
    };
    if let Step::Changed(lifecycle) = step {
        tx.update_local_connect(&LocalConnect { lifecycle, ..local_connect }).await?;
        tx.commit().await?;
        control.waiters.wake(id);
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn confirm(
    control: &Control,
    mut tx: Tx,
    mut local_connect: LocalConnect,
    machine_mac: [u8; 32],
) -> Result<Paired, ApiError> {
    let same_mac = local_connect.machine_mac.is_some_and(|mac| mac.ct_eq(&machine_mac).into());
    let step = local_connect.lifecycle.confirm(same_mac, control.now())?;
    let side = local_connect.browser.clone().ok_or(ErrorCode::Conflict)?;
    let machine_id = local_connect.machine_id;
    require_still_allowed(&mut tx, &local_connect, &side).await?;
    let scope = Principal::Machine { account_id: side.account_id, machine_id }.scope();
    let machine = match step {
        Step::Repeated => tx.machine(scope, machine_id).await?,
        Step::Changed(lifecycle) => {
            local_connect.lifecycle = lifecycle;
            local_connect.machine_mac = Some(machine_mac);
            tx.update_local_connect(&local_connect).await?;
            let machine = pair(control, &mut tx, scope, &local_connect, &side).await?;
            tx.commit().await?;
            control.waiters.wake(local_connect.local_connect_id);
            machine
        }
    };
    // A machine that was paired anew is what it was before no longer, wherever that was.
    release_elsewhere(control, &machine.key, (side.account_id, machine_id)).await?;
    let (credential, token_keys) = credential_json(control, side.account_id, &machine).into_parts();
    Ok(Paired { account_id: side.account_id, machine_id, credential, token_keys })
}

/// Who redeemed the claim may have lost the right to since.
async fn require_still_allowed(tx: &mut Tx, local_connect: &LocalConnect, side: &BrowserSide) -> Result<(), ApiError> {
    let asker = Principal::User { account_id: side.account_id, user_id: side.user_id, role: local_connect.role };
    match tx.member(asker.scope(), side.user_id).await {
        Ok(member) if member.user.role >= local_connect.role => Ok(()),
        Ok(_) | Err(StoreError::NotFound) => Err(ErrorCode::Forbidden.into()),
        Err(error) => Err(error.into()),
    }
}

async fn pair(
    control: &Control,
    tx: &mut Tx,
    scope: AccountScope,
    local_connect: &LocalConnect,
    side: &BrowserSide,
) -> Result<Machine, ApiError> {
    let now = control.now();
    let new = NewMachine {
        machine_id: local_connect.machine_id,
        label: local_connect.machine_label.clone(),
        key: local_connect.machine_key,
        region: control.config.region.clone(),
        connector_version: local_connect.connector_version.clone(),
    };
    require_room_for(control, tx, scope, local_connect.machine_id).await?;
    let machine = match tx.pair_machine(scope, &new, now).await {
        Err(StoreError::Conflict) => return Err(ErrorCode::MachineRevoked.into()),
        paired => paired?,
    };
    let device_id = side.device_key.device_id();
    let device = Device {
        device_id,
        key: side.device_key,
        user_id: side.user_id,
        label: side.device_label.clone(),
        created_at: now,
    };
    match tx.enrol_device(scope, &device).await {
        Err(StoreError::Conflict) => return Err(ErrorCode::DeviceRevoked.into()),
        enrolled => enrolled?,
    }
    for kind in [AuditKind::MachinePaired, AuditKind::DeviceEnrolled] {
        let entry = AuditEntry {
            user_id: Some(side.user_id),
            machine_id: Some(local_connect.machine_id),
            device_id: Some(device_id),
            ..control.audit_entry(kind, None)
        };
        tx.append_audit(scope, &entry).await?;
    }
    Ok(machine)
}
