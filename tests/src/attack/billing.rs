//! Whoever wants a plan without paying for it: events that the payment provider did not send, or not now, or not for
//! that account, against a real control process.

use anyhow::ensure;
use flydex_loadtest::account::Account;
use flydex_runtime::clock::Clock;
use flydex_runtime::tls::client_config;
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::{Client, Method};
use serde_json::{Value, json};
use sha2::Sha256;

use super::Attack;
use super::stand::api_code;
use super::tally::Tally;
use crate::canary;
use crate::cluster::{Cluster, RegionSettings, Settings};

/// What is tried.
pub const ATTACKS: &[Attack] = &[Attack {
    name: "plans that are not paid for",
    tries: "events of the payment provider that are forged, old, repeated, or for another account",
    stopped_by: &["webhook_refused", "no other plan", "seat_limit"],
    run: |_, tally| Box::pin(unpaid(tally)),
    regions: 1,
}];

const SECRET: &str = "whsec_of_the_test";

/// An account, and somebody who can send anything to the webhook.
struct Shop {
    cluster: Cluster,
    account: Account,
    client: Client,
}

impl Shop {
    async fn open() -> anyhow::Result<Self> {
        flydex_runtime::tls::install_provider();
        canary::plant("webhook secret", SECRET);
        let settings = Settings {
            regions: vec![RegionSettings { name: "one", gateways: 1, nodes: 1 }],
            controls: 1,
            webhook_secret: Some(SECRET),
            log_filter: Some("trace".to_owned()),
            ..Settings::default()
        };
        let cluster = Cluster::start(settings).await?;
        let pem = Some(cluster.certificate_pem());
        let account = Account::sign_in_trusting(&cluster.account().await?, pem).await?;
        let client = Client::builder().tls_backend_preconfigured(client_config(pem, &[b"http/1.1"])?).build()?;
        Ok(Self { cluster, account, client })
    }

    /// Sends an event, signed by a secret at a time.
    async fn send(&self, event: &Value, secret: &str, seconds: u64) -> anyhow::Result<(u16, Value)> {
        let body = event.to_string();
        let mut hmac = Hmac::<Sha256>::new_from_slice(secret.as_bytes())?;
        hmac.update(format!("{seconds}.{body}").as_bytes());
        let signature: String = hmac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        self.send_as(&format!("t={seconds},v1={signature}"), body).await
    }

    async fn send_as(&self, header: &str, body: String) -> anyhow::Result<(u16, Value)> {
        let request = self.client.post(format!("{}/api/billing/webhook", self.cluster.api_origin()));
        let response = request.header("stripe-signature", header).body(body).send().await?;
        let status = response.status().as_u16();
        Ok((status, serde_json::from_str(&response.text().await?).unwrap_or(Value::Null)))
    }

    /// Sends an event as the provider would.
    async fn provider(&self, event: &Value) -> anyhow::Result<()> {
        let (status, answer) = self.send(event, SECRET, now()).await?;
        ensure!(status == 200, "{status}: {answer}");
        Ok(())
    }
}

fn now() -> u64 {
    Clock::system().unix_millis() / 1000
}

fn checkout(id: &str, customer: &str, account: &Account) -> Value {
    let object = json!({ "customer": customer, "client_reference_id": account.account_id });
    json!({ "id": id, "type": "checkout.session.completed", "created": now(), "data": { "object": object } })
}

fn subscription(id: &str, kind: &str, created: u64) -> Value {
    let items = json!({ "data": [{ "price": { "id": "price_team" } }] });
    let object = json!({ "id": "sub_1", "customer": "cus_1", "status": "active", "items": items });
    let kind = format!("customer.subscription.{kind}");
    json!({ "id": id, "type": kind, "created": created, "data": { "object": object } })
}

async fn has_plan(account: &Account, plan: &str) -> anyhow::Result<()> {
    let (_, billing) = account.call(Method::GET, "/api/billing", None).await?;
    ensure!(billing["plan"] == plan, "{plan} expected: {billing}");
    Ok(())
}

async fn unpaid(tally: Tally) -> anyhow::Result<()> {
    let shop = Shop::open().await?;
    let (ours, begun) = (&shop.account, now());
    let bound = checkout("evt_1", "cus_1", ours);

    // Forged, of another time, without a signature, too large, and no JSON at all.
    for (secret, seconds) in [("whsec_guess", begun), ("", begun), (SECRET, begun - 301), (SECRET, begun + 3600)] {
        let (status, answer) = shop.send(&bound, secret, seconds).await?;
        ensure!((status, api_code(&answer)) == (400, "webhook_refused"), "{status} {answer}");
        tally.stopped("webhook_refused");
    }
    let (_, answer) = shop.send_as("t=1,v1=00", bound.to_string()).await?;
    ensure!(api_code(&answer) == "webhook_refused", "{answer}");
    tally.stopped("webhook_refused");
    // It is not read to its end: the answer comes, or the connection is gone while it is still being sent.
    if let Ok((_, answer)) = shop.send_as("t=1,v1=00", "x".repeat(1024 * 1024)).await {
        ensure!(["frame_too_large", "bad_request"].contains(&api_code(&answer)), "{answer}");
    }
    has_plan(ours, "free").await?;
    tally.stopped("no other plan");

    // The provider's own words, the later one first.
    let ended = subscription("evt_3", "deleted", begun + 1);
    shop.provider(&bound).await?;
    shop.provider(&ended).await?;
    shop.provider(&subscription("evt_2", "created", begun)).await?;
    has_plan(ours, "free").await?;
    shop.provider(&subscription("evt_4", "updated", begun + 2)).await?;
    has_plan(ours, "team").await?;
    // Replayed, within the time that its signature holds.
    shop.provider(&ended).await?;
    has_plan(ours, "team").await?;
    tally.stopped("no other plan");

    // Another account names our customer, and pays in our name.
    let pem = Some(shop.cluster.certificate_pem());
    let theirs = Account::sign_in_trusting(&shop.cluster.account().await?, pem).await?;
    shop.provider(&checkout("evt_5", "cus_1", &theirs)).await?;
    shop.provider(&checkout("evt_6", "cus_2", ours)).await?;
    has_plan(&theirs, "free").await?;
    has_plan(ours, "team").await?;
    tally.stopped("no other plan");

    // What the plan does not hold is refused by name.
    let body = json!({ "role": "viewer", "label": "Ana" });
    let (_, answer) = theirs.call(Method::POST, "/api/invitations", Some(body)).await?;
    ensure!(api_code(&answer) == "seat_limit" && answer["error"]["limit"] == 1, "{answer}");
    tally.stopped("seat_limit");
    Ok(())
}
