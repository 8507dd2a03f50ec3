//! The audit to take away: every record as a line, and the head of the chain under control's signature.
//!
//! An export is written page by page as fast as it is read, in bounded memory, each page from a view of its own: records
//! are only ever appended, so the pages fit each other. It ends at the head that was there when it began.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use flydex_domain::audit::export::Line;
use flydex_domain::audit::head::{HeadClaims, SignedHead};
use flydex_domain::id::AccountId;
use flydex_domain::scope::{AccountScope, Role};
use flydex_domain::time::UnixMillis;
use flydex_store::StoreError;
use futures_util::stream;
use http::{HeaderValue, header};
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::{ApiError, ErrorBody};
use crate::principal::Browser;
use crate::service::{App, Control};
use crate::wire::{Base64, TokenKey, token_keys};

/// The head of the account's chain, to be kept: with it nobody can cut or rewrite what came before unseen.
#[derive(Serialize, ToSchema)]
pub(crate) struct HeadJson {
    /// PASETO v4.public over the fields below; it never ends.
    head: String,
    #[schema(value_type = String)]
    account_id: AccountId,
    /// The newest record.
    number: u64,
    /// Its hash.
    #[schema(value_type = String)]
    hash: Base64<32>,
    #[schema(value_type = u64)]
    signed_at_ms: UnixMillis,
    /// The keys that it verifies with, as `/api/keys` has them now.
    token_keys: Vec<TokenKey>,
}

/// Signs the head of the account's chain.
#[utoipa::path(get, path = "/api/audit/head", tag = "audit", security(("cookie" = [])), responses(
    (status = 200, body = HeadJson), (status = "default", body = ErrorBody)))]
pub(crate) async fn head(State(control): State<App>, browser: Browser) -> Result<Json<HeadJson>, ApiError> {
    browser.require(Role::Owner)?;
    control.rates.exports.check(browser.user.account_id)?;
    let (claims, SignedHead(head)) = signed_head(&control, browser.scope()).await?;
    Ok(Json(HeadJson {
        head,
        account_id: claims.account_id,
        number: claims.number,
        hash: Base64(claims.head().hash),
        signed_at_ms: claims.signed_at,
        token_keys: token_keys(&control.tokens.verifier),
    }))
}

/// Exports the account's whole audit as JSON lines, oldest first; the last line is `{"head": …}`. Each record has its
/// number, `previous_hash` and `hash`: `flydex-server audit verify --export` checks it without the server.
#[utoipa::path(get, path = "/api/audit/export", tag = "audit", security(("cookie" = [])), responses(
    (status = 200, body = String, content_type = "application/x-ndjson"), (status = "default", body = ErrorBody)))]
pub(crate) async fn export(State(control): State<App>, browser: Browser) -> Result<Response, ApiError> {
    browser.require(Role::Owner)?;
    control.rates.exports.check(browser.user.account_id)?;
    let scope = browser.scope();
    let (claims, signed) = signed_head(&control, scope).await?;
    let begun = Export { control, scope, number: 0, last: claims.number, head: Some(signed) };
    let lines = stream::try_unfold(begun, async |export| export.next().await);
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson")),
        (header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment; filename=\"flydex-audit.ndjson\"")),
    ];
    Ok((headers, Body::from_stream(lines)).into_response())
}

async fn signed_head(control: &Control, scope: AccountScope) -> Result<(HeadClaims, SignedHead), ApiError> {
    let head = control.store.read().await?.audit_head(scope).await?;
    let claims = HeadClaims::new(scope.account_id(), head, control.now());
    let signed = SignedHead(control.tokens.sign(&claims));
    Ok((claims, signed))
}

/// An export under way.
struct Export {
    control: App,
    scope: AccountScope,
    /// The record that was written last.
    number: u64,
    /// The record that is to be the last.
    last: u64,
    /// What ends it, until it is written.
    head: Option<SignedHead>,
}

impl Export {
    /// The next lines, until the head was written.
    async fn next(mut self) -> Result<Option<(String, Self)>, StoreError> {
        let mut lines = String::new();
        if self.number < self.last {
            let records = self.control.store.read().await?.audit_after(self.scope, self.number).await?;
            if records.is_empty() {
                // Somebody has cut the chain meanwhile; what was written so far does not end in a head.
                return Err(StoreError::NotFound);
            }
            for record in records.into_iter().filter(|record| record.number <= self.last) {
                self.number = record.number;
                lines.push_str(&Line::Record(self.scope.account_id(), Box::new(record)).write());
                lines.push('\n');
            }
        } else if let Some(head) = self.head.take() {
            lines.push_str(&Line::Head(head).write());
            lines.push('\n');
        } else {
            return Ok(None);
        }
        Ok(Some((lines, self)))
    }
}
