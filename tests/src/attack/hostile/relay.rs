//! The hostile relay itself: HTTP of a control plane and the link of a gateway and its node, which answer what a test
//! wants. It holds the key that control signs with.

#![expect(clippy::wildcard_enum_match_arm, reason = "it looks at few of the many kinds that pass")]
#![expect(clippy::disallowed_methods, reason = "it holds back as much as a test wants, and one test is all it sees")]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, ensure};
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use flydex_domain::epoch::Epoch;
use flydex_domain::id::{AccountId, BootId, ClaimId, DeviceId, Incarnation, MachineId, SessionId};
use flydex_domain::key::PublicKey;
use flydex_domain::pairing::{ClaimKeys, PairingTerms};
use flydex_domain::scope::Role;
use flydex_domain::secret::SecretKey;
use flydex_domain::time::UnixMillis;
use flydex_domain::token::{EncodedKey, MachineCredential, TokenSigner};
use flydex_loadtest::account::{encode, key_json};
use flydex_loadtest::device::Device;
use flydex_proto::codec::{decode_body, encode_message, split_message};
use flydex_proto::lanes::OnLane as _;
use flydex_proto::v1::{self, connector_frame, machine_message, owner_frame};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use crate::attack::stand::now;
use crate::wait;

/// A day, as credentials last.
const DAY_MS: u64 = 86_400_000;

/// What the relay says in a pairing instead of the truth.
#[derive(Clone, Default)]
pub(super) struct Lies {
    pub(super) device_key: Option<PublicKey>,
    pub(super) account_id: Option<AccountId>,
    pub(super) phone_role: Option<Role>,
    pub(super) phone_machine_key: Option<PublicKey>,
}

/// A relay that does as its owner pleases. Cheap to clone.
#[derive(Clone)]
pub(super) struct Hostile {
    pub(super) origin: String,
    inner: Arc<Inner>,
}

struct Inner {
    seen: Mutex<Seen>,
    changed: watch::Sender<u64>,
    link_tx: mpsc::UnboundedSender<v1::ConnectorFrame>,
}

#[derive(Default)]
struct Seen {
    lies: Lies,
    machine_key: Option<PublicKey>,
    phone: Option<Value>,
    expires_at: UnixMillis,
    machine_mac: Option<Vec<u8>>,
    codex_ready: bool,
    failed: Option<String>,
    boot_id: Option<BootId>,
    to_connector: Option<mpsc::UnboundedSender<v1::LinkDown>>,
    epoch: u64,
    /// Everything that was said, and as which owner.
    said: Vec<(u64, owner_frame::Kind)>,
    serial: u64,
}

/// What comes from the connector.
pub(super) struct FromConnector {
    frames: mpsc::UnboundedReceiver<v1::ConnectorFrame>,
    pub(super) passed_over: VecDeque<connector_frame::Kind>,
}

pub(super) fn account_id() -> AccountId {
    AccountId::from_uuid(Uuid::from_u128(0xacc0))
}

pub(super) fn machine_id() -> MachineId {
    MachineId::from_uuid(Uuid::from_u128(0x3ac1))
}

fn claim_id() -> ClaimId {
    ClaimId::from_uuid(Uuid::from_u128(0xc1a1))
}

/// Control's own key: the relay holds it.
pub(super) fn control() -> TokenSigner {
    TokenSigner::from_seed("control", &SecretKey::new([0xcc; 32]))
}

impl Hostile {
    pub(super) async fn start() -> anyhow::Result<(Self, FromConnector)> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let origin = format!("http://{}", listener.local_addr()?);
        let (link_tx, frames) = mpsc::unbounded_channel();
        let inner = Inner { seen: Mutex::default(), changed: watch::Sender::new(0), link_tx };
        let hostile = Self { origin, inner: Arc::new(inner) };
        let router = Router::new()
            .route("/api/regions", get(regions))
            .route("/api/local-connect/start", post(start))
            .route("/api/local-connect/{id}", get(look))
            .route("/api/local-connect/{id}/agent-status", post(agent_status))
            .route("/api/machines/{id}/credential", post(credential))
            .route("/api/machines/{id}/audit", post(audit))
            .route("/v1/link", get(link))
            .with_state(hostile.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok((hostile, FromConnector { frames, passed_over: VecDeque::new() }))
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.inner.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen());
        self.inner.changed.send_modify(|count| *count += 1);
    }

    async fn until<T>(&self, what: &str, look: impl Fn(&Seen) -> Option<T>) -> anyhow::Result<T> {
        let mut changed = self.inner.changed.subscribe();
        wait::within(what, async {
            loop {
                if let Some(found) = look(&self.seen()) {
                    return Ok(found);
                }
                changed.changed().await?;
            }
        })
        .await?
    }

    // === A phone that scans the code, through this relay ===

    /// The phone computes what it must over what the relay tells it; the relay passes on what it likes.
    pub(super) fn phone_scans(
        &self,
        url: &str,
        device: &Device,
        lies: Lies,
    ) -> anyhow::Result<(PairingTerms, ClaimKeys)> {
        let (_, fragment) = url.split_once('#').context("no claim")?;
        let (_, secret) = fragment.split_once('.').context("no secret")?;
        let secret: [u8; 32] = flydex_loadtest::account::decode(secret)?.try_into().ok().context("32 bytes")?;
        let keys = ClaimKeys::derive(&SecretKey::new(secret));
        let (machine_key, expires_at) = {
            let seen = self.seen();
            (seen.machine_key.context("no pairing was begun")?, seen.expires_at)
        };
        let terms = PairingTerms {
            origin: self.origin.clone(),
            claim_id: claim_id(),
            expires_at,
            account_id: account_id(),
            machine_id: machine_id(),
            role: lies.phone_role.unwrap_or(Role::Owner),
            machine_key: lies.phone_machine_key.unwrap_or(machine_key),
            device_key: device.public_key(),
        };
        let shown = lies.device_key.unwrap_or(device.public_key());
        let mac = encode(&terms.mac(&keys.device_to_machine));
        self.change(|seen| {
            seen.phone = Some(json!({ "key": key_json(&shown), "label": "phone", "mac": mac }));
            seen.lies = lies;
        });
        Ok((terms, keys))
    }

    pub(super) async fn pairing_failed(&self) -> anyhow::Result<String> {
        self.until("the connector's no", |seen| seen.failed.clone()).await
    }

    pub(super) async fn pairing_confirmed(&self) -> anyhow::Result<Vec<u8>> {
        self.until("the machine's word", |seen| seen.machine_mac.clone().filter(|_| seen.codex_ready)).await
    }

    pub(super) fn forget_pairing(&self) {
        self.change(|seen| (seen.phone, seen.failed, seen.machine_mac) = (None, None, None));
    }

    // === The link ===

    pub(super) async fn boot_id(&self) -> anyhow::Result<BootId> {
        self.until("a link", |seen| seen.boot_id.filter(|_| seen.to_connector.is_some())).await
    }

    /// Waits until the link is another life's.
    pub(super) async fn rebooted(&self, before: BootId) -> anyhow::Result<BootId> {
        let other = |seen: &Seen| seen.boot_id.filter(|boot_id| *boot_id != before && seen.to_connector.is_some());
        self.until("another life's link", other).await
    }

    pub(super) fn say(&self, kind: owner_frame::Kind) {
        let counter = self.seen().epoch;
        self.say_as(counter, kind);
    }

    pub(super) fn say_as(&self, counter: u64, kind: owner_frame::Kind) {
        self.seen().said.push((counter, kind.clone()));
        let epoch = Epoch { counter, incarnation: Incarnation::from_bytes([6; 16]) };
        let frame = v1::OwnerFrame { epoch: Some(epoch.into()), kind: Some(kind) };
        let down = v1::LinkDown { kind: Some(v1::link_down::Kind::Frame(frame)) };
        if let Some(to_connector) = &self.seen().to_connector {
            let _ = to_connector.send(down);
        }
    }

    /// Brings a device's message, in whatever name.
    pub(super) fn bring(&self, session_id: SessionId, device_id: DeviceId, role: &str, kind: v1::device_message::Kind) {
        let message = Some(v1::DeviceMessage { trace: None, kind: Some(kind) });
        let from = v1::FromSession {
            session_id: Bytes::copy_from_slice(session_id.as_bytes()),
            device_id: Bytes::copy_from_slice(device_id.as_bytes()),
            role: role.to_owned(),
            message,
        };
        self.say(owner_frame::Kind::FromSession(from));
    }

    /// Becomes the machine's owner.
    pub(super) async fn own(&self, from: &mut FromConnector) -> anyhow::Result<()> {
        self.change(|seen| seen.epoch += 1);
        self.say(owner_frame::Kind::Attach(v1::AttachOwner {}));
        let epoch = self.seen().epoch;
        from.until("attached", |kind| match kind {
            connector_frame::Kind::Attached(attached) => (attached.highest.as_ref()?.counter == epoch).then_some(()),
            _ => None,
        })
        .await
    }

    /// Says everything once more that it ever said: as the owner that it was then, or as the one that it is now. The
    /// connector has answered all of it when this returns.
    pub(super) async fn say_all_again(&self, from: &mut FromConnector, as_it_is_now: bool) -> anyhow::Result<()> {
        let said = self.seen().said.clone();
        for (counter, kind) in said {
            if as_it_is_now {
                self.say(kind);
            } else {
                self.say_as(counter, kind);
            }
        }
        self.own(from).await
    }

    fn next_credential(&self) -> Value {
        let (machine_key, serial) = {
            let mut seen = self.seen();
            seen.serial += 1;
            (seen.machine_key, seen.serial)
        };
        let credential = machine_key.map(|machine_key| MachineCredential {
            account_id: account_id(),
            machine_id: machine_id(),
            machine_key: EncodedKey(machine_key),
            serial,
            region_pin: None,
            strict_audit: false,
            issued_at: now(),
            expires_at: UnixMillis(now().0 + DAY_MS),
        });
        let (key_id, key) = control().public();
        json!({
            "account_id": account_id(),
            "machine_id": machine_id(),
            "credential": credential.map(|credential| control().sign(&credential)),
            "token_keys": [{ "key_id": key_id, "key": encode(&key) }],
        })
    }
}

impl FromConnector {
    /// Reads on until a frame is what is wanted; the others are kept.
    pub(super) async fn until<T>(
        &mut self,
        what: &str,
        wanted: impl Fn(&connector_frame::Kind) -> Option<T>,
    ) -> anyhow::Result<T> {
        wait::within(what, async {
            loop {
                let frame = self.frames.recv().await.context("the link is gone")?;
                let Some(kind) = frame.kind else { continue };
                if let Some(found) = wanted(&kind) {
                    return Ok(found);
                }
                self.passed_over.push_back(kind);
            }
        })
        .await?
    }

    /// The next message for a session that is wanted.
    pub(super) async fn message<T>(
        &mut self,
        what: &str,
        session_id: SessionId,
        wanted: impl Fn(&machine_message::Kind) -> Option<T>,
    ) -> anyhow::Result<T> {
        self.until(what, |kind| match kind {
            connector_frame::Kind::ToSession(to) if to.session_id[..] == session_id.as_bytes()[..] => {
                wanted(to.message.as_ref()?.kind.as_ref()?)
            }
            _ => None,
        })
        .await
    }
}

// === HTTP ===

async fn regions(State(hostile): State<Hostile>) -> Json<Value> {
    let link_url = format!("{}/v1/link", hostile.origin.replacen("http", "ws", 1));
    Json(json!({ "regions": [{ "region": "local", "session_url": "", "link_url": link_url }] }))
}

async fn start(State(hostile): State<Hostile>, Json(body): Json<Value>) -> Response {
    let Ok(key) = serde_json::from_value::<EncodedKey>(body["machine_key"].clone()) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let expires_at = UnixMillis(now().0 + 120_000);
    hostile.change(|seen| (seen.machine_key, seen.expires_at) = (Some(key.0), expires_at));
    Json(json!({
        "local_connect_id": Uuid::from_u128(1),
        "claim_id": claim_id(),
        "machine_id": machine_id(),
        "token": "token",
        "origin": hostile.origin,
        "expires_at_ms": expires_at,
    }))
    .into_response()
}

async fn look(State(hostile): State<Hostile>) -> Json<Value> {
    let waited = hostile.until("a phone", |seen| seen.phone.clone()).await;
    let Ok(device) = waited else { return Json(json!({ "status": "created" })) };
    let account = hostile.seen().lies.account_id.unwrap_or(account_id());
    Json(json!({
        "status": "awaiting_browser_finalize",
        "account": { "account_id": account, "name": "Ada" },
        "device": device,
    }))
}

async fn agent_status(State(hostile): State<Hostile>, Json(body): Json<Value>) -> Response {
    match body["status"].as_str() {
        Some("confirmed") => {
            let mac = body["machine_mac"].as_str().and_then(|mac| flydex_loadtest::account::decode(mac).ok());
            hostile.change(|seen| seen.machine_mac = mac);
            Json(hostile.next_credential()).into_response()
        }
        Some("codex_ready") => {
            hostile.change(|seen| seen.codex_ready = true);
            StatusCode::NO_CONTENT.into_response()
        }
        _ => {
            let code = body["code"].as_str().unwrap_or("refused").to_owned();
            hostile.change(|seen| seen.failed = Some(code));
            StatusCode::NO_CONTENT.into_response()
        }
    }
}

async fn credential(State(hostile): State<Hostile>, Path(_): Path<String>) -> Json<Value> {
    Json(hostile.next_credential())
}

/// Says that it has every record, and keeps none.
async fn audit(Json(body): Json<Value>) -> Json<Value> {
    let records = body["records"].as_array().cloned().unwrap_or_default();
    let acknowledged: Vec<_> = records.iter().map(|record| record["audit_id"].clone()).collect();
    Json(json!({ "acknowledged": acknowledged }))
}

// === The link ===

async fn link(State(hostile): State<Hostile>, upgrade: WebSocketUpgrade) -> Response {
    upgrade.protocols(["flydex.v1"]).on_upgrade(|socket| async move {
        // How the link ended shows in what the test waits for.
        let _ = serve_link(&hostile, socket).await;
        hostile.change(|seen| seen.to_connector = None);
    })
}

async fn serve_link(hostile: &Hostile, mut socket: WebSocket) -> anyhow::Result<()> {
    let (to_connector, mut down) = mpsc::unbounded_channel();
    loop {
        tokio::select! {
            Some(message) = down.recv() => tell(&mut socket, &message).await?,
            received = socket.recv() => {
                let Message::Binary(bytes) = received.context("closed")?? else { continue };
                let up: v1::LinkUp = decode_body(split_message(bytes)?.1)?;
                match up.kind.context("no kind")? {
                    v1::link_up::Kind::Hello(hello) => {
                        let boot_id = BootId::try_from(hello.boot_id.as_ref())?;
                        hostile.change(|seen| seen.boot_id = Some(boot_id));
                        let challenge = v1::LinkChallenge {
                            version: hello.version,
                            nonce: vec![7; 32].into(),
                            gateway_id: "hostile".to_owned(),
                            server_time_ms: now().0,
                        };
                        tell(&mut socket, &down_of(v1::link_down::Kind::Challenge(challenge))).await?;
                    }
                    v1::link_up::Kind::Proof(proof) => {
                        ensure!(proof.signature.len() == 64, "no proof");
                        let welcome = v1::LinkWelcome { link_id: vec![1; 16].into(), ..v1::LinkWelcome::default() };
                        tell(&mut socket, &down_of(v1::link_down::Kind::Welcome(welcome))).await?;
                        hostile.change(|seen| seen.to_connector = Some(to_connector.clone()));
                    }
                    v1::link_up::Kind::Frame(frame) => {
                        let _ = hostile.inner.link_tx.send(frame);
                    }
                    v1::link_up::Kind::Ping(ping) => {
                        tell(&mut socket, &down_of(v1::link_down::Kind::Pong(v1::Pong { nonce: ping.nonce, server_time_ms: now().0 }))).await?;
                    }
                    v1::link_up::Kind::Pong(_) => {}
                }
            }
        }
    }
}

fn down_of(kind: v1::link_down::Kind) -> v1::LinkDown {
    v1::LinkDown { kind: Some(kind) }
}

async fn tell(socket: &mut WebSocket, message: &v1::LinkDown) -> anyhow::Result<()> {
    Ok(socket.send(Message::Binary(encode_message(message.lane(), message)?)).await?)
}
