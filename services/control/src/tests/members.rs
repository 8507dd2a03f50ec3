//! Members, roles, invitations and the accounts of one person.

use std::time::Duration;

use flydex_domain::error::ErrorCode;
use flydex_domain::id::{AccountId, DeviceId, GrantId};
use flydex_domain::key::PublicKey;
use flydex_domain::limits::{DEVICE_LIST_MAX, INVITATION_LIFETIME, INVITATIONS_OPEN_MAX, SIGN_IN_RATE_PER_MINUTE};
use flydex_domain::revocation::Revocation;
use flydex_domain::scope::Role;
use flydex_domain::time::UnixMillis;
use flydex_domain::token::{EncodedKey, Grant};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::harness::{Answer, Desk, ORIGIN, Phone, World, assert_code, encode, phone, text};

const ACCEPT: &str = "/api/invitations/accept";

async fn call(world: &World, cookie: &str, method: Method, path: &str, body: Option<Value>) -> Answer {
    world.page(Some(cookie), method, path, body).await
}

async fn invite(world: &World, cookie: &str, role: Role) -> Answer {
    // Nobody joins in the millisecond in which the account was made.
    world.advance(Duration::from_millis(1));
    call(world, cookie, Method::POST, "/api/invitations", Some(json!({ "role": role, "label": "Ana" }))).await
}

/// The token of a new invitation.
async fn invitation(world: &World, cookie: &str, role: Role) -> String {
    let answer = invite(world, cookie, role).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let url = text(&answer.body, "url");
    url.strip_prefix(&format!("{ORIGIN}/invite#")).expect("a link with the secret in its fragment").to_owned()
}

async fn accept(world: &World, cookie: Option<&str>, token: &str) -> Answer {
    world.page(cookie, Method::POST, ACCEPT, Some(json!({ "token": token }))).await
}

/// A new person who is a member with a role, by an invitation.
async fn member(world: &World, owner: &Phone, role: Role) -> (Phone, String) {
    let token = invitation(world, &owner.cookie, role).await;
    let answer = accept(world, None, &token).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    (phone(&answer), text(&answer.body, "user_id"))
}

async fn user_id(world: &World, phone: &Phone) -> String {
    text(&call(world, &phone.cookie, Method::GET, "/api/session", None).await.body, "user_id")
}

async fn set_role(world: &World, cookie: &str, user_id: &str, role: Role) -> Answer {
    let path = format!("/api/members/{user_id}");
    call(world, cookie, Method::PATCH, &path, Some(json!({ "role": role }))).await
}

async fn remove(world: &World, cookie: &str, user_id: &str) -> Answer {
    call(world, cookie, Method::DELETE, &format!("/api/members/{user_id}"), None).await
}

async fn grant(world: &World, phone: &Phone) -> Grant {
    let device_key = EncodedKey(PublicKey::of(&phone.device_key));
    let body = json!({ "device_key": device_key, "region": "local" });
    let answer = call(world, &phone.cookie, Method::POST, "/api/tickets", Some(body)).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    world.service.verifier().verify(&text(&answer.body, "grant"), UnixMillis(world.now())).expect("it verifies")
}

async fn revocations(world: &World) -> Vec<Revocation> {
    let log = world.service.revocations_after(0).await.expect("the log");
    log.into_iter().map(|entry| entry.revocation).collect()
}

fn ends(account_id: AccountId, grant_id: GrantId) -> Revocation {
    Revocation::Grant { account_id, grant_id }
}

#[tokio::test]
async fn a_machine_that_renews_hears_what_was_taken_from_its_devices() {
    let world = World::start().await;
    let owner = world.owner().await;
    let desk = world.pair(&owner).await;
    let (ana, _) = member(&world, &owner, Role::Owner).await;
    let (bo, bo_id) = member(&world, &owner, Role::Owner).await;
    let (cy, cy_id) = member(&world, &owner, Role::Owner).await;
    let ids: Vec<_> = [&owner, &ana, &bo, &cy].map(|phone| PublicKey::of(&phone.device_key).device_id()).into();
    for phone in [&ana, &bo, &cy] {
        grant(&world, phone).await;
    }
    let stranger = PublicKey::of(&world.user(None, Role::Owner).await.device_key).device_id();
    let listed = [ids.clone(), vec![stranger]].concat();
    assert_eq!(cuts(&world, &desk, &listed).await, json!([]));
    assert_eq!(remove(&world, &owner.cookie, &bo_id).await.status, StatusCode::NO_CONTENT);
    assert_eq!(set_role(&world, &owner.cookie, &cy_id, Role::Viewer).await.status, StatusCode::NO_CONTENT);
    let path = format!("/api/devices/{}", ids[1]);
    assert_eq!(call(&world, &owner.cookie, Method::DELETE, &path, None).await.status, StatusCode::NO_CONTENT);
    let told = json!([
        { "device_id": ids[1], "keeps": null },
        { "device_id": ids[2], "keeps": null },
        { "device_id": ids[3], "keeps": "viewer" },
    ]);
    let desk = renewed(&world, desk).await;
    assert_eq!(cuts(&world, &desk, &listed).await, told);
    // An answer that was lost is given again, and says the same.
    assert_eq!(cuts(&world, &desk, &listed).await, told);
    assert_eq!(cuts(&world, &desk, &ids[..1]).await, json!([]));
}

#[tokio::test]
async fn a_machine_that_names_more_devices_than_it_can_list_is_told_so() {
    let world = World::start().await;
    let desk = world.pair(&world.owner().await).await;
    let path = format!("/api/machines/{}/credential", desk.machine_id);
    let devices = vec![PublicKey::of(&desk.machine_key).device_id(); DEVICE_LIST_MAX + 1];
    for body in [json!({ "devices": devices }), json!({ "devices": ["AA"] }), json!({ "device": [] })] {
        assert_code(&world.machine(&desk, &path, Some(body)).await, ErrorCode::BadRequest);
    }
}

#[tokio::test]
async fn of_a_person_who_is_a_member_nowhere_no_way_in_is_kept() {
    let world = World::start().await;
    let owner = world.owner().await;
    let (ana, ana_id) = member(&world, &owner, Role::Viewer).await;
    let (mut key, cookie) = world.add_passkey(&ana.cookie, "phone").await;
    let elsewhere = world.user(None, Role::Owner).await;
    let invited = invitation(&world, &elsewhere.cookie, Role::Viewer).await;
    assert_eq!(accept(&world, Some(&cookie), &invited).await.status, StatusCode::OK);
    assert_eq!(remove(&world, &owner.cookie, &ana_id).await.status, StatusCode::NO_CONTENT);
    let signed_in = world.passkey_sign_in(&mut key).await;
    assert_eq!(signed_in.status, StatusCode::OK, "a member of another account keeps it: {signed_in:?}");
    assert_eq!(text(&signed_in.body, "account_id"), elsewhere.account_id.to_string());
    let left = call(&world, &phone(&signed_in).cookie, Method::POST, "/api/members/leave", Some(json!({}))).await;
    assert_eq!(left.status, StatusCode::OK, "{left:?}");
    assert_ne!(world.passkey_sign_in(&mut key).await.status, StatusCode::OK);
    // An authenticator that is known to nobody can be anybody's.
    let (options, attempt) = world.first_step(Some(&elsewhere.cookie), "/api/passkeys/start").await;
    let body = json!({ "label": "found", "credential": key.create(&options) });
    let both = format!("{}; {attempt}", elsewhere.cookie);
    let added = world.page(Some(&both), Method::POST, "/api/passkeys/finish", Some(body)).await;
    assert_eq!(added.status, StatusCode::OK, "{added:?}");
}

async fn renewal(world: &World, desk: &Desk, devices: &[DeviceId]) -> Value {
    let path = format!("/api/machines/{}/credential", desk.machine_id);
    let answer = world.machine(desk, &path, Some(json!({ "devices": devices }))).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    answer.body
}

async fn cuts(world: &World, desk: &Desk, devices: &[DeviceId]) -> Value {
    renewal(world, desk, devices).await["device_cuts"].clone()
}

async fn renewed(world: &World, desk: Desk) -> Desk {
    let credential = text(&renewal(world, &desk, &[]).await, "credential");
    Desk { credential: Some(credential), ..desk }
}

#[tokio::test]
async fn an_invitation_makes_one_member_and_is_used_up() {
    let world = World::start().await;
    let owner = world.owner().await;
    let token = invitation(&world, &owner.cookie, Role::Operator).await;
    let offer = "/api/invitations/offer";
    for _ in 0..2 {
        let offered = world.page(None, Method::POST, offer, Some(json!({ "token": token }))).await;
        assert_eq!((text(&offered.body, "role").as_str(), text(&offered.body, "label").as_str()), ("operator", "Ana"));
    }
    let answer = accept(&world, None, &token).await;
    assert_eq!((answer.status, &answer.body["signed_in"]), (StatusCode::OK, &json!(true)), "{answer:?}");
    let ana = phone(&answer);
    assert_eq!(ana.account_id, owner.account_id);
    assert_code(&accept(&world, None, &token).await, ErrorCode::InvitationInvalid);
    assert_code(
        &world.page(None, Method::POST, offer, Some(json!({ "token": token }))).await,
        ErrorCode::InvitationInvalid,
    );
    let list = call(&world, &ana.cookie, Method::GET, "/api/members", None).await.body;
    let rows: Vec<_> = list["members"].as_array().expect("a list").iter().collect();
    assert_eq!(rows.len(), 2);
    assert_eq!((rows[0]["role"].as_str(), rows[0]["you"].as_bool()), (Some("owner"), Some(false)));
    assert_eq!((rows[1]["label"].as_str(), rows[1]["you"].as_bool()), (Some("Ana"), Some(true)));
    assert_eq!(rows[1]["user_id"], answer.body["user_id"]);
    let audit = call(&world, &owner.cookie, Method::GET, "/api/audit", None).await.body;
    let kinds: Vec<_> = audit["records"].as_array().expect("records").iter().map(|row| text(row, "kind")).collect();
    assert_eq!(kinds[..3], ["signed_in", "member_joined", "member_invited"]);
    assert!(world.database.content().await.iter().all(|part| !contains(part, token.as_bytes())));
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[tokio::test]
async fn an_invitation_that_expired_was_taken_back_or_guessed_lets_nobody_in() {
    let world = World::start().await;
    let owner = world.owner().await;
    let stranger = world.user(None, Role::Owner).await;
    let answer = invite(&world, &owner.cookie, Role::Viewer).await;
    let token = text(&answer.body, "url").rsplit_once('#').expect("a fragment").1.to_owned();
    let path = format!("/api/invitations/{}", text(&answer.body, "invitation_id"));
    assert_code(&call(&world, &stranger.cookie, Method::DELETE, &path, None).await, ErrorCode::NotFound);
    assert_eq!(call(&world, &owner.cookie, Method::DELETE, &path, None).await.status, StatusCode::NO_CONTENT);
    assert_code(&accept(&world, None, &token).await, ErrorCode::InvitationInvalid);
    assert_code(&call(&world, &owner.cookie, Method::DELETE, &path, None).await, ErrorCode::NotFound);

    let token = invitation(&world, &owner.cookie, Role::Viewer).await;
    assert_eq!(listed(&world, &owner.cookie).await, 1);
    world.advance(INVITATION_LIFETIME);
    assert_code(&accept(&world, None, &token).await, ErrorCode::InvitationInvalid);
    assert_eq!(listed(&world, &owner.cookie).await, 0);
    world.service.control().remove_ended().await.expect("housekeeping");

    let guess = encode(&[7; 32]);
    for _ in 0..SIGN_IN_RATE_PER_MINUTE - 1 {
        assert_code(&accept(&world, None, &guess).await, ErrorCode::InvitationInvalid);
    }
    assert_code(&accept(&world, None, &guess).await, ErrorCode::RateLimited);
}

async fn listed(world: &World, cookie: &str) -> usize {
    let list = call(world, cookie, Method::GET, "/api/invitations", None).await.body;
    list["invitations"].as_array().expect("a list").len()
}

#[tokio::test]
async fn open_invitations_are_bounded() {
    let world = World::start().await;
    let owner = world.owner().await;
    for _ in 0..INVITATIONS_OPEN_MAX {
        invitation(&world, &owner.cookie, Role::Viewer).await;
    }
    assert_code(&invite(&world, &owner.cookie, Role::Viewer).await, ErrorCode::Overloaded);
    world.advance(INVITATION_LIFETIME);
    invitation(&world, &owner.cookie, Role::Viewer).await;
}

#[tokio::test]
async fn invitations_of_an_owner_who_is_none_any_more_let_nobody_in() {
    let world = World::start().await;
    let owner = world.owner().await;
    let (ana, ana_id) = member(&world, &owner, Role::Owner).await;
    let before_demotion = invitation(&world, &ana.cookie, Role::Owner).await;
    assert_eq!(set_role(&world, &owner.cookie, &ana_id, Role::Viewer).await.status, StatusCode::NO_CONTENT);
    assert_code(&accept(&world, None, &before_demotion).await, ErrorCode::InvitationInvalid);
    assert_code(&invite(&world, &ana.cookie, Role::Viewer).await, ErrorCode::Forbidden);
}

#[tokio::test]
async fn a_new_role_ends_every_grant_and_a_lower_one_reaches_the_machines() {
    let world = World::start().await;
    let owner = world.owner().await;
    let (ana, ana_id) = member(&world, &owner, Role::Owner).await;
    world.pair(&ana).await;
    let device_id = PublicKey::of(&ana.device_key).device_id();
    let account_id = owner.account_id;
    let as_owner = grant(&world, &ana).await;
    assert_eq!(set_role(&world, &owner.cookie, &ana_id, Role::Operator).await.status, StatusCode::NO_CONTENT);
    let lowered = Revocation::Device { account_id, device_id, keeps: Some(Role::Operator) };
    assert_eq!(revocations(&world).await, [ends(account_id, as_owner.grant_id), lowered]);
    let as_operator = grant(&world, &ana).await;
    assert_eq!(as_operator.role, Role::Operator);
    assert_ne!(as_operator.grant_id, as_owner.grant_id, "a grant that was being signed meanwhile is dead by its id");

    // The same again changes nothing; more rights end the grants, and give no machine's device any.
    assert_eq!(set_role(&world, &owner.cookie, &ana_id, Role::Operator).await.status, StatusCode::NO_CONTENT);
    assert_eq!(revocations(&world).await.len(), 2);
    assert_eq!(set_role(&world, &owner.cookie, &ana_id, Role::Owner).await.status, StatusCode::NO_CONTENT);
    assert_eq!(revocations(&world).await[2..], [ends(account_id, as_operator.grant_id)]);
    assert_eq!(grant(&world, &ana).await.role, Role::Owner);
    let audit = call(&world, &owner.cookie, Method::GET, "/api/audit", None).await.body;
    let kinds: Vec<_> = audit["records"].as_array().expect("records").iter().map(|row| text(row, "kind")).collect();
    assert_eq!(kinds[..4], ["member_promoted", "member_role_changed", "member_demoted", "member_role_changed"]);
    assert_eq!(audit["records"][0]["user_id"], json!(ana_id));
}

#[tokio::test]
async fn a_removed_member_loses_sessions_links_devices_and_pairings_and_comes_back_as_another() {
    let world = World::start().await;
    let owner = world.owner().await;
    let (ana, ana_id) = member(&world, &owner, Role::Owner).await;
    world.pair(&ana).await;
    let link = text(&call(&world, &ana.cookie, Method::POST, "/api/sign-in-links", Some(json!({}))).await.body, "url");
    let invited = invitation(&world, &ana.cookie, Role::Owner).await;
    let desk = world.desk().await;
    assert!(world.redeem(&ana, &desk).await.status.is_success());
    assert!(world.finalize(&ana, &desk).await.status.is_success());
    let granted = grant(&world, &ana).await;
    assert_eq!(remove(&world, &owner.cookie, &ana_id).await.status, StatusCode::NO_CONTENT);

    assert_code(&call(&world, &ana.cookie, Method::GET, "/api/session", None).await, ErrorCode::Unauthenticated);
    assert_code(&world.sign_in(&link).await, ErrorCode::SignInLinkInvalid);
    assert_code(&accept(&world, None, &invited).await, ErrorCode::InvitationInvalid);
    // The desk says yes to a pairing that the member began before.
    assert_code(&world.confirm(&ana, &desk).await, ErrorCode::Forbidden);
    let (account_id, device_id) = (owner.account_id, PublicKey::of(&ana.device_key).device_id());
    let removed = Revocation::Device { account_id, device_id, keeps: None };
    assert_eq!(revocations(&world).await, [ends(account_id, granted.grant_id), removed]);
    assert_code(&remove(&world, &owner.cookie, &ana_id).await, ErrorCode::NotFound);
    assert_code(&set_role(&world, &owner.cookie, &ana_id, Role::Viewer).await, ErrorCode::NotFound);

    let (back, back_id) = member(&world, &owner, Role::Viewer).await;
    assert_ne!(back_id, ana_id);
    let body = json!({ "device_key": EncodedKey(PublicKey::of(&ana.device_key)), "region": "local" });
    let answer = call(&world, &back.cookie, Method::POST, "/api/tickets", Some(body)).await;
    assert_code(&answer, ErrorCode::DeviceRevoked);
}

#[tokio::test]
async fn a_pairing_that_was_begun_with_more_rights_does_not_end_with_them() {
    let world = World::start().await;
    let owner = world.owner().await;
    let (ana, ana_id) = member(&world, &owner, Role::Owner).await;
    let desk = world.desk().await;
    assert!(world.redeem(&ana, &desk).await.status.is_success());
    assert!(world.finalize(&ana, &desk).await.status.is_success());
    assert_eq!(set_role(&world, &owner.cookie, &ana_id, Role::Operator).await.status, StatusCode::NO_CONTENT);
    assert_code(&world.confirm(&ana, &desk).await, ErrorCode::Forbidden);
}

#[tokio::test]
async fn the_last_owner_can_neither_leave_nor_step_down_whoever_is_first() {
    let world = World::start().await;
    let owner = world.owner().await;
    let owner_id = user_id(&world, &owner).await;
    assert_code(&set_role(&world, &owner.cookie, &owner_id, Role::Viewer).await, ErrorCode::LastOwner);
    let leave = "/api/members/leave";
    assert_code(&call(&world, &owner.cookie, Method::POST, leave, Some(json!({}))).await, ErrorCode::LastOwner);
    let (ana, ana_id) = member(&world, &owner, Role::Owner).await;
    // Each takes the other's rights at the same moment.
    let (first, second) = tokio::join!(
        set_role(&world, &owner.cookie, &ana_id, Role::Viewer),
        set_role(&world, &ana.cookie, &owner_id, Role::Viewer),
    );
    let done = [&first, &second].into_iter().filter(|answer| answer.status == StatusCode::NO_CONTENT).count();
    assert_eq!(done, 1, "{first:?} {second:?}");
    let late = if first.status == StatusCode::NO_CONTENT { second } else { first };
    assert_code(&late, ErrorCode::Forbidden);
    let scope = super::harness::scope_of(owner.account_id);
    assert_eq!(world.store.read().await.expect("a view").owner_count(scope).await.expect("a count"), 1);
}

#[tokio::test]
async fn a_person_of_two_accounts_switches_and_the_old_session_is_dead() {
    let world = World::start().await;
    let owner = world.owner().await;
    let other = world.user(None, Role::Owner).await;
    let token = invitation(&world, &owner.cookie, Role::Viewer).await;
    let answer = accept(&world, Some(&other.cookie), &token).await;
    assert_eq!((answer.status, &answer.body["signed_in"]), (StatusCode::OK, &json!(false)), "{answer:?}");
    let again = invitation(&world, &owner.cookie, Role::Owner).await;
    assert_code(&accept(&world, Some(&other.cookie), &again).await, ErrorCode::AlreadyMember);
    assert_eq!(accept(&world, None, &again).await.status, StatusCode::OK, "a refused try does not use it up");

    let accounts = call(&world, &other.cookie, Method::GET, "/api/accounts", None).await.body;
    let rows: Vec<_> = accounts["accounts"].as_array().expect("a list").iter().collect();
    let seen = |row: &Value| (text(row, "account_id"), text(row, "role"), row["current"].as_bool());
    assert_eq!(seen(rows[0]), (other.account_id.to_string(), "owner".to_owned(), Some(true)));
    assert_eq!(seen(rows[1]), (owner.account_id.to_string(), "viewer".to_owned(), Some(false)));

    let granted = grant(&world, &other).await;
    let switch = |account_id: AccountId| format!("/api/accounts/{account_id}/switch");
    let third = world.user(None, Role::Owner).await;
    let nobodys = call(&world, &other.cookie, Method::POST, &switch(third.account_id), Some(json!({}))).await;
    assert_code(&nobodys, ErrorCode::NotFound);
    let same = call(&world, &other.cookie, Method::POST, &switch(other.account_id), Some(json!({}))).await;
    assert_code(&same, ErrorCode::Conflict);
    let answer = call(&world, &other.cookie, Method::POST, &switch(owner.account_id), Some(json!({}))).await;
    assert_eq!((answer.status, text(&answer.body, "role").as_str()), (StatusCode::OK, "viewer"), "{answer:?}");
    let switched = Phone { device_key: other.device_key.clone(), ..phone(&answer) };
    assert_code(&call(&world, &other.cookie, Method::GET, "/api/session", None).await, ErrorCode::Unauthenticated);
    assert_eq!(revocations(&world).await, [ends(other.account_id, granted.grant_id)]);
    let granted = grant(&world, &switched).await;
    assert_eq!((granted.account_id, granted.role), (owner.account_id, Role::Viewer));
    assert_code(&invite(&world, &switched.cookie, Role::Viewer).await, ErrorCode::Forbidden);

    // Leaving leads back to the account that is left; the cookie of the one that was left is dead.
    world.advance(Duration::from_secs(60));
    let left = call(&world, &switched.cookie, Method::POST, "/api/members/leave", Some(json!({}))).await;
    assert_eq!(left.status, StatusCode::OK, "{left:?}");
    assert_eq!(text(&left.body["now"], "account_id"), other.account_id.to_string());
    assert_code(&call(&world, &switched.cookie, Method::GET, "/api/session", None).await, ErrorCode::Unauthenticated);
    let last = super::harness::cookie(&left);
    assert_code(
        &call(&world, &last, Method::POST, &switch(owner.account_id), Some(json!({}))).await,
        ErrorCode::NotFound,
    );
}

#[tokio::test]
async fn two_switches_at_once_leave_one_session() {
    let world = World::start().await;
    let owner = world.owner().await;
    let other = world.user(None, Role::Owner).await;
    let token = invitation(&world, &owner.cookie, Role::Operator).await;
    assert_eq!(accept(&world, Some(&other.cookie), &token).await.status, StatusCode::OK);
    let path = format!("/api/accounts/{}/switch", owner.account_id);
    let ask = || call(&world, &other.cookie, Method::POST, &path, Some(json!({})));
    let (first, second) = tokio::join!(ask(), ask());
    let done: Vec<_> = [first, second].into_iter().filter(|answer| answer.status == StatusCode::OK).collect();
    assert_eq!(done.len(), 1, "{done:?}");
}
