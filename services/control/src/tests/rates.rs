//! Rates per address, behind proxies and without, and rates per account.

use std::net::IpAddr;
use std::time::Duration;

use flydex_domain::error::ErrorCode;
use flydex_domain::id::{ApprovalId, CommandHash, CommandId, Generation};
use flydex_domain::key::PublicKey;
use flydex_domain::limits::{ACCOUNT_INTENT_RATE_PER_MINUTE, ACCOUNT_TICKET_RATE_PER_MINUTE, SIGN_IN_RATE_PER_MINUTE};
use flydex_domain::scope::Role;
use flydex_domain::token::EncodedKey;
use flydex_runtime::client::{Cidr, located};
use http::{HeaderValue, Method, header};
use serde_json::{Value, json};
use uuid::Uuid;

use super::harness::{Answer, Phone, World, assert_code, encode, page_request, send_to};

const PROXY: &str = "10.0.0.1";

/// Tries a sign-in link that is none, from a peer with an `X-Forwarded-For` header; 10.0.0.0/8 is trusted.
async fn guess(world: &World, peer: &str, forwarded_for: Option<&str>) -> Answer {
    let proxies = ["10.0.0.0/8".parse::<Cidr>().expect("a range")].into_iter().collect();
    let body = json!({ "token": encode(&[7; 32]) });
    let mut request = page_request(None, Method::POST, "/api/sign-in", Some(body));
    if let Some(text) = forwarded_for {
        request.headers_mut().insert("x-forwarded-for", HeaderValue::from_str(text).expect("a header"));
    }
    let peer: IpAddr = peer.parse().expect("an address");
    send_to(located(world.router.clone(), proxies), peer, request).await
}

async fn exhaust(world: &World, peer: &str, forwarded_for: Option<&str>) {
    for _ in 0..SIGN_IN_RATE_PER_MINUTE {
        assert_code(&guess(world, peer, forwarded_for).await, ErrorCode::SignInLinkInvalid);
    }
    assert_code(&guess(world, peer, forwarded_for).await, ErrorCode::RateLimited);
}

#[tokio::test]
async fn clients_behind_a_trusted_proxy_are_counted_apart() {
    let world = World::start().await;
    exhaust(&world, PROXY, Some("192.0.2.1")).await;
    assert_code(&guess(&world, PROXY, Some("192.0.2.2")).await, ErrorCode::SignInLinkInvalid);
    // Directly or by a proxy, it is one client.
    assert_code(&guess(&world, "192.0.2.1", None).await, ErrorCode::RateLimited);
}

#[tokio::test]
async fn an_address_that_a_client_makes_up_does_not_help_it() {
    let world = World::start().await;
    exhaust(&world, PROXY, Some("192.0.2.1")).await;
    for made_up in ["203.0.113.9, 192.0.2.1", "10.0.0.7, 192.0.2.1", "nonsense, 192.0.2.1"] {
        assert_code(&guess(&world, PROXY, Some(made_up)).await, ErrorCode::RateLimited);
    }
    exhaust(&world, "198.51.100.7", None).await;
    assert_code(&guess(&world, "198.51.100.7", Some("203.0.113.9")).await, ErrorCode::RateLimited);
}

#[tokio::test]
async fn tickets_are_counted_for_the_account_with_all_its_users() {
    let world = World::start().await;
    let phone = world.owner().await;
    let colleague = world.user(Some(phone.account_id), Role::Viewer).await;
    let stranger = world.user(None, Role::Owner).await;
    let ask = async |phone: &Phone| {
        let device_key = EncodedKey(PublicKey::of(&phone.device_key));
        post(&world, phone, "/api/tickets", json!({ "device_key": device_key, "region": "local" })).await
    };
    for _ in 0..ACCOUNT_TICKET_RATE_PER_MINUTE {
        assert!(ask(&phone).await.status.is_success());
    }
    for phone in [&phone, &colleague] {
        assert_limited(&ask(phone).await);
    }
    assert!(ask(&stranger).await.status.is_success());
    world.advance(Duration::from_secs(1));
    assert!(ask(&colleague).await.status.is_success());
}

#[tokio::test]
async fn audit_intents_are_counted_for_the_account_before_anything_is_written() {
    let world = World::start().await;
    let phone = world.owner().await;
    let desk = world.pair(&phone).await;
    let device_id = PublicKey::of(&phone.device_key).device_id();
    let body = |machine_id: &str| {
        json!({
            "machine_id": machine_id,
            "device_id": device_id,
            "approval_id": ApprovalId::from_bytes([1; 32]),
            "generation": Generation::from_bytes([2; 32]),
            "decision": "accept",
            "command_id": CommandId::from_uuid(Uuid::new_v4()),
            "command_hash": CommandHash::from_bytes([3; 32]),
        })
    };
    let missing = Uuid::new_v4().to_string();
    for _ in 0..ACCOUNT_INTENT_RATE_PER_MINUTE {
        let answer = post(&world, &phone, "/api/audit/intents", body(&missing)).await;
        assert_code(&answer, ErrorCode::NotFound);
    }
    assert_limited(&post(&world, &phone, "/api/audit/intents", body(&desk.machine_id)).await);
    let audit = world.page(Some(&phone.cookie), Method::GET, "/api/audit?limit=1", None).await;
    assert_ne!(audit.body["records"][0]["kind"], "approval_intent");
    world.advance(Duration::from_secs(1));
    assert!(post(&world, &phone, "/api/audit/intents", body(&desk.machine_id)).await.status.is_success());
}

async fn post(world: &World, phone: &Phone, path: &str, body: Value) -> Answer {
    world.page(Some(&phone.cookie), Method::POST, path, Some(body)).await
}

#[track_caller]
fn assert_limited(answer: &Answer) {
    assert_code(answer, ErrorCode::RateLimited);
    let wait = answer.body["error"]["retry_after_ms"].as_u64().expect("when to try again");
    assert!((1..=1_000).contains(&wait), "{wait}");
    assert_eq!(answer.headers[header::RETRY_AFTER], "1");
}
