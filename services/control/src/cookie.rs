//! The cookies of the account session and of an attempt to sign in, invisible to scripts and to other sites.

use axum_extra::extract::cookie::{Cookie, SameSite};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use flydex_domain::limits::{ACCOUNT_SESSION_LIFETIME, ATTEMPT_LIFETIME};
use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::wire::decode;

/// The account session's name; browsers keep `__Host-` cookies to one host and to https.
pub(crate) const NAME: &str = "__Host-flydex";

/// The name of what binds the second step of an attempt to the browser that took the first.
pub(crate) const ATTEMPT_NAME: &str = "__Host-flydex-attempt";

/// The header that gives a browser the token of an attempt.
pub(crate) fn set_attempt(token: &[u8; 32]) -> [(HeaderName, HeaderValue); 1] {
    header_with(&format!("{ATTEMPT_NAME}={}; Max-Age={}", URL_SAFE_NO_PAD.encode(token), ATTEMPT_LIFETIME.as_secs()))
}

/// The token of an attempt that a browser shows, if it shows one of the right form.
pub(crate) fn attempt_token(headers: &HeaderMap) -> Option<[u8; 32]> {
    token_in(headers, ATTEMPT_NAME)
}

/// The header that gives a browser its token.
pub(crate) fn set(token: &[u8; 32]) -> [(HeaderName, HeaderValue); 1] {
    let seconds = i64::try_from(ACCOUNT_SESSION_LIFETIME.as_secs()).unwrap_or(i64::MAX);
    header_with(&format!("{NAME}={}; Max-Age={seconds}", URL_SAFE_NO_PAD.encode(token)))
}

/// The header that takes the token away.
pub(crate) fn clear() -> [(HeaderName, HeaderValue); 1] {
    header_with(&format!("{NAME}=; Max-Age=0"))
}

/// The token that a browser shows, if it shows one of the right form.
pub(crate) fn token(headers: &HeaderMap) -> Option<[u8; 32]> {
    token_in(headers, NAME)
}

fn token_in(headers: &HeaderMap, name: &str) -> Option<[u8; 32]> {
    let cookies = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let cookie = cookies.flat_map(Cookie::split_parse).flatten().find(|cookie| cookie.name() == name)?;
    decode(cookie.value())
}

fn header_with(pair: &str) -> [(HeaderName, HeaderValue); 1] {
    let same_site = SameSite::Strict;
    let cookie = format!("{pair}; Path=/; Secure; HttpOnly; SameSite={same_site}");
    let value = HeaderValue::try_from(cookie).expect("a cookie of base64 and fixed words is a header value");
    [(header::SET_COOKIE, value)]
}
