//! An operator empties a region: its machines go to the other while it serves them, and nothing that was delivered is
//! lost or done twice.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use flydex_domain::command::{CommandKind, Outcome};
use flydex_loadtest::device::Device;
use flydex_tests::attack::relay::Ground;
use flydex_tests::attack::stand::{Client, Signed, Stand};
use flydex_tests::attack::tally::Tally;
use flydex_tests::cluster::{Cluster, RegionSettings, Settings, suite};
use flydex_tests::connector::Machine;
use flydex_tests::process::{self, Process};
use flydex_tests::wait;
use tokio::process::Command;

/// What the farther region takes longer, each way.
const FARTHER: Duration = Duration::from_millis(30);

async fn cluster() -> anyhow::Result<Arc<Cluster>> {
    flydex_runtime::tls::install_provider();
    let regions = ["near", "far"].map(|name| RegionSettings { name, gateways: 1, nodes: 1 });
    let mut cluster = Cluster::start(Settings { regions: regions.into(), controls: 1, ..Settings::default() }).await?;
    for (text, why) in suite::EXPECTED {
        cluster.may_log(text, why);
    }
    cluster.regions[1].balancer.set_delay(FARTHER);
    Ok(Arc::new(cluster))
}

/// Runs `flydex-server drain-region` beside the processes of the cluster; what it said, or why it did not.
async fn drain(cluster: &Cluster, words: &[&str]) -> anyhow::Result<(bool, String)> {
    let mut command = Command::new(process::binary("flydex-server")?);
    command.arg("drain-region").arg("--config").arg(cluster.folder().join("control-1.toml")).args(words);
    let mut draining = Process::start("flydex-server", &mut command)?;
    draining.may_log("is none of [[regions]]", "the test asks for one");
    let done = draining.ended().await?.success();
    let lines = draining.lines();
    Ok((done, [lines.out, lines.err].concat().join("\n")))
}

async fn link_region(machine: &Machine) -> Option<String> {
    let (_, lines) = machine.command(&["status", "--json"]).await.ok()?;
    let status: serde_json::Value = serde_json::from_str(&lines.out.join("\n")).ok()?;
    let attached = status["connector"]["link"].as_str()?.starts_with("attached");
    attached.then(|| status["connector"]["regions"]["link"]["region"].as_str().map(ToOwned::to_owned))?
}

async fn is_linked_in(machine: &Machine, region: &str) -> anyhow::Result<()> {
    wait::until(&format!("the link to be in the region {region}"), async || {
        (link_region(machine).await? == region).then_some(())
    })
    .await
}

/// A session in the region of that number, admitted by the machine.
async fn client_in(stand: &Stand, region: usize, device: &Device) -> anyhow::Result<Client> {
    let (account, name) = (&stand.relay.account, stand.relay.regions().swap_remove(region));
    let (ticket, grant) = account.ticket(device, &name).await?;
    let mut session = stand.relay.socket_in(region, account.origin()).await?;
    session.enter(&ticket, &grant, device, account.origin()).await?;
    let mut client = stand.client_of(session, &stand.paired, device.clone()).await?;
    client.attach().await?;
    Ok(client)
}

/// Starts threads one after the other in the region that drains, until the machine has left it. Each, and whether its
/// device was told that it was done.
async fn commands_meanwhile(stand: &Stand, mut client: Client) -> anyhow::Result<Vec<(Signed, String, bool)>> {
    let mut sent = Vec::new();
    let moved = is_linked_in(&stand.machine, "far");
    tokio::pin!(moved);
    loop {
        let text = format!("number {} of the drain", sent.len());
        let signed = client.sign(CommandKind::StartThread, stand.start_thread(&text), |_| {});
        let asked = client.ask(&signed);
        let told = tokio::select! {
            receipt = asked => receipt.is_ok_and(|receipt| receipt.outcome == Outcome::Executed),
            moved = &mut moved => {
                moved?;
                sent.push((signed, text, false));
                return Ok(sent);
            }
        };
        sent.push((signed, text, told));
        if !told {
            moved.await?;
            return Ok(sent);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_is_drained_loses_its_machines_to_the_other_and_no_command() -> anyhow::Result<()> {
    let cluster = cluster().await?;
    let mut stand = Stand::on(&Ground::Cluster(cluster.clone()), &Tally::default()).await?;
    is_linked_in(&stand.machine, "near").await?;
    let device = std::mem::take(&mut stand.device);
    let mut client = client_in(&stand, 0, &device).await?;
    let begun = client.sign(CommandKind::StartThread, stand.start_thread("goes on [[gate middle]]"), |_| {});
    ensure!(client.ask(&begun).await?.outcome == Outcome::Executed);
    stand.model.reached("middle").await?;

    let (done, said) = drain(&cluster, &["near"]).await?;
    ensure!(done && said.contains("region near drains"), "{said}");
    let sent = commands_meanwhile(&stand, client).await.with_context(|| story(&stand))?;
    let mut client = client_in(&stand, 1, &device).await?;
    // Whatever its device was not told of is asked for again, under the same id.
    for (signed, text, told) in &sent {
        if !told {
            ensure!(client.ask(signed).await?.outcome == Outcome::Executed, "{text} was lost");
        }
        stand.model.request(|request| request.prompt.contains(text)).await?;
        assert_eq!(stand.effects(text), 1, "{text}");
    }
    // What ran when the region was left runs on.
    stand.model.open("middle");
    assert_eq!(stand.effects("goes on"), 1);
    let gateway = &cluster.regions[0].gateways[0];
    wait::until("no link to be left in the region", async || {
        let metrics = gateway.metrics().await.ok()?;
        let mut links =
            metrics.lines().filter(|line| line.starts_with("flydex_gateway_live{") && line.contains("link_"));
        links.all(|line| line.ends_with(" 0")).then_some(())
    })
    .await?;

    // Whoever comes meanwhile is led away too; and a name that is none is refused.
    let other = stand.another_machine(&stand.relay.account).await?;
    is_linked_in(&other.machine, "far").await.with_context(|| other.connector.process().story())?;
    let (done, said) = drain(&cluster, &["nowhere"]).await?;
    ensure!(!done && said.contains("is none of [[regions]]"), "{said}");
    let (done, said) = drain(&cluster, &["near", "--end"]).await?;
    ensure!(done && said.contains("takes machines again"), "{said}");
    Ok(())
}

fn story(stand: &Stand) -> String {
    stand.connector.as_ref().map_or_else(String::new, |connector| connector.process().story())
}
