//! Peers that say nothing, little, or one byte at a time.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use flydex_domain::error::ErrorCode;
use flydex_proto::codec::Lane;
use flydex_tests::server::{Server, Settings};
use flydex_tests::wait;
use futures_util::future::try_join_all;
use reqwest::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::links::Links;
use super::{address, from_page, raw, upgrade};
use crate::attacks::stand::Relay;

/// Connections that say nothing at once.
const SILENT: usize = 300;
/// How often one that drips says its byte.
const DRIP_INTERVAL: Duration = Duration::from_millis(500);

/// What a peer may have said before it falls silent.
fn beginnings(relay: &Relay) -> [Vec<u8>; 6] {
    // The head of a frame of 255 bytes, masked with nothing.
    const FRAME: [u8; 8] = [0x82, 0xFE, 0, 0xFF, 0, 0, 0, 0];
    let page = from_page(relay);
    let body = format!(
        "POST /api/sign-in HTTP/1.1\r\nhost: x\r\n{page}content-type: application/json\r\ncontent-length: 5000\r\n\r\n{{"
    );
    let in_frame = |upgrade: String| [upgrade.into_bytes(), FRAME.to_vec()].concat();
    [
        Vec::new(),
        b"P".to_vec(),
        b"GET /api/session HTTP/1.1\r\nhost: x\r\nx: ".to_vec(),
        body.into_bytes(),
        in_frame(upgrade("/v1/session", &page)),
        in_frame(upgrade("/v1/link", "")),
    ]
}

/// Says one byte after the other until the relay has had enough.
async fn drip(relay: &Relay, beginning: &[u8]) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(address(relay)?).await?;
    stream.write_all(beginning).await?;
    let (mut reading, mut writing) = stream.split();
    let mut ticks = tokio::time::interval(DRIP_INTERVAL);
    let dripping = async {
        loop {
            ticks.tick().await;
            // Whether it is closed is seen by reading.
            let _ = writing.write_all(b"x").await;
        }
    };
    let mut answer = Vec::new();
    tokio::select! {
        closed = wait::within("the relay to close a slow connection", reading.read_to_end(&mut answer)) => {
            // A reset is an end as well.
            closed.map(drop)
        }
        () = dripping => Ok(()),
    }
}

#[tokio::test]
async fn peers_that_say_nothing_or_little_are_given_up_and_hold_up_nobody() -> anyhow::Result<()> {
    let relay = Relay::start().await?;
    let words = beginnings(&relay);
    let silent = try_join_all((0..SILENT).map(|number| raw(&relay, &words[number % words.len()])));
    let dripping = try_join_all(words.iter().map(|word| drip(&relay, word)));
    let served = async {
        for _ in 0..20 {
            let (answered, _) = relay.account.call(Method::GET, "/api/session", None).await?;
            ensure!(answered.is_success(), "a person waits: {answered}");
        }
        Ok(())
    };
    // Each connection is closed by the relay, or this never ends.
    let closed = wait::within("the relay to give them up", async { tokio::join!(silent, dripping, served) });
    let (silent, dripping, served) = closed.await?;
    served?;
    dripping?;
    ensure!(silent?.len() == SILENT);
    Ok(())
}

#[tokio::test]
async fn a_link_over_quic_that_says_too_little_is_closed_with_a_code() -> anyhow::Result<()> {
    let relay = Relay::start().await?;
    let links = Links::of(&relay).await?;
    let begun: [&[u8]; 4] =
        [&[], &[Lane::Control.byte()], &[Lane::Control.byte(), 0, 0], &[Lane::Control.byte(), 0, 0, 1, 0, 1]];
    let links = &links;
    let closed = begun.map(|bytes| async move {
        let connection = links.connect().await?;
        let (mut send, _receive) = connection.open_bi().await?;
        send.write_all(bytes).await?;
        Links::close_code(&connection).await
    });
    for code in try_join_all(closed).await? {
        assert_eq!(code, ErrorCode::DeadlineExceeded.close_code());
    }
    Ok(())
}

#[tokio::test]
async fn whoever_never_finishes_tls_is_given_up() -> anyhow::Result<()> {
    let server = Server::start_with(Settings { https: true, ..Settings::default() }).await?;
    let (_, port) = server.origin().rsplit_once(':').context("no port")?;
    let to = &format!("127.0.0.1:{port}");
    // Nothing, and the head of a record that never comes.
    let silent = [&b""[..], &[22, 3, 1, 2, 0]].map(|bytes| async move {
        let mut stream = TcpStream::connect(to).await?;
        stream.write_all(bytes).await?;
        let _ = stream.read_to_end(&mut Vec::new()).await;
        anyhow::Ok(())
    });
    wait::within("the relay to give them up", try_join_all(silent)).await?.map(drop)
}
