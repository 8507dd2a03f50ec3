use std::collections::BTreeMap;
use std::time::Duration;

use flydex_domain::error::ErrorCode;
use flydex_domain::id::AccountId;
use flydex_domain::key::PublicKey;
use flydex_domain::limits::{
    CREDENTIAL_RETRY_WINDOW, TOKEN_KEY_OVERLAP, TOKEN_KEY_ROTATED_AFTER, TOKEN_KEY_TOLD_BEFORE,
};
use flydex_domain::time::UnixMillis;
use flydex_domain::token::schedule::Change;
use flydex_domain::token::{EncodedKey, MachineCredential, TokenError};
use http::Method;
use uuid::Uuid;

use super::harness::{Answer, Desk, World, assert_code, text};
use crate::rotate_token_key;

const REGULAR: Change = Change { lead: TOKEN_KEY_TOLD_BEFORE, compromised: false };

/// The names of the keys that are told.
async fn told(world: &World) -> Vec<String> {
    let answer = world.page(None, Method::GET, "/api/keys", None).await;
    let keys = answer.body["token_keys"].as_array().expect("keys");
    keys.iter().map(|key| key["key_id"].as_str().expect("a name").to_owned()).collect()
}

/// Waits until the process goes by that many keys.
async fn until_told(world: &World, count: usize) -> Vec<String> {
    loop {
        let keys = told(world).await;
        if keys.len() == count {
            return keys;
        }
        tokio::task::yield_now().await;
    }
}

/// The name of the key that signed a token.
fn signed_by(token: &str) -> String {
    use base64::Engine as _;
    let footer = token.rsplit('.').next().expect("a footer");
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(footer).expect("base64url");
    String::from_utf8(bytes).expect("a name")
}

async fn renewed(world: &World, desk: &Desk) -> Answer {
    world.machine(desk, &format!("/api/machines/{}/credential", desk.machine_id), None).await
}

#[tokio::test]
async fn a_key_is_told_before_it_signs_and_what_the_last_one_signed_is_known_for_ever() {
    let world = World::start().await;
    let mut desk = world.pair(&world.owner().await).await;
    let first = told(&world).await.remove(0);
    let second = rotate_token_key(&world.store, REGULAR, UnixMillis(world.now())).await.expect("made");
    until_told(&world, 2).await;
    let of_first = text(&renewed(&world, &desk).await.body, "credential");
    assert_eq!(signed_by(&of_first), first, "the second is told and does not sign yet");
    desk.credential = Some(of_first.clone());

    world.advance(TOKEN_KEY_TOLD_BEFORE);
    let path = format!("/api/machines/{}/credential", desk.machine_id);
    while signed_by(&world.service.control().tokens.sign(&claims(&desk, &world))) != second {
        tokio::task::yield_now().await;
    }
    world.advance(TOKEN_KEY_OVERLAP);
    assert_eq!(until_told(&world, 1).await, std::slice::from_ref(&second));
    assert_eq!(
        world.service.verifier().verify::<MachineCredential>(&of_first, UnixMillis(0)),
        Err(TokenError::Invalid)
    );
    // A computer that slept through all of it is let in again, and one that shows less than it had is found out.
    let answer = world.machine(&desk, &path, None).await;
    assert_eq!(signed_by(&text(&answer.body, "credential")), second);
    world.advance(CREDENTIAL_RETRY_WINDOW);
    assert_code(&world.machine(&desk, &path, None).await, ErrorCode::MachineKeyCloned);
}

fn claims(desk: &Desk, world: &World) -> MachineCredential {
    MachineCredential {
        account_id: AccountId::from_uuid(Uuid::nil()),
        machine_id: desk.machine_id.parse().expect("an id"),
        machine_key: EncodedKey(PublicKey::of(&desk.machine_key)),
        serial: 1,
        region_pin: None,
        strict_audit: false,
        issued_at: UnixMillis(world.now()),
        expires_at: UnixMillis(world.now()),
    }
}

#[tokio::test]
async fn a_restart_goes_on_with_the_keys_and_a_seed_that_is_over_is_gone() {
    let world = World::start().await;
    let first = told(&world).await;
    let world = world.restart().await;
    assert_eq!(told(&world).await, first);
    let compromised = Change { lead: Duration::ZERO, compromised: true };
    let second = rotate_token_key(&world.store, compromised, UnixMillis(world.now())).await.expect("made");
    while told(&world).await != [second.clone()] {
        tokio::task::yield_now().await;
    }
    world.service.control().remove_ended().await.expect("housekeeping");
    let kept = world.store.read().await.expect("a view").token_keys().await.expect("keys");
    let seeds: BTreeMap<_, _> = kept.iter().map(|kept| (kept.key.key_id.clone(), kept.seed.is_some())).collect();
    assert_eq!(seeds, BTreeMap::from([(first[0].clone(), false), (second.clone(), true)]));
    assert_eq!(told(&world.restart().await).await, [second]);
}

#[tokio::test]
async fn an_old_key_gets_a_successor_once() {
    let world = World::start().await;
    world.service.control().remove_ended().await.expect("housekeeping");
    assert_eq!(told(&world).await.len(), 1);
    world.advance(TOKEN_KEY_ROTATED_AFTER);
    for _ in 0..2 {
        world.service.control().remove_ended().await.expect("housekeeping");
        until_told(&world, 2).await;
    }
}
