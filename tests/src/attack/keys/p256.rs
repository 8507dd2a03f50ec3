//! A device of a browser without Ed25519: it does what any other does, by signatures of one form.

use crate::codex::CodexHome;
use crate::wait;
use anyhow::{Context as _, ensure};
use flydex_domain::command::{CommandKind, Outcome};
use flydex_domain::error::ErrorCode;
use flydex_domain::key::{P256_KEY_BYTES, PublicKey};
use flydex_loadtest::account::encode;
use flydex_loadtest::device::Device;
use reqwest::Method;
use serde_json::json;

use super::super::Attack;
use super::super::approvals::{accept, answer, asked, digest_of, word};
use super::super::stand::{Ground, Stand, api_code};
use super::super::tally::Tally;

/// What is tried.
pub const ATTACKS: &[Attack] = &[
    Attack {
        name: "second forms of signatures",
        tries: "the other P-256 signature that holds for the same words",
        stopped_by: &["signature_invalid"],
        run: |ground, tally| Box::pin(mirrored_signatures(ground, tally)),
        regions: 1,
    },
    Attack {
        name: "keys of another form",
        tries: "keys of another curve, length, kind or name, and one that is off its curve",
        stopped_by: &["bad_request"],
        run: |ground, tally| Box::pin(other_forms(ground, tally)),
        regions: 1,
    },
];

/// The order of P-256, big-endian.
const ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa, 0xad, 0xa7,
    0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

/// The other signature that holds for the same message: s taken from the order.
fn mirrored(signature: &[u8]) -> Vec<u8> {
    let (r, s) = signature.split_at(32);
    let mut borrow = 0_i16;
    let mut other = [0; 32];
    for index in (0..32).rev() {
        let difference = i16::from(ORDER[index]) - i16::from(s[index]) - borrow;
        borrow = i16::from(difference < 0);
        other[index] = u8::try_from(difference.rem_euclid(256)).unwrap_or_default();
    }
    [r, &other].concat()
}

async fn mirrored_signatures(ground: Ground, tally: Tally) -> anyhow::Result<()> {
    let stand = Stand::on(&ground, &tally).await?;
    let outside = CodexHome::outside()?;
    let file = outside.path().join("ran");
    let (account, device) = stand.second_device_with("a browser of before", Device::p256()).await?;
    ensure!(device.public_key().algorithm() == "p256", "it is of another kind");
    let mut client = stand.client(&account, device).await?;
    client.attach().await?;

    let (header, mut command) = client.sign(CommandKind::StartThread, stand.start_thread("mirrored"), |_| {});
    command.signature = mirrored(&command.signature).into();
    client.is_turned_away(&(header, command), ErrorCode::SignatureInvalid).await?;
    ensure!(stand.effects("mirrored") == 0, "a signature of the other form was obeyed");

    let prompt = format!("[[esc echo ran >> {}]] [[say over]]", file.display());
    let begin = client.sign(CommandKind::StartThread, stand.start_thread(&prompt), |_| {});
    ensure!(client.ask(&begin).await?.outcome == Outcome::Executed, "it cannot start a thread");
    let shown = asked(&mut client).await?;
    let signed = answer(&client, accept(&shown)?, digest_of(&shown)?);
    ensure!(word(&mut client, &signed).await?.outcome == Outcome::Executed, "it cannot approve");
    wait::until("the command to run", || async { file.exists().then_some(()) }).await
}

async fn other_forms(ground: Ground, tally: Tally) -> anyhow::Result<()> {
    let stand = Stand::on(&ground, &tally).await?;
    let key = Device::p256().public_key();
    let point = key.as_bytes();
    let mut off_the_curve = point.to_vec();
    off_the_curve[P256_KEY_BYTES - 1] ^= 1;
    let mut compressed = vec![2 | (point[P256_KEY_BYTES - 1] & 1)];
    compressed.extend_from_slice(&point[1..33]);
    for (algorithm, bytes) in [
        ("p256", off_the_curve.as_slice()),
        ("p256", &compressed),
        ("p256", &point[1..]),
        ("ed25519", point),
        ("p256", stand.device.public_key().as_bytes()),
        ("p384", point),
        ("P256", point),
        ("", point),
    ] {
        let key = json!({ "algorithm": algorithm, "key": encode(bytes) });
        let body = json!({ "device_key": key, "region": stand.relay.regions()[0] });
        let (_, answer) = stand.relay.account.call(Method::POST, "/api/tickets", Some(body)).await?;
        ensure!(api_code(&answer) == ErrorCode::BadRequest.name(), "{algorithm}: {answer}");
        tally.stopped(ErrorCode::BadRequest.name());
    }
    PublicKey::p256(point).context("the key itself is one").map(drop)
}
