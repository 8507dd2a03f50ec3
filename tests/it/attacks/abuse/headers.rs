//! What every kind of answer tells browsers, graded.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use flydex_tests::server::{Server, Settings};
use reqwest::{Client, Response, header};
use serde_json::json;

/// What every answer must say, and what a page's must say beside it.
const EVERY: [(&str, &[&str]); 7] = [
    ("x-content-type-options", &["nosniff"]),
    ("referrer-policy", &["no-referrer"]),
    ("x-frame-options", &["DENY"]),
    ("cross-origin-opener-policy", &["same-origin"]),
    ("cross-origin-resource-policy", &["same-origin"]),
    ("content-security-policy", &["default-src 'none';", "frame-ancestors 'none'"]),
    ("permissions-policy", &["camera=(self)", "microphone=()", "geolocation=()"]),
];
/// What the web app's policy says, to the letter: nothing from elsewhere, no base, no form, and no text that becomes
/// script. Every path of the web app has it, whether this build has the app or not.
const APP: [&str; 13] = [
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self' data:",
    "font-src 'self'",
    "connect-src 'self'",
    "manifest-src 'self'",
    "worker-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",
    "trusted-types flydex-worker",
];

#[tokio::test]
async fn every_kind_of_answer_keeps_browsers_to_the_rules() -> anyhow::Result<()> {
    flydex_runtime::tls::install_provider();
    let server = Server::start_with(Settings { https: true, ..Settings::default() }).await?;
    let pem = server.certificate()?;
    let tls = flydex_runtime::tls::client_config(Some(&pem), &[b"http/1.1"])?;
    let client = Client::builder().tls_backend_preconfigured(tls).build()?;
    let origin = server.origin();
    let token = server.owner_link().split_once('#').context("a token")?.1;
    let mut answers = BTreeMap::new();
    for path in [
        "/",
        "/machines",
        "/nothing.js",
        "/api/session",
        "/api/nothing",
        "/api/regions",
        "/api/openapi.json",
        "/v1/session",
        "/v1/link",
        "/.well-known/flydex.json",
    ] {
        answers.insert(format!("GET {path}"), client.get(format!("{origin}{path}")).send().await?);
    }
    let sign_in = client.post(format!("{origin}/api/sign-in")).header(header::ORIGIN, origin);
    let sign_in = sign_in.json(&json!({ "token": token })).send().await?;
    let cookie = sign_in.headers()[header::SET_COOKIE].to_str()?.to_owned();
    answers.insert("POST /api/sign-in".to_owned(), sign_in);
    answers.insert("DELETE /".to_owned(), client.delete(format!("{origin}/")).send().await?);
    let foreign = client.post(format!("{origin}/api/sign-in")).send().await?;
    answers.insert("POST /api/sign-in of a foreign page".to_owned(), foreign);
    let wrong: Vec<String> = answers.iter().flat_map(|(what, answer)| grade(what, answer)).collect();
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    for flag in ["__Host-", "; HttpOnly", "; Secure", "; Path=/", "; SameSite="] {
        ensure!(cookie.contains(flag), "the cookie lacks {flag}");
    }
    ensure!(!cookie.contains("Domain"), "the cookie is of one host");
    Ok(())
}

/// What an answer lacks.
fn grade(what: &str, answer: &Response) -> Vec<String> {
    let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut wrong = Vec::new();
    let hsts = ("strict-transport-security", &["max-age=63072000"][..]);
    for (name, parts) in EVERY.into_iter().chain([hsts]) {
        for part in parts.iter().filter(|part| !header(name).contains(**part)) {
            wrong.push(format!("{what}: {name} lacks {part}: {:?}", header(name)));
        }
    }
    let policy = header("content-security-policy");
    if policy.contains("unsafe-") || policy.contains('*') {
        wrong.push(format!("{what}: {policy}"));
    }
    let is_of_app = !["/api/", "/v1/"].into_iter().any(|path| what.contains(path));
    if is_of_app && !policy.split("; ").eq(APP) {
        wrong.push(format!("{what}: the web app's policy is another: {policy}"));
    }
    if what.contains("/api/") && header("cache-control") != "no-store" {
        wrong.push(format!("{what}: it may be kept"));
    }
    wrong
}
