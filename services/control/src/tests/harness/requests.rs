//! Requests as browsers, connectors and machines send them.

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::SigningKey;
use flydex_domain::encoding::{Label, Transcript, sha256};
use flydex_domain::key::{PublicKey, sign};
use flydex_domain::pairing::ClaimKeys;
use flydex_domain::token::EncodedKey;
use http::{Method, Request, header};
use serde_json::{Value, json};

use super::{ORIGIN, Phone};

pub(in crate::tests) fn page_request(
    cookie: Option<&str>,
    method: Method,
    path: &str,
    body: Option<Value>,
) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path).header(header::ORIGIN, ORIGIN);
    if let Some(cookie) = cookie {
        request = request.header(header::COOKIE, cookie);
    }
    with_body(request, body)
}

pub(in crate::tests) fn with_body(request: http::request::Builder, body: Option<Value>) -> Request<Body> {
    let request = request.header(header::CONTENT_TYPE, "application/json");
    let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
    request.body(body).expect("a request")
}

pub(in crate::tests) fn start_body(machine_key: &SigningKey, keys: &ClaimKeys, now: u64) -> Value {
    let redeem_sha256 = sha256(keys.redeem.expose());
    let transcript = Transcript::new(Label::MachineRequest)
        .text("local-connect")
        .text(ORIGIN)
        .bytes(&redeem_sha256)
        .text("desk")
        .text("owner")
        .integer(now);
    json!({
        "machine_key": EncodedKey(PublicKey::of(machine_key)),
        "machine_label": "desk",
        "role": "owner",
        "redeem_sha256": encode(&redeem_sha256),
        "connector_version": "0.0.0",
        "timestamp_ms": now,
        "signature": encode(&sign(machine_key, transcript)),
    })
}

pub(in crate::tests) fn redeem_body(phone: &Phone, redeem_key: &[u8; 32]) -> Value {
    json!({
        "redeem_key": encode(redeem_key),
        "device_key": EncodedKey(PublicKey::of(&phone.device_key)),
        "device_label": "phone",
    })
}

pub(in crate::tests) fn machine_request(
    key: &SigningKey,
    credential: &str,
    method: Method,
    path: &str,
    body: Option<Value>,
    timestamp: u64,
) -> Request<Body> {
    let bytes = body.as_ref().map(Value::to_string).unwrap_or_default();
    let transcript = Transcript::new(Label::MachineRequest)
        .text(method.as_str())
        .text(path)
        .bytes(&sha256(bytes.as_bytes()))
        .integer(timestamp)
        .text(ORIGIN);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::AUTHORIZATION, format!("FlyDex-Machine {credential}"))
        .header("flydex-timestamp", timestamp.to_string())
        .header("flydex-signature", encode(&sign(key, transcript)));
    with_body(request, body)
}

pub(in crate::tests) fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
