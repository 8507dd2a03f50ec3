//! A control plane on a fresh database, and the parties that talk to it.

mod authenticator;
mod provider;
mod requests;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use ed25519_dalek::SigningKey;
use flydex_domain::billing::{Catalogue, Entitlements, Plan};
use flydex_domain::encoding::sha256;
use flydex_domain::error::ErrorCode;
use flydex_domain::id::{AccountId, ClaimId, MachineId, UserId};
use flydex_domain::key::PublicKey;
use flydex_domain::pairing::{ClaimKeys, PairingTerms};
use flydex_domain::revocation::RevocationEntry;
use flydex_domain::scope::{AccountScope, Role};
use flydex_domain::secret::SecretKey;
use flydex_domain::time::UnixMillis;
use flydex_runtime::clock::Clock;
use flydex_runtime::lifecycle::Shutdown;
use flydex_runtime::origin::PublicOrigin;
use flydex_store::Sql;
use flydex_store::sql::testing::Database;
use flydex_store::sql::{Account, User};
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tower::ServiceExt as _;
use uuid::Uuid;

pub(super) use self::authenticator::{Authenticator, answer_cookie};
pub(super) use self::provider::{FakeProvider, Signed};
pub(super) use self::requests::{encode, machine_request, page_request, redeem_body, start_body, with_body};
use crate::{Billing, Config, IdentityProvider, Region, Service, WebhookSecret};

pub(super) const ORIGIN: &str = "https://relay.example";
/// What events of the payment provider are signed with.
pub(super) const WEBHOOK_SECRET: &str = "whsec_in_force";
pub(super) const START_MILLIS: u64 = 1_800_000_000_000;

/// How long a follower waits for what is in the log already: far over what a loaded machine needs.
const PATIENCE: Duration = Duration::from_secs(20);

/// The next entry of the log of revocations that a follower hears of.
pub(super) async fn heard(revocations: &mut broadcast::Receiver<RevocationEntry>) -> RevocationEntry {
    let entry = tokio::time::timeout(PATIENCE, revocations.recv()).await;
    entry.expect("a revocation is told").expect("an entry")
}

/// One control plane.
pub(super) struct World {
    pub(super) clock: Clock,
    pub(super) service: Service,
    pub(super) store: Sql,
    pub(super) router: Router,
    pub(super) database: Database,
}

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Value,
}

/// A signed-in browser with a device key.
#[derive(Clone)]
pub(super) struct Phone {
    pub(super) cookie: String,
    pub(super) device_key: SigningKey,
    pub(super) account_id: AccountId,
}

/// A connector with a machine key.
pub(super) struct Desk {
    pub(super) machine_key: SigningKey,
    pub(super) keys: ClaimKeys,
    pub(super) local_connect_id: String,
    pub(super) claim_id: String,
    pub(super) machine_id: String,
    pub(super) token: String,
    pub(super) claim_expires_at: u64,
    pub(super) credential: Option<String>,
}

impl World {
    pub(super) async fn start() -> Self {
        Self::start_in(Database::empty().await, Clock::manual(START_MILLIS), None).await
    }

    /// A server that bills: one of each is free, and a team gets ten.
    pub(super) async fn that_bills() -> Self {
        Self::that_bills_for(1).await
    }

    /// The same, with that many of each free.
    pub(super) async fn that_bills_for(free: u64) -> Self {
        let plan = |name: &str, count| Plan {
            name: name.to_owned(),
            entitlements: Entitlements { machines: count, seats: count },
        };
        let by_price = [("price_team".to_owned(), plan("team", 10))].into();
        let secrets = vec![WebhookSecret::new("whsec_replaced"), WebhookSecret::new(WEBHOOK_SECRET)];
        let billing = Billing { secrets, catalogue: Catalogue { free: plan("free", free), by_price } };
        Self::start_with(Database::empty().await, Clock::manual(START_MILLIS), None, Some(billing)).await
    }

    /// One where people may sign in at a provider as well.
    pub(super) async fn with_provider(provider: IdentityProvider) -> Self {
        Self::start_in(Database::empty().await, Clock::manual(START_MILLIS), Some(provider)).await
    }

    async fn start_in(database: Database, clock: Clock, provider: Option<IdentityProvider>) -> Self {
        Self::start_with(database, clock, provider, None).await
    }

    async fn start_with(
        database: Database,
        clock: Clock,
        provider: Option<IdentityProvider>,
        billing: Option<Billing>,
    ) -> Self {
        let store = database.open().await;
        let origin = PublicOrigin::parse(ORIGIN).expect("the origin is trusted");
        let mut config = Config::new(origin.clone(), "local");
        config.identity_provider = provider;
        config.regions.push(Region::behind(&origin, "eu"));
        config.billing = billing;
        let service =
            Service::start(config, store.clone(), clock.clone(), Shutdown::new()).await.expect("the service starts");
        let router = service.router();
        Self { clock, service, store, router, database }
    }

    /// The same server after a restart: same database, same time, nothing else kept.
    pub(super) async fn restart(self) -> Self {
        let Self { clock, store, database, service, router } = self;
        drop((service, router));
        store.close().await;
        Self::start_in(database, clock, None).await
    }

    pub(super) fn now(&self) -> u64 {
        self.clock.unix_millis()
    }

    /// Moves the time on.
    pub(super) fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    pub(super) async fn send(&self, request: Request<Body>) -> Answer {
        send_to(self.router.clone(), IpAddr::V4(Ipv4Addr::LOCALHOST), request).await
    }

    /// A request of our own page.
    pub(super) async fn page(&self, cookie: Option<&str>, method: Method, path: &str, body: Option<Value>) -> Answer {
        self.send(page_request(cookie, method, path, body)).await
    }

    /// Uses the owner link or a sign-in link.
    pub(super) async fn sign_in(&self, link: &str) -> Answer {
        let token = link.split_once("/sign-in#").expect("a sign-in link").1;
        self.page(None, Method::POST, "/api/sign-in", Some(json!({ "token": token }))).await
    }

    /// The first owner's browser.
    pub(super) async fn owner(&self) -> Phone {
        let link = self.service.new_owner_link().await.expect("an owner link");
        let answer = self.sign_in(&link).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        phone(&answer)
    }

    /// A browser of a new user, in a new account or in one that is there.
    pub(super) async fn user(&self, account_id: Option<AccountId>, role: Role) -> Phone {
        // Never of the same millisecond as the first owner.
        self.clock.advance(Duration::from_millis(1));
        let now = UnixMillis(self.now());
        let mut tx = self.store.write().await.expect("a transaction");
        let user = User {
            account_id: account_id.unwrap_or_else(|| AccountId::from_uuid(Uuid::new_v4())),
            user_id: UserId::from_uuid(Uuid::new_v4()),
            role,
        };
        if account_id.is_none() {
            let account = Account { account_id: user.account_id, name: "Other".to_owned() };
            tx.create_account(&account, now).await.expect("an account");
        }
        tx.create_user(&user, now).await.expect("a user");
        let token: [u8; 32] = rand::random();
        let scope = user.principal().scope();
        tx.create_link(scope, &user, &sha256(&token), now, UnixMillis(now.0 + 60_000)).await.expect("a link");
        tx.commit().await.expect("committed");
        let answer = self.sign_in(&format!("{ORIGIN}/sign-in#{}", encode(&token))).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        phone(&answer)
    }

    /// A connector that begins a pairing.
    pub(super) async fn desk(&self) -> Desk {
        self.start_pairing(SigningKey::from_bytes(&rand::random()), None).await
    }

    pub(super) async fn start_pairing(&self, machine_key: SigningKey, credential: Option<String>) -> Desk {
        let keys = ClaimKeys::derive(&SecretKey::new(rand::random()));
        let mut body = start_body(&machine_key, &keys, self.now());
        if let Some(credential) = &credential {
            body["credential"] = json!(credential);
        }
        let answer = self.connector(None, Method::POST, "/api/local-connect/start", Some(body)).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        Desk {
            machine_key,
            keys,
            local_connect_id: text(&answer.body, "local_connect_id"),
            claim_id: text(&answer.body, "claim_id"),
            machine_id: text(&answer.body, "machine_id"),
            token: text(&answer.body, "token"),
            claim_expires_at: answer.body["expires_at_ms"].as_u64().expect("a time"),
            credential,
        }
    }

    /// A request of a connector, with a bearer token or without.
    pub(super) async fn connector(
        &self,
        token: Option<&str>,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        self.send(with_body(request, body)).await
    }

    pub(super) async fn redeem(&self, phone: &Phone, desk: &Desk) -> Answer {
        let path = format!("/api/claims/{}/redeem", desk.claim_id);
        self.page(Some(&phone.cookie), Method::POST, &path, Some(redeem_body(phone, desk.keys.redeem.expose()))).await
    }

    pub(super) async fn finalize(&self, phone: &Phone, desk: &Desk) -> Answer {
        let mac = self.terms(phone, desk).mac(&desk.keys.device_to_machine);
        let path = format!("/api/claims/{}/finalize", desk.claim_id);
        self.page(Some(&phone.cookie), Method::POST, &path, Some(json!({ "device_mac": encode(&mac) }))).await
    }

    pub(super) async fn status(&self, desk: &Desk, body: Value) -> Answer {
        let path = format!("/api/local-connect/{}/agent-status", desk.local_connect_id);
        self.connector(Some(&desk.token), Method::POST, &path, Some(body)).await
    }

    pub(super) async fn confirm(&self, phone: &Phone, desk: &Desk) -> Answer {
        let mac = self.terms(phone, desk).mac(&desk.keys.machine_to_device);
        self.status(desk, json!({ "status": "confirmed", "machine_mac": encode(&mac) })).await
    }

    /// The person at the phone proves that they are there.
    pub(super) async fn fresh(&self, phone: &Phone) {
        let value = phone.cookie.split_once('=').expect("a value").1;
        let token_sha256 = sha256(&crate::wire::decode::<32>(value).expect("a token"));
        let now = UnixMillis(self.now());
        let mut tx = self.store.write().await.expect("a transaction");
        let signed_in = tx.session_by_token(&token_sha256, now).await.expect("a session");
        let id = signed_in.session.account_session_id;
        tx.assert_presence(signed_in.user.principal().scope(), id, &token_sha256, now).await.expect("asserted");
        tx.commit().await.expect("committed");
    }

    /// A machine that is paired with the phone's account, by a person who is there.
    pub(super) async fn pair(&self, phone: &Phone) -> Desk {
        self.fresh(phone).await;
        let mut desk = self.desk().await;
        assert_eq!(self.redeem(phone, &desk).await.status, StatusCode::OK);
        assert_eq!(self.finalize(phone, &desk).await.status, StatusCode::NO_CONTENT);
        let answer = self.confirm(phone, &desk).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        desk.credential = Some(text(&answer.body, "credential"));
        desk
    }

    pub(super) async fn look(&self, desk: &Desk) -> Answer {
        let path = format!("/api/local-connect/{}", desk.local_connect_id);
        self.connector(Some(&desk.token), Method::GET, &path, None).await
    }

    /// What both sides compute from what each of them knows.
    pub(super) fn terms(&self, phone: &Phone, desk: &Desk) -> PairingTerms {
        PairingTerms {
            origin: ORIGIN.to_owned(),
            claim_id: desk.claim_id.parse::<ClaimId>().expect("an id"),
            expires_at: UnixMillis(desk.claim_expires_at),
            account_id: phone.account_id,
            machine_id: desk.machine_id.parse::<MachineId>().expect("an id"),
            role: Role::Owner,
            machine_key: PublicKey::of(&desk.machine_key),
            device_key: PublicKey::of(&phone.device_key),
        }
    }

    /// A request that a machine signs with its key and credential.
    pub(super) async fn machine(&self, desk: &Desk, path: &str, body: Option<Value>) -> Answer {
        let credential = desk.credential.as_deref().expect("the machine is paired");
        self.send(machine_request(&desk.machine_key, credential, Method::POST, path, body, self.now())).await
    }
}

/// Sends a request from a peer's address.
pub(super) async fn send_to(router: Router, peer: IpAddr, mut request: Request<Body>) -> Answer {
    request.extensions_mut().insert(ConnectInfo(SocketAddr::new(peer, 40_000)));
    let response = router.oneshot(request).await.expect("the router never fails");
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.expect("the body is whole").to_bytes();
    let body = if bytes.is_empty() {
        Value::Null
    } else if parts.headers[header::CONTENT_TYPE] == "application/x-ndjson" {
        Value::String(String::from_utf8(bytes.to_vec()).expect("text"))
    } else {
        serde_json::from_slice(&bytes).expect("JSON")
    };
    Answer { status: parts.status, headers: parts.headers, body }
}

pub(super) fn phone(answer: &Answer) -> Phone {
    Phone {
        cookie: cookie(answer),
        device_key: SigningKey::from_bytes(&rand::random()),
        account_id: text(&answer.body, "account_id").parse().expect("an id"),
    }
}

/// The name and value of the cookie that an answer sets.
pub(super) fn cookie(answer: &Answer) -> String {
    let set = answer.headers[header::SET_COOKIE].to_str().expect("text");
    set.split(';').next().expect("a pair").to_owned()
}

pub(super) fn text(body: &Value, field: &str) -> String {
    body[field].as_str().unwrap_or_else(|| panic!("no {field} in {body}")).to_owned()
}

/// Asserts an answer of a code: its status, its name and its number.
#[track_caller]
pub(super) fn assert_code(answer: &Answer, code: ErrorCode) {
    assert_eq!(answer.body["error"]["code"], json!(code.name()), "{answer:?}");
    assert_eq!(answer.status.as_u16(), code.http_status());
    assert_eq!(answer.body["error"]["number"], json!(code.number()));
}

pub(super) fn scope_of(account_id: AccountId) -> AccountScope {
    User { account_id, user_id: UserId::from_uuid(Uuid::nil()), role: Role::Owner }.principal().scope()
}
