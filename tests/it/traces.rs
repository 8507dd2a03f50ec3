//! A command of the phone is one trace over relay and connector, and no span holds what was written.

use std::collections::BTreeMap;

use flydex_tests::browser::Browser;
use flydex_tests::codex::CodexHome;
use flydex_tests::connector::Machine;
use flydex_tests::model::Model;
use flydex_tests::otlp::{Exported, Sink};
use flydex_tests::server::Server;
use flydex_tests::world::{World, pair};

/// The hops of a command in their order: the service and the name of its span.
const HOPS: [(&str, &str); 3] =
    [("flydex-server", "command"), ("flydex-server", "machine.command"), ("flydex", "connector.command")];
const PROMPT: &str = "whisper a secret word";

#[tokio::test]
async fn a_turn_is_one_trace_from_the_phone_to_the_connector() -> anyhow::Result<()> {
    let sink = Sink::start()?;
    let world = traced_world(&sink.endpoint()).await?;
    world.allow_workspace().await?;
    let phone = world.phone().await?;
    phone.sign_in(world.server.owner_link()).await?;
    let mut connector = world.machine.connect()?;
    pair(&phone, &mut connector).await?;
    world.thread("follow me [[say ready]]").await?;
    phone.open_thread("follow me").await?;
    phone.send(&format!("{PROMPT} [[say done]]")).await?;
    phone.reads("done").await?;
    phone.idle().await?;
    // Each process sends the rest of its spans when it ends.
    connector.stop().await?;
    world.server.stop().await?;

    let exported = sink.spans();
    for one in &exported {
        assert!(!format!("{:?}", one.span).contains(PROMPT), "a span holds the prompt: {}", one.span.name);
    }
    let turn = exported.iter().find(|one| one.span.name == "connector.command" && is_start_turn(one));
    let Some(turn) = turn else { panic!("no turn among {:?}", names(&exported)) };
    let trace: Vec<&Exported> = exported.iter().filter(|one| one.span.trace_id == turn.span.trace_id).collect();
    let by_name: BTreeMap<_, _> =
        trace.iter().map(|one| ((one.service.as_str(), one.span.name.as_str()), &one.span)).collect();
    let hops: Vec<_> = HOPS.iter().map(|hop| by_name.get(hop).copied().ok_or(*hop)).collect();
    let hops: Vec<_> = match hops.into_iter().collect::<Result<_, _>>() {
        Ok(hops) => hops,
        Err(missing) => panic!("{missing:?} is not in the trace: {:?}", by_name.keys()),
    };
    for pair in hops.windows(2) {
        assert_eq!(pair[1].parent_span_id, pair[0].span_id, "{} hangs below {}", pair[1].name, pair[0].name);
    }
    // The phone began it: it exports nothing itself, but the first hop has it as parent.
    assert_eq!(hops[0].parent_span_id.len(), 8);
    assert!(exported.iter().all(|one| one.span.span_id != hops[0].parent_span_id));
    Ok(())
}

async fn traced_world(endpoint: &str) -> anyhow::Result<World> {
    let model = Model::start().await?;
    let codex = CodexHome::create(&model)?;
    let (daemon, server) = tokio::try_join!(codex.start_daemon(), Server::start_traced(endpoint))?;
    let machine = Machine::new(server.origin(), &codex)?.traced(endpoint.to_owned());
    Ok(World { browser: Browser::start()?, model, codex, daemon, server, machine })
}

fn is_start_turn(exported: &Exported) -> bool {
    exported
        .span
        .attributes
        .iter()
        .any(|attribute| attribute.key == "command.kind" && format!("{:?}", attribute.value).contains("start_turn"))
}

fn names(exported: &[Exported]) -> Vec<(&str, &str)> {
    exported.iter().map(|one| (one.service.as_str(), one.span.name.as_str())).collect()
}
