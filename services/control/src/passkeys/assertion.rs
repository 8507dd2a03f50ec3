//! One verification of an assertion for all who take one: the counter is read, checked and kept in one change.

use flydex_domain::audit::{AuditEntry, AuditKind};
use flydex_domain::error::ErrorCode;
use flydex_store::StoreError;
use flydex_store::sql::{Tx, User};
use serde::Deserialize;
use utoipa::ToSchema;
use uuid::Uuid;
use webauthn_rs::prelude::PublicKeyCredential;

use crate::error::ApiError;
use crate::extract::Address;
use crate::service::Control;

/// What an authenticator signed.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AssertionBody {
    /// `PublicKeyCredential.toJSON()`.
    #[schema(value_type = Object)]
    credential: PublicKeyCredential,
}

impl AssertionBody {
    /// Whose passkey it is, as the authenticator says.
    pub(crate) fn user_id(&self) -> Option<Uuid> {
        self.credential.get_user_unique_id().and_then(|bytes| Uuid::from_slice(bytes).ok())
    }
}

/// Verifies an assertion of a passkey of a user's person. The open change holds its new counter and is the caller's to
/// commit.
pub(crate) async fn verify_assertion(
    control: &Control,
    body: &AssertionBody,
    state: &str,
    user: &User,
    address: Address,
) -> Result<Tx, ApiError> {
    let credential_id = body.credential.get_credential_id();
    let mut tx = control.store.write().await?;
    let passkey = match tx.passkey_by_credential(credential_id, user.user_id).await {
        Err(StoreError::NotFound) => return Err(ErrorCode::PasskeyRefused.into()),
        found => found?,
    };
    match control.relying_party.verify(&body.credential, state, &passkey) {
        Ok(stored) => tx.use_passkey(passkey.passkey_id, &stored, control.now()).await?,
        Err(error) if error.code() == ErrorCode::PasskeyCloned => {
            let scope = user.principal().scope();
            let entry = control.audit_entry(AuditKind::PasskeyCloned, Some(address));
            tx.append_audit(scope, &AuditEntry { user_id: Some(user.user_id), ..entry }).await?;
            tx.commit().await?;
            tracing::warn!(account.id = %scope.account_id(), "passkey's counter went back");
            return Err(error);
        }
        Err(error) => return Err(error),
    }
    Ok(tx)
}
