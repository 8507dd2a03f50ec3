//! Signing in with a recovery code.

use axum::extract::State;
use axum::response::IntoResponse;
use flydex_domain::audit::{AuditEntry, AuditKind};
use flydex_domain::error::ErrorCode;
use flydex_domain::sign_in::{RecoveryCode, SignInMethod};
use flydex_store::StoreError;
use http::{HeaderMap, Method};
use serde::Deserialize;
use utoipa::ToSchema;

use super::begin::{WhoAmI, begin, membership};
use crate::error::{ApiError, ErrorBody};
use crate::extract::{Address, ApiJson};
use crate::principal::require_own_page;
use crate::service::App;

/// A recovery code, as the user typed it.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RecoveryBody {
    code: String,
}

/// Uses a recovery code up and begins an account session.
#[utoipa::path(post, path = "/api/sign-in/recovery", tag = "sign-in", security(()), request_body = RecoveryBody,
    responses((status = 200, body = WhoAmI), (status = "default", body = ErrorBody)))]
pub(crate) async fn sign_in(
    State(control): State<App>,
    address: Address,
    headers: HeaderMap,
    ApiJson(body): ApiJson<RecoveryBody>,
) -> Result<impl IntoResponse, ApiError> {
    require_own_page(&Method::POST, &headers, &control.config.public_origin)?;
    control.rates.recovery.check(address)?;
    let code: RecoveryCode = body.code.parse().map_err(|_| ErrorCode::RecoveryCodeInvalid)?;
    let mut tx = control.store.write().await?;
    let user = match tx.take_recovery_code(&code).await {
        Err(StoreError::NotFound) => return Err(ErrorCode::RecoveryCodeInvalid.into()),
        taken => taken?,
    };
    let user = membership(&mut tx, user.user_id).await?.ok_or(ErrorCode::RecoveryCodeInvalid)?;
    let entry = control.audit_entry(AuditKind::RecoveryCodeUsed, Some(address));
    tx.append_audit(user.principal().scope(), &AuditEntry { user_id: Some(user.user_id), ..entry }).await?;
    begin(&control, tx, &user, SignInMethod::RecoveryCode, address, &headers).await
}
