//! A region is lost in the middle of a turn: the real connector, the real Codex and a real browser go on in the other.

use std::time::Duration;

use anyhow::Context as _;
use flydex_runtime::clock::Clock;

use super::fault::Fault;
use super::{Cluster, RegionSettings, Settings, suite};
use crate::browser::Browser;
use crate::codex::{CodexHome, Desk};
use crate::connector::Machine;
use crate::model::Model;
use crate::phone::Phone;
use crate::wait;
use crate::world::pair;

/// What the farther region takes longer, each way.
const FARTHER: Duration = Duration::from_millis(30);

/// Walks it, and returns the time from the loss until the phone has read all that was said meanwhile and written again.
///
/// # Errors
/// When a part does not come up, or a step does not come.
pub async fn lost() -> anyhow::Result<Duration> {
    let regions = ["near", "far"].map(|name| RegionSettings { name, gateways: 1, nodes: 1 });
    let settings = Settings { regions: regions.into(), controls: 1, ..Settings::default() };
    let mut cluster = Cluster::start(settings).await?;
    for (text, why) in suite::EXPECTED {
        cluster.may_log(text, why);
    }
    cluster.regions[1].balancer.set_delay(FARTHER);
    let model = Model::start().await?;
    let codex = CodexHome::create(&model)?;
    let daemon = codex.start_daemon().await?;
    let browser = Browser::start()?;
    let machine = Machine::new(cluster.origin(), &codex)?;
    let workspace = machine.workspace().to_string_lossy().into_owned();
    machine.command(&["directories", "add", &workspace]).await?;
    let phone = Phone::new(browser.phone().await?);
    phone.sign_in(&cluster.account().await?).await?;
    let mut connector = machine.connect()?;
    pair(&phone, &mut connector).await?;
    is_linked_in(&machine, "near").await?;

    let mut desk = Desk::connect(daemon.socket()).await?;
    let thread_id = desk.start_thread(&codex.workspace()).await?;
    desk.start_turn(&thread_id, "a thread that moves [[say ready]]").await?;
    desk.turn_ended(&thread_id).await?;
    phone.open_thread("a thread that moves").await?;
    phone.send("[[stream 8]] [[gate middle]] [[stream 8]]").await?;
    model.reached("middle").await?;
    phone.reads("tick 7").await?;
    Fault::LoseRegion.strike(&mut cluster).await?;
    let (clock, since) = (Clock::system(), Clock::system().instant());
    model.open("middle");
    phone.reads("tick 15").await.with_context(|| connector.process().story())?;
    phone.idle().await?;
    phone.send("[[say the other side]]").await?;
    phone.reads("the other side").await?;
    let took = clock.instant().saturating_duration_since(since);
    is_linked_in(&machine, "far").await?;
    Ok(took)
}

/// Waits until the desk says that the link is in that region.
async fn is_linked_in(machine: &Machine, region: &str) -> anyhow::Result<()> {
    wait::until(&format!("the link to be in the region {region}"), async || {
        let (_, lines) = machine.command(&["status", "--json"]).await.ok()?;
        let status: serde_json::Value = serde_json::from_str(&lines.out.join("\n")).ok()?;
        (status["connector"]["regions"]["link"]["region"] == region).then_some(())
    })
    .await
}
