//! The claim in a QR code: guessed, used twice, and taken by somebody else.

use crate::codex::CodexHome;
use crate::connector::Machine;
use crate::model::Model;
use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use flydex_domain::pairing::ClaimKeys;
use flydex_domain::secret::SecretKey;
use flydex_loadtest::account::{Account, encode, key_json};
use flydex_loadtest::device::Device;
use reqwest::{Method, StatusCode};
use serde_json::json;
use uuid::Uuid;

use super::Attack;
use super::stand::{Ground, Relay, api_code};
use super::tally::Tally;

/// What is tried.
pub const ATTACKS: &[Attack] = &[
    Attack {
        name: "guessed claims",
        tries: "a claim that nobody made, and wrong keys for one that is there, until it is gone",
        stopped_by: &["claim_invalid"],
        run: |ground, tally| Box::pin(guessed(ground, tally)),
        regions: 1,
    },
    Attack {
        name: "taken claims",
        tries: "a claim that another browser or device has redeemed: redeemed, finalized, watched, cancelled",
        stopped_by: &["claim_used", "claim_invalid", "conflict", "not_found", "pairing_ended"],
        run: |ground, tally| Box::pin(taken(ground, tally)),
        regions: 1,
    },
];

/// Tries to redeem a claim with a key, as it is.
async fn redeem(
    tally: &Tally,
    account: &Account,
    claim_id: &str,
    key: &[u8; 32],
    device: &Device,
) -> anyhow::Result<(StatusCode, String)> {
    let body = json!({
        "redeem_key": encode(key), "device_key": key_json(&device.public_key()), "device_label": "attacker",
    });
    let (status, answer) = account.call(Method::POST, &format!("/api/claims/{claim_id}/redeem"), Some(body)).await?;
    let code = if status.is_success() { "redeemed" } else { api_code(&answer) };
    tally.stopped(code);
    Ok((status, code.to_owned()))
}

/// The claim's id and the key that redeems it.
fn parts(url: &str) -> anyhow::Result<(String, [u8; 32])> {
    let (_, fragment) = url.split_once('#').context("a claim")?;
    let (claim_id, secret) = fragment.split_once('.').context("a secret")?;
    let secret = URL_SAFE_NO_PAD.decode(secret)?;
    let secret: [u8; 32] = secret.try_into().ok().context("32 bytes")?;
    Ok((claim_id.to_owned(), *ClaimKeys::derive(&SecretKey::new(secret)).redeem.expose()))
}

async fn guessed(ground: Ground, tally: Tally) -> anyhow::Result<()> {
    let model = Model::start().await?;
    let codex = CodexHome::create(&model)?;
    let relay = Relay::on(&ground, &tally).await?;
    let machine = Machine::new(relay.server.origin(), &codex)?;
    let mut connector = machine.connect()?;
    let (claim_id, key) = parts(&connector.pair_url().await?)?;
    let device = Device::new();
    let refused = (StatusCode::NOT_FOUND, "claim_invalid".to_owned());
    // A claim that nobody made is answered like a wrong key for one that is there.
    assert_eq!(redeem(&tally, &relay.account, &Uuid::new_v4().to_string(), &key, &device).await?, refused);
    for guess in 1..=5 {
        assert_eq!(redeem(&tally, &relay.account, &claim_id, &[guess; 32], &device).await?, refused, "guess {guess}");
    }
    assert_eq!(redeem(&tally, &relay.account, &claim_id, &key, &device).await?, refused);
    ensure!(!connector.process_mut().ended().await?.success(), "the connector waits for a claim that is gone");
    let (_, devices) = machine.command(&["devices", "list"]).await?;
    ensure!(devices.out.iter().all(|line| !line.contains("attacker")), "{devices:?}");
    Ok(())
}

async fn taken(ground: Ground, tally: Tally) -> anyhow::Result<()> {
    let model = Model::start().await?;
    let codex = CodexHome::create(&model)?;
    let relay = Relay::on(&ground, &tally).await?;
    let machine = Machine::new(relay.server.origin(), &codex)?;
    let mut connector = machine.connect()?;
    let url = connector.pair_url().await?;
    let (claim_id, key) = parts(&url)?;
    let (device, other_device) = (Device::new(), Device::new());
    let other = relay.another_browser().await?;
    let pairing = relay.account.redeem(&url, &device, "phone").await?;

    let used = (StatusCode::CONFLICT, "claim_used".to_owned());
    assert_eq!(redeem(&tally, &other, &claim_id, &key, &other_device).await?, used, "another browser");
    assert_eq!(redeem(&tally, &other, &claim_id, &key, &device).await?, used, "another browser with the same device");
    assert_eq!(redeem(&tally, &relay.account, &claim_id, &key, &other_device).await?, used, "another device");
    let mac = json!({ "device_mac": encode(&[1; 32]) });
    let finalize = format!("/api/claims/{claim_id}/finalize");
    let (_, answer) = other.call(Method::POST, &finalize, Some(mac.clone())).await?;
    assert_eq!(api_code(&answer), "claim_invalid");
    tally.stopped(api_code(&answer));
    let (_, answer) = relay.account.call(Method::POST, &finalize, Some(mac)).await?;
    assert_eq!(api_code(&answer), "conflict", "a second word on the same terms");
    tally.stopped(api_code(&answer));
    let (watched, answer) =
        other.call(Method::GET, &format!("/api/local-connect/{}", pairing.local_connect_id), None).await?;
    ensure!(watched.is_client_error(), "another browser saw the pairing: {watched}");
    tally.stopped(api_code(&answer));
    let cancel = format!("/api/local-connect/{}/cancel", pairing.local_connect_id);
    let (cancelled, answer) = other.call(Method::POST, &cancel, Some(json!({}))).await?;
    ensure!(cancelled.is_client_error(), "another browser ended the pairing: {cancelled}");
    tally.stopped(api_code(&answer));

    connector.question().await?;
    connector.answer(false).await?;
    ensure!(!connector.process_mut().ended().await?.success(), "the desk said no");
    let (status, code) = redeem(&tally, &other, &claim_id, &key, &other_device).await?;
    ensure!(status.is_client_error(), "a claim that ended was redeemed: {code}");
    Ok(())
}
