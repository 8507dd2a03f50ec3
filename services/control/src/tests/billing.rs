//! Plans and their limits, and the payment provider's events.

use std::time::Duration;

use axum::body::Body;
use flydex_domain::error::ErrorCode;
use flydex_domain::limits::{BILLING_EVENT_KEPT, BILLING_GRACE, BILLING_TOLERANCE};
use flydex_domain::scope::Role;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};
use sha2::Sha256;

use super::harness::{Answer, Phone, WEBHOOK_SECRET, World, assert_code};

const CUSTOMER: &str = "cus_1";

/// The signature of a body at a time, by a secret.
fn sign(secret: &str, seconds: u64, body: &str) -> String {
    let mut hmac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("a key");
    hmac.update(format!("{seconds}.{body}").as_bytes());
    hmac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn send(world: &World, headers: &[&str], body: &str) -> Answer {
    let mut request = Request::builder().method(Method::POST).uri("/api/billing/webhook");
    for header in headers {
        request = request.header("Stripe-Signature", *header);
    }
    world.send(request.body(Body::from(body.to_owned())).expect("a request")).await
}

/// Sends an event as the provider would.
async fn event(world: &World, event: &Value) -> Answer {
    let (seconds, body) = (world.now() / 1000, event.to_string());
    let signature = sign(WEBHOOK_SECRET, seconds, &body);
    send(world, &[&format!("t={seconds},v1={signature},v0=00")], &body).await
}

fn checkout(id: &str, customer: &str, reference: &str) -> Value {
    let object = json!({ "id": "cs_1", "customer": customer, "client_reference_id": reference, "livemode": false });
    json!({ "id": id, "type": "checkout.session.completed", "created": 1, "data": { "object": object } })
}

fn subscription(id: &str, kind: &str, seconds: u64, status: &str) -> Value {
    let object = json!({
        "id": "sub_1",
        "customer": CUSTOMER,
        "status": status,
        "items": { "data": [{ "price": { "id": "price_team" }, "quantity": 1 }] },
    });
    let kind = format!("customer.subscription.{kind}");
    json!({ "id": id, "type": kind, "created": seconds, "data": { "object": object } })
}

async fn standing(world: &World, phone: &Phone) -> Value {
    world.page(Some(&phone.cookie), Method::GET, "/api/billing", None).await.body
}

async fn plan(world: &World, phone: &Phone) -> String {
    super::harness::text(&standing(world, phone).await, "plan")
}

async fn taken(world: &World, it: &Value) {
    let answer = event(world, it).await;
    assert_eq!((answer.status, &answer.body["received"]), (StatusCode::OK, &json!(true)), "{answer:?}");
}

/// A world that bills, whose owner has a live subscription.
async fn subscribed() -> (World, Phone) {
    let world = World::that_bills().await;
    let owner = world.owner().await;
    taken(&world, &checkout("evt_1", CUSTOMER, &owner.account_id.to_string())).await;
    taken(&world, &subscription("evt_2", "created", world.now() / 1000, "active")).await;
    assert_eq!(plan(&world, &owner).await, "team");
    (world, owner)
}

async fn invite(world: &World, phone: &Phone) -> Answer {
    let body = json!({ "role": Role::Viewer, "label": "Ana" });
    world.page(Some(&phone.cookie), Method::POST, "/api/invitations", Some(body)).await
}

#[tokio::test]
async fn a_server_without_billing_has_no_limits_and_no_webhook() {
    let world = World::start().await;
    let owner = world.owner().await;
    world.pair(&owner).await;
    let standing = standing(&world, &owner).await;
    assert_eq!(standing["plan"], Value::Null);
    assert_eq!(standing["machines"], json!({ "used": 1, "limit": null }));
    assert_eq!(standing["seats"], json!({ "used": 1, "limit": null }));
    assert_code(&event(&world, &checkout("evt_1", CUSTOMER, "x")).await, ErrorCode::NotFound);
}

#[tokio::test]
async fn only_what_the_provider_signed_lately_counts() {
    let world = World::that_bills().await;
    let owner = world.owner().await;
    let body = checkout("evt_1", CUSTOMER, &owner.account_id.to_string()).to_string();
    let seconds = world.now() / 1000;
    let right = sign(WEBHOOK_SECRET, seconds, &body);
    let other = sign("whsec_other", seconds, &body);
    let of_other_time = sign(WEBHOOK_SECRET, seconds - 1, &body);
    for header in [
        String::new(),
        "nonsense".to_owned(),
        format!("v1={right}"),
        format!("t={seconds}"),
        format!("t={seconds},v0={right}"),
        format!("t={seconds},v1={other}"),
        format!("t={seconds},v1={of_other_time}"),
        format!("t={seconds},v1={}", &right[1..]),
        format!("t={seconds},v1={right}00"),
        format!("t={seconds},t={seconds},v1={right}"),
        format!("t=+{seconds},v1={right}"),
        format!("t={seconds},v1={right},{}", "v1=00,".repeat(1000)),
    ] {
        assert_code(&send(&world, &[&header], &body).await, ErrorCode::WebhookRefused);
    }
    let header = format!("t={seconds},v1={right}");
    assert_code(&send(&world, &[], &body).await, ErrorCode::WebhookRefused);
    assert_code(&send(&world, &[&header, &header], &body).await, ErrorCode::WebhookRefused);
    assert_code(&send(&world, &[&header], &format!("{body} ")).await, ErrorCode::WebhookRefused);
    // While a secret is replaced there are two signatures, and one fits.
    let both = format!("t={seconds},v1={other},v1={right}");
    assert_eq!(send(&world, &[&both], &body).await.status, StatusCode::OK);
    let beyond = BILLING_TOLERANCE.as_secs() + 1;
    for away in [seconds - beyond, seconds + beyond, u64::MAX] {
        let stale = format!("t={away},v1={}", sign(WEBHOOK_SECRET, away, &body));
        assert_code(&send(&world, &[&stale], &body).await, ErrorCode::WebhookRefused);
    }
}

#[tokio::test]
async fn a_signed_event_of_another_shape_is_refused_and_one_of_another_kind_acknowledged() {
    let world = World::that_bills().await;
    for malformed in [
        json!([]),
        json!({ "id": "evt_1" }),
        json!({ "id": "", "type": "x", "created": 1, "data": { "object": {} } }),
        json!({ "id": "e".repeat(256), "type": "x", "created": 1, "data": { "object": {} } }),
        json!({ "id": "evt_1", "type": "customer.subscription.updated", "created": 1, "data": { "object": {} } }),
    ] {
        assert_code(&event(&world, &malformed).await, ErrorCode::BadRequest);
    }
    let object = json!({ "object": { "anything": true } });
    taken(&world, &json!({ "id": "evt_1", "type": "invoice.paid", "created": 1, "data": object })).await;
    taken(&world, &checkout("evt_2", CUSTOMER, "somebody else's checkout")).await;
    taken(&world, &checkout("evt_3", CUSTOMER, "5fc8c0f3-7a6b-4d54-8f0e-0a5a3d4f8a11")).await;
}

#[tokio::test]
async fn events_count_once_and_by_their_own_time() {
    let (world, owner) = subscribed().await;
    let now = world.now() / 1000;
    let ended = subscription("evt_3", "deleted", now + 20, "canceled");
    // What was later comes first.
    taken(&world, &ended).await;
    taken(&world, &subscription("evt_4", "updated", now + 10, "active")).await;
    assert_eq!(plan(&world, &owner).await, "free");
    taken(&world, &subscription("evt_5", "updated", now + 30, "active")).await;
    assert_eq!(plan(&world, &owner).await, "team");
    // The same again, and the same id with another content, change nothing; not even when events are forgotten.
    taken(&world, &ended).await;
    taken(&world, &subscription("evt_3", "deleted", now + 40, "canceled")).await;
    assert_eq!(plan(&world, &owner).await, "team");
    world.advance(BILLING_EVENT_KEPT + Duration::from_secs(1));
    world.service.control().remove_ended().await.expect("housekeeping");
    taken(&world, &ended).await;
    let owner = world.owner().await;
    assert_eq!(plan(&world, &owner).await, "team");
}

#[tokio::test]
async fn a_subscription_that_comes_before_its_customer_is_kept_for_the_account() {
    let world = World::that_bills().await;
    let owner = world.owner().await;
    taken(&world, &subscription("evt_1", "created", 5, "active")).await;
    assert_eq!(plan(&world, &owner).await, "free");
    taken(&world, &checkout("evt_2", CUSTOMER, &owner.account_id.to_string())).await;
    assert_eq!(plan(&world, &owner).await, "team");
}

#[tokio::test]
async fn a_customer_stays_the_account_s_whoever_names_it() {
    let (world, owner) = subscribed().await;
    let other = world.user(None, Role::Owner).await;
    let (theirs, ours) = (other.account_id.to_string(), owner.account_id.to_string());
    // Another account names our customer, and a checkout of theirs names our account.
    taken(&world, &checkout("evt_3", CUSTOMER, &theirs)).await;
    taken(&world, &checkout("evt_4", "cus_2", &ours)).await;
    assert_eq!((plan(&world, &owner).await.as_str(), plan(&world, &other).await.as_str()), ("team", "free"));
    taken(&world, &checkout("evt_5", "cus_2", &theirs)).await;
    assert_eq!(plan(&world, &other).await, "free");
}

#[tokio::test]
async fn a_smaller_plan_takes_nothing_away_and_refuses_more() {
    let (world, owner) = subscribed().await;
    let first = world.pair(&owner).await;
    world.pair(&owner).await;
    assert_eq!(invite(&world, &owner).await.status, StatusCode::OK);
    assert_eq!(invite(&world, &owner).await.status, StatusCode::OK);
    taken(&world, &subscription("evt_3", "deleted", world.now() / 1000 + 1, "canceled")).await;

    let seen = standing(&world, &owner).await;
    assert_eq!((&seen["machines"], &seen["seats"]), (&json!({"used": 2, "limit": 1}), &json!({"used": 3, "limit": 1})));
    let machines = world.page(Some(&owner.cookie), Method::GET, "/api/machines", None).await;
    assert_eq!(machines.body["machines"].as_array().map(Vec::len), Some(2), "it reads on, and lost nothing");
    let renewed = world.machine(&first, &format!("/api/machines/{}/credential", first.machine_id), None).await;
    assert_eq!(renewed.status, StatusCode::OK, "{renewed:?}");

    let desk = world.desk().await;
    let refused = world.redeem(&owner, &desk).await;
    assert_code(&refused, ErrorCode::MachineLimit);
    assert_eq!(refused.body["error"]["limit"], json!(1));
    let refused = invite(&world, &owner).await;
    assert_code(&refused, ErrorCode::SeatLimit);
    assert_eq!(refused.body["error"]["limit"], json!(1));
    // A computer that is there is paired with one more device all the same.
    let again = world.start_pairing(first.machine_key.clone(), first.credential.clone()).await;
    assert_eq!(world.redeem(&owner, &again).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_plan_that_shrank_since_lets_no_invitation_and_no_pairing_through() {
    let (world, owner) = subscribed().await;
    world.pair(&owner).await;
    let desk = world.desk().await;
    assert!(world.redeem(&owner, &desk).await.status.is_success());
    assert!(world.finalize(&owner, &desk).await.status.is_success());
    let url = super::harness::text(&invite(&world, &owner).await.body, "url");
    let token = url.split_once('#').expect("a token").1;
    taken(&world, &subscription("evt_3", "deleted", world.now() / 1000 + 1, "canceled")).await;
    assert_code(&world.confirm(&owner, &desk).await, ErrorCode::MachineLimit);
    let accept = json!({ "token": token });
    let answer = world.page(None, Method::POST, "/api/invitations/accept", Some(accept.clone())).await;
    assert_code(&answer, ErrorCode::SeatLimit);
    // It was not used up: with room again it lets in.
    taken(&world, &subscription("evt_4", "updated", world.now() / 1000 + 2, "active")).await;
    let answer = world.page(None, Method::POST, "/api/invitations/accept", Some(accept)).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
}

#[tokio::test]
async fn a_late_payment_is_given_time_and_then_nothing_is_added() {
    let (world, owner) = subscribed().await;
    let at = world.now() / 1000 + 1;
    taken(&world, &subscription("evt_3", "updated", at, "past_due")).await;
    assert_eq!(invite(&world, &owner).await.status, StatusCode::OK);
    let seen = standing(&world, &owner).await;
    assert_eq!((seen["plan"].as_str(), seen["frozen"].as_bool()), (Some("team"), Some(false)));
    assert_eq!(seen["grace_until_ms"].as_u64(), Some((at + BILLING_GRACE.as_secs()) * 1000));
    world.advance(BILLING_GRACE + Duration::from_secs(2));
    let owner = world.owner().await;
    assert_code(&invite(&world, &owner).await, ErrorCode::PaymentDue);
    let desk = world.desk().await;
    assert_code(&world.redeem(&owner, &desk).await, ErrorCode::PaymentDue);
    taken(&world, &subscription("evt_4", "updated", world.now() / 1000, "active")).await;
    assert_eq!(invite(&world, &owner).await.status, StatusCode::OK);
}
