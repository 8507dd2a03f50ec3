//! A pairing in progress: a connector begins it, both sides watch it (`watch`), the browser may end it.

pub(crate) mod watch;

use axum::Json;
use axum::extract::State;
use flydex_domain::encoding::{Label, Transcript, sha256};
use flydex_domain::error::ErrorCode;
use flydex_domain::id::{AccountId, ClaimId, LocalConnectId, MachineId};
use flydex_domain::local_connect::{Lifecycle, Stage, Step};
use flydex_domain::scope::{Principal, Role};
use flydex_domain::time::UnixMillis;
use flydex_domain::token::EncodedKey;
use flydex_store::StoreError;
use flydex_store::sql::{LocalConnect, Tx};
use http::{HeaderMap, StatusCode, header};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::claims::is_redeemer;
use crate::error::{ApiError, ErrorBody};
use crate::extract::{Address, ApiJson, NoBody, PathId};
use crate::machine_auth::{check_timestamp, verify_credential};
use crate::principal::Browser;
use crate::service::{App, Control, random_token};
use crate::waiters::FIRST_REVISION;
use crate::wire::{Base64, PublicKeyJson, decode, label, version};

const BEARER: &str = "Bearer ";

/// What a connector says of itself, signed with its machine key.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StartBody {
    #[schema(value_type = PublicKeyJson)]
    machine_key: EncodedKey,
    machine_label: String,
    /// What the first device would get.
    #[schema(value_type = String)]
    role: Role,
    /// SHA-256 of the redeem key.
    #[schema(value_type = String)]
    redeem_sha256: Base64<32>,
    /// Told for support, 64 bytes at most; nothing is decided by it.
    connector_version: String,
    /// Of a machine that is paired already: it stays in its account and keeps its id.
    credential: Option<String>,
    #[schema(value_type = u64)]
    timestamp_ms: UnixMillis,
    #[schema(value_type = String)]
    signature: Base64<64>,
}

/// A pairing that has begun.
#[derive(Serialize, ToSchema)]
pub(crate) struct Started {
    #[schema(value_type = String)]
    local_connect_id: LocalConnectId,
    #[schema(value_type = String)]
    claim_id: ClaimId,
    #[schema(value_type = String)]
    machine_id: MachineId,
    /// Bearer token for this pairing's status.
    #[schema(value_type = String)]
    token: Base64<32>,
    origin: String,
    /// The end of the claim.
    #[schema(value_type = u64)]
    expires_at_ms: UnixMillis,
}

/// Begins a pairing. The claim's secret never comes here; only the hash of one of its keys does.
#[utoipa::path(post, path = "/api/local-connect/start", tag = "pairing", security(()),
    request_body = StartBody, responses(
    (status = 200, body = Started), (status = "default", body = ErrorBody)))]
pub(crate) async fn start(
    State(control): State<App>,
    address: Address,
    ApiJson(body): ApiJson<StartBody>,
) -> Result<Json<Started>, ApiError> {
    control.rates.local_connect.check(address)?;
    let now = control.now();
    check_timestamp(body.timestamp_ms, now)?;
    if !body.machine_key.0.is_machine_key() {
        return Err(ErrorCode::BadRequest.into());
    }
    let transcript = Transcript::new(Label::MachineRequest)
        .text("local-connect")
        .text(control.config.public_origin.as_str())
        .bytes(&body.redeem_sha256.0)
        .text(&body.machine_label)
        .text(body.role.as_str())
        .integer(body.timestamp_ms.0);
    body.machine_key.0.verify(transcript, &body.signature.0).map_err(|_| ErrorCode::ProofInvalid)?;
    let machine_label = label(&body.machine_label)?;
    let connector_version = version(&body.connector_version)?;
    let mut tx = control.store.write().await?;
    let (machine_id, pinned_account_id) = match &body.credential {
        None => (MachineId::from_uuid(Uuid::new_v4()), None),
        Some(credential) => {
            let (machine_id, account_id) = paired(&control, &mut tx, credential, &body.machine_key).await?;
            (machine_id, Some(account_id))
        }
    };
    let token = random_token();
    let local_connect = LocalConnect {
        local_connect_id: LocalConnectId::from_uuid(Uuid::new_v4()),
        claim_id: ClaimId::from_uuid(Uuid::new_v4()),
        token_sha256: sha256(&token),
        redeem_sha256: body.redeem_sha256.0,
        revision: FIRST_REVISION,
        lifecycle: Lifecycle::begin(now),
        created_at: now,
        machine_id,
        machine_key: body.machine_key.0,
        machine_label,
        connector_version: Some(connector_version),
        role: body.role,
        pinned_account_id,
        browser: None,
        machine_mac: None,
    };
    tx.begin_local_connect(&local_connect).await?;
    tx.commit().await?;
    Ok(Json(Started {
        local_connect_id: local_connect.local_connect_id,
        claim_id: local_connect.claim_id,
        machine_id,
        token: Base64(token),
        origin: control.config.public_origin.as_str().to_owned(),
        expires_at_ms: local_connect.lifecycle.claim_expires_at,
    }))
}

/// Ends a pairing from the browser that redeemed it.
#[utoipa::path(post, path = "/api/local-connect/{id}/cancel", tag = "pairing", security(("cookie" = [])),
    params(("id" = String, Path)),
    responses((status = 204), (status = "default", body = ErrorBody)))]
pub(crate) async fn cancel(
    State(control): State<App>,
    browser: Browser,
    PathId(id): PathId<LocalConnectId>,
    _: NoBody,
) -> Result<StatusCode, ApiError> {
    let mut tx = control.store.write().await?;
    let mut local_connect = tx.local_connect(id).await?;
    if !local_connect.browser.as_ref().is_some_and(|side| is_redeemer(side, &browser)) {
        return Err(ErrorCode::NotFound.into());
    }
    if let Step::Changed(lifecycle) = local_connect.lifecycle.end(Stage::Cancelled(None), control.now())? {
        local_connect.lifecycle = lifecycle;
        tx.update_local_connect(&local_connect).await?;
        tx.commit().await?;
        control.waiters.wake(id);
    }
    Ok(StatusCode::NO_CONTENT)
}

/// The hash of the bearer token that a connector shows.
pub(crate) fn bearer(headers: &HeaderMap) -> Result<[u8; 32], ApiError> {
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = value.and_then(|value| value.strip_prefix(BEARER)).and_then(decode::<32>);
    Ok(sha256(&token.ok_or(ErrorCode::Unauthenticated)?))
}

/// The pairing that a connector's token is for; a wrong token and a missing pairing give the same answer.
pub(crate) async fn of_connector(
    tx: &mut Tx,
    id: LocalConnectId,
    token_sha256: &[u8; 32],
) -> Result<LocalConnect, ApiError> {
    let local_connect = tx.local_connect(id).await?;
    let fits: bool = token_sha256.ct_eq(&local_connect.token_sha256).into();
    if fits { Ok(local_connect) } else { Err(ErrorCode::NotFound.into()) }
}

/// The machine and account of a credential, if its key is the one that signed and it is still paired.
async fn paired(
    control: &Control,
    tx: &mut Tx,
    credential: &str,
    machine_key: &EncodedKey,
) -> Result<(MachineId, AccountId), ApiError> {
    let credential = verify_credential(&control.tokens.ever, credential)?;
    if credential.machine_key != *machine_key {
        return Err(ErrorCode::CredentialInvalid.into());
    }
    let principal = Principal::Machine { account_id: credential.account_id, machine_id: credential.machine_id };
    match tx.machine(principal.scope(), credential.machine_id).await {
        Ok(machine) if machine.revoked => Err(ErrorCode::MachineRevoked.into()),
        Ok(machine) if machine.key != machine_key.0 => Err(ErrorCode::CredentialInvalid.into()),
        Ok(_) => Ok((credential.machine_id, credential.account_id)),
        Err(StoreError::NotFound) => Err(ErrorCode::CredentialInvalid.into()),
        Err(error) => Err(error.into()),
    }
}
