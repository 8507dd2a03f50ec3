//! No secret that passes through is found in the database or in an answer that is an error.

use flydex_domain::key::PublicKey;
use http::{Method, StatusCode};
use serde_json::json;

use super::harness::{World, encode};

#[tokio::test]
async fn the_database_holds_hashes_and_no_secret() {
    let world = World::start().await;
    let link = world.service.owner_link().expect("a link");
    let phone = super::harness::phone(&world.sign_in(&link).await);
    let unused = world.service.new_owner_link().await.expect("a link");
    let desk = world.pair(&phone).await;
    let credential = desk.credential.clone().expect("paired");
    let fragment = |link: &str| link.split_once('#').expect("a fragment").1.to_owned();
    let value = phone.cookie.split_once('=').expect("a value").1.to_owned();
    let texts = [fragment(&link), fragment(&unused), value, desk.token.clone(), encode(desk.keys.redeem.expose())];
    let mut secrets: Vec<Vec<u8>> = vec![credential.into_bytes(), b"127.0.0.1".to_vec()];
    for text in texts {
        secrets.push(super::super::wire::decode::<32>(&text).expect("32 bytes").to_vec());
        secrets.push(text.into_bytes());
    }
    secrets.push(desk.keys.device_to_machine.expose().to_vec());
    secrets.push(desk.keys.machine_to_device.expose().to_vec());
    let known = PublicKey::of(&desk.machine_key).as_bytes().to_vec();
    let mut found_known = false;
    for content in world.database.content().await {
        found_known |= holds(&content, &known);
        for secret in &secrets {
            assert!(!holds(&content, secret), "a secret is in the database");
        }
    }
    assert!(found_known, "the search finds what is there");
}

#[tokio::test]
async fn errors_repeat_nothing_of_the_request() {
    let world = World::start().await;
    let canary = "canary-6b1f";
    let body = json!({ "token": canary, canary: canary });
    for (method, path) in [
        (Method::POST, "/api/sign-in".to_owned()),
        (Method::GET, format!("/api/{canary}")),
        (Method::GET, format!("/api/audit?before={canary}")),
        (Method::PATCH, format!("/api/machines/{canary}")),
        (Method::POST, "/api/local-connect/start".to_owned()),
    ] {
        let answer = world.page(Some(&format!("__Host-flydex={canary}")), method, &path, Some(body.clone())).await;
        assert!(answer.status.is_client_error(), "{answer:?}");
        assert_ne!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(!answer.body.to_string().contains(canary));
    }
}

/// Whether bytes are there as they are or in hexadecimal.
fn holds(content: &[u8], part: &[u8]) -> bool {
    let hexadecimal: String = part.iter().map(|byte| format!("{byte:02x}")).collect();
    [part, hexadecimal.as_bytes()].iter().any(|part| content.windows(part.len()).any(|window| window == *part))
}
