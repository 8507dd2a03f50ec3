//! Guesses at what lets somebody in: the guesser is told to wait, and for how long, and nobody else is.

use anyhow::{Context as _, ensure};
use flydex_domain::limits::{CLAIM_RATE_PER_MINUTE, RECOVERY_RATE_PER_MINUTE, SIGN_IN_RATE_PER_MINUTE};
use flydex_loadtest::account::{Account, encode, key_json};
use flydex_loadtest::device::Device;
use flydex_tests::connector::Machine;
use futures_util::future::join_all;
use reqwest::header::{COOKIE, RETRY_AFTER};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{FLOODER, FORWARDED_FOR, NEIGHBOUR, behind_a_proxy, post};
use crate::attacks::stand::{Relay, api_code};

/// What somebody at that address says, signed in or not.
async fn says(
    relay: &Relay,
    address: &str,
    account: Option<&Account>,
    path: &str,
    body: &Value,
) -> anyhow::Result<Response> {
    let cookie = account.map(|account| format!("__Host-flydex={}", account.cookie())).unwrap_or_default();
    let mut headers = vec![(FORWARDED_FOR, address)];
    if account.is_some() {
        headers.push((COOKIE, cookie.as_str()));
    }
    post(relay, path, body.to_string().into_bytes(), &headers).await
}

/// More guesses at once than the rate, of which those over it are told to wait and the rest that it is none.
async fn guessed(
    (relay, account): (&Relay, Option<&Account>),
    rate: u32,
    path: impl Fn() -> String,
    (body, code): (&Value, &str),
) -> anyhow::Result<()> {
    const OVER: usize = 5;
    let paths: Vec<_> = (0..rate as usize + OVER).map(|_| path()).collect();
    let answers = join_all(paths.iter().map(|path| says(relay, FLOODER, account, path, body))).await;
    let mut limited = 0;
    for answer in answers {
        let answer = answer?;
        if answer.status() == StatusCode::TOO_MANY_REQUESTS {
            let wait: u64 = answer.headers()[RETRY_AFTER].to_str()?.parse()?;
            ensure!((1..=60).contains(&wait), "{wait} s");
            limited += 1;
        } else {
            assert_eq!(api_code(&answer.json().await?), code);
        }
    }
    // A place or two may have come back meanwhile.
    ensure!((1..=OVER).contains(&limited), "{limited} were told to wait");
    Ok(())
}

/// Guesses until the next one would be looked at in two seconds or later.
async fn is_held_up(relay: &Relay, path: &str, wrong: &Value) -> anyhow::Result<()> {
    loop {
        let answer = says(relay, FLOODER, None, path, wrong).await?;
        let wait = answer.headers().get(RETRY_AFTER).and_then(|wait| wait.to_str().ok()?.parse::<u64>().ok());
        if wait.is_some_and(|seconds| seconds >= 2) {
            return Ok(());
        }
    }
}

#[tokio::test]
async fn who_guesses_at_sign_in_links_waits_and_somebody_else_signs_in() -> anyhow::Result<()> {
    let relay = behind_a_proxy().await?;
    let (_, link) = relay.account.call(Method::POST, "/api/sign-in-links", Some(json!({}))).await?;
    let token = link["url"].as_str().and_then(|url| url.split_once('#')).context("a link")?.1.to_owned();
    let wrong = json!({ "token": encode(&[7; 32]) });
    let sign_in = "/api/sign-in";
    guessed((&relay, None), SIGN_IN_RATE_PER_MINUTE, || sign_in.to_owned(), (&wrong, "sign_in_link_invalid")).await?;
    let right = json!({ "token": token });
    is_held_up(&relay, sign_in, &wrong).await?;
    // Even the right one is not looked at, for who guesses; and it is not used up by that.
    assert_eq!(says(&relay, FLOODER, None, sign_in, &right).await?.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(says(&relay, NEIGHBOUR, None, sign_in, &right).await?.status(), StatusCode::OK);
    Ok(())
}

#[tokio::test]
async fn who_guesses_at_recovery_codes_waits_and_their_owner_signs_in() -> anyhow::Result<()> {
    let relay = behind_a_proxy().await?;
    let (_, made) = relay.account.call(Method::POST, "/api/recovery-codes", None).await?;
    let right = json!({ "code": made["codes"][0] });
    // The row of a code that is there, with the secret of none.
    let row = made["codes"][0].as_str().context("a code")?.get(..9).context("a row")?;
    let wrong = json!({ "code": format!("{row}-0000-0000-0000-0000") });
    let path = "/api/sign-in/recovery";
    guessed((&relay, None), RECOVERY_RATE_PER_MINUTE, || path.to_owned(), (&wrong, "recovery_code_invalid")).await?;
    is_held_up(&relay, path, &wrong).await?;
    assert_eq!(says(&relay, FLOODER, None, path, &right).await?.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(says(&relay, NEIGHBOUR, None, path, &right).await?.status(), StatusCode::OK);
    Ok(())
}

#[tokio::test]
async fn who_guesses_at_claims_waits_and_their_owner_pairs() -> anyhow::Result<()> {
    let relay = behind_a_proxy().await?;
    let machine = Machine::with_stub(relay.server.origin(), "/nowhere/codex".into())?;
    let mut connector = machine.connect()?;
    connector.process().may_log("codex did not start", "there is none");
    connector.process().may_log("codex is not available", "there is none");
    let url = connector.pair_url().await?;
    let stranger = relay.another_account().await?;
    let device = Device::new();
    let body = json!({
        "redeem_key": encode(&[7; 32]), "device_key": key_json(&device.public_key()), "device_label": "guesser",
    });
    let path = || format!("/api/claims/{}/redeem", Uuid::new_v4());
    guessed((&relay, Some(&stranger)), CLAIM_RATE_PER_MINUTE, path, (&body, "claim_invalid")).await?;
    // Where the guesser is, the owner waits as well; elsewhere the pairing goes on.
    relay.account.redeem(&url, &device, "phone").await?;
    connector.question().await?;
    connector.answer(true).await?;
    connector.process().says("paired").await.map(drop)
}
