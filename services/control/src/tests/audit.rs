//! The audit: intents and their receipts, uploads of machines, pages, and the chain underneath.

use flydex_domain::audit::check::ChainCheck;
use flydex_domain::audit::export::Line;
use flydex_domain::audit::head::SignedHead;
use flydex_domain::audit::{AuditEntry, AuditKind};
use flydex_domain::error::ErrorCode;
use flydex_domain::id::{ApprovalId, AuditId, CommandHash, CommandId, Generation};
use flydex_domain::key::PublicKey;
use flydex_domain::limits::{ACCOUNT_EXPORT_RATE_PER_MINUTE, AUDIT_UPLOAD_RECORDS_MAX, CREDENTIAL_LIFETIME};
use flydex_domain::scope::Role;
use flydex_domain::time::UnixMillis;
use flydex_domain::token::AuditReceipt;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use super::harness::{Answer, Desk, Phone, World, assert_code, scope_of, text};

#[tokio::test]
async fn an_intent_is_on_record_before_its_receipt_is_signed() {
    let world = World::start().await;
    let phone = world.owner().await;
    let desk = world.pair(&phone).await;
    let body = intent_body(&phone, &desk, 1);
    let answer = intent(&world, &phone, &body).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let token = text(&answer.body, "audit_receipt");
    let receipt: AuditReceipt = world.service.verifier().verify(&token, UnixMillis(world.now())).expect("it verifies");
    assert_eq!(receipt.account_id, phone.account_id);
    assert_eq!(json!(receipt.machine_id), body["machine_id"]);
    assert_eq!(json!(receipt.device_id), body["device_id"]);
    assert_eq!(json!(receipt.approval_id), body["approval_id"]);
    assert_eq!(json!(receipt.generation), body["generation"]);
    assert_eq!(json!(receipt.command_id), body["command_id"]);
    assert_eq!(json!(receipt.command_hash), body["command_hash"]);
    let newest = page(&world, &phone, "?limit=1").await["records"][0].clone();
    assert_eq!(newest["kind"], "approval_intent");
    assert_eq!(newest["audit_id"], json!(receipt.audit_id));
    assert_eq!(newest["decision"], "accept");
}

#[tokio::test]
async fn a_repeated_intent_is_one_record_and_another_under_its_id_is_refused() {
    let world = World::start().await;
    let phone = world.owner().await;
    let desk = world.pair(&phone).await;
    let body = intent_body(&phone, &desk, 1);
    assert_eq!(intent(&world, &phone, &body).await.status, StatusCode::OK);
    let records = page(&world, &phone, "").await;
    assert_eq!(intent(&world, &phone, &body).await.status, StatusCode::OK);
    assert_eq!(page(&world, &phone, "").await, records);
    for (field, value) in [
        ("decision", json!("decline")),
        ("command_hash", json!(CommandHash::from_bytes([9; 32]))),
        ("approval_id", json!(ApprovalId::from_bytes([9; 32]))),
    ] {
        let mut other = body.clone();
        other[field] = value;
        assert_code(&intent(&world, &phone, &other).await, ErrorCode::CommandIdReused);
    }
}

#[tokio::test]
async fn an_intent_names_machine_and_device_of_the_user() {
    let world = World::start().await;
    let phone = world.owner().await;
    let desk = world.pair(&phone).await;
    let stranger = world.user(None, Role::Owner).await;
    assert_code(&intent(&world, &stranger, &intent_body(&phone, &desk, 1)).await, ErrorCode::NotFound);
    let colleague = world.user(Some(phone.account_id), Role::Owner).await;
    assert_code(&intent(&world, &colleague, &intent_body(&phone, &desk, 1)).await, ErrorCode::NotFound);
    assert_code(&intent(&world, &colleague, &intent_body(&colleague, &desk, 1)).await, ErrorCode::NotFound);
    let viewer = world.user(Some(phone.account_id), Role::Viewer).await;
    assert_code(&intent(&world, &viewer, &intent_body(&phone, &desk, 1)).await, ErrorCode::Forbidden);
    let mut unknown = intent_body(&phone, &desk, 1);
    unknown["decision"] = json!("always");
    assert_code(&intent(&world, &phone, &unknown).await, ErrorCode::BadRequest);
}

#[tokio::test]
async fn a_machines_upload_is_acknowledged_as_often_as_sent_and_stored_once() {
    let world = World::start().await;
    let phone = world.owner().await;
    let desk = world.pair(&phone).await;
    let records = json!({ "records": [upload_record(1), upload_record(2)] });
    let first = upload(&world, &desk, records.clone()).await;
    assert_eq!(first.status, StatusCode::OK, "{first:?}");
    assert_eq!(first.body["acknowledged"].as_array().map(Vec::len), Some(2));
    let after = page(&world, &phone, "").await;
    assert_eq!(upload(&world, &desk, records).await.body, first.body);
    assert_eq!(page(&world, &phone, "").await, after);
    assert_eq!(after["records"][0]["deferred"], json!(true));
    assert_eq!(after["records"][0]["code"], "approval_expired");
    let mut altered = upload_record(1);
    altered["outcome"] = json!("unknown");
    assert_code(&upload(&world, &desk, json!({ "records": [altered] })).await, ErrorCode::Conflict);
}

#[tokio::test]
async fn what_was_answered_at_the_desk_is_taken_without_a_device() {
    let world = World::start().await;
    let phone = world.owner().await;
    let desk = world.pair(&phone).await;
    let mut record = upload_record(1);
    record["deferred"] = json!(false);
    record["outcome"] = json!("executed");
    for unknown in ["device_id", "command_id", "command_hash", "decision", "code"] {
        record.as_object_mut().unwrap().remove(unknown);
    }
    let answer = upload(&world, &desk, json!({ "records": [record] })).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let listed = &page(&world, &phone, "").await["records"][0];
    assert_eq!((&listed["kind"], &listed["outcome"]), (&json!("approval_answered"), &json!("executed")));
    assert!(listed.get("device_id").is_none() && listed.get("command_id").is_none(), "{listed}");
}

#[tokio::test]
async fn a_machine_reports_for_itself_and_only_what_machines_report() {
    let world = World::start().await;
    let phone = world.owner().await;
    let (desk, other) = (world.pair(&phone).await, world.pair(&phone).await);
    let records = json!({ "records": [upload_record(1)] });
    let path = format!("/api/machines/{}/audit", desk.machine_id);
    assert_code(&world.machine(&other, &path, Some(records.clone())).await, ErrorCode::NotFound);
    for (kind, deferred) in [("signed_in", true), ("approval_intent", false), ("unheard_of", true)] {
        let mut record = upload_record(1);
        record["kind"] = json!(kind);
        record["deferred"] = json!(deferred);
        assert_code(&upload(&world, &desk, json!({ "records": [record] })).await, ErrorCode::BadRequest);
    }
    let many: Vec<Value> = (0..=AUDIT_UPLOAD_RECORDS_MAX as u128).map(upload_record).collect();
    assert_eq!(upload(&world, &desk, json!({ "records": many })).await.status, StatusCode::BAD_REQUEST);
    world.advance(CREDENTIAL_LIFETIME);
    assert_code(&upload(&world, &desk, records).await, ErrorCode::CredentialInvalid);
}

#[tokio::test]
async fn a_deferred_intent_is_taken_from_the_machine_and_does_not_block_the_phones() {
    let world = World::start().await;
    let phone = world.owner().await;
    let desk = world.pair(&phone).await;
    let body = intent_body(&phone, &desk, 1);
    let mut record = upload_record(1);
    record["kind"] = json!("approval_intent");
    record["outcome"] = json!("unknown");
    record["code"] = json!("a_code_of_tomorrow");
    for field in ["device_id", "command_id", "command_hash", "approval_id", "generation"] {
        record[field] = body[field].clone();
    }
    let records = json!({ "records": [record] });
    assert_eq!(upload(&world, &desk, records.clone()).await.status, StatusCode::OK);
    assert_eq!(upload(&world, &desk, records).await.status, StatusCode::OK);
    assert_eq!(intent(&world, &phone, &body).await.status, StatusCode::OK);
}

#[tokio::test]
async fn pages_lead_through_the_whole_audit_newest_first() {
    let world = World::start().await;
    let phone = world.owner().await;
    let desk = world.pair(&phone).await;
    let records: Vec<Value> = (0..10).map(upload_record).collect();
    assert_eq!(upload(&world, &desk, json!({ "records": records })).await.status, StatusCode::OK);
    let mut numbers = Vec::new();
    let mut query = "?limit=4".to_owned();
    loop {
        let page = page(&world, &phone, &query).await;
        let records = page["records"].as_array().expect("a list");
        assert!(records.len() <= 4);
        numbers.extend(records.iter().map(|record| record["number"].as_u64().expect("a number")));
        let Some(before) = page["next_before"].as_u64() else { break };
        query = format!("?limit=4&before={before}");
    }
    let total = numbers.len() as u64;
    assert_eq!(numbers, (1..=total).rev().collect::<Vec<_>>());
    assert_code(&world.page(Some(&phone.cookie), Method::GET, "/api/audit?limit=x", None).await, ErrorCode::BadRequest);
    assert_code(&world.page(Some(&phone.cookie), Method::GET, "/api/audit?all=1", None).await, ErrorCode::BadRequest);
}

#[tokio::test]
async fn a_search_finds_by_kind_machine_device_user_and_time() {
    let world = World::start().await;
    let phone = world.owner().await;
    let (desk, other) = (world.pair(&phone).await, world.pair(&phone).await);
    let device_id = PublicKey::of(&phone.device_key).device_id();
    let mut record = upload_record(1);
    record["at_ms"] = json!(1_700_000_000_000_u64);
    assert_eq!(upload(&world, &desk, json!({ "records": [record] })).await.status, StatusCode::OK);
    let session = world.page(Some(&phone.cookie), Method::GET, "/api/session", None).await.body;
    let (machine, user) = (&desk.machine_id, text(&session, "user_id"));
    let count = async |query: String| page(&world, &phone, &query).await["records"].as_array().expect("a list").len();
    assert_eq!(count("?kind=machine_paired".to_owned()).await, 2);
    assert_eq!(count(format!("?kind=machine_paired&machine_id={machine}")).await, 1);
    assert_eq!(count(format!("?kind=machine_renamed&machine_id={}", other.machine_id)).await, 0);
    assert!(count(format!("?device_id={device_id}")).await > 0);
    assert!(count(format!("?user_id={user}")).await > 0);
    assert_eq!(count("?until_ms=1700000000001".to_owned()).await, 1, "a deferred record has its own time");
    let newest = &page(&world, &phone, "?until_ms=1700000000001").await["records"][0];
    assert_eq!(newest["number"], page(&world, &phone, "?limit=1").await["records"][0]["number"], "and its place");
    assert_eq!(newest["deferred"], json!(true));
    assert_eq!(count("?since_ms=1700000000000&until_ms=1700000000000".to_owned()).await, 0);
    for wrong in ["kind=unheard_of", "machine_id=1", "device_id=x", "user_id=", "since_ms=-1", "text=secret"] {
        let path = format!("/api/audit?{wrong}");
        assert_code(&world.page(Some(&phone.cookie), Method::GET, &path, None).await, ErrorCode::BadRequest);
    }
}

#[tokio::test]
async fn an_export_holds_every_record_in_order_and_ends_in_the_signed_head() {
    let world = World::start().await;
    let phone = world.owner().await;
    let desk = world.pair(&phone).await;
    // More than one page of the database.
    for batch in 0..3 {
        let records: Vec<Value> = (0..100).map(|number| upload_record(batch * 100 + number)).collect();
        assert_eq!(upload(&world, &desk, json!({ "records": records })).await.status, StatusCode::OK);
    }
    let answer = world.page(Some(&phone.cookie), Method::GET, "/api/audit/export", None).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.headers["content-disposition"], "attachment; filename=\"flydex-audit.ndjson\"");
    assert_eq!(answer.headers["cache-control"], "no-store");
    let mut check = ChainCheck::new(phone.account_id, None);
    let mut lines =
        answer.body.as_str().expect("text").lines().map(|line| Line::read(line.as_bytes()).expect("a line"));
    let Some(Line::Head(head)) = lines.next_back() else { panic!("it ends in the head") };
    for line in lines {
        let Line::Record(account_id, record) = line else { panic!("before it are records") };
        assert_eq!(account_id, phone.account_id);
        check.take(&record).expect("it holds");
    }
    let claims = head.verify(&world.service.verifier()).expect("control signed it");
    assert_eq!((claims.account_id, claims.head()), (phone.account_id, check.at()));
    assert!(check.at().number > 300);

    let told = world.page(Some(&phone.cookie), Method::GET, "/api/audit/head", None).await.body;
    assert_eq!(told["number"], json!(check.at().number));
    assert_eq!(told["hash"], json!(CommandHash::from_bytes(check.at().hash)));
    assert_eq!(told["account_id"], json!(phone.account_id));
    let keys = world.page(None, Method::GET, "/api/keys", None).await.body;
    assert_eq!(told["token_keys"], keys["token_keys"]);
    let claims = SignedHead(text(&told, "head")).verify(&world.service.verifier()).expect("control signed it");
    assert_eq!(claims.head(), check.at());
}

#[tokio::test]
async fn exports_have_a_rate() {
    let world = World::start().await;
    let phone = world.owner().await;
    let head = async || world.page(Some(&phone.cookie), Method::GET, "/api/audit/head", None).await;
    for _ in 0..ACCOUNT_EXPORT_RATE_PER_MINUTE {
        assert_eq!(head().await.status, StatusCode::OK);
    }
    assert_code(&head().await, ErrorCode::RateLimited);
    let export = world.page(Some(&phone.cookie), Method::GET, "/api/audit/export", None).await;
    assert_code(&export, ErrorCode::RateLimited);
}

#[tokio::test]
async fn the_chain_of_a_used_account_holds_and_only_its_owner_sees_it() {
    let world = World::start().await;
    let phone = world.owner().await;
    let _desk = world.pair(&phone).await;
    let other = world.user(None, Role::Owner).await;
    let world = world.restart().await;
    let mut tx = world.store.write().await.expect("a transaction");
    let scope = scope_of(phone.account_id);
    let number = tx.verify_audit(scope).await.expect("the database").expect("the chain holds");
    assert_eq!(number, page(&world, &phone, "").await["records"][0]["number"].as_u64().expect("a number"));
    let entry = AuditEntry::new(AuditId::from_uuid(Uuid::from_u128(5)), AuditKind::SignedIn, UnixMillis(1));
    assert_eq!(tx.append_audit(scope, &entry).await.expect("appended"), number + 1);
    drop(tx);
    assert_eq!(page(&world, &other, "").await["records"].as_array().map(Vec::len), Some(1));
}

fn intent_body(phone: &Phone, desk: &Desk, command: u128) -> Value {
    json!({
        "machine_id": desk.machine_id,
        "device_id": PublicKey::of(&phone.device_key).device_id(),
        "approval_id": ApprovalId::from_bytes([1; 32]),
        "generation": Generation::from_bytes([2; 32]),
        "decision": "accept",
        "command_id": CommandId::from_uuid(Uuid::from_u128(command)),
        "command_hash": CommandHash::from_bytes([3; 32]),
    })
}

fn upload_record(number: u128) -> Value {
    json!({
        "audit_id": AuditId::from_uuid(Uuid::from_u128(1_000 + number)),
        "kind": "approval_answered",
        "at_ms": 1_800_000_000_123_u64,
        "device_id": PublicKey::Ed25519([7; 32]).device_id(),
        "approval_id": ApprovalId::from_bytes([1; 32]),
        "generation": Generation::from_bytes([2; 32]),
        "command_id": CommandId::from_uuid(Uuid::from_u128(number)),
        "command_hash": CommandHash::from_bytes([3; 32]),
        "decision": "accept",
        "outcome": "refused",
        "code": "approval_expired",
        "deferred": true,
    })
}

async fn intent(world: &World, phone: &Phone, body: &Value) -> Answer {
    world.page(Some(&phone.cookie), Method::POST, "/api/audit/intents", Some(body.clone())).await
}

async fn upload(world: &World, desk: &Desk, body: Value) -> Answer {
    world.machine(desk, &format!("/api/machines/{}/audit", desk.machine_id), Some(body)).await
}

async fn page(world: &World, phone: &Phone, query: &str) -> Value {
    let answer = world.page(Some(&phone.cookie), Method::GET, &format!("/api/audit{query}"), None).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    answer.body
}
