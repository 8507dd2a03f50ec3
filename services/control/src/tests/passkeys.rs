//! Passkeys: added, used, named and removed; and every way in which an assertion is not what it says.

use flydex_domain::error::ErrorCode;
use flydex_domain::limits::ATTEMPT_LIFETIME;
use flydex_domain::scope::Role;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::harness::{Authenticator, World, answer_cookie, assert_code, cookie, text};

async fn finish(world: &World, cookies: &str, credential: &Value) -> super::harness::Answer {
    let body = json!({ "credential": credential });
    world.page(Some(cookies), Method::POST, "/api/sign-in/passkey/finish", Some(body)).await
}

async fn kinds(world: &World, cookie: &str) -> Vec<String> {
    let audit = world.page(Some(cookie), Method::GET, "/api/audit", None).await.body;
    audit["records"].as_array().expect("records").iter().map(|record| text(record, "kind")).collect()
}

#[tokio::test]
async fn a_passkey_signs_its_user_in_without_a_name() {
    let world = World::start().await;
    let phone = world.owner().await;
    let _colleague = world.user(Some(phone.account_id), Role::Owner).await;
    let (mut key, cookie_then) = world.add_passkey(&phone.cookie, "my key").await;
    let answer = world.passkey_sign_in(&mut key).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert_eq!(answer.body["account_id"], json!(phone.account_id));
    assert_ne!(cookie(&answer), cookie_then);
    let ways = world.page(Some(&cookie(&answer)), Method::GET, "/api/ways-in", None).await.body;
    assert_eq!(ways["passkeys"][0]["label"], "my key");
    assert_eq!(ways["passkeys"][0]["used_at_ms"], json!(world.now()));
    assert!(kinds(&world, &cookie(&answer)).await.contains(&"passkey_added".to_owned()));
}

#[tokio::test]
async fn what_authenticators_are_asked_for_needs_no_name_and_verifies_the_person() {
    let world = World::start().await;
    let phone = world.owner().await;
    let (options, _) = world.first_step(Some(&phone.cookie), "/api/passkeys/start").await;
    assert_eq!(options["rp"]["id"], "relay.example");
    assert_eq!(options["authenticatorSelection"]["residentKey"], "required");
    assert_eq!(options["authenticatorSelection"]["userVerification"], "required");
    let (options, _) = world.first_step(None, "/api/sign-in/passkey/start").await;
    assert_eq!(options["userVerification"], "required");
    assert_eq!(options["allowCredentials"], json!([]));
}

#[tokio::test]
async fn a_challenge_is_used_once_even_when_the_answer_was_wrong() {
    let world = World::start().await;
    let phone = world.owner().await;
    let (mut key, _) = world.add_passkey(&phone.cookie, "key").await;
    let (options, attempt) = world.first_step(None, "/api/sign-in/passkey/start").await;
    let credential = key.get(&options);
    assert_eq!(finish(&world, &attempt, &credential).await.status, StatusCode::OK);
    assert_code(&finish(&world, &attempt, &credential).await, ErrorCode::AttemptInvalid);
    let (options, attempt) = world.first_step(None, "/api/sign-in/passkey/start").await;
    assert_code(&finish(&world, &attempt, &Authenticator::new().get(&options)).await, ErrorCode::PasskeyRefused);
    assert_code(&finish(&world, &attempt, &key.get(&options)).await, ErrorCode::AttemptInvalid);
}

#[tokio::test]
async fn a_challenge_belongs_to_the_browser_that_asked() {
    let world = World::start().await;
    let phone = world.owner().await;
    let (mut key, _) = world.add_passkey(&phone.cookie, "key").await;
    let (options, _) = world.first_step(None, "/api/sign-in/passkey/start").await;
    let (_, other) = world.first_step(None, "/api/sign-in/passkey/start").await;
    let credential = key.get(&options);
    assert_code(&finish(&world, &other, &credential).await, ErrorCode::PasskeyRefused);
    assert_code(&finish(&world, "", &credential).await, ErrorCode::AttemptInvalid);
    assert_code(&finish(&world, "__Host-flydex-attempt=AAAA", &credential).await, ErrorCode::AttemptInvalid);
}

#[tokio::test]
async fn a_challenge_is_short_lived() {
    let world = World::start().await;
    let phone = world.owner().await;
    let (mut key, _) = world.add_passkey(&phone.cookie, "key").await;
    let (options, attempt) = world.first_step(None, "/api/sign-in/passkey/start").await;
    world.advance(ATTEMPT_LIFETIME);
    assert_code(&finish(&world, &attempt, &key.get(&options)).await, ErrorCode::AttemptInvalid);
    world.service.control().remove_ended().await.expect("removed");
    let mut tx = world.store.write().await.expect("a transaction");
    let now = flydex_domain::time::UnixMillis(world.now());
    assert_eq!(tx.remove_expired_attempts(now).await.expect("none is left"), 0);
}

#[tokio::test]
async fn a_challenge_for_one_thing_is_none_for_another() {
    let world = World::start().await;
    let phone = world.owner().await;
    let (mut key, cookie) = world.add_passkey(&phone.cookie, "key").await;
    let (options, attempt) = world.first_step(Some(&cookie), "/api/presence/start").await;
    assert_code(&finish(&world, &attempt, &key.get(&options)).await, ErrorCode::AttemptInvalid);
    let (options, attempt) = world.first_step(None, "/api/sign-in/passkey/start").await;
    let body = json!({ "credential": key.get(&options) });
    let both = format!("{cookie}; {attempt}");
    let answer = world.page(Some(&both), Method::POST, "/api/presence/finish", Some(body)).await;
    assert_code(&answer, ErrorCode::AttemptInvalid);
}

#[tokio::test]
async fn an_assertion_without_user_verification_is_refused() {
    let world = World::start().await;
    let phone = world.owner().await;
    let (mut key, cookie) = world.add_passkey(&phone.cookie, "key").await;
    key.verified = false;
    assert_code(&world.passkey_sign_in(&mut key).await, ErrorCode::PasskeyRefused);
    assert_code(&world.assert_presence(&cookie, &mut key).await, ErrorCode::PasskeyRefused);
    let mut careless = Authenticator::new();
    careless.verified = false;
    let (options, attempt) = world.first_step(Some(&cookie), "/api/passkeys/start").await;
    let body = json!({ "label": "x", "credential": careless.create(&options) });
    let both = format!("{cookie}; {attempt}");
    let answer = world.page(Some(&both), Method::POST, "/api/passkeys/finish", Some(body)).await;
    assert_code(&answer, ErrorCode::PasskeyRefused);
}

#[tokio::test]
async fn an_assertion_for_another_page_is_refused() {
    let world = World::start().await;
    let phone = world.owner().await;
    let (mut key, _) = world.add_passkey(&phone.cookie, "key").await;
    for origin in ["https://relay.example.evil.example", "http://relay.example", "https://sub.relay.example"] {
        key.origin = origin;
        assert_code(&world.passkey_sign_in(&mut key).await, ErrorCode::PasskeyRefused);
    }
}

#[tokio::test]
async fn a_changed_assertion_is_refused() {
    let world = World::start().await;
    let phone = world.owner().await;
    let (mut key, _) = world.add_passkey(&phone.cookie, "key").await;
    let (mut other, _) = world.add_passkey(&world.user(None, Role::Owner).await.cookie, "other").await;
    for part in ["signature", "userHandle", "authenticatorData"] {
        let (options, attempt) = world.first_step(None, "/api/sign-in/passkey/start").await;
        let earlier = key.get(&options);
        let mut credential = key.get(&options);
        let from = if part == "authenticatorData" { earlier } else { other.get(&options) };
        credential["response"][part] = from["response"][part].clone();
        assert_code(&finish(&world, &attempt, &credential).await, ErrorCode::PasskeyRefused);
    }
}

#[tokio::test]
async fn a_counter_that_goes_back_is_refused_and_audited() {
    let world = World::start().await;
    let phone = world.owner().await;
    let (mut key, cookie) = world.add_passkey(&phone.cookie, "key").await;
    assert_eq!(world.passkey_sign_in(&mut key).await.status, StatusCode::OK);
    key.counter = 1;
    assert_code(&world.passkey_sign_in(&mut key).await, ErrorCode::PasskeyCloned);
    assert!(kinds(&world, &cookie).await.contains(&"passkey_cloned".to_owned()));
    key.counter = 9;
    assert_eq!(world.passkey_sign_in(&mut key).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_passkey_that_counts_nothing_works_again_and_again() {
    let world = World::start().await;
    let phone = world.owner().await;
    let mut key = Authenticator::new();
    key.counter = 0;
    let (options, attempt) = world.first_step(Some(&phone.cookie), "/api/passkeys/start").await;
    let body = json!({ "label": "synced", "credential": key.create(&options) });
    let both = format!("{}; {attempt}", phone.cookie);
    let added = world.page(Some(&both), Method::POST, "/api/passkeys/finish", Some(body)).await;
    assert_eq!(added.status, StatusCode::OK, "{added:?}");
    for _ in 0..2 {
        assert_eq!(world.passkey_sign_in(&mut key).await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn of_two_assertions_with_one_count_one_counts() {
    let world = World::start().await;
    let phone = world.owner().await;
    let (mut key, _) = world.add_passkey(&phone.cookie, "key").await;
    let mut steps = Vec::new();
    for _ in 0..2 {
        let (options, attempt) = world.first_step(None, "/api/sign-in/passkey/start").await;
        key.counter = 7;
        steps.push((attempt, key.get(&options)));
    }
    let (first, second) =
        tokio::join!(finish(&world, &steps[0].0, &steps[0].1), finish(&world, &steps[1].0, &steps[1].1));
    let taken = [&first, &second].into_iter().filter(|answer| answer.status == StatusCode::OK).count();
    assert_eq!(taken, 1, "{first:?} {second:?}");
}

#[tokio::test]
async fn a_passkey_is_named_and_removed_by_its_user_alone() {
    let world = World::start().await;
    let phone = world.owner().await;
    let colleague = world.user(Some(phone.account_id), Role::Owner).await;
    let (mut key, cookie) = world.add_passkey(&phone.cookie, "key").await;
    let (_, cookie) = world.add_passkey(&cookie, "spare").await;
    let ways = async || world.page(Some(&cookie), Method::GET, "/api/ways-in", None).await.body;
    let path = format!("/api/passkeys/{}", text(&ways().await["passkeys"][0], "passkey_id"));
    let label = json!({ "label": "phone" });
    for (method, body) in [(Method::PATCH, Some(label.clone())), (Method::DELETE, None)] {
        let foreign = world.page(Some(&colleague.cookie), method, &path, body).await;
        assert_code(&foreign, ErrorCode::NotFound);
    }
    let renamed = world.page(Some(&cookie), Method::PATCH, &path, Some(label)).await;
    assert_eq!(renamed.status, StatusCode::NO_CONTENT);
    assert_eq!(ways().await["passkeys"][0]["label"], "phone");
    assert_eq!(world.page(Some(&cookie), Method::DELETE, &path, None).await.status, StatusCode::NO_CONTENT);
    assert_eq!(ways().await["passkeys"].as_array().map(Vec::len), Some(1));
    assert_code(&world.passkey_sign_in(&mut key).await, ErrorCode::PasskeyRefused);
}

#[tokio::test]
async fn the_last_passkey_stays_until_there_are_recovery_codes() {
    let world = World::start().await;
    let phone = world.owner().await;
    let (_, cookie) = world.add_passkey(&phone.cookie, "key").await;
    let ways = world.page(Some(&cookie), Method::GET, "/api/ways-in", None).await.body;
    let path = format!("/api/passkeys/{}", text(&ways["passkeys"][0], "passkey_id"));
    assert_code(&world.page(Some(&cookie), Method::DELETE, &path, None).await, ErrorCode::LastWayIn);
    let codes = world.page(Some(&cookie), Method::POST, "/api/recovery-codes", None).await;
    assert_eq!(codes.status, StatusCode::OK);
    assert_eq!(world.page(Some(&cookie), Method::DELETE, &path, None).await.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn a_passkey_of_somebody_else_is_not_added() {
    let world = World::start().await;
    let phone = world.owner().await;
    let (mut key, _) = world.add_passkey(&phone.cookie, "key").await;
    let stranger = world.user(None, Role::Owner).await;
    let (options, attempt) = world.first_step(Some(&stranger.cookie), "/api/passkeys/start").await;
    let body = json!({ "label": "mine now", "credential": key.create(&options) });
    let both = format!("{}; {attempt}", stranger.cookie);
    let answer = world.page(Some(&both), Method::POST, "/api/passkeys/finish", Some(body)).await;
    assert_code(&answer, ErrorCode::PasskeyRefused);
}

#[tokio::test]
async fn an_attempt_of_another_session_adds_no_passkey() {
    let world = World::start().await;
    let (phone, tablet) = (world.owner().await, world.owner().await);
    let mut planted = Authenticator::new();
    let (options, attempt) = world.first_step(Some(&phone.cookie), "/api/passkeys/start").await;
    let body = json!({ "label": "planted", "credential": planted.create(&options) });
    let both = format!("{}; {attempt}", tablet.cookie);
    let answer = world.page(Some(&both), Method::POST, "/api/passkeys/finish", Some(body)).await;
    assert_code(&answer, ErrorCode::AttemptInvalid);
    assert_eq!(answer_cookie(&answer), None);
}
