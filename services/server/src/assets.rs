//! The web app, embedded at build time, with the headers that keep its device keys safe.
//!
//! Whoever serves it controls the code that uses device keys. It can have an origin of its own, whose process holds no
//! secret and reaches no database (the role `web`); then [`WHERE_THE_API_IS`] leads from there to the API.

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use flydex_runtime::origin::PublicOrigin;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use rust_embed::{EmbeddedFile, RustEmbed};
use serde::Serialize;

#[derive(RustEmbed)]
#[folder = "../web/dist"]
#[allow_missing = true]
struct Dist;

const INDEX: &str = "index.html";
/// Nothing from elsewhere, no inline script, no framing, and connections to this origin only.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
font-src 'self'; connect-src 'self'; manifest-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; \
frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types flydex-worker";

/// Where browsers and connectors that know the relay by its origin learn where its API is.
pub const WHERE_THE_API_IS: &str = "/.well-known/flydex.json";

#[derive(Clone, Serialize)]
struct Whereabouts {
    api_origin: String,
}

/// Serves the web app: files as they are, and its start page for every other path that a browser navigates to.
pub fn router(api: &PublicOrigin) -> Router {
    let whereabouts = Whereabouts { api_origin: api.as_str().to_owned() };
    let whereabouts = get(async move || ([(header::CACHE_CONTROL, "no-cache")], Json(whereabouts.clone())));
    Router::new().route(WHERE_THE_API_IS, whereabouts).fallback(serve)
}

/// Whether a web app was embedded; without it the server answers the API only.
#[must_use]
pub fn is_embedded() -> bool {
    Dist::get(INDEX).is_some()
}

async fn serve(request: Request<Body>) -> Response {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    let path = request.uri().path().trim_start_matches('/');
    if let Some(file) = Dist::get(path).filter(|_| !path.is_empty()) {
        return answer(path, &file, request.headers());
    }
    if path.contains('.') {
        return StatusCode::NOT_FOUND.into_response();
    }
    match Dist::get(INDEX) {
        Some(file) => answer(INDEX, &file, request.headers()),
        None => {
            (StatusCode::NOT_FOUND, "the web app is not part of this build; run `cargo xtask web`\n").into_response()
        }
    }
}

fn answer(path: &str, file: &EmbeddedFile, asked: &HeaderMap) -> Response {
    let etag = etag(file);
    let fresh = asked.get(header::IF_NONE_MATCH).is_some_and(|known| known == etag);
    let mut response = if fresh {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        Response::new(Body::from(file.data.clone().into_owned()))
    };
    let headers = response.headers_mut();
    let content_type = HeaderValue::from_str(file.metadata.mimetype());
    headers.insert(header::CONTENT_TYPE, content_type.unwrap_or(HeaderValue::from_static("application/octet-stream")));
    headers.insert(header::ETAG, etag);
    // Names under assets/ carry a hash of their content.
    let cache = if path.starts_with("assets/") { "public, max-age=31536000, immutable" } else { "no-cache" };
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    response
}

fn etag(file: &EmbeddedFile) -> HeaderValue {
    let hash = file.metadata.sha256_hash();
    let hex: String = hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    HeaderValue::from_str(&format!("\"{hex}\"")).unwrap_or(HeaderValue::from_static("\"\""))
}

/// The security headers of every answer. Beside its own origin the web app connects to those in `elsewhere`: an API,
/// and gateways as `wss://host[:port]`.
#[must_use]
pub fn security_headers(https: bool, elsewhere: &[&str]) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = vec![
        (header::CONTENT_SECURITY_POLICY, content_security_policy(elsewhere)),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
        (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
        (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
        (
            HeaderName::from_static("permissions-policy"),
            HeaderValue::from_static("camera=(self), microphone=(), geolocation=(), payment=(), usb=()"),
        ),
    ];
    if https {
        headers
            .push((header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=63072000; includeSubDomains")));
    }
    headers
}

fn content_security_policy(elsewhere: &[&str]) -> HeaderValue {
    let own = "connect-src 'self'";
    let sources = [&[own], elsewhere].concat().join(" ");
    // An address that no header can hold is no address; then nothing is added.
    HeaderValue::from_str(&CONTENT_SECURITY_POLICY.replace(own, &sources))
        .unwrap_or(HeaderValue::from_static(CONTENT_SECURITY_POLICY))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_web_app_connects_to_its_api_and_gateways_and_nowhere_else() {
        let policy = content_security_policy(&["wss://eu.example", "wss://us.example:444"]);
        assert!(policy.to_str().unwrap().contains("; connect-src 'self' wss://eu.example wss://us.example:444; "));
        assert_eq!(content_security_policy(&[]), CONTENT_SECURITY_POLICY);
    }
}
