//! Signing in at an identity provider, and every way in which its word does not hold.

use std::time::Duration;

use flydex_domain::error::ErrorCode;
use flydex_domain::limits::{FRESH_ASSERTION_AGE_MAX, PROVIDER_METADATA_LIFETIME, PROVIDER_REFETCH_INTERVAL};
use flydex_domain::scope::Role;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::harness::{Answer, FakeProvider, Phone, Signed, World, answer_cookie, assert_code, cookie, text};

/// One browser on its way to the provider and back.
struct Journey {
    attempt: String,
    code: String,
    state: String,
}

async fn go(world: &World, provider: &FakeProvider, subject: &str) -> Journey {
    begin(world, provider, None, "/api/sign-in/identity/start", subject).await
}

async fn begin(world: &World, provider: &FakeProvider, cookie: Option<&str>, path: &str, subject: &str) -> Journey {
    let begun = world.page(cookie, Method::POST, path, None).await;
    assert_eq!(begun.status, StatusCode::OK, "{begun:?}");
    let (code, state) = provider.visit(&text(&begun.body, "url"), subject);
    Journey { attempt: answer_cookie(&begun).expect("an attempt's cookie"), code, state }
}

async fn come_back(world: &World, journey: &Journey) -> Answer {
    let body = json!({ "state": journey.state, "code": journey.code });
    world.page(Some(&journey.attempt), Method::POST, "/api/sign-in/identity/finish", Some(body)).await
}

async fn sign_in(world: &World, provider: &FakeProvider, subject: &str) -> Answer {
    come_back(world, &go(world, provider, subject).await).await
}

/// Links a signed-in browser's user with a subject.
async fn link(world: &World, provider: &FakeProvider, phone: &Phone, subject: &str) -> Answer {
    let journey = begin(world, provider, Some(&phone.cookie), "/api/identities/start", subject).await;
    let both = format!("{}; {}", phone.cookie, journey.attempt);
    let body = json!({ "state": journey.state, "code": journey.code });
    world.page(Some(&both), Method::POST, "/api/identities/finish", Some(body)).await
}

/// A server that is set up with a provider, and an owner who is linked with the subject `owner`.
async fn linked() -> (World, FakeProvider, Phone) {
    let provider = FakeProvider::start().await;
    let world = World::with_provider(provider.settings()).await;
    let phone = world.owner().await;
    assert_eq!(link(&world, &provider, &phone, "owner").await.status, StatusCode::NO_CONTENT);
    (world, provider, phone)
}

#[tokio::test]
async fn who_is_linked_signs_in_and_nobody_else() {
    let (world, provider, phone) = linked().await;
    let answer = sign_in(&world, &provider, "owner").await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert_eq!(answer.body["account_id"], json!(phone.account_id));
    assert_code(&sign_in(&world, &provider, "Owner").await, ErrorCode::IdentityUnknown);
    let options = world.page(None, Method::GET, "/api/sign-in/options", None).await;
    assert_eq!(options.body["identity_provider"]["name"], "Example");
}

#[tokio::test]
async fn an_email_address_links_nobody() {
    let (world, provider, _) = linked().await;
    provider.mind().claims = json!({ "email": "owner@example.org", "email_verified": true });
    assert_code(&sign_in(&world, &provider, "somebody else").await, ErrorCode::IdentityUnknown);
}

#[tokio::test]
async fn a_callback_counts_once_and_so_does_a_code() {
    let (world, provider, _) = linked().await;
    let journey = go(&world, &provider, "owner").await;
    assert_eq!(come_back(&world, &journey).await.status, StatusCode::OK);
    assert_code(&come_back(&world, &journey).await, ErrorCode::AttemptInvalid);
    let again = go(&world, &provider, "owner").await;
    let replayed = Journey { code: journey.code, ..again };
    assert_code(&come_back(&world, &replayed).await, ErrorCode::IdentityRefused);
}

#[tokio::test]
async fn a_callback_in_another_browser_signs_nobody_in() {
    let (world, provider, _) = linked().await;
    let attacker = go(&world, &provider, "owner").await;
    let victim = go(&world, &provider, "owner").await;
    // The attacker's code and state, in the victim's browser: the victim would be signed in as the attacker.
    let planted =
        Journey { attempt: victim.attempt.clone(), code: attacker.code.clone(), state: attacker.state.clone() };
    assert_code(&come_back(&world, &planted).await, ErrorCode::AttemptInvalid);
    let bare = Journey { attempt: String::new(), code: attacker.code, state: attacker.state };
    assert_code(&come_back(&world, &bare).await, ErrorCode::AttemptInvalid);
}

#[tokio::test]
async fn a_stolen_code_is_worth_nothing_without_its_verifier() {
    let (world, provider, _) = linked().await;
    let victim = go(&world, &provider, "owner").await;
    let attacker = go(&world, &provider, "attacker").await;
    let stolen = Journey { code: victim.code, ..attacker };
    assert_code(&come_back(&world, &stolen).await, ErrorCode::IdentityRefused);
}

#[tokio::test]
async fn a_token_that_is_not_for_this_attempt_is_refused() {
    let (world, provider, _) = linked().await;
    let seconds = super::harness::START_MILLIS / 1_000;
    for claims in [
        json!({ "nonce": "another" }),
        json!({ "nonce": null }),
        json!({ "aud": "another" }),
        json!({ "aud": ["flydex", "another"] }),
        json!({ "iss": "https://another.example" }),
        json!({ "exp": seconds - 61 }),
        json!({ "exp": null }),
        json!({ "iat": seconds + 3_600 }),
        json!({ "sub": null }),
        json!({ "at_hash": "AAAAAAAAAAAAAAAAAAAAAA" }),
    ] {
        provider.mind().claims = claims.clone();
        let answer = sign_in(&world, &provider, "owner").await;
        let code = &answer.body["error"]["code"];
        // A token that is not whole is no answer of a provider.
        let refused = code == "identity_refused" || code == "identity_provider_unreachable";
        assert!(refused, "{claims}: {answer:?}");
        world.advance(Duration::from_secs(3));
    }
    provider.mind().claims = json!({});
    assert_eq!(sign_in(&world, &provider, "owner").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_token_that_the_provider_did_not_sign_is_refused() {
    let (world, provider, _) = linked().await;
    for signed in [Signed::Not, Signed::ByTheSecret, Signed::ByAnotherKey, Signed::ByAnUnknownKey] {
        provider.mind().signed = signed.clone();
        let answer = sign_in(&world, &provider, "owner").await;
        assert_eq!(answer.body["error"]["code"], "identity_refused", "{signed:?}: {answer:?}");
    }
}

#[tokio::test]
async fn a_provider_that_changes_its_keys_is_followed() {
    let (world, provider, _) = linked().await;
    for _ in 0..2 {
        world.advance(PROVIDER_REFETCH_INTERVAL);
        provider.rotate();
        assert_eq!(sign_in(&world, &provider, "owner").await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn made_up_keys_cost_one_fetch_in_a_while() {
    let (world, provider, _) = linked().await;
    world.advance(PROVIDER_REFETCH_INTERVAL);
    provider.mind().signed = Signed::ByAnUnknownKey;
    let before = provider.mind().keys_asked;
    for _ in 0..5 {
        assert_code(&sign_in(&world, &provider, "owner").await, ErrorCode::IdentityRefused);
    }
    assert_eq!(provider.mind().keys_asked, before + 1);
}

#[tokio::test]
async fn an_answer_that_names_another_issuer_or_no_code_is_refused() {
    let (world, provider, _) = linked().await;
    for change in [json!({ "issuer": "https://another.example" }), json!({ "code": null }), json!({ "code": "" })] {
        let journey = go(&world, &provider, "owner").await;
        let mut body = json!({ "state": journey.state, "code": journey.code });
        for (name, value) in change.as_object().expect("a change") {
            body[name] = value.clone();
        }
        let path = "/api/sign-in/identity/finish";
        let answer = world.page(Some(&journey.attempt), Method::POST, path, Some(body)).await;
        assert_code(&answer, ErrorCode::IdentityRefused);
    }
}

#[tokio::test]
async fn a_provider_that_is_away_is_said_to_be() {
    let (world, provider, _) = linked().await;
    world.advance(PROVIDER_METADATA_LIFETIME);
    provider.mind().silent = true;
    let answer = world.page(None, Method::POST, "/api/sign-in/identity/start", None).await;
    assert_code(&answer, ErrorCode::IdentityProviderUnreachable);
    assert_eq!(answer.body["error"]["retry"], "later");
}

#[tokio::test]
async fn an_identity_belongs_to_one_user_and_is_linked_by_who_is_there() {
    let (world, provider, phone) = linked().await;
    let stranger = world.user(None, Role::Owner).await;
    assert_code(&link(&world, &provider, &stranger, "owner").await, ErrorCode::Conflict);
    world.advance(FRESH_ASSERTION_AGE_MAX + Duration::from_millis(1));
    let answer = world.page(Some(&phone.cookie), Method::POST, "/api/identities/start", None).await;
    assert_code(&answer, ErrorCode::FreshAssertionRequired);
}

#[tokio::test]
async fn a_link_that_another_session_began_is_not_finished() {
    let (world, provider, phone) = linked().await;
    let stranger = world.user(None, Role::Owner).await;
    // The attacker's own identity, to be planted in the victim's account.
    let journey = begin(&world, &provider, Some(&stranger.cookie), "/api/identities/start", "attacker").await;
    let both = format!("{}; {}", phone.cookie, journey.attempt);
    let body = json!({ "state": journey.state, "code": journey.code });
    let answer = world.page(Some(&both), Method::POST, "/api/identities/finish", Some(body)).await;
    assert_code(&answer, ErrorCode::AttemptInvalid);
}

#[tokio::test]
async fn an_identity_is_unlinked_unless_it_is_the_last_way_in() {
    let (world, provider, phone) = linked().await;
    let ways = world.page(Some(&phone.cookie), Method::GET, "/api/ways-in", None).await.body;
    assert_eq!(ways["identities"][0]["issuer"], json!(provider.issuer));
    let path = format!("/api/identities/{}", text(&ways["identities"][0], "identity_id"));
    let remove = async |cookie: &str| world.page(Some(cookie), Method::DELETE, &path, None).await;
    assert_code(&remove(&phone.cookie).await, ErrorCode::LastWayIn);
    let (_, with_passkey) = world.add_passkey(&phone.cookie, "key").await;
    assert_eq!(remove(&with_passkey).await.status, StatusCode::NO_CONTENT);
    assert_code(&sign_in(&world, &provider, "owner").await, ErrorCode::IdentityUnknown);
}

#[tokio::test]
async fn a_sign_in_at_a_provider_is_no_assertion_of_a_passkey() {
    let (world, provider, phone) = linked().await;
    world.add_passkey(&phone.cookie, "key").await;
    let signed_in = cookie(&sign_in(&world, &provider, "owner").await);
    let answer = world.page(Some(&signed_in), Method::POST, "/api/recovery-codes", None).await;
    assert_code(&answer, ErrorCode::FreshAssertionRequired);
}

#[tokio::test]
async fn a_server_without_a_provider_has_no_such_routes() {
    let world = World::start().await;
    let answer = world.page(None, Method::POST, "/api/sign-in/identity/start", None).await;
    assert_code(&answer, ErrorCode::NotFound);
    let options = world.page(None, Method::GET, "/api/sign-in/options", None).await;
    assert_eq!(options.body["identity_provider"], Value::Null);
}
