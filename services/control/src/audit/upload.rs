//! What machines report of commands and answers, durable once acknowledged. Repeats are stored once.

use axum::Json;
use axum::extract::State;
use flydex_domain::audit::{AuditEntry, AuditKind, AuditOutcome};
use flydex_domain::command::Decision;
use flydex_domain::error::ErrorCode;
use flydex_domain::id::{ApprovalId, AuditId, CommandHash, CommandId, DeviceId, Generation, MachineId};
use flydex_domain::limits::AUDIT_UPLOAD_RECORDS_MAX;
use flydex_domain::time::UnixMillis;
use flydex_store::StoreError;
use flydex_store::sql::Tx;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::{ApiError, ErrorBody};
use crate::extract::{PathId, parse};
use crate::machine_auth::{Accept, Signed};
use crate::service::App;

/// What a machine reports of commands and answers.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UploadBody {
    records: Vec<UploadRecord>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct UploadRecord {
    #[schema(value_type = String)]
    audit_id: AuditId,
    /// `approval_answered`, `command_executed`, or deferred `approval_intent`.
    kind: String,
    #[schema(value_type = u64)]
    at_ms: UnixMillis,
    #[schema(value_type = Option<String>)]
    device_id: Option<DeviceId>,
    #[schema(value_type = Option<String>)]
    approval_id: Option<ApprovalId>,
    #[schema(value_type = Option<String>)]
    generation: Option<Generation>,
    #[schema(value_type = Option<String>)]
    command_id: Option<CommandId>,
    #[schema(value_type = Option<String>)]
    command_hash: Option<CommandHash>,
    decision: Option<String>,
    /// `executed`, `refused` or `unknown`.
    outcome: String,
    code: Option<String>,
    deferred: bool,
}

/// Which records are durable here.
#[derive(Serialize, ToSchema)]
pub(crate) struct Acknowledged {
    #[schema(value_type = Vec<String>)]
    acknowledged: Vec<AuditId>,
}

/// Takes a machine's audit records. Repeats are acknowledged again and stored once.
#[utoipa::path(post, path = "/api/machines/{id}/audit", tag = "audit",
    security(("machine_credential" = [], "machine_timestamp" = [], "machine_signature" = [])),
    params(("id" = String, Path)),
    request_body = UploadBody, responses((status = 200, body = Acknowledged), (status = "default", body = ErrorBody)))]
pub(crate) async fn upload(
    State(control): State<App>,
    PathId(machine_id): PathId<MachineId>,
    signed: Signed,
) -> Result<Json<Acknowledged>, ApiError> {
    let body: UploadBody = parse(&signed.body)?;
    if body.records.len() > AUDIT_UPLOAD_RECORDS_MAX {
        return Err(ErrorCode::BadRequest.into());
    }
    let entries: Vec<AuditEntry> =
        body.records.iter().map(|record| reported(machine_id, record)).collect::<Result<_, _>>()?;
    let mut tx = control.store.write().await?;
    signed.machine(&control, &mut tx, machine_id, Accept::Live).await?;
    for entry in &entries {
        append_once(&mut tx, &signed, entry).await?;
    }
    tx.commit().await?;
    Ok(Json(Acknowledged { acknowledged: entries.iter().map(|entry| entry.audit_id).collect() }))
}

fn reported(machine_id: MachineId, record: &UploadRecord) -> Result<AuditEntry, ErrorCode> {
    let kind = match AuditKind::from_name(&record.kind) {
        Some(kind @ (AuditKind::ApprovalAnswered | AuditKind::CommandExecuted)) => kind,
        // Recorded at the machine before it acted, because control's word was not there in time.
        Some(kind @ AuditKind::ApprovalIntent) if record.deferred => kind,
        Some(_) | None => return Err(ErrorCode::BadRequest),
    };
    let decision = record.decision.as_deref().map(|name| Decision::from_name(name).ok_or(ErrorCode::BadRequest));
    Ok(AuditEntry {
        deferred: record.deferred,
        machine_id: Some(machine_id),
        device_id: record.device_id,
        approval_id: record.approval_id,
        generation: record.generation,
        command_id: record.command_id,
        command_hash: record.command_hash,
        decision: decision.transpose()?,
        outcome: Some(AuditOutcome::from_name(&record.outcome).ok_or(ErrorCode::BadRequest)?),
        // A newer connector may know more codes; its record counts without one rather than not at all.
        code: record.code.as_deref().and_then(ErrorCode::from_name),
        ..AuditEntry::new(record.audit_id, kind, record.at_ms)
    })
}

async fn append_once(tx: &mut Tx, signed: &Signed, entry: &AuditEntry) -> Result<(), ApiError> {
    match tx.audit_record(signed.scope(), entry.audit_id).await {
        Ok(known) if known.entry == *entry => Ok(()),
        Ok(_) => Err(ErrorCode::Conflict.into()),
        Err(StoreError::NotFound) => {
            tx.append_audit(signed.scope(), entry).await?;
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}
