//! Who may ask the helper for what: a pure decision over method, path and headers.

use axum::http::{HeaderMap, HeaderName, Method, Uri, header};

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What a request may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// Nothing.
    Refused,
    /// It asks, for the relay's page, whether it may ask.
    Preflight,
    /// It asks what the relay's page may ask, or is a local program that no browser drives.
    Relay,
    /// It is for the connector's own page; the token decides.
    Page,
}

/// Decides over one request to the helper on `port`, whose relay is `relay`.
pub(super) fn admit(method: &Method, uri: &Uri, headers: &HeaderMap, port: u16, relay: &str) -> Admission {
    let Some(host) = own_host(headers, port) else {
        return Admission::Refused;
    };
    let origin = header_text(headers, &header::ORIGIN);
    match (uri.path(), method) {
        ("/v1/health" | "/v1/connect", &Method::OPTIONS) => {
            if origin == Header::Text(relay) {
                Admission::Preflight
            } else {
                Admission::Refused
            }
        }
        ("/v1/health", &Method::GET) => match origin {
            Header::Text(origin) if origin == relay => Admission::Relay,
            Header::Absent if !from_elsewhere(headers) => Admission::Relay,
            Header::Text(_) | Header::Absent | Header::Unclear => Admission::Refused,
        },
        // A page of the relay, and only with a content type that makes its browser ask first.
        ("/v1/connect", &Method::POST) => {
            let json = header_text(headers, &header::CONTENT_TYPE) == Header::Text("application/json");
            if json && origin == Header::Text(relay) { Admission::Relay } else { Admission::Refused }
        }
        ("/", &Method::GET) if origin == Header::Absent => Admission::Page,
        ("/answer", &Method::POST) => {
            let own = format!("http://{host}");
            let same = origin == Header::Text(&own);
            if same && !from_elsewhere(headers) { Admission::Page } else { Admission::Refused }
        }
        _ => Admission::Refused,
    }
}

/// The host that the request names, when it is this listener and nothing that merely resolves to it.
fn own_host(headers: &HeaderMap, port: u16) -> Option<&str> {
    let Header::Text(host) = header_text(headers, &header::HOST) else {
        return None;
    };
    let (name, given_port) = host.rsplit_once(':')?;
    let ours = matches!(name, "127.0.0.1" | "localhost") && given_port.parse() == Ok(port);
    ours.then_some(host)
}

/// Whether a browser says that another site is behind the request.
fn from_elsewhere(headers: &HeaderMap) -> bool {
    match header_text(headers, &FETCH_SITE) {
        Header::Absent => false,
        Header::Text(site) => !matches!(site, "same-origin" | "none"),
        Header::Unclear => true,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Header<'a> {
    Absent,
    Text(&'a str),
    /// More than once, or not plain text.
    Unclear,
}

fn header_text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Header<'a> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Header::Absent,
        (Some(value), None) => value.to_str().map_or(Header::Unclear, Header::Text),
        (Some(_), Some(_)) => Header::Unclear,
    }
}
