//! The audit: intents before a device accepts, reports of machines afterwards (`upload`), and what owners see of it:
//! searched page by page, or taken away (`export`); and whether an approval may act without its record (`policy`).

pub(crate) mod export;
pub(crate) mod policy;
pub(crate) mod upload;

use axum::Json;
use axum::extract::State;
use flydex_domain::audit::{AuditEntry, AuditKind, AuditOutcome, AuditRecord};
use flydex_domain::command::Decision;
use flydex_domain::error::ErrorCode;
use flydex_domain::id::{ApprovalId, AuditId, CommandHash, CommandId, DeviceId, Generation, MachineId, UserId};
use flydex_domain::limits::{API_PAGE_ROWS_MAX, AUDIT_RECEIPT_LIFETIME};
use flydex_domain::scope::Role;
use flydex_domain::time::UnixMillis;
use flydex_domain::token::AuditReceipt;
use flydex_store::StoreError;
use flydex_store::sql::AuditSearch;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::error::{ApiError, ErrorBody};
use crate::extract::{ApiJson, ApiQuery};
use crate::principal::Browser;
use crate::service::{App, Control};

/// Records of one page when the caller names no number.
const PAGE_ROWS_DEFAULT: u32 = 50;

/// An answer to an approval that a device is about to give.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct IntentBody {
    #[schema(value_type = String)]
    machine_id: MachineId,
    #[schema(value_type = String)]
    device_id: DeviceId,
    #[schema(value_type = String)]
    approval_id: ApprovalId,
    #[schema(value_type = String)]
    generation: Generation,
    /// `accept`, `accept_for_session`, `decline` or `cancel`.
    decision: String,
    #[schema(value_type = String)]
    command_id: CommandId,
    #[schema(value_type = String)]
    command_hash: CommandHash,
}

/// Control's signed word that the intent is on record.
#[derive(Serialize, ToSchema)]
pub(crate) struct IntentRecorded {
    /// PASETO v4.public; it travels with the command.
    audit_receipt: String,
}

/// Which page of the audit; what is not named does not matter.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct PageQuery {
    /// Only records before this number.
    before: Option<u64>,
    /// At most this many, 200 at most.
    limit: Option<u32>,
    /// Only records of this kind.
    kind: Option<String>,
    /// Only records about this machine.
    #[param(value_type = Option<String>)]
    machine_id: Option<MachineId>,
    /// Only records about or from this device.
    #[param(value_type = Option<String>)]
    device_id: Option<DeviceId>,
    /// Only records of what this user did.
    #[param(value_type = Option<String>)]
    user_id: Option<UserId>,
    /// Only records that are not older than this, by their own time.
    #[param(value_type = Option<u64>)]
    since_ms: Option<UnixMillis>,
    /// Only records that are older than this.
    #[param(value_type = Option<u64>)]
    until_ms: Option<UnixMillis>,
}

impl PageQuery {
    fn search(&self) -> Result<AuditSearch, ErrorCode> {
        let kind = self.kind.as_deref().map(|name| AuditKind::from_name(name).ok_or(ErrorCode::BadRequest));
        Ok(AuditSearch {
            kind: kind.transpose()?,
            machine_id: self.machine_id,
            device_id: self.device_id,
            user_id: self.user_id,
            since: self.since_ms,
            until: self.until_ms,
        })
    }
}

/// A page of the audit, newest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct Page {
    records: Vec<RecordJson>,
    /// Where the next page begins, when there is one; a page of a search may be empty and have a next one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_before: Option<u64>,
}

#[derive(Serialize, ToSchema)]
struct RecordJson {
    number: u64,
    #[schema(value_type = String)]
    audit_id: AuditId,
    kind: &'static str,
    #[schema(value_type = u64)]
    at_ms: UnixMillis,
    deferred: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    user_id: Option<UserId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    machine_id: Option<MachineId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    device_id: Option<DeviceId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    approval_id: Option<ApprovalId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    command_id: Option<CommandId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
}

/// Records that a device is about to answer an approval. The receipt is signed once the record is durable.
#[utoipa::path(post, path = "/api/audit/intents", tag = "audit", security(("cookie" = [])),
    request_body = IntentBody, responses(
    (status = 200, body = IntentRecorded), (status = "default", body = ErrorBody)))]
pub(crate) async fn record_intent(
    State(control): State<App>,
    browser: Browser,
    ApiJson(body): ApiJson<IntentBody>,
) -> Result<Json<IntentRecorded>, ApiError> {
    browser.require(Role::Operator)?;
    control.rates.intents.check(browser.user.account_id)?;
    let entry = intent(&control, &browser, &body)?;
    let scope = browser.scope();
    let mut tx = control.store.write().await?;
    if tx.machine(scope, body.machine_id).await?.revoked {
        return Err(ErrorCode::NotFound.into());
    }
    if tx.device(scope, body.device_id).await?.user_id != browser.user.user_id {
        return Err(ErrorCode::NotFound.into());
    }
    let audit_id = match tx.audit_intent(scope, body.device_id, body.command_id).await {
        Ok(known) if is_repeat(&known.entry, &entry) => known.entry.audit_id,
        Ok(_) => return Err(ErrorCode::CommandIdReused.into()),
        Err(StoreError::NotFound) => {
            tx.append_audit(scope, &entry).await?;
            entry.audit_id
        }
        Err(error) => return Err(error.into()),
    };
    tx.commit().await?;
    let receipt = AuditReceipt {
        audit_id,
        account_id: scope.account_id(),
        machine_id: body.machine_id,
        device_id: body.device_id,
        approval_id: body.approval_id,
        generation: body.generation,
        command_id: body.command_id,
        command_hash: body.command_hash,
        expires_at: control.now().plus(AUDIT_RECEIPT_LIFETIME),
    };
    Ok(Json(IntentRecorded { audit_receipt: control.tokens.sign(&receipt) }))
}

/// Searches the account's audit, newest first; without a condition it lists all of it.
#[utoipa::path(get, path = "/api/audit", tag = "audit", security(("cookie" = [])), params(PageQuery), responses(
    (status = 200, body = Page), (status = "default", body = ErrorBody)))]
pub(crate) async fn list(
    State(control): State<App>,
    browser: Browser,
    ApiQuery(query): ApiQuery<PageQuery>,
) -> Result<Json<Page>, ApiError> {
    browser.require(Role::Owner)?;
    let search = query.search()?;
    let rows_max = query.limit.unwrap_or(PAGE_ROWS_DEFAULT).clamp(1, API_PAGE_ROWS_MAX);
    let mut tx = control.store.read().await?;
    let page = tx.search_audit(browser.scope(), &search, query.before, rows_max).await?;
    let records = page.records.into_iter().map(record_json).collect();
    Ok(Json(Page { records, next_before: page.next_before }))
}

fn intent(control: &Control, browser: &Browser, body: &IntentBody) -> Result<AuditEntry, ApiError> {
    let decision = Decision::from_name(&body.decision).ok_or(ErrorCode::BadRequest)?;
    Ok(AuditEntry {
        user_id: Some(browser.user.user_id),
        machine_id: Some(body.machine_id),
        device_id: Some(body.device_id),
        approval_id: Some(body.approval_id),
        generation: Some(body.generation),
        command_id: Some(body.command_id),
        command_hash: Some(body.command_hash),
        decision: Some(decision),
        ..control.audit_entry(AuditKind::ApprovalIntent, None)
    })
}

/// Whether an intent says what the recorded one says, whenever it was said.
fn is_repeat(known: &AuditEntry, asked: &AuditEntry) -> bool {
    *known == AuditEntry { audit_id: known.audit_id, at: known.at, ..asked.clone() }
}

fn record_json(record: AuditRecord) -> RecordJson {
    let AuditRecord { number, entry, .. } = record;
    RecordJson {
        number,
        audit_id: entry.audit_id,
        kind: entry.kind.name(),
        at_ms: entry.at,
        deferred: entry.deferred,
        user_id: entry.user_id,
        machine_id: entry.machine_id,
        device_id: entry.device_id,
        approval_id: entry.approval_id,
        command_id: entry.command_id,
        decision: entry.decision.map(Decision::name),
        outcome: entry.outcome.map(AuditOutcome::name),
        code: entry.code.map(ErrorCode::name),
    }
}
