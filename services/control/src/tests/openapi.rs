//! The API's description: a snapshot, so that every change of the surface is seen.

use std::collections::BTreeSet;

use axum::body::Body;
use flydex_domain::error::ErrorCode;
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};

use super::harness::{World, assert_code};
use crate::Service;

#[test]
fn the_description_is_the_recorded_one() {
    let description: Value = serde_json::from_str(&Service::openapi_json()).expect("JSON");
    assert_eq!(description["openapi"], "3.1.0");
    insta::assert_json_snapshot!(description);
}

/// Routes that ask for no proof: they begin one, or tell what anyone may know.
const PUBLIC: [(&str, &str); 12] = [
    ("get", "/api/keys"),
    ("get", "/api/regions"),
    ("get", "/api/sign-in/options"),
    ("post", "/api/invitations/accept"),
    ("post", "/api/invitations/offer"),
    ("post", "/api/local-connect/start"),
    ("post", "/api/sign-in"),
    ("post", "/api/sign-in/identity/finish"),
    ("post", "/api/sign-in/identity/start"),
    ("post", "/api/sign-in/passkey/finish"),
    ("post", "/api/sign-in/passkey/start"),
    ("post", "/api/sign-in/recovery"),
];

#[test]
fn every_route_names_the_proof_it_takes_or_is_listed_as_public() {
    let description: Value = serde_json::from_str(&Service::openapi_json()).expect("JSON");
    let schemes: BTreeSet<&str> =
        description["components"]["securitySchemes"].as_object().expect("schemes").keys().map(String::as_str).collect();
    let (mut public, mut used) = (Vec::new(), BTreeSet::new());
    for (method, path, operation) in operations(&description) {
        let choices = operation["security"].as_array().unwrap_or_else(|| panic!("{method} {path} says nothing"));
        for choice in choices {
            let proofs: Vec<&str> = choice.as_object().expect("a choice").keys().map(String::as_str).collect();
            if proofs.is_empty() {
                public.push((method, path));
            }
            used.extend(proofs);
        }
    }
    assert_eq!(public, PUBLIC);
    assert_eq!(used, schemes);
}

#[tokio::test]
async fn the_description_has_the_routers_routes_and_no_others() {
    let world = World::that_bills().await;
    let description: Value = serde_json::from_str(&Service::openapi_json()).expect("JSON");
    let described: BTreeSet<(&str, &str)> =
        operations(&description).into_iter().map(|(method, path, _)| (method, path)).collect();
    // The router cannot be asked for its paths; its debugging output has them.
    let routed = format!("{:?}", world.router);
    let routed: BTreeSet<&str> = routed.split('"').filter(|text| text.starts_with("/api")).collect();
    let paths: BTreeSet<&str> = described.iter().map(|(_, path)| *path).collect();
    let undescribed: Vec<&str> = routed.difference(&paths).copied().collect();
    assert_eq!(undescribed, ["/api", "/api/openapi.json", "/api/{*rest}"], "the rest and the description itself");
    assert!(paths.is_subset(&routed), "{routed:?}");
    for path in paths {
        for method in ["get", "post", "put", "patch", "delete"] {
            let asked = path.replace("{id}", "01890000-0000-7000-8000-000000000000");
            let unproven = Request::builder().method(method.to_uppercase().as_str()).uri(asked).body(Body::empty());
            let answer = world.send(unproven.expect("a request")).await;
            let unknown = answer.body["error"]["code"] == "not_found";
            assert_eq!(!unknown, described.contains(&(method, path)), "{method} {path}: {answer:?}");
        }
    }
}

fn operations(description: &Value) -> Vec<(&str, &str, &Value)> {
    let mut operations = Vec::new();
    for (path, item) in description["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("an item") {
            operations.push((method.as_str(), path.as_str(), operation));
        }
    }
    operations.sort_by_key(|(method, path, _)| (*method, *path));
    operations
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
    let expected = ["local", "eu"].map(|region| {
        json!({
            "region": region,
            "session_url": "wss://relay.example/v1/session",
            "link_url": "wss://relay.example/v1/link",
        })
    });
    assert_eq!(regions.body["regions"], json!(expected));
    let keys = world.page(None, Method::GET, "/api/keys", None).await;
    assert_eq!(keys.body["token_keys"].as_array().map(Vec::len), Some(1));
    assert_code(&world.page(None, Method::GET, "/api/machines", None).await, ErrorCode::Unauthenticated);
}
