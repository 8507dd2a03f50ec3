//! Which ways in this server offers, for the sign-in page.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::service::App;

/// The ways in beside links and recovery codes.
#[derive(Serialize, ToSchema)]
pub(crate) struct SignInOptions {
    /// Whether passkeys work at this server's address; browsers know none for a bare IP address.
    passkeys: bool,
    /// The identity provider that the server is set up with.
    #[serde(skip_serializing_if = "Option::is_none")]
    identity_provider: Option<ProviderName>,
}

/// What people call a provider.
#[derive(Serialize, ToSchema)]
pub(crate) struct ProviderName {
    name: String,
}

/// Lists the ways in.
#[utoipa::path(get, path = "/api/sign-in/options", tag = "sign-in", security(()), responses(
    (status = 200, body = SignInOptions)))]
pub(crate) async fn options(State(control): State<App>) -> Json<SignInOptions> {
    let identity_provider = control.provider.as_ref().map(|it| ProviderName { name: it.name().to_owned() });
    Json(SignInOptions { passkeys: control.relying_party.is_possible(), identity_provider })
}
