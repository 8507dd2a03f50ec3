//! The API's description: a snapshot, so that every change of the surface is seen.

use flydex_domain::error::ErrorCode;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::harness::{World, assert_code};
use crate::Service;

#[test]
fn the_description_is_the_recorded_one() {
    let description: Value = serde_json::from_str(&Service::openapi_json()).expect("JSON");
    assert_eq!(description["openapi"], "3.1.0");
    insta::assert_json_snapshot!(description);
}

#[tokio::test]
async fn the_server_serves_its_description() {
    let world = World::start().await;
    let answer = world.page(None, Method::GET, "/api/openapi.json", None).await;
    assert_eq!(answer.status, StatusCode::OK);
    let description: Value = serde_json::from_str(&Service::openapi_json()).expect("JSON");
    assert_eq!(answer.body, description);
}

#[tokio::test]
async fn regions_and_keys_are_public() {
    let world = World::start().await;
    let regions = world.page(None, Method::GET, "/api/regions", None).await;
    let expected = json!({ "regions": [{
        "region": "local",
        "session_url": "wss://relay.example/v1/session",
        "link_url": "wss://relay.example/v1/link",
    }] });
    assert_eq!(regions.body, expected);
    let keys = world.page(None, Method::GET, "/api/keys", None).await;
    assert_eq!(keys.body["token_keys"].as_array().map(Vec::len), Some(1));
    assert_code(&world.page(None, Method::GET, "/api/machines", None).await, ErrorCode::Unauthenticated);
}
