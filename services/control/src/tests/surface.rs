//! One table of every route and what it answers to whom; a route without a row fails.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::body::Body;
use ed25519_dalek::SigningKey;
use flydex_domain::error::ErrorCode;
use flydex_domain::id::{ApprovalId, AuditId, CommandHash, CommandId, Generation};
use flydex_domain::key::PublicKey;
use flydex_domain::rotation::KeyRotation;
use flydex_domain::scope::Role;
use flydex_domain::time::UnixMillis;
use flydex_domain::token::EncodedKey;
use http::{Method, Request, header};
use serde_json::{Value, json};
use uuid::Uuid;

use super::harness::{
    Authenticator, Desk, Phone, World, machine_request, page_request, redeem_body, start_body, text, with_body,
};
use crate::Service;

/// Who asks. All users but `OtherAccount` are in the account that the path's id belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Caller {
    Anonymous,
    OtherAccount,
    Viewer,
    Operator,
    Owner,
    OtherConnector,
    Connector,
}

const CALLERS: [Caller; 7] = [
    Caller::Anonymous,
    Caller::OtherAccount,
    Caller::Viewer,
    Caller::Operator,
    Caller::Owner,
    Caller::OtherConnector,
    Caller::Connector,
];

/// What is answered.
#[derive(Clone, Copy, Debug)]
enum Expect {
    /// 200 or 204.
    Done,
    /// That error.
    Code(ErrorCode),
}

const DONE: Expect = Expect::Done;
/// No proof of identity.
const WHO: Expect = Expect::Code(ErrorCode::Unauthenticated);
/// Not in the caller's account, or not there at all.
const NONE: Expect = Expect::Code(ErrorCode::NotFound);
/// A role that is too low.
const ROLE: Expect = Expect::Code(ErrorCode::Forbidden);
/// Not from a page of our own.
const PAGE: Expect = Expect::Code(ErrorCode::OriginRefused);
/// No claim that this browser could know of.
const CLAIM: Expect = Expect::Code(ErrorCode::ClaimInvalid);
/// An attempt that this browser's session did not begin.
const OVER: Expect = Expect::Code(ErrorCode::AttemptInvalid);

/// Not signed by the payment provider.
const SIGN: Expect = Expect::Code(ErrorCode::WebhookRefused);
/// The only owner.
const LAST: Expect = Expect::Code(ErrorCode::LastOwner);
/// A member already.
const IN: Expect = Expect::Code(ErrorCode::AlreadyMember);

/// Method and path, then the answers in the order of [`CALLERS`].
type Row = (&'static str, &'static str, [Expect; 7]);

#[rustfmt::skip]
const SURFACE: &[Row] = &[
    //                                                     anonymous other  viewer operator owner other-c connector
    ("post",   "/api/sign-in",                            [DONE,  DONE,  DONE,  DONE,  DONE,  PAGE,  PAGE]),
    ("get",    "/api/sign-in/options",                    [DONE,  DONE,  DONE,  DONE,  DONE,  DONE,  DONE]),
    ("post",   "/api/sign-in/passkey/start",              [DONE,  DONE,  DONE,  DONE,  DONE,  PAGE,  PAGE]),
    ("post",   "/api/sign-in/passkey/finish",             [DONE,  DONE,  DONE,  DONE,  DONE,  PAGE,  PAGE]),
    ("post",   "/api/sign-in/recovery",                   [DONE,  DONE,  DONE,  DONE,  DONE,  PAGE,  PAGE]),
    ("post",   "/api/sign-in/identity/start",             [NONE,  NONE,  NONE,  NONE,  NONE,  PAGE,  PAGE]),
    ("post",   "/api/sign-in/identity/finish",            [OVER,  OVER,  OVER,  OVER,  OVER,  PAGE,  PAGE]),
    ("post",   "/api/identities/start",                   [WHO,   NONE,  NONE,  NONE,  NONE,  PAGE,  PAGE]),
    ("post",   "/api/identities/finish",                  [WHO,   OVER,  OVER,  OVER,  OVER,  PAGE,  PAGE]),
    ("delete", "/api/identities/{id}",                    [WHO,   NONE,  NONE,  NONE,  NONE,  PAGE,  PAGE]),
    ("post",   "/api/presence/start",                     [WHO,   NONE,  NONE,  NONE,  DONE,  PAGE,  PAGE]),
    ("post",   "/api/presence/finish",                    [WHO,   OVER,  OVER,  OVER,  DONE,  PAGE,  PAGE]),
    ("get",    "/api/ways-in",                            [WHO,   DONE,  DONE,  DONE,  DONE,  WHO,   WHO]),
    ("post",   "/api/passkeys/start",                     [WHO,   DONE,  DONE,  DONE,  DONE,  PAGE,  PAGE]),
    ("post",   "/api/passkeys/finish",                    [WHO,   OVER,  OVER,  OVER,  DONE,  PAGE,  PAGE]),
    ("patch",  "/api/passkeys/{id}",                      [WHO,   NONE,  NONE,  NONE,  DONE,  PAGE,  PAGE]),
    ("delete", "/api/passkeys/{id}",                      [WHO,   NONE,  NONE,  NONE,  DONE,  PAGE,  PAGE]),
    ("post",   "/api/recovery-codes",                     [WHO,   DONE,  DONE,  DONE,  DONE,  PAGE,  PAGE]),
    ("post",   "/api/sign-out",                           [WHO,   DONE,  DONE,  DONE,  DONE,  PAGE,  PAGE]),
    ("get",    "/api/session",                            [WHO,   DONE,  DONE,  DONE,  DONE,  WHO,   WHO]),
    ("post",   "/api/sign-in-links",                      [WHO,   DONE,  ROLE,  ROLE,  DONE,  PAGE,  PAGE]),
    ("get",    "/api/sessions",                           [WHO,   DONE,  DONE,  DONE,  DONE,  WHO,   WHO]),
    ("delete", "/api/sessions",                           [WHO,   DONE,  DONE,  DONE,  DONE,  PAGE,  PAGE]),
    ("delete", "/api/sessions/{id}",                      [WHO,   NONE,  NONE,  NONE,  DONE,  PAGE,  PAGE]),
    ("get",    "/api/billing",                            [WHO,   DONE,  DONE,  DONE,  DONE,  WHO,   WHO]),
    ("post",   "/api/billing/webhook",                    [SIGN,  SIGN,  SIGN,  SIGN,  SIGN,  SIGN,  SIGN]),
    ("get",    "/api/accounts",                           [WHO,   DONE,  DONE,  DONE,  DONE,  WHO,   WHO]),
    ("post",   "/api/accounts/{id}/switch",               [WHO,   NONE,  NONE,  NONE,  DONE,  PAGE,  PAGE]),
    ("get",    "/api/members",                            [WHO,   DONE,  DONE,  DONE,  DONE,  WHO,   WHO]),
    ("patch",  "/api/members/{id}",                       [WHO,   NONE,  ROLE,  ROLE,  DONE,  PAGE,  PAGE]),
    ("delete", "/api/members/{id}",                       [WHO,   NONE,  ROLE,  ROLE,  DONE,  PAGE,  PAGE]),
    ("post",   "/api/members/leave",                      [WHO,   LAST,  DONE,  DONE,  LAST,  PAGE,  PAGE]),
    ("get",    "/api/invitations",                        [WHO,   DONE,  ROLE,  ROLE,  DONE,  WHO,   WHO]),
    ("post",   "/api/invitations",                        [WHO,   DONE,  ROLE,  ROLE,  DONE,  PAGE,  PAGE]),
    ("delete", "/api/invitations/{id}",                   [WHO,   NONE,  ROLE,  ROLE,  DONE,  PAGE,  PAGE]),
    ("post",   "/api/invitations/offer",                  [DONE,  DONE,  DONE,  DONE,  DONE,  PAGE,  PAGE]),
    ("post",   "/api/invitations/accept",                 [DONE,  DONE,  IN,    IN,    IN,    PAGE,  PAGE]),
    ("post",   "/api/local-connect/start",                [DONE,  DONE,  DONE,  DONE,  DONE,  DONE,  DONE]),
    ("get",    "/api/local-connect/{id}",                 [WHO,   NONE,  NONE,  NONE,  DONE,  NONE,  DONE]),
    ("post",   "/api/local-connect/{id}/cancel",          [WHO,   NONE,  NONE,  NONE,  DONE,  PAGE,  PAGE]),
    ("post",   "/api/local-connect/{id}/agent-status",    [WHO,   WHO,   WHO,   WHO,   WHO,   NONE,  DONE]),
    ("post",   "/api/claims/{id}/redeem",                 [WHO,   DONE,  ROLE,  ROLE,  DONE,  PAGE,  PAGE]),
    ("post",   "/api/claims/{id}/finalize",               [WHO,   CLAIM, CLAIM, CLAIM, DONE,  PAGE,  PAGE]),
    ("get",    "/api/devices",                            [WHO,   DONE,  DONE,  DONE,  DONE,  WHO,   WHO]),
    ("delete", "/api/devices/{id}",                       [WHO,   NONE,  ROLE,  ROLE,  DONE,  PAGE,  PAGE]),
    ("get",    "/api/machines",                           [WHO,   DONE,  DONE,  DONE,  DONE,  WHO,   WHO]),
    ("patch",  "/api/machines/{id}",                      [WHO,   NONE,  ROLE,  ROLE,  DONE,  PAGE,  PAGE]),
    ("delete", "/api/machines/{id}",                      [WHO,   NONE,  ROLE,  ROLE,  DONE,  PAGE,  PAGE]),
    ("put",    "/api/machines/{id}/region-pin",           [WHO,   NONE,  ROLE,  ROLE,  DONE,  PAGE,  PAGE]),
    ("post",   "/api/machines/{id}/audit",                [WHO,   WHO,   WHO,   WHO,   WHO,   NONE,  DONE]),
    ("post",   "/api/machines/{id}/credential",           [WHO,   WHO,   WHO,   WHO,   WHO,   NONE,  DONE]),
    ("post",   "/api/machines/{id}/key",                  [WHO,   WHO,   WHO,   WHO,   WHO,   NONE,  DONE]),
    ("post",   "/api/machines/{id}/release",              [WHO,   WHO,   WHO,   WHO,   WHO,   NONE,  DONE]),
    ("post",   "/api/tickets",                            [WHO,   DONE,  DONE,  DONE,  DONE,  PAGE,  PAGE]),
    ("get",    "/api/regions",                            [DONE,  DONE,  DONE,  DONE,  DONE,  DONE,  DONE]),
    ("get",    "/api/keys",                               [DONE,  DONE,  DONE,  DONE,  DONE,  DONE,  DONE]),
    ("post",   "/api/audit/intents",                      [WHO,   NONE,  ROLE,  NONE,  DONE,  PAGE,  PAGE]),
    ("get",    "/api/audit",                              [WHO,   DONE,  ROLE,  ROLE,  DONE,  WHO,   WHO]),
    ("get",    "/api/audit/export",                       [WHO,   DONE,  ROLE,  ROLE,  DONE,  WHO,   WHO]),
    ("get",    "/api/audit/policy",                       [WHO,   DONE,  DONE,  DONE,  DONE,  WHO,   WHO]),
    ("put",    "/api/audit/policy",                       [WHO,   DONE,  ROLE,  ROLE,  DONE,  PAGE,  PAGE]),
    ("get",    "/api/audit/head",                         [WHO,   DONE,  ROLE,  ROLE,  DONE,  WHO,   WHO]),
];

#[test]
fn every_described_route_has_a_row_and_every_row_a_route() {
    let description: Value = serde_json::from_str(&Service::openapi_json()).expect("JSON");
    let paths = description["paths"].as_object().expect("paths");
    let described: BTreeSet<(String, String)> = paths
        .iter()
        .flat_map(|(path, item)| item.as_object().expect("an item").keys().map(|method| (method.clone(), path.clone())))
        .collect();
    let rows: BTreeSet<_> =
        SURFACE.iter().map(|(method, path, _)| ((*method).to_owned(), (*path).to_owned())).collect();
    assert_eq!(described, rows);
    assert_eq!(rows.len(), SURFACE.len());
}

#[tokio::test]
async fn every_route_answers_each_caller_as_the_table_says() {
    let mut wrong = Vec::new();
    for (method, path, expected) in SURFACE {
        let cast = Cast::assemble().await;
        for (caller, expected) in CALLERS.into_iter().zip(expected) {
            let scene = cast.scene(path).await;
            let request = cast.request(&scene, method, path, caller);
            let answer = cast.world.send(request).await;
            let holds = match expected {
                Expect::Done => answer.status.is_success(),
                Expect::Code(code) => {
                    answer.body["error"]["code"] == json!(code.name()) && answer.status.as_u16() == code.http_status()
                }
            };
            if !holds {
                wrong.push(format!("{method} {path} to {caller:?}: expected {expected:?}, got {answer:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

const ACCEPT: &str = "/api/invitations/accept";

/// Everyone who asks, in one world.
struct Cast {
    world: World,
    operator: Phone,
    viewer: Phone,
    stranger: Phone,
    other_desk: Desk,
    second_account_id: String,
}

/// What one question is about, made anew for each.
struct Scene {
    /// Signed in as the owner, with a device of its own.
    phone: Phone,
    session_id: String,
    desk: Desk,
    sign_in_token: String,
    /// An open invitation, and its secret.
    invitation_id: String,
    invitation_token: String,
    /// A member who does nothing.
    member_id: String,
    /// Another account of the owner.
    second_account_id: String,
    passkey_id: String,
    /// The second step of whatever takes two: what the owner's authenticator answers, and the attempt's cookie.
    second_step: (Value, String),
    recovery_code: String,
}

impl Cast {
    async fn assemble() -> Self {
        let world = World::that_bills_for(u64::MAX).await;
        let owner = world.owner().await;
        let operator = world.user(Some(owner.account_id), Role::Operator).await;
        let viewer = world.user(Some(owner.account_id), Role::Viewer).await;
        let stranger = world.user(None, Role::Owner).await;
        let other_desk = world.pair(&owner).await;
        let second = world.user(None, Role::Owner).await;
        let cast =
            Self { world, operator, viewer, stranger, other_desk, second_account_id: second.account_id.to_string() };
        let (_, token) = cast.invitation(&second).await;
        let joined = cast.world.page(Some(&owner.cookie), Method::POST, ACCEPT, Some(json!({ "token": token }))).await;
        assert!(joined.status.is_success(), "{joined:?}");
        cast
    }

    async fn scene(&self, path: &str) -> Scene {
        let world = &self.world;
        // Long enough for every rate, short enough that all callers are fresh to the last.
        world.advance(Duration::from_secs(40));
        let phone = world.owner().await;
        let desk = if path.starts_with("/api/claims/{id}/redeem") {
            world.desk().await
        } else if path.starts_with("/api/claims") || path.starts_with("/api/local-connect/{id}") {
            let desk = world.desk().await;
            assert!(world.redeem(&phone, &desk).await.status.is_success());
            desk
        } else {
            world.pair(&phone).await
        };
        let sessions = world.page(Some(&phone.cookie), Method::GET, "/api/sessions", None).await.body;
        let sessions = sessions["sessions"].as_array().expect("a list").clone();
        let current = sessions.iter().find(|session| session["current"] == json!(true)).expect("this session");
        let link = world.service.new_owner_link().await.expect("a link");
        let sign_in_token = link.split_once('#').expect("a token").1.to_owned();
        let (invitation_id, invitation_token) = self.invitation(&phone).await;
        let (_, unused) = self.invitation(&phone).await;
        let member = world.page(None, Method::POST, ACCEPT, Some(json!({ "token": unused }))).await.body;
        let recovery_code = recovery_code(world, &phone).await;
        let session_id = text(current, "session_id");
        let mut scene = Scene {
            session_id,
            phone,
            desk,
            sign_in_token,
            invitation_id,
            invitation_token,
            member_id: text(&member, "user_id"),
            second_account_id: self.second_account_id.clone(),
            passkey_id: String::new(),
            second_step: (Value::Null, String::new()),
            recovery_code,
        };
        if path.contains("passkey") || path.contains("presence") {
            self.add_passkeys(&mut scene, path).await;
        }
        scene
    }

    /// Gives the owner two passkeys, and takes the first of two steps with one.
    async fn add_passkeys(&self, scene: &mut Scene, path: &str) {
        let world = &self.world;
        let (_, cookie) = world.add_passkey(&scene.phone.cookie, "spare").await;
        let (mut authenticator, cookie) = world.add_passkey(&cookie, "key").await;
        let ways = world.page(Some(&cookie), Method::GET, "/api/ways-in", None).await.body;
        scene.passkey_id = text(&ways["passkeys"][0], "passkey_id");
        scene.phone.cookie = cookie;
        let Some(first) = path.strip_suffix("/finish").map(|path| format!("{path}/start")) else { return };
        let anonymous = path.starts_with("/api/sign-in");
        let (options, attempt) =
            world.first_step(Some(&scene.phone.cookie).filter(|_| !anonymous).map(String::as_str), &first).await;
        let credential = if path.starts_with("/api/passkeys") {
            json!({ "label": "third", "credential": Authenticator::new().create(&options) })
        } else {
            json!({ "credential": authenticator.get(&options) })
        };
        scene.second_step = (credential, attempt);
    }

    async fn invitation(&self, owner: &Phone) -> (String, String) {
        let body = json!({ "role": "viewer", "label": "Ana" });
        let made = self.world.page(Some(&owner.cookie), Method::POST, "/api/invitations", Some(body)).await.body;
        let url = text(&made, "url");
        (text(&made, "invitation_id"), url.split_once('#').expect("a token").1.to_owned())
    }

    fn request(&self, scene: &Scene, method: &str, path: &str, caller: Caller) -> Request<Body> {
        let body = self.body(scene, method, path);
        let id = id_of(scene, path);
        let path = path.replace("{id}", &id);
        let method: Method = method.to_uppercase().parse().expect("a method");
        let cookie = match caller {
            Caller::Anonymous => None,
            Caller::OtherAccount => Some(&self.stranger.cookie),
            Caller::Viewer => Some(&self.viewer.cookie),
            Caller::Operator => Some(&self.operator.cookie),
            // The browser that the scene is about, where it is about one.
            Caller::Owner => Some(&scene.phone.cookie),
            Caller::OtherConnector => return self.connector(&self.other_desk, method, &path, body),
            Caller::Connector => return self.connector(&scene.desk, method, &path, body),
        };
        let attempt = Some(&scene.second_step.1).filter(|attempt| !attempt.is_empty());
        let cookies = [cookie, attempt].into_iter().flatten().cloned().collect::<Vec<_>>().join("; ");
        page_request(Some(cookies.as_str()).filter(|cookies| !cookies.is_empty()), method, &path, body)
    }

    fn connector(&self, desk: &Desk, method: Method, path: &str, body: Option<Value>) -> Request<Body> {
        if path.starts_with("/api/local-connect/") {
            let bearer = format!("Bearer {}", desk.token);
            return with_body(Request::builder().method(method).uri(path).header(header::AUTHORIZATION, bearer), body);
        }
        let credential = desk.credential.clone().unwrap_or_default();
        machine_request(&desk.machine_key, &credential, method, path, body, self.world.now())
    }

    fn body(&self, scene: &Scene, method: &str, path: &str) -> Option<Value> {
        let device_key = PublicKey::of(&scene.phone.device_key);
        Some(match (method, path) {
            ("post", "/api/sign-in/recovery") => json!({ "code": scene.recovery_code }),
            // Without a provider: tests of their own have one.
            ("post", "/api/sign-in/identity/finish" | "/api/identities/finish") => json!({ "state": "s", "code": "c" }),
            ("post", path) if path.ends_with("/finish") => scene.second_step.0.clone(),
            ("patch", "/api/passkeys/{id}") => json!({ "label": "renamed" }),
            ("post", "/api/sign-in") => json!({ "token": scene.sign_in_token }),
            ("post", "/api/local-connect/start") => {
                start_body(&scene.desk.machine_key, &scene.desk.keys, self.world.now())
            }
            ("post", "/api/local-connect/{id}/agent-status") => json!({ "status": "refused" }),
            ("post", "/api/claims/{id}/redeem") => redeem_body(&scene.phone, scene.desk.keys.redeem.expose()),
            ("post", "/api/claims/{id}/finalize") => json!({ "device_mac": super::harness::encode(&[1; 32]) }),
            ("patch", "/api/members/{id}") => json!({ "role": "operator" }),
            ("post", "/api/invitations") => json!({ "role": "viewer", "label": "Bo" }),
            ("post", "/api/invitations/offer" | ACCEPT) => json!({ "token": scene.invitation_token }),
            ("patch", "/api/machines/{id}") => json!({ "label": "renamed" }),
            ("put", "/api/machines/{id}/region-pin") => json!({ "region": "eu" }),
            ("put", "/api/audit/policy") => json!({ "strict": true }),
            ("post", "/api/tickets") => json!({ "device_key": EncodedKey(device_key), "region": "local" }),
            ("post", "/api/machines/{id}/audit") => json!({ "records": [{
                "audit_id": AuditId::from_uuid(Uuid::new_v4()),
                "kind": "command_executed",
                "at_ms": self.world.now(),
                "outcome": "executed",
                "deferred": false,
            }] }),
            ("post", "/api/machines/{id}/key") => {
                let of = (scene.phone.account_id, scene.desk.machine_id.parse().expect("an id"));
                let (old, new) = (&scene.desk.machine_key, &SigningKey::from_bytes(&[7; 32]));
                json!(KeyRotation::make(of, 1, UnixMillis(self.world.now()), old, new))
            }
            ("post", "/api/audit/intents") => json!({
                "machine_id": scene.desk.machine_id,
                "device_id": device_key.device_id(),
                "approval_id": ApprovalId::from_bytes([1; 32]),
                "generation": Generation::from_bytes([2; 32]),
                "decision": "accept",
                "command_id": CommandId::from_uuid(Uuid::new_v4()),
                "command_hash": CommandHash::from_bytes([3; 32]),
            }),
            _ => return None,
        })
    }
}

async fn recovery_code(world: &World, phone: &Phone) -> String {
    let made = world.page(Some(&phone.cookie), Method::POST, "/api/recovery-codes", None).await;
    made.body["codes"][0].as_str().expect("a code").to_owned()
}

fn id_of(scene: &Scene, path: &str) -> String {
    if path.starts_with("/api/sessions") {
        scene.session_id.clone()
    } else if path.starts_with("/api/accounts") {
        scene.second_account_id.clone()
    } else if path.starts_with("/api/members") {
        scene.member_id.clone()
    } else if path.starts_with("/api/invitations") {
        scene.invitation_id.clone()
    } else if path.starts_with("/api/passkeys") {
        scene.passkey_id.clone()
    } else if path.starts_with("/api/claims") {
        scene.desk.claim_id.clone()
    } else if path.starts_with("/api/local-connect") {
        scene.desk.local_connect_id.clone()
    } else if path.starts_with("/api/devices") {
        PublicKey::of(&scene.phone.device_key).device_id().to_string()
    } else {
        scene.desk.machine_id.clone()
    }
}
