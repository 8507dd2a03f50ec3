//! Recovery codes: ten at a time, shown once, for who loses their passkeys.

use axum::Json;
use axum::extract::State;
use flydex_domain::audit::{AuditEntry, AuditKind};
use flydex_domain::limits::RECOVERY_CODES;
use flydex_domain::sign_in::RecoveryCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::{ApiError, ErrorBody};
use crate::extract::NoBody;
use crate::principal::Browser;
use crate::service::App;

/// New recovery codes; they are not shown again.
#[derive(Serialize, ToSchema)]
pub(crate) struct RecoveryCodes {
    codes: Vec<String>,
}

/// Makes recovery codes in place of every earlier one.
#[utoipa::path(post, path = "/api/recovery-codes", tag = "ways in", security(("cookie" = [])), responses(
    (status = 200, body = RecoveryCodes), (status = "default", body = ErrorBody)))]
pub(crate) async fn create(
    State(control): State<App>,
    browser: Browser,
    _: NoBody,
) -> Result<Json<RecoveryCodes>, ApiError> {
    let now = control.now();
    browser.require_fresh(now)?;
    let codes: Vec<_> = (0..RECOVERY_CODES).map(|_| RecoveryCode::new(rand::random())).collect();
    let scope = browser.scope();
    let user_id = browser.user.user_id;
    let mut tx = control.store.write().await?;
    tx.replace_recovery_codes(scope, user_id, &codes, now).await?;
    let entry = control.audit_entry(AuditKind::RecoveryCodesCreated, None);
    tx.append_audit(scope, &AuditEntry { user_id: Some(user_id), ..entry }).await?;
    tx.commit().await?;
    Ok(Json(RecoveryCodes { codes: codes.iter().map(RecoveryCode::expose).collect() }))
}
