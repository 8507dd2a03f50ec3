//! A signed-in browser without pages: the control plane's API with a cookie.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use flydex_domain::id::{AccountId, ClaimId, LocalConnectId, MachineId};
use flydex_domain::key::PublicKey;
use flydex_domain::pairing::{ClaimKeys, PairingTerms};
use flydex_domain::scope::Role;
use flydex_domain::secret::SecretKey;
use flydex_domain::time::UnixMillis;
use reqwest::header::{CONTENT_TYPE, COOKIE, ORIGIN, SET_COOKIE};
use reqwest::{Client, Method, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::device::Device;

/// Age at which a sign-in is renewed before something is enrolled: the server takes it as fresh for a minute more.
const FRESH_FOR: Duration = Duration::from_secs(240);
/// Times that rates may hold one call up.
const HELD_UP_MAX: u32 = 100;

/// An account session at one origin.
#[derive(Clone, Debug)]
pub struct Account {
    client: Client,
    origin: String,
    /// Where it is reached.
    base: String,
    cookie: String,
    extra_pem: Option<String>,
    /// The session that enrols, and when it began; all clones share it.
    fresh: Arc<Mutex<(String, Instant)>>,
    /// The account that was signed in to.
    pub account_id: AccountId,
}

/// A machine that this device is paired with.
#[derive(Clone, Debug)]
pub struct PairedMachine {
    /// The account.
    pub account_id: AccountId,
    /// The machine.
    pub machine_id: MachineId,
    /// The key that signs its receipts.
    pub machine_key: PublicKey,
}

impl Account {
    /// Signs in with a one-time link.
    ///
    /// # Errors
    /// When the link is not one, or is refused.
    pub async fn sign_in(link: &str) -> anyhow::Result<Self> {
        Self::sign_in_trusting(link, None).await
    }

    /// Signs in with a one-time link, at a server whose certificate is vouched for by `extra_pem` or the system.
    ///
    /// # Errors
    /// When the link is not one, or is refused.
    pub async fn sign_in_trusting(link: &str, extra_pem: Option<&str>) -> anyhow::Result<Self> {
        Self::enter(link, "/sign-in", "/api/sign-in", extra_pem).await
    }

    /// Accepts an invitation, as somebody who is signed in nowhere.
    ///
    /// # Errors
    /// When the link is not one, or is refused; the code is in the text.
    pub async fn join(link: &str, extra_pem: Option<&str>) -> anyhow::Result<Self> {
        Self::enter(link, "/invite", "/api/invitations/accept", extra_pem).await
    }

    async fn enter(link: &str, page: &str, path: &str, extra_pem: Option<&str>) -> anyhow::Result<Self> {
        let (address, token) = link.split_once('#').context("the link has no token")?;
        let origin = address.strip_suffix(page).context("the link is for another page")?.to_owned();
        let client = client(extra_pem)?;
        let found: Value = client.get(format!("{origin}/.well-known/flydex.json")).send().await?.json().await?;
        let base = text(&found, "api_origin")?.to_owned();
        let request = client.post(format!("{base}{path}")).header(ORIGIN, &origin);
        let request = request.header(CONTENT_TYPE, "application/json").body(json!({ "token": token }).to_string());
        let (cookie, account_id) = signed_in(path, request.send().await?).await?;
        let extra_pem = extra_pem.map(ToOwned::to_owned);
        let fresh = Arc::new(Mutex::new((cookie.clone(), Instant::now())));
        Ok(Self { client, origin, base, cookie, extra_pem, fresh, account_id })
    }

    /// The session in another account of the same person; this one is over with it.
    ///
    /// # Errors
    /// When it is refused; the code is in the text.
    pub async fn switch(&self, account_id: AccountId) -> anyhow::Result<Self> {
        let path = format!("/api/accounts/{account_id}/switch");
        let request = self.client.post(format!("{}{path}", self.base)).header(COOKIE, &self.cookie);
        let request = request.header(ORIGIN, &self.origin).header(CONTENT_TYPE, "application/json").body("{}");
        let (cookie, account_id) = signed_in(&path, request.send().await?).await?;
        let fresh = Arc::new(Mutex::new((cookie.clone(), Instant::now())));
        Ok(Self { cookie, account_id, fresh, ..self.clone() })
    }

    /// The same, over connections of its own: as another browser, which may have another address.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn elsewhere(&self) -> anyhow::Result<Self> {
        Ok(Self { client: client(self.extra_pem.as_deref())?, ..self.clone() })
    }

    /// The same, called at another address.
    #[must_use]
    pub fn reached_by(&self, base: String) -> Self {
        Self { base, ..self.clone() }
    }

    /// Where it is called.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The origin that was signed in to.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The certificate that is trusted beside the system's.
    #[must_use]
    pub fn extra_pem(&self) -> Option<&str> {
        self.extra_pem.as_deref()
    }

    /// The secret in the cookie of this session.
    #[must_use]
    pub fn cookie(&self) -> &str {
        self.cookie.split_once('=').map_or("", |(_, secret)| secret)
    }

    /// Calls the API and returns status and JSON body (null when there is none).
    ///
    /// # Errors
    /// When the call itself fails.
    pub async fn call(&self, method: Method, path: &str, body: Option<Value>) -> anyhow::Result<(StatusCode, Value)> {
        let mut request = self.client.request(method, format!("{}{path}", self.base)).header(COOKIE, &self.cookie);
        request = request.header(ORIGIN, &self.origin).header(CONTENT_TYPE, "application/json");
        if let Some(body) = body {
            request = request.body(body.to_string());
        }
        let response = request.send().await?;
        let status = response.status();
        let body = response.text().await?;
        Ok((status, serde_json::from_str(&body).unwrap_or(Value::Null)))
    }

    /// Calls again, as often as rates hold it up and say for how long.
    async fn call_patiently(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> anyhow::Result<(StatusCode, Value)> {
        for _ in 0..HELD_UP_MAX {
            let (status, answer) = self.call(method.clone(), path, body.clone()).await?;
            match answer["error"]["retry_after_ms"].as_u64() {
                Some(wait_ms) if status == StatusCode::TOO_MANY_REQUESTS => {
                    tokio::time::sleep(Duration::from_millis(wait_ms)).await;
                }
                Some(_) | None => return Ok((status, answer)),
            }
        }
        bail!("{path} was held up {HELD_UP_MAX} times")
    }

    /// The same account with a sign-in that is minutes old, as enrolling wants it.
    async fn freshly_signed_in(&self) -> anyhow::Result<Self> {
        let mut fresh = self.fresh.lock().await;
        let mut account = Self { cookie: fresh.0.clone(), ..self.clone() };
        if fresh.1.elapsed() >= FRESH_FOR {
            let link: Value = account.expect(Method::POST, "/api/sign-in-links", Some(json!({}))).await?;
            let (_, token) = text(&link, "url")?.split_once('#').context("the link has no token")?;
            (account.cookie, _) = use_link(&self.client, &self.origin, &self.base, token).await?;
            *fresh = (account.cookie.clone(), Instant::now());
        }
        Ok(account)
    }

    async fn expect<T: DeserializeOwned>(&self, method: Method, path: &str, body: Option<Value>) -> anyhow::Result<T> {
        let (status, body) = self.call_patiently(method, path, body).await?;
        if !status.is_success() {
            bail!("{path} was answered {status}: {body}");
        }
        Ok(serde_json::from_value(body)?)
    }

    /// Asks for what opens a session: ticket and grant.
    ///
    /// # Errors
    /// When they are refused.
    pub async fn ticket(&self, device: &Device, region: &str) -> anyhow::Result<(String, String)> {
        let body = json!({ "device_key": key_json(&device.public_key()), "region": region });
        let answer: Value = self.expect(Method::POST, "/api/tickets", Some(body)).await?;
        Ok((text(&answer, "ticket")?.to_owned(), text(&answer, "grant")?.to_owned()))
    }

    /// Redeems and finalizes the claim behind a pairing address, and returns what the desk must compare.
    ///
    /// # Errors
    /// When a step is refused.
    pub async fn redeem(&self, pairing_url: &str, device: &Device, label: &str) -> anyhow::Result<Pairing> {
        let (_, fragment) = pairing_url.split_once('#').context("the address has no claim")?;
        let (claim_id, secret) = fragment.split_once('.').context("the address has no secret")?;
        let secret: [u8; 32] = decode(secret)?.try_into().ok().context("the secret is not 32 bytes")?;
        let keys = ClaimKeys::derive(&SecretKey::new(secret));
        let body = json!({
            "redeem_key": encode(keys.redeem.expose()),
            "device_key": key_json(&device.public_key()),
            "device_label": label,
        });
        let path = format!("/api/claims/{claim_id}/redeem");
        let session = self.freshly_signed_in().await?;
        let answer: Value = session.expect(Method::POST, &path, Some(body)).await?;
        let terms = terms(&answer, claim_id.parse()?, device)?;
        let body = json!({ "device_mac": encode(&terms.mac(&keys.device_to_machine)) });
        let path = format!("/api/claims/{claim_id}/finalize");
        let (status, body) = session.call_patiently(Method::POST, &path, Some(body)).await?;
        if !status.is_success() {
            bail!("{path} was answered {status}: {body}");
        }
        Ok(Pairing { session, local_connect_id: text(&answer, "local_connect_id")?.parse()?, terms, keys })
    }

    /// Waits until the machine confirmed the pairing and Codex answers, and checks the machine's MAC.
    ///
    /// # Errors
    /// When the pairing ends otherwise or the MAC does not hold.
    pub async fn paired(&self, pairing: &Pairing) -> anyhow::Result<PairedMachine> {
        let mut after = "created".to_owned();
        loop {
            let path = format!("/api/local-connect/{}?wait_ms=10000&after={after}", pairing.local_connect_id);
            let answer: Value = pairing.session.expect(Method::GET, &path, None).await?;
            let status = text(&answer, "status")?;
            match status {
                "codex_ready" => {
                    let mac = decode(answer["machine"]["mac"].as_str().context("no machine MAC")?)?;
                    if !pairing.terms.verify_mac(&pairing.keys.machine_to_device, &mac) {
                        bail!("the machine's MAC does not hold");
                    }
                    return Ok(PairedMachine {
                        account_id: pairing.terms.account_id,
                        machine_id: pairing.terms.machine_id,
                        machine_key: pairing.terms.machine_key,
                    });
                }
                "created" | "awaiting_browser_finalize" => after = status.to_owned(),
                other => bail!("the pairing ended as {other}: {answer}"),
            }
        }
    }
}

/// Uses a link up: the cookie, and the account.
async fn use_link(client: &Client, origin: &str, base: &str, token: &str) -> anyhow::Result<(String, AccountId)> {
    let path = "/api/sign-in";
    let request = client.post(format!("{base}{path}")).header(ORIGIN, origin);
    let request = request.header(CONTENT_TYPE, "application/json").body(json!({ "token": token }).to_string());
    signed_in(path, request.send().await?).await
}

/// The cookie that an answer sets, and the account that it is for.
async fn signed_in(path: &str, response: reqwest::Response) -> anyhow::Result<(String, AccountId)> {
    if !response.status().is_success() {
        bail!("{path} was answered {}: {}", response.status(), response.text().await?);
    }
    let cookie = response.headers().get(SET_COOKIE).context("no cookie was set")?.to_str()?;
    let cookie = cookie.split(';').next().unwrap_or_default().to_owned();
    let body: Value = serde_json::from_str(&response.text().await?)?;
    Ok((cookie, text(&body, "account_id")?.parse()?))
}

fn client(extra_pem: Option<&str>) -> anyhow::Result<Client> {
    let tls = flydex_runtime::tls::client_config(extra_pem, &[b"h2", b"http/1.1"])?;
    Ok(Client::builder().tls_backend_preconfigured(tls).build()?)
}

/// A pairing that waits for the desk.
#[derive(Debug)]
pub struct Pairing {
    /// The sign-in that redeemed the claim.
    session: Account,
    /// Which local-connect.
    pub local_connect_id: LocalConnectId,
    /// What both sides agree on.
    pub terms: PairingTerms,
    /// The keys of the claim.
    pub keys: ClaimKeys,
}

fn terms(answer: &Value, claim_id: ClaimId, device: &Device) -> anyhow::Result<PairingTerms> {
    let machine_key = &answer["machine_key"];
    Ok(PairingTerms {
        origin: text(answer, "origin")?.to_owned(),
        claim_id,
        expires_at: UnixMillis(answer["expires_at_ms"].as_u64().context("no expiry")?),
        account_id: text(answer, "account_id")?.parse()?,
        machine_id: text(answer, "machine_id")?.parse()?,
        role: text(answer, "role")?.parse::<Role>()?,
        machine_key: PublicKey::ed25519(&decode(text(machine_key, "key")?)?)?,
        device_key: device.public_key(),
    })
}

fn text<'a>(value: &'a Value, name: &str) -> anyhow::Result<&'a str> {
    value[name].as_str().with_context(|| format!("the answer has no {name}"))
}

/// A public key as the API takes it.
#[must_use]
pub fn key_json(key: &PublicKey) -> Value {
    json!({ "algorithm": key.algorithm(), "key": encode(key.as_bytes()) })
}

/// Bytes as the API takes them.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Bytes as the API gives them.
///
/// # Errors
/// When they are none.
pub fn decode(text: &str) -> anyhow::Result<Vec<u8>> {
    Ok(URL_SAFE_NO_PAD.decode(text)?)
}
