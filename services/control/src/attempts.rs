//! What takes two steps: the first keeps a challenge under the hash of a token that the browser gets as a cookie, the
//! second uses it up. So an answer counts once, for minutes, and only from the browser that asked.

use flydex_domain::encoding::sha256;
use flydex_domain::error::ErrorCode;
use flydex_domain::limits::ATTEMPT_LIFETIME;
use flydex_store::StoreError;
use flydex_store::sql::{Attempt, AttemptKind};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::cookie;
use crate::error::ApiError;
use crate::principal::Browser;
use crate::service::{Control, random_token};

/// Keeps an attempt; the answer is the header that binds it to the browser. An earlier one of the same browser is
/// forgotten there, and ends by itself.
pub(crate) async fn begin(
    control: &Control,
    kind: AttemptKind,
    attempt: &Attempt,
) -> Result<[(HeaderName, HeaderValue); 1], ApiError> {
    let token = random_token();
    let now = control.now();
    let mut tx = control.store.write().await?;
    tx.begin_attempt(&sha256(&token), kind, attempt, now, now.plus(ATTEMPT_LIFETIME)).await?;
    tx.commit().await?;
    Ok(cookie::set_attempt(&token))
}

/// Uses the browser's attempt up, whatever comes of it.
pub(crate) async fn take(control: &Control, kind: AttemptKind, headers: &HeaderMap) -> Result<Attempt, ApiError> {
    let token = cookie::attempt_token(headers).ok_or(ErrorCode::AttemptInvalid)?;
    let mut tx = control.store.write().await?;
    let attempt = match tx.take_attempt(&sha256(&token), kind, control.now()).await {
        Err(StoreError::NotFound) => return Err(ErrorCode::AttemptInvalid.into()),
        taken => taken?,
    };
    tx.commit().await?;
    Ok(attempt)
}

/// The same, for an attempt that the browser's own account session must have begun.
pub(crate) async fn take_own(
    control: &Control,
    kind: AttemptKind,
    headers: &HeaderMap,
    browser: &Browser,
) -> Result<Attempt, ApiError> {
    let attempt = take(control, kind, headers).await?;
    let own = attempt.account_session_id == Some(browser.session.account_session_id);
    if own { Ok(attempt) } else { Err(ErrorCode::AttemptInvalid.into()) }
}
