//! What needs a fresh proof of the person, and what counts as one.

use std::time::Duration;

use flydex_domain::error::ErrorCode;
use flydex_domain::key::PublicKey;
use flydex_domain::limits::FRESH_ASSERTION_AGE_MAX;
use flydex_domain::scope::Role;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::harness::{Desk, Phone, World, assert_code, cookie, redeem_body, text};

const OLDER: Duration = Duration::from_millis(FRESH_ASSERTION_AGE_MAX.as_millis() as u64 + 1);

/// Everything that a session past its five minutes may not do.
async fn guarded(world: &World, phone: &Phone, desk: &Desk) -> Vec<(Method, String, Option<Value>)> {
    let waiting = world.desk().await;
    let device_id = PublicKey::of(&phone.device_key).device_id();
    let absent = "01890000-0000-7000-8000-000000000000";
    vec![
        (
            Method::POST,
            format!("/api/claims/{}/redeem", waiting.claim_id),
            Some(redeem_body(phone, waiting.keys.redeem.expose())),
        ),
        (Method::DELETE, format!("/api/machines/{}", desk.machine_id), None),
        (Method::DELETE, format!("/api/devices/{device_id}"), None),
        (Method::PUT, "/api/audit/policy".to_owned(), Some(json!({ "strict": true }))),
        (Method::DELETE, format!("/api/passkeys/{absent}"), None),
        (Method::POST, "/api/passkeys/start".to_owned(), None),
        (Method::POST, "/api/recovery-codes".to_owned(), None),
        (Method::POST, "/api/sign-in-links".to_owned(), None),
    ]
}

#[tokio::test]
async fn without_a_passkey_the_sign_in_is_fresh_for_five_minutes() {
    let world = World::start().await;
    let phone = world.owner().await;
    let desk = world.pair(&phone).await;
    world.advance(OLDER);
    for (method, path, body) in guarded(&world, &phone, &desk).await {
        let answer = world.page(Some(&phone.cookie), method, &path, body).await;
        assert_code(&answer, ErrorCode::FreshAssertionRequired);
        assert_eq!(answer.body["error"]["retry"], "refreshed");
    }
    let listed = world.page(Some(&phone.cookie), Method::GET, "/api/machines", None).await;
    assert_eq!(listed.status, StatusCode::OK);
}

#[tokio::test]
async fn with_a_passkey_only_an_assertion_is_fresh() {
    let world = World::start().await;
    let phone = world.owner().await;
    let (mut key, cookie_now) = world.add_passkey(&phone.cookie, "key").await;
    let link = world.page(Some(&cookie_now), Method::POST, "/api/sign-in-links", None).await;
    let by_link = cookie(&world.sign_in(&text(&link.body, "url")).await);
    let make = async |cookie: &str| world.page(Some(cookie), Method::POST, "/api/recovery-codes", None).await;
    assert_code(&make(&by_link).await, ErrorCode::FreshAssertionRequired);
    let asserted = world.assert_presence(&by_link, &mut key).await;
    assert_eq!(asserted.status, StatusCode::OK, "{asserted:?}");
    assert_eq!(asserted.body["fresh_until_ms"], json!(world.now() + 300_000));
    let asserted = cookie(&asserted);
    assert_eq!(make(&asserted).await.status, StatusCode::OK);
    world.advance(OLDER);
    assert_code(&make(&asserted).await, ErrorCode::FreshAssertionRequired);
    assert_eq!(make(&cookie(&world.passkey_sign_in(&mut key).await)).await.status, StatusCode::OK);
}

#[tokio::test]
async fn an_assertion_counts_in_its_own_session_alone_and_kills_the_old_token() {
    let world = World::start().await;
    let phone = world.owner().await;
    let (mut key, first) = world.add_passkey(&phone.cookie, "key").await;
    let second = cookie(&world.passkey_sign_in(&mut key).await);
    world.advance(OLDER);
    let asserted = cookie(&world.assert_presence(&first, &mut key).await);
    let session = async |cookie: &str| world.page(Some(cookie), Method::GET, "/api/session", None).await;
    assert_ne!(asserted, first);
    assert_code(&session(&first).await, ErrorCode::Unauthenticated);
    assert_eq!(session(&asserted).await.status, StatusCode::OK);
    let other = world.page(Some(&second), Method::POST, "/api/recovery-codes", None).await;
    assert_code(&other, ErrorCode::FreshAssertionRequired);
}

#[tokio::test]
async fn a_passkey_of_another_user_asserts_nothing() {
    let world = World::start().await;
    let phone = world.owner().await;
    let (_, own) = world.add_passkey(&phone.cookie, "key").await;
    let colleague = world.user(Some(phone.account_id), Role::Owner).await;
    let (mut foreign, _) = world.add_passkey(&colleague.cookie, "foreign").await;
    assert_code(&world.assert_presence(&own, &mut foreign).await, ErrorCode::PasskeyRefused);
    world.advance(OLDER);
    let answer = world.page(Some(&own), Method::POST, "/api/recovery-codes", None).await;
    assert_code(&answer, ErrorCode::FreshAssertionRequired);
}

#[tokio::test]
async fn an_assertion_is_for_the_session_that_asked() {
    let world = World::start().await;
    let phone = world.owner().await;
    let (mut key, first) = world.add_passkey(&phone.cookie, "key").await;
    let stolen = cookie(&world.passkey_sign_in(&mut key).await);
    let (options, attempt) = world.first_step(Some(&first), "/api/presence/start").await;
    assert!(options["allowCredentials"][0]["id"].is_string(), "as browsers read it: {options}");
    let body = json!({ "credential": key.get(&options) });
    let both = format!("{stolen}; {attempt}");
    let answer = world.page(Some(&both), Method::POST, "/api/presence/finish", Some(body)).await;
    assert_code(&answer, ErrorCode::AttemptInvalid);
}

#[tokio::test]
async fn a_pairing_that_was_begun_fresh_is_finished() {
    let world = World::start().await;
    let phone = world.owner().await;
    world.advance(FRESH_ASSERTION_AGE_MAX - Duration::from_secs(50));
    let desk = world.desk().await;
    assert_eq!(world.redeem(&phone, &desk).await.status, StatusCode::OK);
    world.advance(Duration::from_secs(100));
    assert_eq!(world.finalize(&phone, &desk).await.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn going_on_in_another_account_proves_nobody_anew() {
    let world = World::start().await;
    let phone = world.owner().await;
    let (mut key, own) = world.add_passkey(&phone.cookie, "key").await;
    let host = world.user(None, Role::Owner).await;
    let invitation = json!({ "role": "owner", "label": "Ana" });
    let made = world.page(Some(&host.cookie), Method::POST, "/api/invitations", Some(invitation)).await;
    let token = made.body["url"].as_str().and_then(|url| url.split_once('#')).expect("a token").1;
    let body = json!({ "token": token });
    assert!(world.page(Some(&own), Method::POST, "/api/invitations/accept", Some(body)).await.status.is_success());
    world.advance(OLDER);
    let path = format!("/api/accounts/{}/switch", host.account_id);
    let switched = world.page(Some(&own), Method::POST, &path, None).await;
    assert_eq!(switched.body["passkeys"], json!(1), "{switched:?}");
    let there = cookie(&switched);
    let make = async |cookie: &str| world.page(Some(cookie), Method::POST, "/api/recovery-codes", None).await;
    assert_code(&make(&there).await, ErrorCode::FreshAssertionRequired);
    let asserted = cookie(&world.assert_presence(&there, &mut key).await);
    assert_eq!(make(&asserted).await.status, StatusCode::OK);
}
