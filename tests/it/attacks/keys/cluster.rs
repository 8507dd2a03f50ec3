//! Keys between processes, and pins, over a whole cluster that serves meanwhile.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use flydex_loadtest::account::Account;
use flydex_loadtest::device::Device;
use flydex_loadtest::session::Session;
use flydex_runtime::clock::Clock;
use flydex_runtime::mutual::authority::Authority;
use flydex_runtime::mutual::{MutualConfig, PeerIdentity, Role};
use flydex_tests::cluster::part::{Kind, Part};
use flydex_tests::cluster::{Cluster, RegionSettings, Settings, suite};
use flydex_tests::connector::{Connector, Machine};
use flydex_tests::wait;
use reqwest::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

const CERTIFICATE_LIFETIME: Duration = Duration::from_secs(3600);

async fn cluster(regions: &[&'static str]) -> anyhow::Result<(Cluster, Account)> {
    flydex_runtime::tls::install_provider();
    let regions = regions.iter().map(|name| RegionSettings { name, gateways: 1, nodes: 1 }).collect();
    let mut cluster = Cluster::start(Settings { regions, controls: 1, ..Settings::default() }).await?;
    for (text, why) in suite::EXPECTED {
        cluster.may_log(text, why);
    }
    let account = Account::sign_in_trusting(&cluster.account().await?, Some(cluster.certificate_pem())).await?;
    Ok((cluster, account))
}

/// A machine without Codex, which links all the same.
async fn machine(cluster: &Cluster, account: &Account) -> anyhow::Result<(Machine, Connector)> {
    let machine = Machine::with_stub(cluster.origin(), "/nowhere/codex".into())?;
    let mut connector = machine.connect()?;
    connector.process().may_log("codex did not start", "there is none");
    connector.process().may_log("codex is not available", "there is none");
    account.redeem(&connector.pair_url().await?, &Device::new(), "phone").await?;
    connector.question().await?;
    connector.answer(true).await?;
    Ok((machine, connector))
}

async fn is_linked_in(machine: &Machine, region: &str) -> anyhow::Result<()> {
    wait::until(&format!("the link to be in the region {region}"), async || {
        let (_, lines) = machine.command(&["status", "--json"]).await.ok()?;
        let status: serde_json::Value = serde_json::from_str(&lines.out.join("\n")).ok()?;
        let attached = status["connector"]["link"].as_str().is_some_and(|link| link.starts_with("attached"));
        (attached && status["connector"]["regions"]["link"]["region"] == region).then_some(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pin_moves_a_linked_machine_at_once_though_its_credential_says_otherwise() -> anyhow::Result<()> {
    let (cluster, account) = cluster(&["near", "far"]).await?;
    cluster.regions[1].balancer.set_delay(Duration::from_millis(30));
    let (machine, connector) = machine(&cluster, &account).await?;
    is_linked_in(&machine, "near").await?;
    let (_, list) = account.call(Method::GET, "/api/machines", None).await?;
    let id = list["machines"][0]["machine_id"].as_str().context("a machine")?.to_owned();
    let path = format!("/api/machines/{id}/region-pin");
    // And back at once: a move that was just made delays the next one little.
    for region in ["far", "near"] {
        let (status, answer) = account.call(Method::PUT, &path, Some(json!({ "region": region }))).await?;
        ensure!(status.is_success(), "{answer}");
        is_linked_in(&machine, region).await.with_context(|| connector.process().story())?;
    }
    Ok(())
}

/// Gives every process a certificate of another authority while it runs; `trusted` is what each takes from then on.
fn certify(cluster: &Cluster, by: &Authority, trusted: &str) -> anyhow::Result<()> {
    for region in &cluster.regions {
        for part in region.gateways.iter().chain(&region.nodes) {
            certify_part(cluster.folder(), part, &region.name, by)?;
        }
    }
    for part in &cluster.controls {
        certify_part(cluster.folder(), part, "global", by)?;
    }
    trust(cluster, trusted)
}

fn certify_part(folder: &Path, part: &Part, region: &str, by: &Authority) -> anyhow::Result<()> {
    let role = match part.kind {
        Kind::Gateway => Role::Gateway,
        Kind::Node => Role::Machines,
        Kind::Control => Role::Control,
        // It speaks to no other process.
        Kind::Web => return Ok(()),
    };
    let process = PeerIdentity { region: region.to_owned(), role, node_id: part.name.clone() };
    let issued = by.issue(&process, Clock::system().unix_millis(), CERTIFICATE_LIFETIME)?;
    let file = |extension: &str| folder.join(format!("{}-{}.{extension}", role.name(), part.name));
    let aside = folder.join(format!("{}.ca", part.name));
    let config = MutualConfig { certificate_file: file("crt"), key_file: file("key"), ca_file: aside };
    Ok(by.write_to(&config, &issued)?)
}

/// Says whom every process trusts, and lets it read that again.
fn trust(cluster: &Cluster, trusted: &str) -> anyhow::Result<()> {
    let ca = cluster.folder().join("ca.crt");
    std::fs::write(ca.with_extension("new"), trusted)?;
    std::fs::rename(ca.with_extension("new"), &ca)?;
    for part in cluster.parts().filter(|part| part.runs() && part.kind != Kind::Web) {
        let pid = part.process()?.pid().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        kill_process(pid.context("it does not run")?, Signal::HUP)?;
    }
    Ok(())
}

async fn opens_a_session(account: &Account, cluster: &Cluster) -> anyhow::Result<Session> {
    let url = format!("wss://localhost:{}/v1/session", cluster.region().balancer.port());
    let device = Device::new();
    wait::until("a session to open", async || Session::open(account, &device, &url, "one").await.ok()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_authority_between_processes_is_replaced_while_they_serve() -> anyhow::Result<()> {
    let (mut cluster, account) = cluster(&["one"]).await?;
    let (machine, connector) = machine(&cluster, &account).await?;
    is_linked_in(&machine, "one").await?;
    let old = std::fs::read_to_string(cluster.folder().join("ca.crt"))?;
    let new = Authority::new()?;
    let both = format!("{old}\n{}", new.pem());
    // Everybody trusts both before anybody shows what only the new one certified.
    trust(&cluster, &both)?;
    certify(&cluster, &new, &both)?;
    trust(&cluster, &new.pem())?;
    // Whoever comes now knows the new one alone, and is taken and found by those who were there.
    let region = cluster.region_mut();
    region.nodes[0].stop().await?;
    region.nodes[0].start().await?;
    is_linked_in(&machine, "one").await.with_context(|| connector.process().story())?;
    opens_a_session(&account, &cluster).await?;
    // And a stranger with a certificate of the old one is not.
    certify_part(cluster.folder(), &cluster.region().nodes[0], "one", &Authority::new()?)?;
    let ready = async {
        let region = cluster.region_mut();
        region.nodes[0].stop().await?;
        tokio::time::timeout(Duration::from_secs(5), region.nodes[0].start()).await?
    };
    ensure!(ready.await.is_err(), "a certificate of another authority was taken");
    Ok(())
}
