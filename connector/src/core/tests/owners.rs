//! One owner after another over the same link.

use flydex_agent_proto::v1 as agent;
use flydex_agent_proto::v1::agent_event::Kind as EventKind;
use flydex_agent_proto::v1::command_body::Kind as Body;
use flydex_domain::command::{CommandKind, Outcome};
use flydex_domain::epoch::Epoch;
use flydex_domain::scope::Role;
use flydex_proto::v1;
use flydex_proto::v1::connector_frame::Kind as Frame;

use super::world::*;
use crate::codex::CodexEvent;

async fn delta(world: &World) {
    let item_delta = agent::ItemDelta { text: "more".to_owned(), ..Default::default() };
    let event = agent::AgentEvent { kind: Some(EventKind::ItemDelta(item_delta)) };
    world.events.send(CodexEvent::Thread { thread_id: thread(), event }).await.unwrap();
}

fn is_of_thread(kind: &Frame) -> bool {
    matches!(kind, Frame::SharedEvent(event) if event.stream_id != 0)
}

#[tokio::test]
async fn the_sessions_and_streams_of_an_owner_end_with_it() {
    let mut world = World::start().await;
    world.attach(1, session(1)).await;
    let watch = agent::WatchThread { thread_id: thread().to_string(), cursor: None };
    world.send(1, session(1), CommandKind::WatchThread, Body::WatchThread(watch)).await;
    world.receipt().await;
    delta(&world).await;
    world.until("event", |kind| is_of_thread(kind).then_some(())).await;
    // These wait in the outbox while the next owner comes.
    delta(&world).await;
    delta(&world).await;

    world.taken_over(1, 2).await;
    world.status.wait_for(|status| status.is_some_and(|status| status.sessions == 0)).await.unwrap();
    delta(&world).await;
    world.attach(1, session(1)).await;
    assert!(!world.seen.iter().any(is_of_thread), "nobody watches for the new owner yet");
}

#[tokio::test]
async fn what_is_sent_after_an_attach_carries_the_new_epoch_alone() {
    let mut world = World::start().await;
    world.attach(1, session(1)).await;
    let gate = world.codex.hold();
    for _ in 0..5 {
        world.start_turn(1, session(1)).await;
    }
    world.taken_over(1, 2).await;
    gate.add_permits(100);
    for _ in 0..6 {
        let frame = world.next_frame().await;
        let carried = frame.epoch.map(|epoch| Epoch::try_from(epoch).unwrap());
        let attached = matches!(frame.kind, Some(Frame::Attached(_)));
        assert!(attached || carried == Some(epoch(2)), "{carried:?}");
    }
}

#[tokio::test]
async fn a_command_in_flight_is_answered_to_the_new_owner_and_runs_once() {
    let mut world = World::start().await;
    world.attach(1, session(1)).await;
    let gate = world.codex.hold();
    let command = world.start_turn(1, session(1)).await;
    world.until_message("delivered", |kind| matches!(kind, v1::machine_message::Kind::Progress(_)).then_some(())).await;

    world.taken_over(1, 2).await;
    gate.add_permits(100);
    assert_eq!(world.receipt().await.outcome, Outcome::Executed, "the new owner is told");
    world.attach(1, session(2)).await;
    world.bring(1, session(2), Role::Owner, command).await;
    assert_eq!(world.receipt().await.outcome, Outcome::Executed, "and whoever asks again");
    assert_eq!(world.codex.script(|script| script.executed.len()), 1);
}

#[tokio::test]
async fn an_owner_that_was_replaced_is_told_so_and_moves_nothing() {
    let mut world = World::start().await;
    world.attach(1, session(1)).await;
    world.taken_over(1, 2).await;
    world.epoch = epoch(1);
    world.start_turn(1, session(1)).await;
    let highest =
        world.until("stale", |kind| if let Frame::Stale(stale) = kind { stale.highest.clone() } else { None });
    assert_eq!(Epoch::try_from(highest.await).unwrap(), epoch(2));
    assert_eq!(world.codex.script(|script| script.executed.len()), 0);
}
