//! Watching a pairing: its connector and the browser that redeemed it ask where it stands, and wait for changes.

use std::time::Duration;

use axum::Json;
use axum::extract::{FromRequestParts, State};
use flydex_domain::error::ErrorCode;
use flydex_domain::id::{AccountId, LocalConnectId, MachineId};
use flydex_domain::limits::LONG_POLL_MAX;
use flydex_domain::scope::{Principal, Role};
use flydex_domain::status::LocalConnectStatus;
use flydex_domain::time::UnixMillis;
use flydex_domain::token::EncodedKey;
use flydex_store::sql::LocalConnect;
use http::header;
use http::request::Parts;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{bearer, of_connector};
use crate::claims::is_redeemer;
use crate::error::{ApiError, ErrorBody};
use crate::extract::{ApiQuery, PathId};
use crate::principal::Browser;
use crate::service::{App, Control};
use crate::waiters::Side;
use crate::wire::{Base64, PublicKeyJson};

/// How long to wait, and for what.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct PollQuery {
    /// Milliseconds, 10,000 at most; none without `after`.
    wait_ms: Option<u64>,
    /// Wait while the status is this one and nothing changed since this side was last told.
    #[param(value_type = Option<String>)]
    after: Option<LocalConnectStatus>,
}

/// Where a pairing stands.
#[derive(Serialize, ToSchema)]
pub(crate) struct LocalConnectJson {
    #[schema(value_type = String)]
    local_connect_id: LocalConnectId,
    #[schema(value_type = String)]
    status: LocalConnectStatus,
    /// Why it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[schema(value_type = String)]
    machine_id: MachineId,
    #[schema(value_type = String)]
    role: Role,
    /// The end of the claim, as both MACs cover it.
    #[schema(value_type = u64)]
    expires_at_ms: UnixMillis,
    /// The end of the pairing.
    #[schema(value_type = u64)]
    ends_at_ms: UnixMillis,
    /// Grows with each change.
    revision: u64,
    /// From the redeem on.
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<AccountJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<SideJson>,
    machine: SideJson,
}

#[derive(Serialize, ToSchema)]
struct AccountJson {
    #[schema(value_type = String)]
    account_id: AccountId,
    name: String,
}

#[derive(Serialize, ToSchema)]
struct SideJson {
    #[schema(value_type = PublicKeyJson)]
    key: EncodedKey,
    label: String,
    /// Once this side has given it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    mac: Option<Base64<32>>,
}

/// Tells where a pairing stands, to its connector and to the browser that redeemed it; waits if asked to.
#[utoipa::path(get, path = "/api/local-connect/{id}", tag = "pairing",
    security(("cookie" = []), ("local_connect" = [])),
    params(("id" = String, Path), PollQuery),
    responses((status = 200, body = LocalConnectJson), (status = "default", body = ErrorBody)))]
pub(crate) async fn get(
    State(control): State<App>,
    PathId(id): PathId<LocalConnectId>,
    ApiQuery(query): ApiQuery<PollQuery>,
    caller: Caller,
) -> Result<Json<LocalConnectJson>, ApiError> {
    let wait = Duration::from_millis(query.wait_ms.unwrap_or_default()).min(LONG_POLL_MAX);
    let stopped = control.shutdown.soft();
    // The caller proves its right before it takes a place among the polls.
    let (mut local_connect, side) = load(&control, id, &caller).await?;
    if !wait.is_zero() && query.after.is_some() {
        let place = control.waiters.place(id, local_connect.lifecycle.ends_at, control.now())?;
        let _waiting = control.metrics.waiting_poll();
        let deadline = tokio::time::sleep(wait);
        tokio::pin!(deadline);
        loop {
            // Registered before the row is read: a change in between still wakes.
            let changed = place.changed().notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            (local_connect, _) = load(&control, id, &caller).await?;
            let waits = query.after == Some(local_connect.lifecycle.stage.status());
            if !waits || !control.waiters.was_told(id, side, local_connect.revision) {
                break;
            }
            tokio::select! {
                () = changed => {}
                () = &mut deadline => break,
                () = stopped.cancelled() => break,
            }
        }
        control.waiters.tell(id, side, local_connect.revision);
    }
    answer(&control, &local_connect).await.map(Json)
}

/// Who asks about a pairing.
pub(crate) enum Caller {
    /// A connector, by the hash of its bearer token.
    Connector([u8; 32]),
    /// A signed-in browser.
    Browser(Box<Browser>),
}

impl FromRequestParts<App> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, control: &App) -> Result<Self, ApiError> {
        if parts.headers.contains_key(header::AUTHORIZATION) {
            return bearer(&parts.headers).map(Self::Connector);
        }
        Browser::from_request_parts(parts, control).await.map(|browser| Self::Browser(Box::new(browser)))
    }
}

async fn load(control: &Control, id: LocalConnectId, caller: &Caller) -> Result<(LocalConnect, Side), ApiError> {
    let mut tx = control.store.read().await?;
    let (mut local_connect, side) = match caller {
        Caller::Connector(token_sha256) => (of_connector(&mut tx, id, token_sha256).await?, Side::Connector),
        Caller::Browser(browser) => {
            let local_connect = tx.local_connect(id).await?;
            if !local_connect.browser.as_ref().is_some_and(|side| is_redeemer(side, browser)) {
                return Err(ErrorCode::NotFound.into());
            }
            (local_connect, Side::Browser)
        }
    };
    local_connect.lifecycle = local_connect.lifecycle.at(control.now());
    Ok((local_connect, side))
}

async fn answer(control: &Control, local_connect: &LocalConnect) -> Result<LocalConnectJson, ApiError> {
    let account = match &local_connect.browser {
        None => None,
        Some(side) => {
            let machine = Principal::Machine { account_id: side.account_id, machine_id: local_connect.machine_id };
            let account = control.store.read().await?.account(machine.scope()).await?;
            Some(AccountJson { account_id: account.account_id, name: account.name })
        }
    };
    let device = local_connect.browser.as_ref().map(|side| SideJson {
        key: EncodedKey(side.device_key),
        label: side.device_label.clone(),
        mac: side.device_mac.map(Base64),
    });
    let stage = local_connect.lifecycle.stage;
    Ok(LocalConnectJson {
        local_connect_id: local_connect.local_connect_id,
        status: stage.status(),
        code: stage.code().map(ErrorCode::name),
        machine_id: local_connect.machine_id,
        role: local_connect.role,
        expires_at_ms: local_connect.lifecycle.claim_expires_at,
        ends_at_ms: local_connect.lifecycle.ends_at,
        revision: local_connect.revision,
        account,
        device,
        machine: SideJson {
            key: EncodedKey(local_connect.machine_key),
            label: local_connect.machine_label.clone(),
            mac: local_connect.machine_mac.map(Base64),
        },
    })
}
