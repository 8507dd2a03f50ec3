//! What anyone may know: where the regions are and which keys tokens verify with.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::config::Region;
use crate::service::App;
use crate::wire::{TokenKey, token_keys};

/// Every region.
#[derive(Serialize, ToSchema)]
pub(crate) struct Regions {
    regions: Vec<Region>,
}

/// The control plane's public keys.
#[derive(Serialize, ToSchema)]
pub(crate) struct Keys {
    token_keys: Vec<TokenKey>,
}

/// Lists where sessions and links are opened.
#[utoipa::path(get, path = "/api/regions", tag = "regions", security(()), responses((status = 200, body = Regions)))]
pub(crate) async fn list(State(control): State<App>) -> Json<Regions> {
    Json(Regions { regions: control.config.regions.clone() })
}

/// Lists the keys that tokens verify with.
#[utoipa::path(get, path = "/api/keys", tag = "regions", security(()), responses((status = 200, body = Keys)))]
pub(crate) async fn keys(State(control): State<App>) -> Json<Keys> {
    Json(Keys { token_keys: token_keys(&control.tokens.verifier) })
}
