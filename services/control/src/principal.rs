//! The browser authenticator: a cookie becomes a principal, and only from pages of our own origin.

use axum::extract::FromRequestParts;
use flydex_domain::encoding::sha256;
use flydex_domain::error::ErrorCode;
use flydex_domain::limits::{ACCOUNT_SESSION_LIFETIME, ACCOUNT_SESSION_ROLL_AFTER};
use flydex_domain::scope::{AccountScope, Role};
use flydex_runtime::origin::PublicOrigin;
use flydex_store::StoreError;
use flydex_store::sql::{AccountSession, SignedIn, User};
use http::request::Parts;
use http::{HeaderMap, Method, header};

use crate::cookie;
use crate::error::ApiError;
use crate::service::{App, Control};

/// A user with an account session.
pub(crate) struct Browser {
    pub(crate) user: User,
    pub(crate) account_name: String,
    pub(crate) session: AccountSession,
    /// The token, to set the cookie anew.
    pub(crate) token: [u8; 32],
}

impl Browser {
    /// The account that every lookup is confined to.
    pub(crate) fn scope(&self) -> AccountScope {
        self.user.principal().scope()
    }

    /// Refuses users below a role.
    pub(crate) fn require(&self, role: Role) -> Result<(), ApiError> {
        if self.user.role >= role { Ok(()) } else { Err(ErrorCode::Forbidden.into()) }
    }

    async fn authenticate(control: &Control, headers: &HeaderMap) -> Result<Self, ApiError> {
        let token = cookie::token(headers).ok_or(ErrorCode::Unauthenticated)?;
        let now = control.now();
        let mut tx = control.store.read().await?;
        let signed_in = match tx.session_by_token(&sha256(&token), now).await {
            Err(StoreError::NotFound) => return Err(ErrorCode::Unauthenticated.into()),
            found => found?,
        };
        drop(tx);
        let SignedIn { user, account_name, mut session } = signed_in;
        if now.since(session.seen_at) >= ACCOUNT_SESSION_ROLL_AFTER {
            session.seen_at = now;
            session.expires_at = now.plus(ACCOUNT_SESSION_LIFETIME);
            let mut tx = control.store.write().await?;
            match tx.roll_session(user.principal().scope(), &session).await {
                Err(StoreError::NotFound) => return Err(ErrorCode::Unauthenticated.into()),
                rolled => rolled?,
            }
            tx.commit().await?;
        }
        Ok(Self { user, account_name, session, token })
    }
}

impl FromRequestParts<App> for Browser {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, control: &App) -> Result<Self, ApiError> {
        require_own_page(&parts.method, &parts.headers, &control.config.public_origin)?;
        Self::authenticate(control, &parts.headers).await
    }
}

/// Whoever asks, from a page of our own: signed in or not.
pub(crate) struct Visitor(pub(crate) Option<Browser>);

impl FromRequestParts<App> for Visitor {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, control: &App) -> Result<Self, ApiError> {
        require_own_page(&parts.method, &parts.headers, &control.config.public_origin)?;
        match Browser::authenticate(control, &parts.headers).await {
            Ok(browser) => Ok(Self(Some(browser))),
            Err(error) if error.code() == ErrorCode::Unauthenticated => Ok(Self(None)),
            Err(error) => Err(error),
        }
    }
}

/// A request that changes something and rests on a cookie must say that it comes from our own page.
pub(crate) fn require_own_page(
    method: &Method,
    headers: &HeaderMap,
    public_origin: &PublicOrigin,
) -> Result<(), ApiError> {
    if method.is_safe() || headers.get(header::ORIGIN).is_some_and(|origin| origin == public_origin.as_str()) {
        return Ok(());
    }
    Err(ErrorCode::OriginRefused.into())
}

/// A request that names another origin is refused whatever it rests on.
pub(crate) fn refuse_foreign_page(headers: &HeaderMap, public_origin: &PublicOrigin) -> Result<(), ApiError> {
    match headers.get(header::ORIGIN) {
        Some(origin) if origin != public_origin.as_str() => Err(ErrorCode::OriginRefused.into()),
        Some(_) | None => Ok(()),
    }
}
