//! A command of the phone is one trace over relay and connector; the receiver looks for content in every span.

use std::collections::BTreeMap;

use flydex_tests::otlp::{Exported, Sink};
use flydex_tests::server::Settings;
use flydex_tests::world::{Paired, World};

/// The hops of a command in their order: the service and the name of its span.
const HOPS: [(&str, &str); 3] =
    [("flydex-server", "command"), ("flydex-server", "machine.command"), ("flydex", "connector.command")];

#[tokio::test]
async fn a_turn_is_one_trace_from_the_phone_to_the_connector() -> anyhow::Result<()> {
    let sink = Sink::start()?;
    let settings = Settings { otlp_endpoint: Some(sink.endpoint()), ..Settings::default() };
    let Paired { phone, connector, world } = World::paired_with(settings).await?;
    world.thread("follow me [[say ready]]").await?;
    phone.open_thread("follow me").await?;
    phone.send("whisper a secret word [[say done]]").await?;
    phone.reads("done").await?;
    phone.idle().await?;
    // Each process sends the rest of its spans when it ends.
    connector.stop().await?;
    world.server.stop().await?;

    let exported = sink.spans();
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
