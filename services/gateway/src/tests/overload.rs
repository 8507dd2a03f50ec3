//! A gateway that is late: what it refuses, in order, and what it never does.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flydex_domain::error::ErrorCode;
use flydex_domain::limits::{RETRY_AFTER, SHED_BULK_AFTER, SHED_COMMANDS_AFTER, SHED_EVENTS_AFTER};
use flydex_proto::v1;
use flydex_proto::v1::CommandKind;
use flydex_proto::v1::gateway_frame::Kind as ToNode;
use flydex_proto::v1::machine_message::Kind as Said;
use flydex_proto::v1::session_down::Kind as SessionDown;
use flydex_proto::v1::session_up::Kind as SessionUp;
use prost::Message as _;

use super::wire::Browser;
use super::world::{World, machine, soon};

const KINDS: [CommandKind; 5] = [
    CommandKind::ReadThread,
    CommandKind::WatchThread,
    CommandKind::StartTurn,
    CommandKind::AnswerApproval,
    CommandKind::Interrupt,
];

fn wire_machine() -> Bytes {
    Bytes::copy_from_slice(machine(1).as_bytes())
}

fn command(kind: CommandKind) -> SessionUp {
    let command_id = Bytes::from(vec![kind as u8; 16]);
    let header = v1::CommandHeader { command_id, kind: kind.into(), ..Default::default() };
    let command = v1::Command { header: header.encode_to_vec().into(), ..Default::default() };
    let message = v1::DeviceMessage { trace: None, kind: Some(v1::device_message::Kind::Command(command)) };
    SessionUp::ToMachine(v1::ToMachine { machine_id: wire_machine(), message: Some(message) })
}

/// The kinds that come through to the node, of one command of each; the others are answered as overloaded.
async fn taken(world: &mut World, browser: &mut Browser) -> Vec<CommandKind> {
    let mut taken = Vec::new();
    for kind in KINDS {
        browser.send(command(kind)).await;
        tokio::select! {
            arrived = soon(world.host.next()) => {
                assert!(matches!(arrived.frame.kind, Some(ToNode::SessionMessage(_))));
                taken.push(kind);
            }
            down = browser.next() => {
                let SessionDown::FromMachine(from) = down else { panic!("the command is answered") };
                let Some(Said::Failure(failure)) = from.message.unwrap().kind else { panic!("it did not go") };
                assert_eq!(failure.code, u32::from(ErrorCode::Overloaded.number()));
                assert_eq!(failure.command_id, vec![kind as u8; 16]);
                assert_eq!(u128::from(failure.retry_after_ms), RETRY_AFTER.as_millis());
            }
        }
    }
    taken
}

#[tokio::test]
async fn pages_are_refused_before_streams_before_commands_and_answers_never() {
    let mut world = World::start().await;
    let (mut browser, _) = Browser::open(&world, 1).await;
    browser.send(SessionUp::Open(v1::OpenMachine { machine_id: wire_machine() })).await;
    soon(world.host.session_opened()).await;
    // In a drain nobody measures, so that what is set here stays.
    world.shutdown.begin();
    assert!(matches!(browser.next().await, SessionDown::GoAway(_)));
    let load = world.service.gateway.load.clone();
    soon(async {
        // This one, the gateway's and that of its admission.
        while Arc::strong_count(&load) > 3 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    for (delay, refused) in [
        (Duration::ZERO, 0),
        (SHED_BULK_AFTER, 1),
        (SHED_EVENTS_AFTER, 2),
        (SHED_COMMANDS_AFTER, 3),
        (Duration::MAX, 3),
    ] {
        load.set(delay);
        assert!(taken(&mut world, &mut browser).await == KINDS[refused..], "{delay:?}");
    }
}
