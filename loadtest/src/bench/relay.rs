//! Round trips through the whole relay against a bare WebSocket forwarder.

use anyhow::bail;
use bytes::Bytes;
use flydex_agent_proto::v1 as agent;
use flydex_domain::command::{CommandKind, Outcome, Receipt};
use flydex_domain::time::UnixMillis;
use flydex_runtime::clock::Clock;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;

use super::{Figure, nanos_since};
use crate::floor;
use crate::rig::Rig;
use crate::session::Session;

/// Size of the floor's message: what a small signed command and its receipt weigh.
const MESSAGE_BYTES: usize = 400;

/// Measures `rounds` signed reads, each alternating with one round of the floor.
///
/// # Errors
/// When the rig refuses anything.
pub async fn run(rig: &Rig, rounds: u32) -> anyhow::Result<Vec<Figure>> {
    let clock = Clock::system();
    let now = || UnixMillis(clock.unix_millis());
    let mut session = Session::open(&rig.account, &rig.device, &rig.session_url, rig.region).await?;
    let opened = session.open_machine(&rig.machine).await?;
    let attach = agent::command_body::Kind::Attach(agent::Attach { cursor: None, client: "bench".to_owned() });
    let command_id = session.command(&rig.device, &opened, CommandKind::Attach, attach, now()).await?;
    executed(session.receipt(&opened, command_id).await?.0)?;

    let (mut bare, _) = connect_async(format!("ws://{}", floor::start().await?)).await?;
    let message = Bytes::from(vec![7; MESSAGE_BYTES]);
    let mut read = Figure::new("signed read, verified receipt, through `all`", "bare WebSocket forwarder")?;
    let mut page = Figure::new("first page of 5,000 threads through `all`", "bare WebSocket forwarder")?;
    for _ in 0..rounds {
        let start = clock.instant();
        bare.send(Message::Binary(message.clone())).await?;
        while !matches!(bare.next().await.transpose()?, Some(Message::Binary(_))) {}
        let floor = nanos_since(start);
        read.floor.record(floor)?;
        page.floor.record(floor)?;

        let models = agent::command_body::Kind::ListModels(agent::ListModels {});
        let start = clock.instant();
        let command_id = session.command(&rig.device, &opened, CommandKind::ListModels, models, now()).await?;
        executed(session.receipt(&opened, command_id).await?.0)?;
        read.times.record(nanos_since(start))?;

        let list = agent::ListThreads { limit: 50, ..Default::default() };
        let start = clock.instant();
        let kind = agent::command_body::Kind::ListThreads(list);
        let command_id = session.command(&rig.device, &opened, CommandKind::ListThreads, kind, now()).await?;
        executed(session.receipt(&opened, command_id).await?.0)?;
        page.times.record(nanos_since(start))?;
    }
    Ok(vec![read, page])
}

/// A refusal is quick, and no figure.
fn executed(receipt: Receipt) -> anyhow::Result<()> {
    if receipt.outcome != Outcome::Executed {
        bail!("the machine answered with {:?}", receipt.outcome);
    }
    Ok(())
}
