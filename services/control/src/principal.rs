//! The browser authenticator: a cookie becomes a principal, and only from pages of our own origin.

use axum::extract::FromRequestParts;
use flydex_domain::encoding::sha256;
use flydex_domain::error::ErrorCode;
use flydex_domain::limits::{ACCOUNT_SESSION_LIFETIME, ACCOUNT_SESSION_ROLL_AFTER};
use flydex_domain::scope::{AccountScope, Role};
use flydex_domain::time::UnixMillis;
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
    /// How many passkeys the user has.
    pub(crate) passkeys: u64,
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

    /// Refuses a session whose person has not proved for minutes that they are there. To be asked after the role and
    /// before anything that enrols, deletes or promotes, or that makes another way in.
    pub(crate) fn require_fresh(&self, now: UnixMillis) -> Result<(), ApiError> {
        let fresh = self.session.presence().is_fresh(self.passkeys > 0, now);
        if fresh { Ok(()) } else { Err(ErrorCode::FreshAssertionRequired.into()) }
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
        let SignedIn { user, account_name, mut session, passkeys } = signed_in;
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
        Ok(Self { user, account_name, session, passkeys, token })
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

/// What browsers say of who made a request; programs say nothing.
const FETCH_SITE: &str = "sec-fetch-site";

/// A request that names another origin, or that a browser says another site made, is refused whatever it rests on. The
/// web app may have an origin of its own within the site: then the origin alone decides.
pub(crate) fn refuse_foreign_page(headers: &HeaderMap, public_origin: &PublicOrigin) -> Result<(), ApiError> {
    let foreign_origin = headers.get(header::ORIGIN).is_some_and(|origin| origin != public_origin.as_str());
    let foreign_site = headers.get(FETCH_SITE).is_some_and(|site| site != "same-origin" && site != "same-site");
    if foreign_origin || foreign_site { Err(ErrorCode::OriginRefused.into()) } else { Ok(()) }
}
