//! How a machine changes its key, and how it leaves its account: both by its own signature.
//!
//! A change is stated by the old key and by the new one. The old key is taken until the machine has renewed by the new one,
//! and for a day at most, as long as the last credential that names it lives, so that a machine that has not heard the
//! answer asks again with what it has. From then on it opens no link, and whoever shows it is another computer, or this one
//! as it was before.

use axum::Json;
use axum::extract::State;
use flydex_domain::audit::{AuditEntry, AuditKind};
use flydex_domain::error::ErrorCode;
use flydex_domain::id::{AccountId, MachineId};
use flydex_domain::key::PublicKey;
use flydex_domain::limits::CREDENTIAL_RETRY_WINDOW;
use flydex_domain::revocation::Revocation;
use flydex_domain::rotation::KeyRotation;
use flydex_domain::scope::{AccountScope, Principal};
use flydex_store::StoreError;
use flydex_store::sql::Tx;
use http::StatusCode;

use crate::error::{ApiError, ErrorBody};
use crate::extract::{Address, PathId};
use crate::machine_auth::{Accept, Shown, Signed};
use crate::machines::{CredentialJson, credential_json, quarantine};
use crate::service::{App, Control};
use crate::wire::KeyRotationJson;

/// Takes a machine's statement that another key follows on its present one, and answers with the first credential that
/// names the new key. The same statement again gives the newest credential again.
#[utoipa::path(post, path = "/api/machines/{id}/key", tag = "machines",
    security(("machine_credential" = [], "machine_timestamp" = [], "machine_signature" = [])),
    params(("id" = String, Path)), request_body = KeyRotationJson,
    responses((status = 200, body = CredentialJson), (status = "default", body = ErrorBody)))]
pub(crate) async fn rotate(
    State(control): State<App>,
    address: Address,
    PathId(machine_id): PathId<MachineId>,
    signed: Signed,
) -> Result<Json<CredentialJson>, ApiError> {
    control.rates.claims.check(address)?;
    let rotation: KeyRotation = serde_json::from_slice(&signed.body).map_err(|_| ErrorCode::BadRequest)?;
    let scope = signed.scope();
    let of = (scope.account_id(), machine_id);
    let mut tx = control.store.write().await?;
    let (machine, shown) = signed.known(&mut tx, machine_id).await?;
    if rotation.old_key != signed.credential.machine_key || rotation.verify(of).is_err() {
        return Err(ErrorCode::ProofInvalid.into());
    }
    let last = tx.last_key_rotation(scope, machine_id).await?;
    match shown {
        // The answer was lost on the way.
        Shown::Former(_) if last.as_ref() == Some(&rotation) => {
            return Ok(Json(credential_json(&control, scope.account_id(), &machine)));
        }
        Shown::Former(_) => return Err(quarantine(&control, tx, scope, machine_id, address).await),
        Shown::Current => {}
    }
    let (shown, newest) = (signed.credential.serial, machine.credential_serial);
    let now = control.now();
    let answer_was_lost = shown + 1 == newest && now.since(machine.credential_issued_at) < CREDENTIAL_RETRY_WINDOW;
    if shown > newest {
        return Err(ErrorCode::CredentialInvalid.into());
    }
    if shown < newest && !answer_was_lost {
        return Err(quarantine(&control, tx, scope, machine_id, address).await);
    }
    if rotation.counter <= last.map_or(0, |last| last.counter) {
        return Err(ErrorCode::Conflict.into());
    }
    tx.rotate_machine_key(scope, machine_id, &rotation, now).await?;
    tx.advance_credential(scope, machine_id, newest, now).await?;
    let entry = control.audit_entry(AuditKind::MachineKeyRotated, Some(address));
    tx.append_audit(scope, &AuditEntry { machine_id: Some(machine_id), ..entry }).await?;
    let rotated = tx.machine(scope, machine_id).await?;
    tx.commit().await?;
    tracing::info!(machine.id = %machine_id, account.id = %scope.account_id(), "machine key rotated");
    Ok(Json(credential_json(&control, scope.account_id(), &rotated)))
}

/// Takes a machine out of its account by the machine's own word: its links end, and the account has it no more.
#[utoipa::path(post, path = "/api/machines/{id}/release", tag = "machines",
    security(("machine_credential" = [], "machine_timestamp" = [], "machine_signature" = [])),
    params(("id" = String, Path)),
    responses((status = 204), (status = "default", body = ErrorBody)))]
pub(crate) async fn release(
    State(control): State<App>,
    address: Address,
    PathId(machine_id): PathId<MachineId>,
    signed: Signed,
) -> Result<StatusCode, ApiError> {
    control.rates.claims.check(address)?;
    let mut tx = control.store.write().await?;
    signed.machine(&control, &mut tx, machine_id, Accept::Past).await?;
    revoke(&control, tx, signed.scope(), machine_id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes the machines that a key was in until now out of their accounts: the same computer was paired as another.
pub(crate) async fn release_elsewhere(
    control: &Control,
    key: &PublicKey,
    kept: (AccountId, MachineId),
) -> Result<(), ApiError> {
    let others = control.store.read().await?.machines_of_key(key).await?;
    for (account_id, machine_id) in others.into_iter().filter(|other| *other != kept) {
        let scope = Principal::Machine { account_id, machine_id }.scope();
        revoke(control, control.store.write().await?, scope, machine_id).await?;
    }
    Ok(())
}

async fn revoke(control: &Control, mut tx: Tx, scope: AccountScope, machine_id: MachineId) -> Result<(), ApiError> {
    let now = control.now();
    match tx.revoke_machine(scope, machine_id, now).await {
        // Somebody else was first.
        Err(StoreError::NotFound) => return Ok(()),
        revoked => revoked?,
    }
    let revocation = Revocation::Machine { account_id: scope.account_id(), machine_id };
    tx.append_revocation(scope, revocation, now).await?;
    let entry = control.audit_entry(AuditKind::MachineRevoked, None);
    tx.append_audit(scope, &AuditEntry { machine_id: Some(machine_id), ..entry }).await?;
    tx.commit().await?;
    control.revocations_committed();
    tracing::info!(machine.id = %machine_id, account.id = %scope.account_id(), "machine left its account");
    Ok(())
}
