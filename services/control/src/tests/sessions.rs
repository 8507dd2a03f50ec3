//! Account sessions under attack: fixation, replacement, sign-out everywhere, and what other sites may send.

use flydex_domain::error::ErrorCode;
use flydex_domain::limits::ACCOUNT_SESSION_LIFETIME;
use flydex_domain::scope::Role;
use http::{Method, StatusCode, header};
use serde_json::json;

use super::harness::{ORIGIN, World, assert_code, cookie, encode, page_request};

async fn session(world: &World, cookie: &str) -> super::harness::Answer {
    world.page(Some(cookie), Method::GET, "/api/session", None).await
}

#[tokio::test]
async fn a_token_that_was_planted_before_the_sign_in_is_worth_nothing_after_it() {
    let world = World::start().await;
    let planted = format!("__Host-flydex={}", encode(&[7; 32]));
    let link = world.service.new_owner_link().await.expect("a link");
    let token = link.split_once('#').expect("a token").1;
    let answer = world.page(Some(&planted), Method::POST, "/api/sign-in", Some(json!({ "token": token }))).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_ne!(cookie(&answer), planted);
    assert_code(&session(&world, &planted).await, ErrorCode::Unauthenticated);
}

#[tokio::test]
async fn a_sign_in_ends_the_session_that_the_browser_had() {
    let world = World::start().await;
    let victim = world.owner().await;
    let stranger = world.user(None, Role::Owner).await;
    let link = world.page(Some(&victim.cookie), Method::POST, "/api/sign-in-links", None).await;
    let token = link.body["url"].as_str().and_then(|url| url.split_once('#')).expect("a token").1;
    let body = json!({ "token": token });
    let answer = world.page(Some(&stranger.cookie), Method::POST, "/api/sign-in", Some(body)).await;
    assert_eq!(answer.body["account_id"], json!(victim.account_id));
    assert_code(&session(&world, &stranger.cookie).await, ErrorCode::Unauthenticated);
    assert_eq!(session(&world, &cookie(&answer)).await.status, StatusCode::OK);
    assert_eq!(session(&world, &victim.cookie).await.status, StatusCode::OK);
}

#[tokio::test]
async fn signing_out_everywhere_ends_every_session_of_the_user_and_no_other() {
    let world = World::start().await;
    let (phone, tablet) = (world.owner().await, world.owner().await);
    let colleague = world.user(Some(phone.account_id), Role::Owner).await;
    let answer = world.page(Some(&phone.cookie), Method::DELETE, "/api/sessions", None).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    assert!(answer.headers[header::SET_COOKIE].to_str().expect("text").contains("Max-Age=0"));
    for gone in [&phone, &tablet] {
        assert_code(&session(&world, &gone.cookie).await, ErrorCode::Unauthenticated);
    }
    assert_eq!(session(&world, &colleague.cookie).await.status, StatusCode::OK);
    assert_eq!(world.service.revocations_after(0).await.expect("the log").len(), 2);
}

#[tokio::test]
async fn an_assertion_does_not_make_a_session_last_longer_than_its_use_does() {
    let world = World::start().await;
    let phone = world.owner().await;
    let (mut key, cookie_now) = world.add_passkey(&phone.cookie, "key").await;
    let asserted = cookie(&world.assert_presence(&cookie_now, &mut key).await);
    world.advance(ACCOUNT_SESSION_LIFETIME);
    assert_code(&session(&world, &asserted).await, ErrorCode::Unauthenticated);
}

#[tokio::test]
async fn every_cookie_is_bound_to_the_host_and_out_of_reach_of_scripts() {
    let world = World::start().await;
    let answer = world.page(None, Method::POST, "/api/sign-in/passkey/start", None).await;
    let set = answer.headers[header::SET_COOKIE].to_str().expect("text");
    assert!(set.starts_with("__Host-flydex-attempt="), "{set}");
    for attribute in ["Path=/", "Secure", "HttpOnly", "SameSite=Strict", "Max-Age=300"] {
        assert!(set.split("; ").any(|part| part == attribute), "{attribute} in {set}");
    }
    assert!(!set.contains("Domain"));
}

#[tokio::test]
async fn what_another_site_sends_is_refused_by_either_header() {
    let world = World::start().await;
    let phone = world.owner().await;
    let unsafe_routes = [
        (Method::POST, "/api/sign-in/passkey/start", json!({})),
        (Method::POST, "/api/sign-in/recovery", json!({ "code": "0" })),
        (Method::POST, "/api/presence/start", json!({})),
        (Method::POST, "/api/passkeys/start", json!({})),
        (Method::POST, "/api/recovery-codes", json!({})),
        (Method::DELETE, "/api/sessions", json!({})),
    ];
    for (method, path, body) in unsafe_routes {
        for (origin, site) in [
            (Some("https://evil.example"), None),
            (None, None),
            (Some(ORIGIN), Some("cross-site")),
            (Some("https://sub.relay.example"), Some("same-site")),
            (None, Some("same-site")),
            (Some(ORIGIN), Some("none")),
        ] {
            let mut request = page_request(Some(&phone.cookie), method.clone(), path, Some(body.clone()));
            request.headers_mut().remove(header::ORIGIN);
            if let Some(origin) = origin {
                request.headers_mut().insert(header::ORIGIN, origin.parse().expect("a header"));
            }
            if let Some(site) = site {
                request.headers_mut().insert("sec-fetch-site", site.parse().expect("a header"));
            }
            assert_code(&world.send(request).await, ErrorCode::OriginRefused);
        }
    }
    assert_eq!(session(&world, &phone.cookie).await.status, StatusCode::OK);
}
