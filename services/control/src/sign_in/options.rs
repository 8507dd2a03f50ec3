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
}

/// Lists the ways in.
#[utoipa::path(get, path = "/api/sign-in/options", tag = "sign-in", security(()), responses(
    (status = 200, body = SignInOptions)))]
pub(crate) async fn options(State(control): State<App>) -> Json<SignInOptions> {
    Json(SignInOptions { passkeys: control.relying_party.is_possible() })
}
