//! Sign-in links, cookies, account sessions, and pages of other origins.

use std::time::Duration;

use axum::body::Body;
use flydex_domain::error::ErrorCode;
use flydex_domain::limits::{
    ACCOUNT_SESSION_LIFETIME, ACCOUNT_SESSION_ROLL_AFTER, API_BODY_BYTES_MAX, SIGN_IN_LINK_LIFETIME,
    SIGN_IN_RATE_PER_MINUTE,
};
use flydex_domain::revocation::Revocation;
use flydex_domain::scope::Role;
use flydex_domain::time::UnixMillis;
use http::{Method, Request, StatusCode, header};
use serde_json::{Value, json};

use super::harness::{ORIGIN, World, assert_code, cookie, encode, heard, page_request, text};

#[tokio::test]
async fn the_owner_link_makes_the_account_once_and_signs_in_once() {
    let world = World::start().await;
    let link = world.service.owner_link().expect("a fresh server prints its link");
    assert!(link.starts_with(&format!("{ORIGIN}/sign-in#")));
    let answer = world.sign_in(&link).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert_eq!(answer.body["role"], "owner");
    assert_code(&world.sign_in(&link).await, ErrorCode::SignInLinkInvalid);
    let session = world.page(Some(&cookie(&answer)), Method::GET, "/api/session", None).await;
    assert_eq!(session.body["account_id"], answer.body["account_id"]);
    let world = world.restart().await;
    assert_eq!(world.service.owner_link(), None);
    let again = world.sign_in(&world.service.new_owner_link().await.expect("a link")).await;
    assert_eq!(again.body["user_id"], answer.body["user_id"]);
}

#[tokio::test]
async fn the_cookie_is_bound_to_the_host_and_out_of_reach_of_scripts() {
    let world = World::start().await;
    let answer = world.sign_in(&world.service.owner_link().expect("a link")).await;
    let set = answer.headers[header::SET_COOKIE].to_str().expect("text");
    assert!(set.starts_with("__Host-flydex="), "{set}");
    for attribute in ["Path=/", "Secure", "HttpOnly", "SameSite=Strict", "Max-Age=1209600"] {
        assert!(set.split("; ").any(|part| part == attribute), "{attribute} in {set}");
    }
    assert!(!set.contains("Domain"));
    assert_eq!(answer.headers[header::CACHE_CONTROL], "no-store");
}

#[tokio::test]
async fn a_later_owner_link_ends_the_earlier_one() {
    let world = World::start().await;
    let first = world.service.owner_link().expect("a link");
    let second = world.service.new_owner_link().await.expect("a link");
    assert_code(&world.sign_in(&first).await, ErrorCode::SignInLinkInvalid);
    assert_eq!(world.sign_in(&second).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_link_expires_and_a_guess_signs_nobody_in() {
    let world = World::start().await;
    let link = world.service.owner_link().expect("a link");
    let guess = format!("{ORIGIN}/sign-in#{}", encode(&[7; 32]));
    assert_code(&world.sign_in(&guess).await, ErrorCode::SignInLinkInvalid);
    world.advance(SIGN_IN_LINK_LIFETIME);
    assert_code(&world.sign_in(&link).await, ErrorCode::SignInLinkInvalid);
}

#[tokio::test]
async fn guessing_links_is_slowed_down() {
    let world = World::start().await;
    let guess = format!("{ORIGIN}/sign-in#{}", encode(&[7; 32]));
    for _ in 0..SIGN_IN_RATE_PER_MINUTE {
        assert_code(&world.sign_in(&guess).await, ErrorCode::SignInLinkInvalid);
    }
    let answer = world.sign_in(&guess).await;
    assert_code(&answer, ErrorCode::RateLimited);
    assert!(answer.headers.contains_key(header::RETRY_AFTER));
}

#[tokio::test]
async fn of_two_browsers_with_one_link_one_is_signed_in() {
    let world = World::start().await;
    let link = world.service.owner_link().expect("a link");
    let (first, second) = tokio::join!(world.sign_in(&link), world.sign_in(&link));
    let signed_in = [&first, &second].into_iter().filter(|answer| answer.status == StatusCode::OK).count();
    assert_eq!(signed_in, 1, "{first:?} {second:?}");
}

#[tokio::test]
async fn without_its_database_the_server_says_so() {
    let world = World::start().await;
    let phone = world.owner().await;
    world.store.close().await;
    let answer = world.page(Some(&phone.cookie), Method::GET, "/api/machines", None).await;
    assert_code(&answer, ErrorCode::StoreUnavailable);
    assert_eq!(answer.body["error"]["retry"], "later");
    assert_eq!(world.page(None, Method::GET, "/api/keys", None).await.status, StatusCode::OK);
}

#[tokio::test]
async fn rows_past_their_end_are_removed() {
    let world = World::start().await;
    let _phone = world.owner().await;
    let desk = world.desk().await;
    world.advance(ACCOUNT_SESSION_LIFETIME);
    world.service.control().remove_ended().await.expect("removed");
    assert_code(&world.look(&desk).await, ErrorCode::NotFound);
    let mut tx = world.store.write().await.expect("a transaction");
    assert_eq!(tx.remove_expired_sessions(UnixMillis(world.now())).await.expect("none is left"), 0);
}

#[tokio::test]
async fn a_link_for_another_browser_signs_the_same_user_in_once() {
    let world = World::start().await;
    let phone = world.owner().await;
    let made = world.page(Some(&phone.cookie), Method::POST, "/api/sign-in-links", None).await;
    assert_eq!(made.status, StatusCode::OK, "{made:?}");
    let link = text(&made.body, "url");
    let answer = world.sign_in(&link).await;
    assert_eq!(answer.body["account_id"], json!(phone.account_id));
    assert_ne!(cookie(&answer), phone.cookie);
    assert_code(&world.sign_in(&link).await, ErrorCode::SignInLinkInvalid);
}

#[tokio::test]
async fn a_session_rolls_while_used_and_ends_when_not() {
    let world = World::start().await;
    let phone = world.owner().await;
    let session = async || world.page(Some(&phone.cookie), Method::GET, "/api/session", None).await;
    for _ in 0..3 {
        world.advance(ACCOUNT_SESSION_LIFETIME - Duration::from_secs(1));
        let answer = session().await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        assert_eq!(cookie(&answer), phone.cookie);
    }
    world.advance(ACCOUNT_SESSION_LIFETIME);
    assert_code(&session().await, ErrorCode::Unauthenticated);
}

#[tokio::test]
async fn a_session_that_is_used_often_is_written_seldom() {
    let world = World::start().await;
    let phone = world.owner().await;
    let expires =
        async || world.page(Some(&phone.cookie), Method::GET, "/api/session", None).await.body["expires_at_ms"].clone();
    let first = expires().await;
    world.advance(ACCOUNT_SESSION_ROLL_AFTER - Duration::from_millis(1));
    assert_eq!(expires().await, first);
    world.advance(Duration::from_millis(1));
    assert_ne!(expires().await, first);
}

#[tokio::test]
async fn signing_out_ends_the_session_and_revokes_its_grant() {
    let world = World::start().await;
    let mut revocations = world.service.revocations();
    let phone = world.owner().await;
    let answer = world.page(Some(&phone.cookie), Method::POST, "/api/sign-out", None).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    assert!(answer.headers[header::SET_COOKIE].to_str().expect("text").contains("Max-Age=0"));
    let after = world.page(Some(&phone.cookie), Method::GET, "/api/session", None).await;
    assert_code(&after, ErrorCode::Unauthenticated);
    let entry = heard(&mut revocations).await;
    assert!(matches!(entry.revocation, Revocation::Grant { account_id, .. } if account_id == phone.account_id));
    assert_eq!(world.service.revocations_after(0).await.expect("the log"), vec![entry]);
}

#[tokio::test]
async fn a_user_lists_and_ends_own_sessions_only() {
    let world = World::start().await;
    let (phone, tablet) = (world.owner().await, world.owner().await);
    let colleague = world.user(Some(phone.account_id), Role::Owner).await;
    let list = async |cookie: &str| world.page(Some(cookie), Method::GET, "/api/sessions", None).await.body;
    let sessions = list(&phone.cookie).await;
    let of_tablet =
        sessions["sessions"].as_array().expect("a list").iter().find(|session| session["current"] == json!(false));
    let path = format!("/api/sessions/{}", text(of_tablet.expect("the other session"), "session_id"));
    let absent = "/api/sessions/01890000-0000-7000-8000-000000000000";
    let foreign = world.page(Some(&colleague.cookie), Method::DELETE, &path, None).await;
    assert_code(&foreign, ErrorCode::NotFound);
    let missing = world.page(Some(&colleague.cookie), Method::DELETE, absent, None).await;
    assert_eq!(foreign.body, missing.body);
    assert_eq!(world.page(Some(&phone.cookie), Method::DELETE, &path, None).await.status, StatusCode::NO_CONTENT);
    let after = world.page(Some(&tablet.cookie), Method::GET, "/api/session", None).await;
    assert_code(&after, ErrorCode::Unauthenticated);
    assert_eq!(list(&phone.cookie).await["sessions"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn pages_of_other_origins_change_nothing() {
    let world = World::start().await;
    let phone = world.owner().await;
    for origin in [Some("https://evil.example"), Some("null"), Some("https://relay.example.evil.example"), None] {
        for path in ["/api/sign-out", "/api/sign-in-links", "/api/tickets"] {
            let mut request = page_request(Some(&phone.cookie), Method::POST, path, Some(json!({})));
            request.headers_mut().remove(header::ORIGIN);
            if let Some(origin) = origin {
                request.headers_mut().insert(header::ORIGIN, origin.parse().expect("a header"));
            }
            assert_code(&world.send(request).await, ErrorCode::OriginRefused);
        }
    }
    assert_eq!(world.page(Some(&phone.cookie), Method::GET, "/api/session", None).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_form_post_is_not_json() {
    let world = World::start().await;
    let body = json!({ "token": encode(&[0; 32]) });
    for content_type in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""] {
        let mut request = page_request(None, Method::POST, "/api/sign-in", Some(body.clone()));
        request.headers_mut().insert(header::CONTENT_TYPE, content_type.parse().expect("a header"));
        assert_code(&world.send(request).await, ErrorCode::BadRequest);
    }
}

#[tokio::test]
async fn bodies_are_small_and_of_the_documented_fields() {
    let world = World::start().await;
    let token = encode(&[0; 32]);
    let post = async |body: Value| world.page(None, Method::POST, "/api/sign-in", Some(body)).await;
    assert_code(&post(json!({ "token": token, "extra": 1 })).await, ErrorCode::BadRequest);
    assert_code(&post(json!({})).await, ErrorCode::BadRequest);
    assert_code(&post(json!({ "token": encode(&[0; 31]) })).await, ErrorCode::BadRequest);
    assert_code(&post(json!({ "token": "*".repeat(API_BODY_BYTES_MAX) })).await, ErrorCode::FrameTooLarge);
    let cut = Request::builder().method(Method::POST).uri("/api/sign-in").header(header::ORIGIN, ORIGIN);
    let cut = cut.header(header::CONTENT_TYPE, "application/json").body(Body::from("{\"token\":")).expect("a request");
    assert_code(&world.send(cut).await, ErrorCode::BadRequest);
}

#[tokio::test]
async fn a_missing_route_and_a_wrong_method_are_not_found() {
    let world = World::start().await;
    for (method, path) in [(Method::GET, "/api/unheard-of"), (Method::GET, "/api"), (Method::PUT, "/api/machines")] {
        assert_code(&world.page(None, method, path, None).await, ErrorCode::NotFound);
    }
}
