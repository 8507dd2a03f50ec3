//! A span for each request: it continues the trace that the request names, and the answer says where it is found.
//!
//! The span has the route's template, never the path or the query, which hold ids and more.

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::middleware::{self, Next};
use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use tracing::Instrument as _;
use tracing::field::Empty;

use crate::telemetry::trace::Traceparent;

/// The trace that a request belongs to (W3C Trace Context).
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// The span that answered it (W3C Trace Context, level 2).
const TRACERESPONSE: HeaderName = HeaderName::from_static("traceresponse");
/// The route of a request that no route is for.
pub const UNMATCHED: &str = "unmatched";

/// Gives every request of a router its span.
pub fn traced(router: Router) -> Router {
    router.layer(middleware::from_fn(trace))
}

/// The template of the route that a request was matched to.
#[must_use]
pub fn route(request: &Request) -> &str {
    request.extensions().get::<MatchedPath>().map_or(UNMATCHED, MatchedPath::as_str)
}

async fn trace(request: Request, next: Next) -> Response {
    let (method, route) = (method_name(request.method()), route(&request));
    let name = format!("{method} {route}");
    let span = tracing::info_span!(
        "request",
        otel.name = name,
        otel.kind = "server",
        otel.status_code = Empty,
        http.method = method,
        http.route = route,
        http.status = Empty,
    );
    if let Some(parent) = parent(request.headers()) {
        parent.adopt(&span);
    }
    let own = Traceparent::of(&span);
    let mut response = next.run(request).instrument(span.clone()).await;
    let status = response.status();
    span.record("http.status", status.as_u16());
    if status.is_server_error() {
        span.record("otel.status_code", "error");
    }
    if let Some(own) = own.and_then(|own| HeaderValue::from_str(&own.to_header()).ok()) {
        response.headers_mut().insert(TRACERESPONSE, own);
    }
    response
}

/// The trace of a request; one that names several names none.
fn parent(headers: &HeaderMap) -> Option<Traceparent> {
    let mut named = headers.get_all(TRACEPARENT).into_iter();
    let text = named.next()?.to_str().ok()?;
    if named.next().is_some() { None } else { Traceparent::from_header(text) }
}

/// A method by name; the rest are one, since anyone may make up more.
fn method_name(method: &Method) -> &'static str {
    const KNOWN: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    KNOWN.into_iter().find(|known| method.as_str() == *known).unwrap_or("OTHER")
}

#[cfg(test)]
mod tests;
