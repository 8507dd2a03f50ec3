//! Machines: scope, renaming, revoking, and the chain of credentials.

use std::time::Duration;

use ed25519_dalek::SigningKey;
use flydex_domain::error::ErrorCode;
use flydex_domain::limits::{
    CREDENTIAL_LIFETIME, CREDENTIAL_RETRY_WINDOW, LABEL_CHARS_MAX, MACHINE_REQUEST_SKEW_MAX, REVOCATION_HORIZON,
    VERSION_TEXT_BYTES_MAX,
};
use flydex_domain::revocation::Revocation;
use flydex_domain::scope::Role;
use flydex_domain::time::UnixMillis;
use flydex_domain::token::MachineCredential;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::harness::{Desk, Phone, World, assert_code, heard, machine_request, start_body, text};

const MISSING: &str = "01890000-0000-7000-8000-000000000000";

#[tokio::test]
async fn a_foreign_machine_is_as_missing_as_one_that_never_was() {
    let world = World::start().await;
    let desk = world.pair(&world.owner().await).await;
    let stranger = world.user(None, Role::Owner).await;
    for (method, body) in [(Method::PATCH, Some(json!({ "label": "mine" }))), (Method::DELETE, None)] {
        let cookie = Some(stranger.cookie.as_str());
        let path = |id: &str| format!("/api/machines/{id}");
        let foreign = world.page(cookie, method.clone(), &path(&desk.machine_id), body.clone()).await;
        let missing = world.page(cookie, method.clone(), &path(MISSING), body.clone()).await;
        let malformed = world.page(cookie, method, &path("not-an-id"), body).await;
        assert_code(&foreign, ErrorCode::NotFound);
        assert_eq!(foreign.body, missing.body);
        assert_eq!(foreign.body, malformed.body);
    }
    let list = world.page(Some(&stranger.cookie), Method::GET, "/api/machines", None).await;
    assert_eq!(list.body["machines"], json!([]));
}

#[tokio::test]
async fn an_owner_renames_within_the_limits_of_a_label() {
    let world = World::start().await;
    let phone = world.owner().await;
    let desk = world.pair(&phone).await;
    let path = format!("/api/machines/{}", desk.machine_id);
    let rename = async |label: &str| {
        world.page(Some(&phone.cookie), Method::PATCH, &path, Some(json!({ "label": label }))).await
    };
    assert_eq!(rename("  büro  ").await.status, StatusCode::NO_CONTENT);
    for label in ["", "   ", "a\nb", &"ü".repeat(LABEL_CHARS_MAX + 1)] {
        assert_code(&rename(label).await, ErrorCode::BadRequest);
    }
    let list = world.page(Some(&phone.cookie), Method::GET, "/api/machines", None).await;
    assert_eq!(list.body["machines"][0]["label"], "büro");
}

#[tokio::test]
async fn a_revoked_machine_is_gone_everywhere() {
    let world = World::start().await;
    let phone = world.owner().await;
    let desk = world.pair(&phone).await;
    let mut revocations = world.service.revocations();
    let path = format!("/api/machines/{}", desk.machine_id);
    assert_eq!(world.page(Some(&phone.cookie), Method::DELETE, &path, None).await.status, StatusCode::NO_CONTENT);
    assert_code(&world.page(Some(&phone.cookie), Method::DELETE, &path, None).await, ErrorCode::NotFound);
    let entry = heard(&mut revocations).await;
    let machine_id = desk.machine_id.parse().expect("an id");
    assert_eq!(entry.revocation, Revocation::Machine { account_id: phone.account_id, machine_id });
    assert_code(&renew(&world, &desk).await, ErrorCode::MachineRevoked);
    let keys = &desk.keys;
    let mut body = start_body(&desk.machine_key, keys, world.now());
    body["credential"] = json!(desk.credential);
    let start = world.connector(None, Method::POST, "/api/local-connect/start", Some(body)).await;
    assert_code(&start, ErrorCode::MachineRevoked);
}

#[tokio::test]
async fn a_restart_forgets_no_revocation_that_still_ends_something() {
    let world = World::start().await;
    let phone = world.owner().await;
    let (old, new) = (world.pair(&phone).await, world.pair(&phone).await);
    let revoke = async |world: &World, desk: &Desk| {
        let path = format!("/api/machines/{}", desk.machine_id);
        let answer = world.page(Some(&phone.cookie), Method::DELETE, &path, None).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT);
    };
    revoke(&world, &old).await;
    world.advance(REVOCATION_HORIZON);
    world.fresh(&phone).await;
    revoke(&world, &new).await;
    world.advance(Duration::from_millis(1));
    let world = world.restart().await;
    let entry = heard(&mut world.service.revocations()).await;
    let machine_id = new.machine_id.parse().expect("an id");
    assert_eq!(entry.number, 2);
    assert_eq!(entry.revocation, Revocation::Machine { account_id: phone.account_id, machine_id });
}

#[tokio::test]
async fn a_credential_is_renewed_even_after_its_end() {
    let world = World::start().await;
    let mut desk = world.pair(&world.owner().await).await;
    for serial in 2..5 {
        world.advance(CREDENTIAL_LIFETIME * 10);
        let answer = renew(&world, &desk).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        let credential = text(&answer.body, "credential");
        let verified: Result<MachineCredential, _> =
            world.service.verifier().verify(&credential, UnixMillis(world.now()));
        assert_eq!(verified.expect("it verifies").serial, serial);
        desk.credential = Some(credential);
    }
}

#[tokio::test]
async fn a_pinned_machine_gets_the_pin_with_its_next_credential_and_loses_it_the_same_way() {
    let world = World::start().await;
    let phone = world.owner().await;
    let mut desk = world.pair(&phone).await;
    let path = format!("/api/machines/{}/region-pin", desk.machine_id);
    let pin = async |body: Value| world.page(Some(&phone.cookie), Method::PUT, &path, Some(body)).await;
    for body in [json!({ "region": "nowhere" }), json!({ "region": "" }), json!({}), json!({ "region": 1 })] {
        assert_code(&pin(body).await, ErrorCode::BadRequest);
    }
    assert_eq!(listed(&world, &phone).await.get("region_pin"), None);
    for region in [Some("eu"), None] {
        assert_eq!(pin(json!({ "region": region })).await.status, StatusCode::NO_CONTENT);
        assert_eq!(listed(&world, &phone).await.get("region_pin").and_then(Value::as_str), region);
        let credential = text(&renew(&world, &desk).await.body, "credential");
        let verified: MachineCredential =
            world.service.verifier().verify(&credential, UnixMillis(world.now())).expect("it verifies");
        assert_eq!(verified.region_pin.as_deref(), region);
        desk.credential = Some(credential);
    }
    let audit = world.page(Some(&phone.cookie), Method::GET, "/api/audit?limit=2", None).await;
    for record in audit.body["records"].as_array().expect("records") {
        assert_eq!(record["kind"], "machine_region_pinned");
        assert_eq!(record["machine_id"], json!(desk.machine_id));
    }
}

#[tokio::test]
async fn a_new_pin_supersedes_the_credentials_so_far_and_the_same_again_does_not() {
    let world = World::start().await;
    let phone = world.owner().await;
    let desk = world.pair(&phone).await;
    let mut revocations = world.service.revocations();
    let path = format!("/api/machines/{}/region-pin", desk.machine_id);
    for region in [json!("eu"), json!("eu"), json!(null), json!("local")] {
        let body = Some(json!({ "region": region }));
        let answer = world.page(Some(&phone.cookie), Method::PUT, &path, body).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT);
    }
    let (account_id, machine_id) = (phone.account_id, desk.machine_id.parse().expect("an id"));
    for number in 1..=2 {
        let entry = heard(&mut revocations).await;
        assert_eq!(entry.number, number);
        assert_eq!(entry.revocation, Revocation::Superseded { account_id, machine_id, serial: 1 });
    }
    assert_eq!(renew(&world, &desk).await.status, StatusCode::OK, "it is no clone");
}

#[tokio::test]
async fn a_renewal_whose_answer_was_lost_gets_the_same_answer_again() {
    let world = World::start().await;
    let desk = world.pair(&world.owner().await).await;
    let first = renew(&world, &desk).await;
    world.advance(CREDENTIAL_RETRY_WINDOW - Duration::from_millis(1));
    assert_eq!(renew(&world, &desk).await.body, first.body);
}

#[tokio::test]
async fn a_credential_that_returns_after_its_successor_quarantines_the_machine() {
    let world = World::start().await;
    let phone = world.owner().await;
    let desk = world.pair(&phone).await;
    let machine_id = desk.machine_id.parse().expect("an id");
    let mut revocations = world.service.revocations();
    let second = text(&renew(&world, &desk).await.body, "credential");
    assert_eq!(listed(&world, &phone).await["quarantined"], false);
    world.advance(CREDENTIAL_RETRY_WINDOW);
    assert_code(&renew(&world, &desk).await, ErrorCode::MachineKeyCloned);
    assert_eq!(listed(&world, &phone).await["quarantined"], true);
    let entry = heard(&mut revocations).await;
    assert_eq!(entry.revocation, Revocation::Quarantine { account_id: phone.account_id, machine_id, serial: 2 });
    // Nobody knows which of the two is the machine, so neither is served, and it is said once.
    let other = Desk { credential: Some(second), ..desk };
    assert_code(&renew(&world, &other).await, ErrorCode::MachineKeyCloned);
    let upload = format!("/api/machines/{}/audit", other.machine_id);
    assert_code(&world.machine(&other, &upload, Some(json!({ "records": [] }))).await, ErrorCode::MachineKeyCloned);
    let audit = world.page(Some(&phone.cookie), Method::GET, "/api/audit?limit=2", None).await;
    assert_eq!(audit.body["records"][0]["kind"], "machine_key_cloned");
    assert_eq!(audit.body["records"][0]["machine_id"], json!(other.machine_id));
    assert_ne!(audit.body["records"][1]["kind"], "machine_key_cloned");
}

#[tokio::test]
async fn pairing_again_ends_the_quarantine_and_the_clones_old_credential_does_not_bring_it_back() {
    let world = World::start().await;
    let phone = world.owner().await;
    let desk = world.pair(&phone).await;
    assert_eq!(renew(&world, &desk).await.status, StatusCode::OK);
    world.advance(CREDENTIAL_RETRY_WINDOW);
    assert_code(&renew(&world, &desk).await, ErrorCode::MachineKeyCloned);
    let mut again = world.start_pairing(desk.machine_key.clone(), desk.credential.clone()).await;
    assert_eq!(again.machine_id, desk.machine_id);
    assert_eq!(listed(&world, &phone).await["quarantined"], true, "a beginning is no pairing");
    world.fresh(&phone).await;
    assert_eq!(world.redeem(&phone, &again).await.status, StatusCode::OK);
    assert_eq!(world.finalize(&phone, &again).await.status, StatusCode::NO_CONTENT);
    let paired = world.confirm(&phone, &again).await;
    again.credential = Some(text(&paired.body, "credential"));
    assert_eq!(listed(&world, &phone).await["quarantined"], false);
    assert_code(&renew(&world, &desk).await, ErrorCode::MachineKeyCloned);
    assert_eq!(listed(&world, &phone).await["quarantined"], false);
    assert_eq!(renew(&world, &again).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_machine_is_listed_with_the_version_it_was_paired_with() {
    let world = World::start().await;
    let phone = world.owner().await;
    let desk = world.pair(&phone).await;
    assert_eq!(listed(&world, &phone).await["connector_version"], "0.0.0");
    let too_long = "1".repeat(VERSION_TEXT_BYTES_MAX + 1);
    for version in [too_long.as_str(), "1.0\u{1b}[2J", "1.0\n", "é"] {
        let mut body = start_body(&desk.machine_key, &desk.keys, world.now());
        body["connector_version"] = json!(version);
        let answer = world.connector(None, Method::POST, "/api/local-connect/start", Some(body)).await;
        assert_code(&answer, ErrorCode::BadRequest);
    }
}

#[tokio::test]
async fn a_machine_request_must_be_fresh_signed_and_its_own() {
    let world = World::start().await;
    let phone = world.owner().await;
    let (desk, other) = (world.pair(&phone).await, world.pair(&phone).await);
    let path = format!("/api/machines/{}/credential", desk.machine_id);
    let credential = desk.credential.as_deref().expect("paired");
    let now = world.now();
    let skew = u64::try_from(MACHINE_REQUEST_SKEW_MAX.as_millis()).expect("a short time") + 1;
    for timestamp in [now - skew, now + skew] {
        let request = machine_request(&desk.machine_key, credential, Method::POST, &path, None, timestamp);
        assert_code(&world.send(request).await, ErrorCode::ProofInvalid);
    }
    let request = machine_request(&SigningKey::from_bytes(&[1; 32]), credential, Method::POST, &path, None, now);
    assert_code(&world.send(request).await, ErrorCode::ProofInvalid);
    let mut request = machine_request(&desk.machine_key, credential, Method::POST, &path, None, now);
    *request.body_mut() = axum::body::Body::from("{}");
    assert_code(&world.send(request).await, ErrorCode::ProofInvalid);
    let elsewhere = machine_request(&desk.machine_key, credential, Method::POST, "/api/machines/x/audit", None, now);
    let (mut parts, body) = elsewhere.into_parts();
    parts.uri = path.parse().expect("a path");
    assert_code(&world.send(http::Request::from_parts(parts, body)).await, ErrorCode::ProofInvalid);
    let request = machine_request(&desk.machine_key, "v4.public.AAAA", Method::POST, &path, None, now);
    assert_code(&world.send(request).await, ErrorCode::CredentialInvalid);
    assert_code(&world.machine(&other, &path, None).await, ErrorCode::NotFound);
    let mut unsigned = machine_request(&desk.machine_key, credential, Method::POST, &path, None, now);
    unsigned.headers_mut().remove(http::header::AUTHORIZATION);
    assert_code(&world.send(unsigned).await, ErrorCode::Unauthenticated);
}

async fn renew(world: &World, desk: &Desk) -> super::harness::Answer {
    world.machine(desk, &format!("/api/machines/{}/credential", desk.machine_id), None).await
}

/// The one machine of the phone's account.
async fn listed(world: &World, phone: &Phone) -> Value {
    let list = world.page(Some(&phone.cookie), Method::GET, "/api/machines", None).await;
    let machines = list.body["machines"].as_array().expect("a list").clone();
    assert_eq!(machines.len(), 1, "{machines:?}");
    machines[0].clone()
}
