//! The strict policy: who sets it, what it is recorded as, and how it reaches the account's machines and no others.

use std::time::Duration;

use flydex_domain::error::ErrorCode;
use flydex_domain::revocation::Revocation;
use flydex_domain::scope::Role;
use flydex_domain::time::UnixMillis;
use flydex_domain::token::MachineCredential;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::harness::{Answer, Desk, Phone, World, assert_code, heard, text};

const PATH: &str = "/api/audit/policy";

#[tokio::test]
async fn an_account_is_strict_in_the_next_credentials_of_its_machines_and_of_no_others() {
    let world = World::start().await;
    let (phone, other) = (world.owner().await, world.user(None, Role::Owner).await);
    let (mut desk, mut foreign) = (world.pair(&phone).await, world.pair(&other).await);
    assert_eq!(policy(&world, &phone).await, json!({ "strict": false }));
    for strict in [true, false] {
        assert_eq!(set(&world, &phone, strict).await.status, StatusCode::NO_CONTENT);
        assert_eq!(policy(&world, &phone).await, json!({ "strict": strict }));
        assert_eq!(policy(&world, &other).await, json!({ "strict": false }));
        assert_eq!(renewed(&world, &mut desk).await.strict_audit, strict);
        assert!(!renewed(&world, &mut foreign).await.strict_audit);
        let mut paired_now = world.pair(&phone).await;
        assert_eq!(verified(&world, paired_now.credential.as_deref()).strict_audit, strict, "at its pairing");
        assert_eq!(renewed(&world, &mut paired_now).await.strict_audit, strict);
    }
}

#[tokio::test]
async fn a_change_of_the_policy_supersedes_every_credential_so_far_and_is_on_record() {
    let world = World::start().await;
    let phone = world.owner().await;
    let first = world.pair(&phone).await;
    world.advance(Duration::from_millis(1));
    let mut desks = [first, world.pair(&phone).await];
    renewed(&world, &mut desks[1]).await;
    let mut revocations = world.service.revocations();
    for strict in [true, true, false] {
        assert_eq!(set(&world, &phone, strict).await.status, StatusCode::NO_CONTENT);
    }
    let account_id = phone.account_id;
    for number in 1..=4 {
        let entry = heard(&mut revocations).await;
        let (desk, serial) = if number % 2 == 1 { (&desks[0], 1) } else { (&desks[1], 2) };
        let machine_id = desk.machine_id.parse().expect("an id");
        assert_eq!(entry.number, number, "the same again ends nothing");
        assert_eq!(entry.revocation, Revocation::Superseded { account_id, machine_id, serial });
    }
    let audit = world.page(Some(&phone.cookie), Method::GET, "/api/audit?limit=2", None).await.body;
    assert_eq!(audit["records"][0]["kind"], "strict_audit_ended");
    assert_eq!(audit["records"][1]["kind"], "strict_audit_begun");
    assert!(audit["records"][0]["user_id"].is_string());
}

#[tokio::test]
async fn an_owner_who_was_demoted_in_the_meantime_changes_no_policy() {
    let world = World::start().await;
    let phone = world.owner().await;
    let second = world.user(Some(phone.account_id), Role::Owner).await;
    let members = world.page(Some(&second.cookie), Method::GET, "/api/members", None).await.body;
    let members = members["members"].as_array().expect("members");
    let second_id = text(members.iter().find(|member| member["you"] == json!(true)).expect("the asker"), "user_id");
    let demoted = world
        .page(
            Some(&phone.cookie),
            Method::PATCH,
            &format!("/api/members/{second_id}"),
            Some(json!({ "role": "operator" })),
        )
        .await;
    assert!(demoted.status.is_success(), "{demoted:?}");
    assert_code(&set(&world, &second, true).await, ErrorCode::Forbidden);
    for body in [json!({}), json!({ "strict": "yes" }), json!({ "strict": true, "more": 1 })] {
        let answer = world.page(Some(&phone.cookie), Method::PUT, PATH, Some(body)).await;
        assert_code(&answer, ErrorCode::BadRequest);
    }
    assert_eq!(policy(&world, &second).await, json!({ "strict": false }), "every member may know it");
}

async fn set(world: &World, phone: &Phone, strict: bool) -> Answer {
    world.page(Some(&phone.cookie), Method::PUT, PATH, Some(json!({ "strict": strict }))).await
}

async fn policy(world: &World, phone: &Phone) -> Value {
    world.page(Some(&phone.cookie), Method::GET, PATH, None).await.body
}

/// The machine's next credential.
async fn renewed(world: &World, desk: &mut Desk) -> MachineCredential {
    let path = format!("/api/machines/{}/credential", desk.machine_id);
    let answer = world.machine(desk, &path, None).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    desk.credential = Some(text(&answer.body, "credential"));
    verified(world, desk.credential.as_deref())
}

fn verified(world: &World, credential: Option<&str>) -> MachineCredential {
    let credential = credential.expect("a credential");
    world.service.verifier().verify(credential, UnixMillis(world.now())).expect("it verifies")
}
