//! A control plane and a phone, scripted, behind real HTTP on loopback.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use flydex_domain::id::AccountId;
use flydex_domain::rotation::KeyRotation;
use flydex_domain::time::UnixMillis;
use flydex_domain::token::TokenSigner;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use uuid::Uuid;

use super::*;

const EXPIRES_AT: UnixMillis = UnixMillis(1_700_000_120_000);
const NOW_MS: u64 = 1_700_000_000_000;

/// What goes differently.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) account: u128,
    pub(crate) wrong_mac: bool,
    pub(crate) swap_account: bool,
    pub(crate) swap_device: bool,
    pub(crate) phone_role: Role,
    pub(crate) expires: bool,
    /// So many pairings expire before one does not.
    pub(crate) expired_codes: u32,
    pub(crate) cancels_while_asked: bool,
    pub(crate) foreign_credential: bool,
    pub(crate) other_origin: bool,
    pub(crate) refuses: Option<ErrorCode>,
    pub(crate) refuses_rotation: Option<ErrorCode>,
    /// So many answers to a change of key are lost on the way.
    pub(crate) rotations_lost: u32,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            account: 10,
            wrong_mac: false,
            swap_account: false,
            swap_device: false,
            phone_role: Role::Owner,
            expires: false,
            expired_codes: 0,
            cancels_while_asked: false,
            foreign_credential: false,
            other_origin: false,
            refuses: None,
            refuses_rotation: None,
            rotations_lost: 0,
        }
    }
}

/// The scripted control plane. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Relay {
    origin: String,
    inner: Arc<Inner>,
}

struct Inner {
    script: Script,
    seen: Mutex<Seen>,
    status: watch::Sender<&'static str>,
    reported: watch::Sender<()>,
}

#[derive(Default)]
struct Seen {
    machine_key: Option<PublicKey>,
    device: Option<(PublicKey, Vec<u8>)>,
    terms: Option<(PairingTerms, ClaimKeys)>,
    machine_mac: Vec<u8>,
    reports: Vec<String>,
    received: String,
    serial: u64,
    started: u32,
    audited: Vec<Value>,
    rotations: u32,
    rotations_answered: u32,
    released: u32,
}

fn machine_id() -> MachineId {
    MachineId::from_uuid(Uuid::from_u128(3))
}

fn claim_id() -> ClaimId {
    ClaimId::from_uuid(Uuid::from_u128(2))
}

impl Relay {
    pub(crate) async fn start(script: Script) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let inner = Arc::new(Inner {
            script,
            seen: Mutex::default(),
            status: watch::channel("created").0,
            reported: watch::channel(()).0,
        });
        let relay = Self { origin, inner };
        let router = Router::new()
            .route("/api/regions", get(regions))
            .route("/api/local-connect/start", post(start))
            .route("/api/local-connect/{id}", get(look))
            .route("/api/local-connect/{id}/agent-status", post(agent_status))
            .route("/api/machines/{id}/credential", post(renew))
            .route("/api/machines/{id}/audit", post(audit))
            .route("/api/machines/{id}/key", post(rotate))
            .route("/api/machines/{id}/release", post(release))
            .with_state(relay.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        relay
    }

    pub(crate) fn origin(&self) -> &str {
        &self.origin
    }

    pub(crate) fn api(&self) -> Api {
        Api::new(self.origin.parse().unwrap(), None, Clock::manual(NOW_MS)).unwrap()
    }

    pub(crate) async fn start_pairing(&self, credential: Option<SecretText>) -> Result<Pairing, PairError> {
        let machine_key = SigningKey::from_bytes(&[4; 32]);
        let request = PairingRequest {
            machine_key: &machine_key,
            machine_label: "desk".to_owned(),
            role: Role::Owner,
            credential,
        };
        let entropy = Entropy::from_fn(|bytes| bytes.fill(0xa5));
        Pairing::start(self.api(), request, Clock::manual(NOW_MS), &entropy).await
    }

    pub(crate) fn account_id(&self) -> AccountId {
        AccountId::from_uuid(Uuid::from_u128(self.inner.script.account))
    }

    pub(crate) fn device_key(&self) -> PublicKey {
        PublicKey::of(&SigningKey::from_bytes(&[5; 32]))
    }

    /// What a phone does with the address in the QR code, up to its MAC.
    pub(crate) fn phone_scans(&self, url: &str) {
        let (claim, secret) = url.rsplit_once('#').unwrap().1.split_once('.').unwrap();
        assert_eq!(claim, claim_id().to_string());
        let secret: [u8; 32] = URL_SAFE_NO_PAD.decode(secret).unwrap().try_into().unwrap();
        let keys = ClaimKeys::derive(&SecretKey::new(secret));
        let terms = PairingTerms {
            origin: self.origin.clone(),
            claim_id: claim_id(),
            expires_at: EXPIRES_AT,
            account_id: self.account_id(),
            machine_id: machine_id(),
            role: self.inner.script.phone_role,
            machine_key: self.seen().machine_key.unwrap(),
            device_key: self.device_key(),
        };
        let mut mac = terms.mac(&keys.device_to_machine);
        if self.inner.script.wrong_mac {
            mac[31] ^= 1;
        }
        let mut seen = self.seen();
        seen.device = Some((self.device_key(), mac.to_vec()));
        seen.terms = Some((terms, keys));
        drop(seen);
        self.inner.status.send_replace("awaiting_browser_finalize");
    }

    pub(crate) fn phone_code(&self) -> String {
        self.seen().terms.as_ref().unwrap().0.short_code()
    }

    pub(crate) fn machine_mac_holds(&self) -> bool {
        let seen = self.seen();
        let (terms, keys) = seen.terms.as_ref().unwrap();
        terms.verify_mac(&keys.machine_to_device, &seen.machine_mac)
    }

    pub(crate) fn reports(&self) -> Vec<String> {
        self.seen().reports.clone()
    }

    /// Waits for a report of the connector.
    pub(crate) async fn reported(&self, status: &str) {
        let mut reports = self.inner.reported.subscribe();
        reports.wait_for(|_| self.reports().iter().any(|report| report == status)).await.unwrap();
    }

    /// The audit records that were taken.
    pub(crate) fn audited(&self) -> Vec<Value> {
        self.seen().audited.clone()
    }

    /// How often the machine's key was changed.
    pub(crate) fn rotations(&self) -> u32 {
        self.seen().rotations
    }

    /// How often a machine left its account.
    pub(crate) fn released(&self) -> u32 {
        self.seen().released
    }

    /// The next pairing begins with nobody having scanned.
    pub(crate) fn forget_phone(&self) {
        self.seen().device = None;
        self.inner.status.send_replace("created");
    }

    /// Knows the machine by this key, as after a pairing.
    pub(crate) fn know(&self, machine_key: PublicKey) {
        self.seen().machine_key = Some(machine_key);
    }

    pub(crate) fn everything_received(&self) -> String {
        self.seen().received.clone()
    }

    /// The next credential of the machine, as the control plane signs it.
    pub(crate) fn next_credential(&self) -> Value {
        let mut seen = self.seen();
        seen.serial += 1;
        let key = if self.inner.script.foreign_credential { self.device_key() } else { seen.machine_key.unwrap() };
        let credential = MachineCredential {
            account_id: self.account_id(),
            machine_id: machine_id(),
            machine_key: EncodedKey(key),
            serial: seen.serial,
            region_pin: None,
            strict_audit: false,
            issued_at: UnixMillis(NOW_MS),
            expires_at: UnixMillis(NOW_MS + 86_400_000),
        };
        let signer = TokenSigner::from_seed("k1", &SecretKey::new([9; 32]));
        let (key_id, public) = signer.public();
        json!({
            "account_id": self.account_id(),
            "machine_id": machine_id(),
            "credential": signer.sign(&credential),
            "token_keys": [{ "key_id": key_id, "key": URL_SAFE_NO_PAD.encode(public) }],
        })
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.inner.seen.lock().unwrap()
    }
}

async fn regions(State(relay): State<Relay>) -> Json<Value> {
    let link_url = format!("{}/v1/link", relay.origin.replace("http", "ws"));
    Json(json!({ "regions": [{ "region": "local", "session_url": "", "link_url": link_url }] }))
}

async fn start(State(relay): State<Relay>, Json(body): Json<Value>) -> Response {
    if let Some(code) = relay.inner.script.refuses {
        return refusal(code);
    }
    let key: EncodedKey = serde_json::from_value(body["machine_key"].clone()).unwrap();
    let redeem = URL_SAFE_NO_PAD.decode(body["redeem_sha256"].as_str().unwrap()).unwrap();
    let transcript = Transcript::new(Label::MachineRequest)
        .text("local-connect")
        .text(&relay.origin)
        .bytes(&redeem)
        .text(body["machine_label"].as_str().unwrap())
        .text(body["role"].as_str().unwrap())
        .integer(body["timestamp_ms"].as_u64().unwrap());
    let signature = URL_SAFE_NO_PAD.decode(body["signature"].as_str().unwrap()).unwrap();
    key.0.verify(transcript, &signature).unwrap();
    let mut seen = relay.seen();
    seen.started += 1;
    seen.machine_key = Some(key.0);
    seen.received.push_str(&body.to_string());
    let origin = if relay.inner.script.other_origin { "https://relay.example" } else { &relay.origin };
    Json(json!({
        "local_connect_id": Uuid::from_u128(1),
        "claim_id": claim_id(),
        "machine_id": machine_id(),
        "token": "token-of-this-pairing",
        "origin": origin,
        "expires_at_ms": EXPIRES_AT,
    }))
    .into_response()
}

#[derive(serde::Deserialize)]
struct Wait {
    after: Option<String>,
}

async fn look(
    State(relay): State<Relay>,
    Path(id): Path<Uuid>,
    Query(wait): Query<Wait>,
    headers: HeaderMap,
) -> Json<Value> {
    assert_eq!((id, bearer(&headers)), (Uuid::from_u128(1), "Bearer token-of-this-pairing"));
    let script = &relay.inner.script;
    let asked_again = wait.after.as_deref() == Some("awaiting_browser_finalize");
    let expires = script.expires || relay.seen().started <= script.expired_codes;
    let ends = expires || (script.cancels_while_asked && asked_again);
    if ends {
        let status = if expires { "expired" } else { "cancelled" };
        return Json(json!({ "status": status }));
    }
    let mut status = relay.inner.status.subscribe();
    let changed = status.wait_for(|status| Some(*status) != wait.after.as_deref());
    let _ = tokio::time::timeout(Duration::from_secs(10), changed).await;
    let mut answer = json!({ "status": *relay.inner.status.borrow() });
    if let Some((key, mac)) = &relay.seen().device {
        let account = if script.swap_account { Uuid::from_u128(99) } else { relay.account_id().uuid() };
        let key = if script.swap_device { PublicKey::of(&SigningKey::from_bytes(&[6; 32])) } else { *key };
        let mac = URL_SAFE_NO_PAD.encode(mac);
        answer["account"] = json!({ "account_id": account, "name": "Ada & Co" });
        answer["device"] = json!({ "key": EncodedKey(key), "label": "phone", "mac": mac });
    }
    Json(answer)
}

async fn agent_status(State(relay): State<Relay>, headers: HeaderMap, Json(body): Json<Value>) -> Response {
    assert_eq!(bearer(&headers), "Bearer token-of-this-pairing");
    let status = body["status"].as_str().unwrap().to_owned();
    relay.seen().reports.push(status.clone());
    relay.seen().received.push_str(&body.to_string());
    relay.inner.reported.send_replace(());
    if status != "confirmed" {
        return StatusCode::NO_CONTENT.into_response();
    }
    relay.seen().machine_mac = URL_SAFE_NO_PAD.decode(body["machine_mac"].as_str().unwrap()).unwrap();
    Json(relay.next_credential()).into_response()
}

async fn renew(State(relay): State<Relay>, headers: HeaderMap, body: axum::body::Bytes) -> Response {
    if !machine_proves(&relay, "credential", &headers, &body) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    Json(relay.next_credential()).into_response()
}

/// Takes a change of key as control does: the same one again gets the same answer, as long as there is one.
async fn rotate(State(relay): State<Relay>, headers: HeaderMap, body: axum::body::Bytes) -> Response {
    let statement: KeyRotation = serde_json::from_slice(&body).unwrap();
    let (account_id, known) = (relay.account_id(), relay.seen().machine_key.unwrap());
    assert_eq!(statement.verify((account_id, machine_id())), Ok(()));
    if let Some(code) = relay.inner.script.refuses_rotation {
        return refusal(code);
    }
    if known != statement.new_key.0 {
        assert!(machine_proves(&relay, "key", &headers, &body));
        let mut seen = relay.seen();
        seen.machine_key = Some(statement.new_key.0);
        seen.rotations += 1;
    }
    let answer = relay.next_credential();
    let mut seen = relay.seen();
    seen.rotations_answered += 1;
    if seen.rotations_answered <= relay.inner.script.rotations_lost {
        return StatusCode::BAD_GATEWAY.into_response();
    }
    drop(seen);
    Json(answer).into_response()
}

async fn release(State(relay): State<Relay>, headers: HeaderMap, body: axum::body::Bytes) -> Response {
    if !machine_proves(&relay, "release", &headers, &body) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    relay.seen().released += 1;
    StatusCode::NO_CONTENT.into_response()
}

/// Takes every record but the last of several, as a server does that is cut short.
async fn audit(State(relay): State<Relay>, headers: HeaderMap, body: axum::body::Bytes) -> Response {
    if !machine_proves(&relay, "audit", &headers, &body) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    if let Some(code) = relay.inner.script.refuses {
        return refusal(code);
    }
    let body: Value = serde_json::from_slice(&body).unwrap();
    let mut records = body["records"].as_array().unwrap().clone();
    if records.len() > 1 {
        records.pop();
    }
    let acknowledged: Vec<_> = records.iter().map(|record| record["audit_id"].clone()).collect();
    relay.seen().audited.extend(records);
    Json(json!({ "acknowledged": acknowledged })).into_response()
}

fn refusal(code: ErrorCode) -> Response {
    let status = StatusCode::from_u16(code.http_status()).unwrap();
    let error = json!({ "error": { "code": code.name(), "number": code.number(), "message": "", "retry": "later" } });
    (status, Json(error)).into_response()
}

fn machine_proves(relay: &Relay, what: &str, headers: &HeaderMap, body: &[u8]) -> bool {
    let text = |name: &str| headers.get(name).unwrap().to_str().unwrap().to_owned();
    assert!(text("authorization").starts_with("FlyDex-Machine v4.public."));
    let transcript = Transcript::new(Label::MachineRequest)
        .text("POST")
        .text(&format!("/api/machines/{}/{what}", machine_id()))
        .bytes(&sha256(body))
        .integer(text("flydex-timestamp").parse().unwrap())
        .text(&relay.origin);
    let signature = URL_SAFE_NO_PAD.decode(text("flydex-signature")).unwrap();
    let key = relay.seen().machine_key.unwrap();
    key.verify(transcript, &signature).is_ok()
}

fn bearer(headers: &HeaderMap) -> &str {
    headers.get(header::AUTHORIZATION).unwrap().to_str().unwrap()
}
