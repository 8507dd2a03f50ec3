//! Tickets, grants and revoked devices.

use flydex_domain::error::ErrorCode;
use flydex_domain::key::PublicKey;
use flydex_domain::limits::{TICKET_LIFETIME, TOKEN_SKEW_MAX};
use flydex_domain::revocation::Revocation;
use flydex_domain::scope::Role;
use flydex_domain::time::UnixMillis;
use flydex_domain::token::{EncodedKey, Grant, Ticket, TokenError};
use http::{Method, StatusCode};
use serde_json::json;

use super::harness::{Answer, Phone, World, assert_code, heard, text};

#[tokio::test]
async fn a_ticket_names_the_region_user_and_key_and_lasts_a_minute() {
    let world = World::start().await;
    let phone = world.owner().await;
    let answer = ticket(&world, &phone, "local").await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let verifier = world.service.verifier();
    let now = UnixMillis(world.now());
    let token = text(&answer.body, "ticket");
    let ticket: Ticket = verifier.verify(&token, now).expect("the ticket verifies");
    let grant: Grant = verifier.verify(&text(&answer.body, "grant"), now).expect("the grant verifies");
    let key = PublicKey::of(&phone.device_key);
    assert_eq!((ticket.region.as_str(), ticket.role, ticket.device_id), ("local", Role::Owner, key.device_id()));
    assert_eq!(
        (ticket.account_id, grant.account_id, grant.device_key),
        (phone.account_id, phone.account_id, EncodedKey(key))
    );
    assert_eq!(ticket.user_id, grant.user_id);
    assert_eq!(ticket.expires_at, now.plus(TICKET_LIFETIME));
    let late = now.plus(TICKET_LIFETIME).plus(TOKEN_SKEW_MAX);
    assert_eq!(verifier.verify::<Ticket>(&token, late), Err(TokenError::Expired));
}

#[tokio::test]
async fn every_ticket_is_another_one_and_the_sessions_grant_id_stays() {
    let world = World::start().await;
    let phone = world.owner().await;
    let now = UnixMillis(world.now());
    let verifier = world.service.verifier();
    let (first, second) = (ticket(&world, &phone, "local").await.body, ticket(&world, &phone, "local").await.body);
    let ticket_id = |body| verifier.verify::<Ticket>(&text(body, "ticket"), now).expect("a ticket").ticket_id;
    let grant_id = |body| verifier.verify::<Grant>(&text(body, "grant"), now).expect("a grant").grant_id;
    assert_ne!(ticket_id(&first), ticket_id(&second));
    assert_eq!(grant_id(&first), grant_id(&second));
}

#[tokio::test]
async fn an_unknown_region_gets_no_ticket() {
    let world = World::start().await;
    let phone = world.owner().await;
    assert_code(&ticket(&world, &phone, "elsewhere").await, ErrorCode::NotFound);
}

#[tokio::test]
async fn tickets_of_before_a_restart_still_verify() {
    let world = World::start().await;
    let phone = world.owner().await;
    let body = ticket(&world, &phone, "local").await.body;
    let world = world.restart().await;
    let now = UnixMillis(world.now());
    assert!(world.service.verifier().verify::<Ticket>(&text(&body, "ticket"), now).is_ok());
}

#[tokio::test]
async fn a_revoked_device_gets_no_ticket_and_is_not_paired_again() {
    let world = World::start().await;
    let phone = world.owner().await;
    let _desk = world.pair(&phone).await;
    let mut revocations = world.service.revocations();
    let device_id = PublicKey::of(&phone.device_key).device_id();
    let path = format!("/api/devices/{device_id}");
    assert_eq!(world.page(Some(&phone.cookie), Method::DELETE, &path, None).await.status, StatusCode::NO_CONTENT);
    let entry = heard(&mut revocations).await;
    assert_eq!(entry.revocation, Revocation::Device { account_id: phone.account_id, device_id, keeps: None });
    assert_code(&ticket(&world, &phone, "local").await, ErrorCode::DeviceRevoked);
    assert_code(&world.redeem(&phone, &world.desk().await).await, ErrorCode::DeviceRevoked);
    assert_code(&world.page(Some(&phone.cookie), Method::DELETE, &path, None).await, ErrorCode::NotFound);
}

#[tokio::test]
async fn only_owners_revoke_devices_of_others_and_none_in_other_accounts() {
    let world = World::start().await;
    let phone = world.owner().await;
    let _desk = world.pair(&phone).await;
    let path = format!("/api/devices/{}", PublicKey::of(&phone.device_key).device_id());
    let operator = world.user(Some(phone.account_id), Role::Operator).await;
    assert_code(&world.page(Some(&operator.cookie), Method::DELETE, &path, None).await, ErrorCode::Forbidden);
    let stranger = world.user(None, Role::Owner).await;
    assert_code(&world.page(Some(&stranger.cookie), Method::DELETE, &path, None).await, ErrorCode::NotFound);
    let colleague = world.user(Some(phone.account_id), Role::Owner).await;
    assert_eq!(world.page(Some(&colleague.cookie), Method::DELETE, &path, None).await.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn a_device_that_opens_a_session_is_listed_and_removed_though_it_was_never_paired() {
    let world = World::start().await;
    let phone = world.owner().await;
    let device_id = PublicKey::of(&phone.device_key).device_id();
    for label in [Some("tablet"), None, Some("another name")] {
        let body = json!({
            "device_key": EncodedKey(PublicKey::of(&phone.device_key)), "region": "local", "device_label": label,
        });
        let answer = world.page(Some(&phone.cookie), Method::POST, "/api/tickets", Some(body)).await;
        assert_eq!(answer.status, StatusCode::OK);
    }
    let listed = world.page(Some(&phone.cookie), Method::GET, "/api/devices", None).await.body;
    assert_eq!(listed["devices"].as_array().map(Vec::len), Some(1), "{listed}");
    assert_eq!(listed["devices"][0]["label"], "tablet", "what is known of it stays");
    let mut revocations = world.service.revocations();
    let path = format!("/api/devices/{device_id}");
    assert_eq!(world.page(Some(&phone.cookie), Method::DELETE, &path, None).await.status, StatusCode::NO_CONTENT);
    let entry = heard(&mut revocations).await;
    assert_eq!(entry.revocation, Revocation::Device { account_id: phone.account_id, device_id, keeps: None });
    assert_code(&ticket(&world, &phone, "local").await, ErrorCode::DeviceRevoked);
}

#[tokio::test]
async fn a_ticket_with_a_label_that_is_none_registers_nothing() {
    let world = World::start().await;
    let phone = world.owner().await;
    let device_key = EncodedKey(PublicKey::of(&phone.device_key));
    for label in ["", "   ", "a\nb", &"x".repeat(65)] {
        let body = json!({ "device_key": device_key, "region": "local", "device_label": label });
        let answer = world.page(Some(&phone.cookie), Method::POST, "/api/tickets", Some(body)).await;
        assert_code(&answer, ErrorCode::BadRequest);
    }
    let listed = world.page(Some(&phone.cookie), Method::GET, "/api/devices", None).await.body;
    assert_eq!(listed["devices"], json!([]));
}

async fn ticket(world: &World, phone: &Phone, region: &str) -> Answer {
    let body = json!({ "device_key": EncodedKey(PublicKey::of(&phone.device_key)), "region": region });
    world.page(Some(&phone.cookie), Method::POST, "/api/tickets", Some(body)).await
}
