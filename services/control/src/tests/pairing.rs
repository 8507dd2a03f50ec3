//! Pairing: the whole way, and each way that it must not go.

use std::time::Duration;

use ed25519_dalek::SigningKey;
use flydex_domain::error::ErrorCode;
use flydex_domain::limits::{
    CLAIM_LIFETIME, CLAIM_WRONG_TRIES_MAX, LOCAL_CONNECT_LIFETIME, LOCAL_CONNECT_RATE_PER_MINUTE,
    MACHINE_REQUEST_SKEW_MAX,
};
use flydex_domain::pairing::ClaimKeys;
use flydex_domain::scope::Role;
use flydex_domain::secret::SecretKey;
use flydex_domain::time::UnixMillis;
use flydex_domain::token::MachineCredential;
use http::{Method, StatusCode};
use serde_json::json;

use super::harness::{World, assert_code, encode, redeem_body, start_body, text};

#[tokio::test]
async fn a_phone_and_a_desk_pair_from_claim_to_codex_ready() {
    let world = World::start().await;
    let phone = world.owner().await;
    let mut desk = world.desk().await;
    assert_eq!(world.look(&desk).await.body["status"], "created");

    let redeemed = world.redeem(&phone, &desk).await;
    assert_eq!(redeemed.status, StatusCode::OK, "{redeemed:?}");
    assert_eq!(redeemed.body["machine_id"], json!(desk.machine_id));
    assert_eq!(redeemed.body["expires_at_ms"], json!(desk.claim_expires_at));
    let seen = world.look(&desk).await;
    assert_eq!(seen.body["status"], "awaiting_browser_finalize");
    assert_eq!(seen.body["account"]["name"], "Personal");
    assert_eq!(seen.body["device"]["label"], "phone");
    assert!(seen.body["device"].get("mac").is_none());

    assert_eq!(world.finalize(&phone, &desk).await.status, StatusCode::NO_CONTENT);
    let terms = world.terms(&phone, &desk);
    let seen = world.look(&desk).await;
    let mac = text(&seen.body["device"], "mac");
    assert_eq!(mac, encode(&terms.mac(&desk.keys.device_to_machine)));

    let paired = world.confirm(&phone, &desk).await;
    assert_eq!(paired.status, StatusCode::OK, "{paired:?}");
    let credential = text(&paired.body, "credential");
    let claims: MachineCredential =
        world.service.verifier().verify(&credential, UnixMillis(world.now())).expect("the credential verifies");
    assert_eq!(claims.account_id, phone.account_id);
    assert_eq!(claims.machine_id, terms.machine_id);
    assert_eq!(claims.serial, 1);
    assert_eq!(claims.machine_key.0, terms.machine_key);
    assert!(paired.body["token_keys"][0]["key"].is_string());

    let path = format!("/api/local-connect/{}", desk.local_connect_id);
    let seen = world.page(Some(&phone.cookie), Method::GET, &path, None).await;
    assert_eq!(text(&seen.body["machine"], "mac"), encode(&terms.mac(&desk.keys.machine_to_device)));
    assert_eq!(world.status(&desk, json!({ "status": "codex_ready" })).await.status, StatusCode::NO_CONTENT);
    assert_eq!(world.look(&desk).await.body["status"], "codex_ready");

    let machines = world.page(Some(&phone.cookie), Method::GET, "/api/machines", None).await;
    assert_eq!(machines.body["machines"][0]["machine_id"], json!(desk.machine_id));
    let devices = world.page(Some(&phone.cookie), Method::GET, "/api/devices", None).await;
    assert_eq!(devices.body["devices"][0]["device_id"], json!(terms.device_key.device_id()));
    desk.credential = Some(credential);
}

#[tokio::test]
async fn each_step_may_be_repeated_by_who_took_it() {
    let world = World::start().await;
    let phone = world.owner().await;
    let desk = world.desk().await;
    let first = world.redeem(&phone, &desk).await;
    assert_eq!(world.redeem(&phone, &desk).await.body, first.body);
    assert_eq!(world.finalize(&phone, &desk).await.status, StatusCode::NO_CONTENT);
    assert_eq!(world.finalize(&phone, &desk).await.status, StatusCode::NO_CONTENT);
    let first = world.confirm(&phone, &desk).await;
    assert_eq!(world.confirm(&phone, &desk).await.body, first.body);
}

#[tokio::test]
async fn a_claim_is_redeemed_once() {
    let world = World::start().await;
    let phone = world.owner().await;
    let desk = world.desk().await;
    assert_eq!(world.redeem(&phone, &desk).await.status, StatusCode::OK);
    let second = world.user(Some(phone.account_id), Role::Owner).await;
    assert_code(&world.redeem(&second, &desk).await, ErrorCode::ClaimUsed);
    let thief = world.user(None, Role::Owner).await;
    assert_code(&world.redeem(&thief, &desk).await, ErrorCode::ClaimUsed);
    let other_device = super::harness::Phone { device_key: SigningKey::from_bytes(&[9; 32]), ..phone };
    assert_code(&world.redeem(&other_device, &desk).await, ErrorCode::ClaimUsed);
}

#[tokio::test]
async fn of_two_browsers_that_redeem_at_once_one_wins() {
    let world = World::start().await;
    let desk = world.desk().await;
    let (first, second) = (world.owner().await, world.user(None, Role::Owner).await);
    let (first, second) = tokio::join!(world.redeem(&first, &desk), world.redeem(&second, &desk));
    let won = [&first, &second].into_iter().filter(|answer| answer.status == StatusCode::OK).count();
    assert_eq!(won, 1, "{first:?} {second:?}");
    let lost = if first.status == StatusCode::OK { second } else { first };
    assert_code(&lost, ErrorCode::ClaimUsed);
}

#[tokio::test]
async fn a_claim_expires_after_its_two_minutes() {
    let world = World::start().await;
    let phone = world.owner().await;
    let desk = world.desk().await;
    world.advance(CLAIM_LIFETIME);
    assert_code(&world.redeem(&phone, &desk).await, ErrorCode::ClaimExpired);
    assert_eq!(world.look(&desk).await.body["status"], "expired");
}

#[tokio::test]
async fn five_guesses_end_a_claim_and_look_like_an_unknown_one() {
    let world = World::start().await;
    let phone = world.owner().await;
    let desk = world.desk().await;
    let path = format!("/api/claims/{}/redeem", desk.claim_id);
    let unknown = "/api/claims/01890000-0000-7000-8000-000000000000/redeem";
    for _ in 0..CLAIM_WRONG_TRIES_MAX {
        let guess = redeem_body(&phone, &[1; 32]);
        let guessed = world.page(Some(&phone.cookie), Method::POST, &path, Some(guess.clone())).await;
        assert_code(&guessed, ErrorCode::ClaimInvalid);
        let missing = world.page(Some(&phone.cookie), Method::POST, unknown, Some(guess)).await;
        assert_eq!(guessed.body, missing.body);
    }
    assert_code(&world.redeem(&phone, &desk).await, ErrorCode::ClaimInvalid);
    let seen = world.look(&desk).await;
    assert_eq!(seen.body["status"], "failed");
    assert_eq!(seen.body["code"], "claim_invalid");
    let audit = world.page(Some(&phone.cookie), Method::GET, "/api/audit", None).await;
    assert_eq!(audit.body["records"][0]["kind"], "claim_exhausted");
}

#[tokio::test]
async fn a_photographed_code_is_shown_to_the_desk_which_says_no() {
    let world = World::start().await;
    let _owner = world.owner().await;
    let thief = world.user(None, Role::Owner).await;
    let desk = world.desk().await;
    assert_eq!(world.redeem(&thief, &desk).await.status, StatusCode::OK);
    assert_eq!(world.look(&desk).await.body["account"]["name"], "Other");
    assert_eq!(world.status(&desk, json!({ "status": "refused" })).await.status, StatusCode::NO_CONTENT);
    let seen = world.look(&desk).await;
    assert_eq!(seen.body["status"], "cancelled");
    assert_eq!(seen.body["code"], "pairing_refused");
    assert_code(&world.finalize(&thief, &desk).await, ErrorCode::PairingEnded);
    let machines = world.page(Some(&thief.cookie), Method::GET, "/api/machines", None).await;
    assert_eq!(machines.body["machines"], json!([]));
}

#[tokio::test]
async fn only_the_redeeming_browser_finalizes_watches_and_cancels() {
    let world = World::start().await;
    let phone = world.owner().await;
    let desk = world.desk().await;
    assert_eq!(world.redeem(&phone, &desk).await.status, StatusCode::OK);
    let same_account = world.user(Some(phone.account_id), Role::Owner).await;
    let other_account = world.user(None, Role::Owner).await;
    let missing = "01890000-0000-7000-8000-000000000000";
    for stranger in [same_account, other_account] {
        assert_code(&world.finalize(&stranger, &desk).await, ErrorCode::ClaimInvalid);
        for (method, tail) in [(Method::GET, ""), (Method::POST, "/cancel")] {
            let path = |id: &str| format!("/api/local-connect/{id}{tail}");
            let cookie = Some(stranger.cookie.as_str());
            let foreign = world.page(cookie, method.clone(), &path(&desk.local_connect_id), None).await;
            let absent = world.page(cookie, method, &path(missing), None).await;
            assert_code(&foreign, ErrorCode::NotFound);
            assert_eq!(foreign.body, absent.body);
        }
    }
    let path = format!("/api/local-connect/{}/cancel", desk.local_connect_id);
    let cancelled = world.page(Some(&phone.cookie), Method::POST, &path, None).await;
    assert_eq!(cancelled.status, StatusCode::NO_CONTENT);
    assert_eq!(world.look(&desk).await.body["status"], "cancelled");
    assert_code(&world.confirm(&phone, &desk).await, ErrorCode::PairingEnded);
}

#[tokio::test]
async fn another_connectors_token_finds_nothing() {
    let world = World::start().await;
    let (desk, other) = (world.desk().await, world.desk().await);
    let path = format!("/api/local-connect/{}", desk.local_connect_id);
    let answer = world.connector(Some(&other.token), Method::GET, &path, None).await;
    assert_code(&answer, ErrorCode::NotFound);
    let status = json!({ "status": "failed", "code": "internal" });
    let path = format!("{path}/agent-status");
    let answer = world.connector(Some(&other.token), Method::POST, &path, Some(status)).await;
    assert_code(&answer, ErrorCode::NotFound);
    assert_eq!(world.look(&desk).await.body["status"], "created");
}

#[tokio::test]
async fn steps_out_of_order_conflict() {
    let world = World::start().await;
    let phone = world.owner().await;
    let desk = world.desk().await;
    assert_code(&world.confirm(&phone, &desk).await, ErrorCode::Conflict);
    assert_code(&world.status(&desk, json!({ "status": "codex_ready" })).await, ErrorCode::Conflict);
    assert_eq!(world.redeem(&phone, &desk).await.status, StatusCode::OK);
    assert_code(&world.confirm(&phone, &desk).await, ErrorCode::Conflict);
    world.advance(LOCAL_CONNECT_LIFETIME);
    assert_code(&world.finalize(&phone, &desk).await, ErrorCode::ClaimExpired);
}

#[tokio::test]
async fn a_viewer_cannot_take_a_machine_as_owner() {
    let world = World::start().await;
    let owner = world.owner().await;
    let viewer = world.user(Some(owner.account_id), Role::Viewer).await;
    let desk = world.desk().await;
    assert_code(&world.redeem(&viewer, &desk).await, ErrorCode::Forbidden);
    assert_eq!(world.redeem(&owner, &desk).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_start_needs_a_fresh_signature_over_all_it_says() {
    let world = World::start().await;
    let key = SigningKey::from_bytes(&[3; 32]);
    let keys = ClaimKeys::derive(&SecretKey::new([4; 32]));
    let right = start_body(&key, &keys, world.now());
    let start = async |body| world.connector(None, Method::POST, "/api/local-connect/start", Some(body)).await;
    for (field, value) in [
        ("machine_label", json!("other")),
        ("role", json!("viewer")),
        ("redeem_sha256", json!(encode(&[0; 32]))),
        ("timestamp_ms", json!(world.now() + 1)),
        ("signature", json!(encode(&[0; 64]))),
    ] {
        let mut wrong = right.clone();
        wrong[field] = value;
        assert_code(&start(wrong).await, ErrorCode::ProofInvalid);
    }
    let skew = u64::try_from(MACHINE_REQUEST_SKEW_MAX.as_millis()).expect("a short time") + 1;
    assert_code(&start(start_body(&key, &keys, world.now() - skew)).await, ErrorCode::ProofInvalid);
    assert_code(&start(start_body(&key, &keys, world.now() + skew)).await, ErrorCode::ProofInvalid);
    assert_eq!(start(right).await.status, StatusCode::OK);
}

#[tokio::test]
async fn starts_from_one_address_are_slowed_down() {
    let world = World::start().await;
    for _ in 0..LOCAL_CONNECT_RATE_PER_MINUTE {
        world.desk().await;
    }
    let body = start_body(&SigningKey::from_bytes(&[3; 32]), &ClaimKeys::derive(&SecretKey::new([4; 32])), world.now());
    let answer = world.connector(None, Method::POST, "/api/local-connect/start", Some(body)).await;
    assert_code(&answer, ErrorCode::RateLimited);
    assert!(answer.body["error"]["retry_after_ms"].as_u64().is_some_and(|millis| millis > 0));
    world.advance(Duration::from_secs(60));
    world.desk().await;
}

#[tokio::test]
async fn a_paired_machine_keeps_its_id_and_stays_in_its_account() {
    let world = World::start().await;
    let phone = world.owner().await;
    let desk = world.pair(&phone).await;
    let again = world.start_pairing(desk.machine_key.clone(), desk.credential.clone()).await;
    assert_eq!(again.machine_id, desk.machine_id);
    let thief = world.user(None, Role::Owner).await;
    assert_code(&world.redeem(&thief, &again).await, ErrorCode::ClaimInvalid);
    let tablet = world.user(Some(phone.account_id), Role::Owner).await;
    assert_eq!(world.redeem(&tablet, &again).await.status, StatusCode::OK);
    assert_eq!(world.finalize(&tablet, &again).await.status, StatusCode::NO_CONTENT);
    let paired = world.confirm(&tablet, &again).await;
    assert_eq!(paired.status, StatusCode::OK, "{paired:?}");
    let machines = world.page(Some(&phone.cookie), Method::GET, "/api/machines", None).await;
    assert_eq!(machines.body["machines"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn a_credential_of_another_key_starts_nothing() {
    let world = World::start().await;
    let phone = world.owner().await;
    let desk = world.pair(&phone).await;
    let keys = ClaimKeys::derive(&SecretKey::new([4; 32]));
    let mut body = start_body(&SigningKey::from_bytes(&[5; 32]), &keys, world.now());
    body["credential"] = json!(desk.credential);
    let answer = world.connector(None, Method::POST, "/api/local-connect/start", Some(body)).await;
    assert_code(&answer, ErrorCode::CredentialInvalid);
}

#[tokio::test]
async fn a_long_poll_wakes_on_a_change_and_misses_none_between_two() {
    let world = World::start().await;
    let phone = world.owner().await;
    let desk = world.desk().await;
    let path = |after: &str| format!("/api/local-connect/{}?wait_ms=10000&after={after}", desk.local_connect_id);
    let created = path("created");
    let poll = world.connector(Some(&desk.token), Method::GET, &created, None);
    let (seen, redeemed) = tokio::join!(poll, world.redeem(&phone, &desk));
    assert_eq!(redeemed.status, StatusCode::OK);
    assert_eq!(seen.body["status"], "awaiting_browser_finalize");
    assert!(seen.body["device"].get("mac").is_none());
    // The MAC comes between two polls, and the status stays: the next poll must not sleep over it.
    assert_eq!(world.finalize(&phone, &desk).await.status, StatusCode::NO_CONTENT);
    let awaiting = path("awaiting_browser_finalize");
    let seen = world.connector(Some(&desk.token), Method::GET, &awaiting, None).await;
    assert!(seen.body["device"]["mac"].is_string());
    // The browser has not been told yet; the connector's polls are not its polls.
    let seen = world.page(Some(&phone.cookie), Method::GET, &awaiting, None).await;
    assert!(seen.body["device"]["mac"].is_string());
    let poll = world.page(Some(&phone.cookie), Method::GET, &awaiting, None);
    let (seen, confirmed) = tokio::join!(poll, world.confirm(&phone, &desk));
    assert_eq!(confirmed.status, StatusCode::OK);
    assert!(seen.body["machine"]["mac"].is_string());
}

#[tokio::test]
async fn a_pairing_survives_a_restart_of_the_server() {
    let world = World::start().await;
    let phone = world.owner().await;
    let desk = world.desk().await;
    assert_eq!(world.redeem(&phone, &desk).await.status, StatusCode::OK);
    let world = world.restart().await;
    assert_eq!(world.finalize(&phone, &desk).await.status, StatusCode::NO_CONTENT);
    let world = world.restart().await;
    assert_eq!(world.confirm(&phone, &desk).await.status, StatusCode::OK);
}
