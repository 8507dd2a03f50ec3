//! The same walk over both transports of a link: nothing that a person sees may depend on it.

use anyhow::{Context as _, ensure};
use flydex_tests::phone::Answer;
use flydex_tests::server::{Carrier, Settings};
use flydex_tests::world::{Paired, World};

#[tokio::test]
async fn the_whole_path_runs_over_a_websocket_link() -> anyhow::Result<()> {
    walk(Settings { carrier: Carrier::WebSocketOnly, ..Settings::default() }, "websocket").await
}

#[tokio::test]
async fn the_whole_path_runs_over_a_quic_link() -> anyhow::Result<()> {
    walk(Settings::default(), "quic").await
}

#[tokio::test]
async fn the_whole_path_runs_over_https_and_a_websocket_link_in_tls() -> anyhow::Result<()> {
    walk(Settings { https: true, carrier: Carrier::WebSocketOnly, ..Settings::default() }, "websocket").await
}

async fn walk(settings: Settings, transport: &str) -> anyhow::Result<()> {
    let paired = World::paired_with(settings).await?;
    ensure!(link_of(&paired).await? == transport, "the link is not over {transport}");
    paired.open_new_thread("over either transport").await?;
    let phone = &paired.phone;
    phone.send("[[stream 4]] [[gate middle]] [[stream 4]]").await?;
    paired.world.model.reached("middle").await?;
    phone.reads("tick 3").await?;
    paired.world.model.open("middle");
    phone.reads("tick 7").await?;
    phone.idle().await?;
    phone.send("[[esc echo over either transport]]").await?;
    phone.asked().await?;
    phone.answer(Answer::Accept).await?;
    phone.reads_output("over either transport").await?;
    phone.idle().await
}

async fn link_of(paired: &Paired) -> anyhow::Result<String> {
    let (_, lines) = paired.world.machine.command(&["status", "--json"]).await?;
    let text = lines.out.join("\n");
    let status: serde_json::Value = serde_json::from_str(&text).with_context(|| format!("no JSON but {text}"))?;
    Ok(status["connector"]["transport"].as_str().context("no transport in the status")?.to_owned())
}
