//! Recovery codes: shown once, used once, and not to be guessed.

use std::time::Duration;

use flydex_domain::error::ErrorCode;
use flydex_domain::limits::{RECOVERY_CODES, RECOVERY_RATE_PER_MINUTE};
use http::{Method, StatusCode, header};
use serde_json::json;

use super::harness::{Answer, World, assert_code, cookie, text};

async fn make(world: &World, cookie: &str) -> Vec<String> {
    let made = world.page(Some(cookie), Method::POST, "/api/recovery-codes", None).await;
    assert_eq!(made.status, StatusCode::OK, "{made:?}");
    made.body["codes"].as_array().expect("codes").iter().map(|code| code.as_str().expect("text").to_owned()).collect()
}

async fn enter(world: &World, code: &str) -> Answer {
    // Guesses come from one address; the honest ones wait.
    world.advance(Duration::from_secs(12));
    world.page(None, Method::POST, "/api/sign-in/recovery", Some(json!({ "code": code }))).await
}

#[tokio::test]
async fn each_code_signs_in_once_and_is_audited() {
    let world = World::start().await;
    let phone = world.owner().await;
    let codes = make(&world, &phone.cookie).await;
    assert_eq!(codes.len(), RECOVERY_CODES);
    let answer = enter(&world, &codes[0].to_uppercase().replace('-', " ")).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert_eq!(answer.body["account_id"], json!(phone.account_id));
    assert_code(&enter(&world, &codes[0]).await, ErrorCode::RecoveryCodeInvalid);
    let ways = world.page(Some(&phone.cookie), Method::GET, "/api/ways-in", None).await.body;
    assert_eq!(ways["recovery_codes_left"], json!(RECOVERY_CODES - 1));
    let audit = world.page(Some(&phone.cookie), Method::GET, "/api/audit", None).await.body;
    let kinds: Vec<String> =
        audit["records"].as_array().expect("records").iter().map(|record| text(record, "kind")).collect();
    assert!(kinds.contains(&"recovery_code_used".to_owned()) && kinds.contains(&"recovery_codes_created".to_owned()));
}

#[tokio::test]
async fn who_lost_the_passkeys_gets_in_and_adds_another() {
    let world = World::start().await;
    let phone = world.owner().await;
    let (_, with_passkey) = world.add_passkey(&phone.cookie, "lost").await;
    let codes = make(&world, &with_passkey).await;
    let recovered = cookie(&enter(&world, &codes[3]).await);
    world.add_passkey(&recovered, "new").await;
}

#[tokio::test]
async fn of_two_browsers_with_one_code_one_is_signed_in() {
    let world = World::start().await;
    let phone = world.owner().await;
    let codes = make(&world, &phone.cookie).await;
    let (first, second) = tokio::join!(enter(&world, &codes[0]), enter(&world, &codes[0]));
    let taken = [&first, &second].into_iter().filter(|answer| answer.status == StatusCode::OK).count();
    assert_eq!(taken, 1, "{first:?} {second:?}");
}

#[tokio::test]
async fn new_codes_end_the_old_ones() {
    let world = World::start().await;
    let phone = world.owner().await;
    let old = make(&world, &phone.cookie).await;
    let new = make(&world, &phone.cookie).await;
    assert_code(&enter(&world, &old[0]).await, ErrorCode::RecoveryCodeInvalid);
    assert_eq!(enter(&world, &new[0]).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_guess_that_finds_the_right_row_uses_nothing_up() {
    let world = World::start().await;
    let phone = world.owner().await;
    let codes = make(&world, &phone.cookie).await;
    // The first eight characters find the row; the rest is the secret.
    let guess = format!("{}{}", &codes[0][..10], &codes[1][10..]);
    assert_code(&enter(&world, &guess).await, ErrorCode::RecoveryCodeInvalid);
    assert_code(&enter(&world, "not a code").await, ErrorCode::RecoveryCodeInvalid);
    assert_eq!(enter(&world, &codes[0]).await.status, StatusCode::OK);
}

#[tokio::test]
async fn guessing_codes_is_slowed_down() {
    let world = World::start().await;
    let guess = async || {
        let body = json!({ "code": "0000-0000-0000-0000-0000-0000" });
        world.page(None, Method::POST, "/api/sign-in/recovery", Some(body)).await
    };
    for _ in 0..RECOVERY_RATE_PER_MINUTE {
        assert_code(&guess().await, ErrorCode::RecoveryCodeInvalid);
    }
    let answer = guess().await;
    assert_code(&answer, ErrorCode::RateLimited);
    assert!(answer.headers.contains_key(header::RETRY_AFTER));
}

#[tokio::test]
async fn the_database_holds_no_code() {
    let world = World::start().await;
    let phone = world.owner().await;
    let codes = make(&world, &phone.cookie).await;
    for content in world.database.content().await {
        for code in &codes {
            let bare = code.replace('-', "");
            for text in [code.as_bytes(), bare.as_bytes()] {
                assert!(!content.windows(text.len()).any(|window| window == text), "a code is in the database");
            }
        }
    }
}
