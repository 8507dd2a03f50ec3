use std::time::Duration;

use ed25519_dalek::SigningKey;
use flydex_domain::error::ErrorCode;
use flydex_domain::key::PublicKey;
use flydex_domain::limits::{CREDENTIAL_LIFETIME, CREDENTIAL_RETRY_WINDOW, MACHINE_KEY_OVERLAP};
use flydex_domain::revocation::Revocation;
use flydex_domain::rotation::{self, KeyRotation};
use flydex_domain::scope::Role;
use flydex_domain::time::UnixMillis;
use flydex_domain::token::MachineCredential;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::harness::{Answer, Desk, Phone, World, assert_code, heard, text};

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn statement(world: &World, phone: &Phone, desk: &Desk, counter: u64, new: &SigningKey) -> KeyRotation {
    let of = (phone.account_id, desk.machine_id.parse().expect("an id"));
    KeyRotation::make(of, counter, UnixMillis(world.now()), &desk.machine_key, new)
}

async fn rotate(world: &World, desk: &Desk, statement: &KeyRotation) -> Answer {
    world.machine(desk, &format!("/api/machines/{}/key", desk.machine_id), Some(json!(statement))).await
}

async fn renew(world: &World, desk: &Desk) -> Answer {
    world.machine(desk, &format!("/api/machines/{}/credential", desk.machine_id), None).await
}

async fn listed(world: &World, phone: &Phone) -> Vec<Value> {
    let list = world.page(Some(&phone.cookie), Method::GET, "/api/machines", None).await;
    list.body["machines"].as_array().expect("a list").clone()
}

/// The desk after its key was changed.
async fn rotated(world: &World, phone: &Phone, desk: &Desk, counter: u64, new: SigningKey) -> Desk {
    let answer = rotate(world, desk, &statement(world, phone, desk, counter, &new)).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    Desk { machine_key: new, credential: Some(text(&answer.body, "credential")), ..copy(desk) }
}

fn copy(desk: &Desk) -> Desk {
    Desk {
        machine_key: desk.machine_key.clone(),
        keys: flydex_domain::pairing::ClaimKeys::derive(&flydex_domain::secret::SecretKey::new([0; 32])),
        local_connect_id: desk.local_connect_id.clone(),
        claim_id: desk.claim_id.clone(),
        machine_id: desk.machine_id.clone(),
        token: desk.token.clone(),
        claim_expires_at: desk.claim_expires_at,
        credential: desk.credential.clone(),
    }
}

#[tokio::test]
async fn who_enrolled_with_the_first_key_finds_the_newest_by_the_machines_own_word() {
    let world = World::start().await;
    let phone = world.owner().await;
    let first = world.pair(&phone).await;
    let second = rotated(&world, &phone, &first, 1, key(2)).await;
    let third = rotated(&world, &phone, &second, 2, key(3)).await;
    let claims: MachineCredential = world
        .service
        .verifier()
        .verify(third.credential.as_ref().expect("one"), UnixMillis(world.now()))
        .expect("holds");
    assert_eq!((claims.machine_key.0, claims.serial), (PublicKey::of(&key(3)), 3));
    let machine = listed(&world, &phone).await.remove(0);
    let chain: Vec<KeyRotation> = serde_json::from_value(machine["key_rotations"].clone()).expect("statements");
    let of = (phone.account_id, third.machine_id.parse().expect("an id"));
    assert_eq!(rotation::newest(PublicKey::of(&first.machine_key), of, &chain), Ok(PublicKey::of(&key(3))));
    assert_eq!(renew(&world, &third).await.status, StatusCode::OK);
    let audit = world.page(Some(&phone.cookie), Method::GET, "/api/audit?limit=1", None).await;
    assert_eq!(audit.body["records"][0]["kind"], "machine_key_rotated");
}

#[tokio::test]
async fn a_statement_whose_answer_was_lost_is_answered_again_however_late() {
    let world = World::start().await;
    let phone = world.owner().await;
    let desk = world.pair(&phone).await;
    let stated = statement(&world, &phone, &desk, 1, &key(2));
    let first = rotate(&world, &desk, &stated).await;
    world.advance(CREDENTIAL_LIFETIME * 10);
    assert_eq!(rotate(&world, &desk, &stated).await.body, first.body);
    assert_eq!(listed(&world, &phone).await[0]["quarantined"], false);
}

#[tokio::test]
async fn what_is_under_way_by_the_old_key_is_taken_for_a_day() {
    let world = World::start().await;
    let phone = world.owner().await;
    let desk = world.pair(&phone).await;
    rotated(&world, &phone, &desk, 1, key(2)).await;
    let upload = async || {
        let path = format!("/api/machines/{}/audit", desk.machine_id);
        world.machine(&desk, &path, Some(json!({ "records": [] }))).await
    };
    world.advance(MACHINE_KEY_OVERLAP - Duration::from_millis(1));
    assert_eq!(upload().await.status, StatusCode::OK);
    world.advance(Duration::from_millis(1));
    assert_code(&upload().await, ErrorCode::CredentialInvalid);
}

#[tokio::test]
async fn the_first_renewal_by_the_new_key_ends_the_time_of_the_old_one() {
    let world = World::start().await;
    let phone = world.owner().await;
    let first = world.pair(&phone).await;
    let machine_id = first.machine_id.parse().expect("an id");
    let second = rotated(&world, &phone, &first, 1, key(2)).await;
    let upload = async |desk: &Desk| {
        let path = format!("/api/machines/{}/audit", desk.machine_id);
        world.machine(desk, &path, Some(json!({ "records": [] }))).await
    };
    // Whatever else the new key signs, the old one's link may still be the only one.
    assert_eq!(upload(&second).await.status, StatusCode::OK);
    assert_eq!(upload(&first).await.status, StatusCode::OK);
    let log = async || world.service.revocations_after(0).await.expect("the log");
    assert_eq!(log().await, []);
    let renewed = renew(&world, &second).await;
    let credential = Some(text(&renewed.body, "credential"));
    let superseded = Revocation::Superseded { account_id: phone.account_id, machine_id, serial: 1 };
    assert_eq!(log().await.into_iter().map(|entry| entry.revocation).collect::<Vec<_>>(), [superseded]);
    assert_code(&upload(&first).await, ErrorCode::CredentialInvalid);
    // Once, and a renewal after it cuts nothing.
    let second = Desk { credential, ..copy(&second) };
    assert_eq!(renew(&world, &second).await.status, StatusCode::OK);
    assert_eq!(log().await.len(), 1);
    assert_eq!(listed(&world, &phone).await[0]["quarantined"], false);
    assert_code(&renew(&world, &first).await, ErrorCode::MachineKeyCloned);
}

#[tokio::test]
async fn an_old_key_that_renews_or_states_another_successor_quarantines_the_machine() {
    for renews in [true, false] {
        let world = World::start().await;
        let phone = world.owner().await;
        let desk = world.pair(&phone).await;
        let machine_id = desk.machine_id.parse().expect("an id");
        let new = rotated(&world, &phone, &desk, 1, key(2)).await;
        let mut revocations = world.service.revocations();
        let answer = if renews {
            renew(&world, &desk).await
        } else {
            rotate(&world, &desk, &statement(&world, &phone, &desk, 2, &key(3))).await
        };
        assert_code(&answer, ErrorCode::MachineKeyCloned);
        let entry = heard(&mut revocations).await;
        assert_eq!(entry.revocation, Revocation::Quarantine { account_id: phone.account_id, machine_id, serial: 2 });
        assert_code(&renew(&world, &new).await, ErrorCode::MachineKeyCloned);
    }
}

#[tokio::test]
async fn an_older_disk_that_changes_its_key_is_told_from_a_renewal_whose_answer_was_lost() {
    let world = World::start().await;
    let phone = world.owner().await;
    let desk = world.pair(&phone).await;
    assert_eq!(renew(&world, &desk).await.status, StatusCode::OK);
    let stated = statement(&world, &phone, &desk, 1, &key(2));
    assert_eq!(rotate(&world, &desk, &stated).await.status, StatusCode::OK, "the answer to its renewal was lost");

    let other = world.pair(&phone).await;
    assert_eq!(renew(&world, &other).await.status, StatusCode::OK);
    world.advance(CREDENTIAL_RETRY_WINDOW);
    let stated = statement(&world, &phone, &other, 1, &key(3));
    assert_code(&rotate(&world, &other, &stated).await, ErrorCode::MachineKeyCloned);
}

#[tokio::test]
async fn a_statement_must_be_the_next_of_this_machine_by_both_keys() {
    let world = World::start().await;
    let phone = world.owner().await;
    let desk = world.pair(&phone).await;
    let right = statement(&world, &phone, &desk, 1, &key(2));
    let other = world.pair(&phone).await;
    let wrong = [
        (statement(&world, &phone, &desk, 0, &key(2)), ErrorCode::Conflict),
        (statement(&world, &phone, &other, 1, &key(2)), ErrorCode::ProofInvalid),
        (KeyRotation { new_signature: right.old_signature, ..right.clone() }, ErrorCode::ProofInvalid),
        (KeyRotation { counter: 2, ..right.clone() }, ErrorCode::ProofInvalid),
    ];
    for (statement, code) in wrong {
        assert_code(&rotate(&world, &desk, &statement).await, code);
    }
    let path = format!("/api/machines/{}/key", desk.machine_id);
    assert_code(&world.machine(&desk, &path, Some(json!({}))).await, ErrorCode::BadRequest);
    let new = rotated(&world, &phone, &desk, 5, key(2)).await;
    let lower = statement(&world, &phone, &new, 5, &key(3));
    assert_code(&rotate(&world, &new, &lower).await, ErrorCode::Conflict);
}

#[tokio::test]
async fn a_machine_that_leaves_or_is_paired_elsewhere_is_lost_to_its_account() {
    let world = World::start().await;
    let (phone, stranger) = (world.owner().await, world.user(None, Role::Owner).await);
    let (leaves, moves) = (world.pair(&phone).await, world.pair(&phone).await);
    let mut revocations = world.service.revocations();
    let release = async || world.machine(&leaves, &format!("/api/machines/{}/release", leaves.machine_id), None).await;
    assert_eq!(release().await.status, StatusCode::NO_CONTENT);
    assert_code(&release().await, ErrorCode::MachineRevoked);
    let mut again = world.start_pairing(moves.machine_key.clone(), None).await;
    assert_eq!(world.redeem(&stranger, &again).await.status, StatusCode::OK);
    assert_eq!(world.finalize(&stranger, &again).await.status, StatusCode::NO_CONTENT);
    assert_eq!(listed(&world, &phone).await.len(), 1, "a beginning is no pairing");
    let paired = world.confirm(&stranger, &again).await;
    again.credential = Some(text(&paired.body, "credential"));
    for desk in [&leaves, &moves] {
        let machine_id = desk.machine_id.parse().expect("an id");
        let entry = heard(&mut revocations).await;
        assert_eq!(entry.revocation, Revocation::Machine { account_id: phone.account_id, machine_id });
    }
    assert!(listed(&world, &phone).await.is_empty());
    assert_code(&renew(&world, &moves).await, ErrorCode::MachineRevoked);
    assert_eq!(renew(&world, &again).await.status, StatusCode::OK);
    assert_eq!(listed(&world, &stranger).await.len(), 1);
}
