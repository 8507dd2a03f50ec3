//! The account session: planted, stolen, sent by another site, and guessed at.

use anyhow::{Context as _, ensure};
use flydex_domain::limits::RECOVERY_RATE_PER_MINUTE;
use flydex_loadtest::device::Device;
use flydex_loadtest::session::Session;
use reqwest::header::{CONTENT_TYPE, COOKIE, ORIGIN, SET_COOKIE};
use reqwest::{Client, Method, Response, StatusCode};
use serde_json::{Value, json};

use super::stand::{REGION, Relay, api_code};

/// What an attacker sends: any cookie, any origin.
async fn post(
    relay: &Relay,
    path: &str,
    cookie: &str,
    headers: &[(&str, &str)],
    body: Value,
) -> anyhow::Result<Response> {
    let mut request = Client::new()
        .post(format!("{}{path}", relay.server.origin()))
        .header(CONTENT_TYPE, "application/json")
        .header(COOKIE, cookie)
        .body(body.to_string());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Ok(request.send().await?)
}

fn cookie_of(secret: &str) -> String {
    format!("__Host-flydex={secret}")
}

#[tokio::test]
async fn a_planted_cookie_is_not_the_one_that_is_signed_in() -> anyhow::Result<()> {
    let relay = Relay::start().await?;
    let (_, link) = relay.account.call(Method::POST, "/api/sign-in-links", Some(json!({}))).await?;
    let token = link["url"].as_str().and_then(|url| url.split_once('#')).context("a link")?.1.to_owned();
    let planted = cookie_of(&"A".repeat(43));
    let own = [(ORIGIN.as_str(), relay.server.origin())];
    let answer = post(&relay, "/api/sign-in", &planted, &own, json!({ "token": token })).await?;
    ensure!(answer.status().is_success(), "{answer:?}");
    let set = answer.headers()[SET_COOKIE].to_str()?;
    assert!(!set.starts_with(&planted));
    assert_eq!(post(&relay, "/api/sign-out", &planted, &own, json!({})).await?.status(), StatusCode::UNAUTHORIZED);
    Ok(())
}

#[tokio::test]
async fn what_another_site_makes_a_browser_send_changes_nothing() -> anyhow::Result<()> {
    let relay = Relay::start().await?;
    let cookie = cookie_of(relay.account.cookie());
    let own = relay.server.origin();
    for headers in [
        vec![(ORIGIN.as_str(), "https://evil.example")],
        vec![(ORIGIN.as_str(), "null")],
        vec![],
        vec![(ORIGIN.as_str(), own), ("sec-fetch-site", "cross-site")],
    ] {
        for path in ["/api/sign-out", "/api/sign-in-links", "/api/recovery-codes", "/api/passkeys/start"] {
            let answer = post(&relay, path, &cookie, &headers, json!({})).await?;
            assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{path} {headers:?}");
        }
    }
    assert_eq!(relay.account.call(Method::GET, "/api/session", None).await?.0, StatusCode::OK);
    Ok(())
}

#[tokio::test]
async fn a_socket_of_another_site_is_refused_even_with_a_ticket() -> anyhow::Result<()> {
    let relay = Relay::start().await?;
    let device = Device::new();
    let own = relay.server.origin().to_owned();
    for origin in ["https://evil.example", "null", &format!("{own}.evil.example"), &own.replacen("http", "https", 1)] {
        let refused = Session::connect(&relay.session_url(), origin).await;
        assert!(refused.is_err(), "a socket of {origin} was opened");
    }
    let (ticket, grant) = relay.account.ticket(&device, REGION).await?;
    Session::open_by(ticket, grant, &device, &relay.session_url(), &own).await?;
    Ok(())
}

#[tokio::test]
async fn signing_out_everywhere_leaves_a_thief_nothing() -> anyhow::Result<()> {
    let relay = Relay::start().await?;
    let thief = relay.another_browser().await?;
    assert_eq!(relay.account.call(Method::DELETE, "/api/sessions", None).await?.0, StatusCode::NO_CONTENT);
    for browser in [&thief, &relay.account] {
        assert_eq!(browser.call(Method::GET, "/api/session", None).await?.0, StatusCode::UNAUTHORIZED);
    }
    Ok(())
}

#[tokio::test]
async fn recovery_codes_are_not_guessed_by_trying() -> anyhow::Result<()> {
    let relay = Relay::start().await?;
    let guess = || relay.account.call(Method::POST, "/api/sign-in/recovery", Some(json!({ "code": "0" })));
    for _ in 0..RECOVERY_RATE_PER_MINUTE {
        assert_eq!(api_code(&guess().await?.1), "recovery_code_invalid");
    }
    let (status, answer) = guess().await?;
    assert_eq!((status, api_code(&answer)), (StatusCode::TOO_MANY_REQUESTS, "rate_limited"));
    Ok(())
}
