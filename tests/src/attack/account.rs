//! The account session: planted, stolen, sent by another site, and guessed at.

use anyhow::{Context as _, ensure};
use flydex_domain::limits::RECOVERY_RATE_PER_MINUTE;
use flydex_loadtest::device::Device;
use flydex_runtime::tls;
use reqwest::header::{CONTENT_TYPE, COOKIE, ORIGIN, SET_COOKIE};
use reqwest::{Client, Method, Response, StatusCode};
use serde_json::{Value, json};

use super::Attack;
use super::stand::{Ground, Relay, api_code};
use super::tally::Tally;

/// What is tried.
pub const ATTACKS: &[Attack] = &[
    Attack {
        name: "planted cookies",
        tries: "a cookie that was there before the sign-in, after it",
        stopped_by: &["unauthenticated"],
        run: |ground, tally| Box::pin(planted(ground, tally)),
        regions: 1,
    },
    Attack {
        name: "requests of other sites",
        tries: "what another site makes a browser send with its cookie",
        stopped_by: &["origin_refused"],
        run: |ground, tally| Box::pin(of_other_sites(ground, tally)),
        regions: 1,
    },
    Attack {
        name: "sockets of other sites",
        tries: "a socket by a page of another site",
        stopped_by: &["no upgrade"],
        run: |ground, tally| Box::pin(sockets(ground, tally)),
        regions: 1,
    },
    Attack {
        name: "stolen cookies",
        tries: "a cookie in two browsers after signing out everywhere",
        stopped_by: &["unauthenticated"],
        run: |ground, tally| Box::pin(stolen(ground, tally)),
        regions: 1,
    },
    Attack {
        name: "guessed recovery codes",
        tries: "recovery codes, one after the other",
        stopped_by: &["recovery_code_invalid", "rate_limited"],
        run: |ground, tally| Box::pin(guessed(ground, tally)),
        regions: 1,
    },
];

/// A browser that sends whatever an attacker wants: any cookie, any origin.
struct Attacker<'a> {
    client: Client,
    relay: &'a Relay,
}

impl<'a> Attacker<'a> {
    fn of(relay: &'a Relay) -> anyhow::Result<Self> {
        let tls = tls::client_config(relay.server.certificate_pem(), &[b"http/1.1"])?;
        Ok(Self { client: Client::builder().tls_backend_preconfigured(tls).build()?, relay })
    }

    async fn post(&self, path: &str, cookie: &str, headers: &[(&str, &str)], body: Value) -> anyhow::Result<Response> {
        let request = self.client.post(format!("{}{path}", self.relay.account.base()));
        let request = request.header(CONTENT_TYPE, "application/json").header(COOKIE, cookie).body(body.to_string());
        let add = |request: reqwest::RequestBuilder, (name, value): &(&str, &str)| request.header(*name, *value);
        Ok(headers.iter().fold(request, add).send().await?)
    }
}

/// Counts what an answer was refused with.
async fn is_refused(tally: &Tally, answer: Response, with: &str) -> anyhow::Result<()> {
    let (status, answer): (StatusCode, Value) = (answer.status(), answer.json().await?);
    ensure!(!status.is_success() && api_code(&answer) == with, "{with} expected: {status} {answer}");
    tally.stopped(with);
    Ok(())
}

fn cookie_of(secret: &str) -> String {
    format!("__Host-flydex={secret}")
}

async fn planted(ground: Ground, tally: Tally) -> anyhow::Result<()> {
    let relay = Relay::on(&ground, &tally).await?;
    let attacker = Attacker::of(&relay)?;
    let (_, link) = relay.account.call(Method::POST, "/api/sign-in-links", Some(json!({}))).await?;
    let token = link["url"].as_str().and_then(|url| url.split_once('#')).context("a link")?.1.to_owned();
    let planted = cookie_of(&"A".repeat(43));
    let own = [(ORIGIN.as_str(), relay.server.origin())];
    let answer = attacker.post("/api/sign-in", &planted, &own, json!({ "token": token })).await?;
    ensure!(answer.status().is_success(), "{answer:?}");
    let set = answer.headers()[SET_COOKIE].to_str()?;
    ensure!(!set.starts_with(&planted), "the planted cookie was signed in");
    is_refused(&tally, attacker.post("/api/sign-out", &planted, &own, json!({})).await?, "unauthenticated").await
}

async fn of_other_sites(ground: Ground, tally: Tally) -> anyhow::Result<()> {
    let relay = Relay::on(&ground, &tally).await?;
    let attacker = Attacker::of(&relay)?;
    let cookie = cookie_of(relay.account.cookie());
    let own = relay.server.origin();
    for headers in [
        vec![(ORIGIN.as_str(), "https://evil.example")],
        vec![(ORIGIN.as_str(), "null")],
        vec![],
        vec![(ORIGIN.as_str(), own), ("sec-fetch-site", "cross-site")],
    ] {
        for path in ["/api/sign-out", "/api/sign-in-links", "/api/recovery-codes", "/api/passkeys/start"] {
            is_refused(&tally, attacker.post(path, &cookie, &headers, json!({})).await?, "origin_refused")
                .await
                .with_context(|| format!("{path} {headers:?}"))?;
        }
    }
    let (status, _) = relay.account.call(Method::GET, "/api/session", None).await?;
    ensure!(status == StatusCode::OK, "the account's own session is gone: {status}");
    Ok(())
}

async fn sockets(ground: Ground, tally: Tally) -> anyhow::Result<()> {
    let relay = Relay::on(&ground, &tally).await?;
    let own = relay.server.origin().to_owned();
    let other_scheme =
        if own.starts_with("https") { own.replacen("https", "http", 1) } else { own.replacen("http", "https", 1) };
    for origin in ["https://evil.example", "null", &format!("{own}.evil.example"), &other_scheme] {
        ensure!(relay.socket_in(0, origin).await.is_err(), "a socket of {origin} was opened");
        tally.stopped("no upgrade");
    }
    relay.session(&relay.account, &Device::new()).await.map(drop)
}

async fn stolen(ground: Ground, tally: Tally) -> anyhow::Result<()> {
    let relay = Relay::on(&ground, &tally).await?;
    let thief = relay.another_browser().await?;
    let (status, _) = relay.account.call(Method::DELETE, "/api/sessions", None).await?;
    ensure!(status == StatusCode::NO_CONTENT, "{status}");
    for browser in [&thief, &relay.account] {
        let (_, answer) = browser.call(Method::GET, "/api/session", None).await?;
        ensure!(api_code(&answer) == "unauthenticated", "{answer}");
        tally.stopped("unauthenticated");
    }
    Ok(())
}

async fn guessed(ground: Ground, tally: Tally) -> anyhow::Result<()> {
    let relay = Relay::on(&ground, &tally).await?;
    let guess = || relay.account.call(Method::POST, "/api/sign-in/recovery", Some(json!({ "code": "0" })));
    for number in 0..=RECOVERY_RATE_PER_MINUTE {
        let expected = if number < RECOVERY_RATE_PER_MINUTE { "recovery_code_invalid" } else { "rate_limited" };
        let (_, answer) = guess().await?;
        ensure!(api_code(&answer) == expected, "{expected} expected after {number}: {answer}");
        tally.stopped(expected);
    }
    Ok(())
}
