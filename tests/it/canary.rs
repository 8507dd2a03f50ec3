//! Content and secrets over a whole cluster, through every flow and every error path; and the search itself, which must
//! find what was leaked on purpose.

mod conversation;
mod planted;
mod stage;
mod tour;

use flydex_tests::canary::{mark, places};
use flydex_tests::cluster::part::Part;

use stage::Stage;

/// Gateways, nodes, control, Redis, PostgreSQL, the connector, Codex and a browser, each as a process of its own, with
/// everything logged and exported. Logs, spans and the connector's files are searched when the stage is dropped.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_with_everything_logged_tells_and_keeps_no_content_and_no_secret() -> anyhow::Result<()> {
    let mut stage = Stage::build().await?;
    stage.pair().await?;
    conversation::held(&stage).await?;
    let toured = tour::of(&stage.cluster).await?;
    while_parts_are_away(&mut stage).await?;

    let mut problems = stage.found().await?;
    problems.extend(places::answers(&toured));
    problems.extend(stage.found_at_the_phone().await?);
    assert!(problems.is_empty(), "{problems:#?}");
    stage.end().await
}

/// What fails is told without what it failed with.
async fn while_parts_are_away(stage: &mut Stage) -> anyhow::Result<()> {
    let said = mark("answer");
    stage.phone.send(&format!("{} [[stream 3]] [[gate away]] [[say {said}]]", mark("prompt"))).await?;
    stage.model.reached("away").await?;
    stage.phone.reads("tick 2").await?;
    let nodes = &mut stage.cluster.region_mut().nodes;
    let Some(owner) = nodes.iter_mut().find(|part| part.runs()) else { anyhow::bail!("no node runs") };
    replace(owner).await?;
    let gateways = &mut stage.cluster.region_mut().gateways;
    let Some(gateway) = gateways.iter_mut().find(|part| part.runs()) else { anyhow::bail!("no gateway runs") };
    let name = gateway.name.clone();
    replace(gateway).await?;
    let (address, admin) = (gateway.address()?, gateway.admin()?);
    stage.cluster.region().balancer.put(&name, address, admin);
    stage.phone.live().await?;
    stage.model.open("away");
    stage.phone.reads(&said).await?;
    stage.phone.idle().await?;

    stage.cluster.postgres.crash().await?;
    tour::without_a_database(&stage.cluster).await?;
    stage.cluster.postgres.run().await?;
    stage.redis_is_replaced().await?;
    stage.phone.live().await?;
    let said = mark("answer");
    stage.phone.send(&format!("{} [[say {said}]]", mark("prompt"))).await?;
    stage.phone.reads(&said).await?;
    stage.phone.idle().await
}

async fn replace(part: &mut Part) -> anyhow::Result<()> {
    part.kill().await?;
    part.start().await
}
