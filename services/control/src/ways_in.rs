//! What lets a user in: their passkeys, their identities at a provider, and how many recovery codes are left.

use axum::Json;
use axum::extract::State;
use flydex_domain::id::{IdentityId, PasskeyId};
use flydex_domain::sign_in::WaysIn;
use flydex_domain::time::UnixMillis;
use flydex_store::sql::{Passkey, Tx};
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::{ApiError, ErrorBody};
use crate::principal::Browser;
use crate::service::{App, Control};

/// A user's ways in.
#[derive(Serialize, ToSchema)]
pub(crate) struct WaysInJson {
    passkeys: Vec<PasskeyJson>,
    identities: Vec<IdentityJson>,
    recovery_codes_left: u64,
}

/// One passkey of a user.
#[derive(Serialize, ToSchema)]
pub(crate) struct PasskeyJson {
    #[schema(value_type = String)]
    passkey_id: PasskeyId,
    label: String,
    #[schema(value_type = u64)]
    created_at_ms: UnixMillis,
    /// When it last signed somebody in.
    #[schema(value_type = Option<u64>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    used_at_ms: Option<UnixMillis>,
}

/// A user's link with an identity. What the provider calls them stays here.
#[derive(Serialize, ToSchema)]
pub(crate) struct IdentityJson {
    #[schema(value_type = String)]
    identity_id: IdentityId,
    issuer: String,
    #[schema(value_type = u64)]
    created_at_ms: UnixMillis,
}

impl From<Passkey> for PasskeyJson {
    fn from(passkey: Passkey) -> Self {
        Self {
            passkey_id: passkey.passkey_id,
            label: passkey.label,
            created_at_ms: passkey.created_at,
            used_at_ms: passkey.used_at,
        }
    }
}

/// Lists the user's ways in.
#[utoipa::path(get, path = "/api/ways-in", tag = "ways in", security(("cookie" = [])), responses(
    (status = 200, body = WaysInJson), (status = "default", body = ErrorBody)))]
pub(crate) async fn list(State(control): State<App>, browser: Browser) -> Result<Json<WaysInJson>, ApiError> {
    let (scope, user_id) = (browser.scope(), browser.user.user_id);
    let mut tx = control.store.read().await?;
    let passkeys = tx.passkeys(scope, user_id).await?.into_iter().map(PasskeyJson::from).collect();
    let identities = tx.identities(scope, user_id).await?.into_iter().map(|identity| IdentityJson {
        identity_id: identity.identity_id,
        issuer: identity.issuer,
        created_at_ms: identity.created_at,
    });
    let identities = identities.collect();
    let recovery_codes_left = tx.recovery_codes_left(scope, user_id).await?;
    Ok(Json(WaysInJson { passkeys, identities, recovery_codes_left }))
}

/// Counts the ways in of a browser's user. Identities count where their provider is the one that the server has now.
pub(crate) async fn count(tx: &mut Tx, control: &Control, browser: &Browser) -> Result<WaysIn, ApiError> {
    let (scope, user_id) = (browser.scope(), browser.user.user_id);
    let issuer = control.provider.as_ref().map(|provider| provider.issuer());
    let identities = tx.identities(scope, user_id).await?;
    let identities = identities.iter().filter(|identity| Some(identity.issuer.as_str()) == issuer).count();
    let passkeys = tx.passkeys(scope, user_id).await?.len();
    Ok(WaysIn {
        passkeys: u64::try_from(passkeys).unwrap_or(u64::MAX),
        identities: u64::try_from(identities).unwrap_or(u64::MAX),
        recovery_codes: tx.recovery_codes_left(scope, user_id).await?,
    })
}
