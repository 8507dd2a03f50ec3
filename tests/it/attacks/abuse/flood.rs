//! Floods of handshakes: from one address, from many, and over QUIC from addresses that nobody has.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use flydex_domain::error::ErrorCode;
use flydex_domain::limits::{ADDRESS_HANDSHAKES_MAX, GATEWAY_HANDSHAKES_MAX};
use flydex_loadtest::device::Device;
use flydex_loadtest::session::Session;
use flydex_proto::codec::Lane;
use flydex_proto::v1::{self, session_down, session_up};
use flydex_tests::connector::Machine;
use flydex_tests::wait;
use futures_util::future::try_join_all;
use reqwest::Method;
use tokio::net::TcpStream;

use super::initial::{Answers, Way};
use super::links::Links;
use super::{FLOODER, NEIGHBOUR, address, behind_a_proxy, from_page, status, upgraded};
use crate::attacks::stand::Relay;

/// Connections over QUIC that are begun at once, and how often.
const BEGUN_AT_ONCE: usize = 20;
const BEGIN_INTERVAL: Duration = Duration::from_millis(100);

/// Opens that many sockets for somebody at that address, who says nothing on them; half of them as connectors do.
async fn silent(relay: &Relay, client: &str, count: usize) -> anyhow::Result<Vec<(TcpStream, String)>> {
    let page = from_page(relay);
    try_join_all((0..count).map(|number| {
        let (path, page) = if number % 2 == 0 { ("/v1/session", page.as_str()) } else { ("/v1/link", "") };
        let headers = format!("{page}x-forwarded-for: {client}\r\n");
        async move { upgraded(relay, path, &headers).await }
    }))
    .await
}

fn with_status(answers: &[(TcpStream, String)], wanted: &str) -> usize {
    answers.iter().filter(|(_, answer)| status(answer) == wanted).count()
}

/// A session that is open gets its answers.
async fn is_served(session: &mut Session) -> anyhow::Result<()> {
    session.send(Lane::Control, session_up::Kind::Ping(v1::Ping { nonce: 7 })).await?;
    wait::within("an answer in an open session", async {
        while !matches!(session.next().await?, session_down::Kind::Pong(_)) {}
        anyhow::Ok(())
    })
    .await?
}

#[tokio::test]
async fn one_address_that_opens_sockets_and_says_nothing_takes_no_place_of_others() -> anyhow::Result<()> {
    const OVER: usize = 50;
    let relay = behind_a_proxy().await?;
    let flood = silent(&relay, FLOODER, ADDRESS_HANDSHAKES_MAX + OVER).await?;
    // One that is late refuses newcomers for another reason; so it may be fewer.
    ensure!(with_status(&flood, "101") <= ADDRESS_HANDSHAKES_MAX, "one address has too many places");
    ensure!(with_status(&flood, "429") > 0, "nobody was told to wait");
    for (_, answer) in flood.iter().filter(|(_, answer)| status(answer) == "429") {
        ensure!(answer.contains("retry-after: "), "{answer}");
    }
    // Others get in, all the way, while the flood holds what it has.
    relay.session(&relay.account, &Device::new()).await?;
    wait::until("somebody else to get a place", async || {
        let (neighbour, flooder) = (silent(&relay, NEIGHBOUR, 1).await.ok()?, silent(&relay, FLOODER, 1).await.ok()?);
        (with_status(&neighbour, "101") == 1 && with_status(&flooder, "429") == 1).then_some(())
    })
    .await?;
    // Those who say nothing are given up, and then there is room for the same address again.
    wait::until("the flood to be given up", async || {
        let again = silent(&relay, FLOODER, 1).await.ok()?;
        (with_status(&again, "101") == 1).then_some(())
    })
    .await
}

#[tokio::test]
async fn a_flood_from_everywhere_is_turned_away_and_who_is_in_stays_in() -> anyhow::Result<()> {
    let relay = behind_a_proxy().await?;
    let mut before = relay.session(&relay.account, &Device::new()).await?;
    let mut flood = Vec::new();
    for number in 0..=GATEWAY_HANDSHAKES_MAX / ADDRESS_HANDSHAKES_MAX {
        flood.extend(silent(&relay, &format!("203.0.113.{number}"), ADDRESS_HANDSHAKES_MAX).await?);
        is_served(&mut before).await?;
    }
    let refused = with_status(&flood, &ErrorCode::Overloaded.http_status().to_string());
    ensure!(refused > 0, "nobody was turned away");
    assert_eq!(refused + with_status(&flood, "101"), flood.len());
    let (answered, _) = relay.account.call(Method::GET, "/api/session", None).await?;
    ensure!(answered.is_success(), "the API answers: {answered}");
    wait::until("newcomers to be let in again", async || relay.session(&relay.account, &Device::new()).await.ok())
        .await
        .map(drop)
}

/// Begins connections until it is dropped; the relay's answers to them are lost.
async fn begin_forever(links: &Links) -> anyhow::Result<()> {
    let mut begun = VecDeque::new();
    let mut ticks = tokio::time::interval(BEGIN_INTERVAL);
    loop {
        ticks.tick().await;
        for _ in 0..BEGUN_AT_ONCE {
            begun.push_back(links.begin()?);
        }
        while begun.len() > GATEWAY_HANDSHAKES_MAX {
            begun.pop_front();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_half_open_quic_handshakes_has_to_prove_its_address_and_connectors_link() -> anyhow::Result<()> {
    let relay = Relay::start().await?;
    let to = address(&relay)?.parse()?;
    let honest = Way::to(to, Answers::Pass).await?;
    let links = Links::through(&relay, honest.address).await?;
    links.connect().await.context("link before the flood")?;
    assert_eq!(honest.retries(), 0, "nobody proves anything while there is room");

    let forged = Way::to(to, Answers::AreLost).await?;
    let flooding = Links::through(&relay, forged.address).await?;
    let flood = begin_forever(&flooding);
    let served = async {
        wait::until("the relay to ask for a proof", async || (forged.retries() > 0).then_some(())).await?;
        let in_time =
            wait::until("a client that answers to link", async || links.connect().await.ok().map(|_| honest.retries()));
        ensure!(in_time.await? > 0, "a client that came meanwhile was not asked");
        links_by_itself(&relay).await?;
        let before = forged.retries();
        wait::until("the flood to be asked still", async || (forged.retries() > before).then_some(())).await
    };
    tokio::select! {
        flooded = flood => flooded,
        served = served => served,
    }
}

/// Pairs a connector, which links as it is shipped.
async fn links_by_itself(relay: &Relay) -> anyhow::Result<()> {
    let machine = Machine::with_stub(relay.server.origin(), "/nowhere/codex".into())?;
    let mut connector = machine.connect()?;
    connector.process().may_log("codex did not start", "there is none");
    connector.process().may_log("codex is not available", "there is none");
    relay.account.redeem(&connector.pair_url().await?, &Device::new(), "phone").await?;
    connector.question().await?;
    connector.answer(true).await?;
    wait::until("the machine to be attached", async || {
        let (_, lines) = machine.command(&["status", "--json"]).await.ok()?;
        let status: serde_json::Value = serde_json::from_str(&lines.out.join("\n")).ok()?;
        status["connector"]["link"].as_str().is_some_and(|link| link.starts_with("attached")).then_some(())
    })
    .await
    .with_context(|| connector.process().story())
}
