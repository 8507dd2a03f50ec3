use bytes::Bytes;
use flydex_agent_proto::v1 as agent;
use flydex_agent_proto::v1::agent_event::Kind as EventKind;
use flydex_agent_proto::v1::command_body::Kind as Body;
use flydex_domain::command::{CommandKind, Outcome};
use flydex_domain::device::Holder;
use flydex_domain::error::ErrorCode;
use flydex_domain::scope::Role;
use flydex_proto::v1;
use prost::Message as _;
use tokio::sync::oneshot;

use super::world::*;
use crate::codex::CodexEvent;
use crate::core::LinkEvent;
use crate::paired::DeskRequest;

fn delta(text: &str) -> CodexEvent {
    let item_delta = agent::ItemDelta { text: text.to_owned(), ..Default::default() };
    CodexEvent::Thread {
        thread_id: thread(),
        event: agent::AgentEvent { kind: Some(EventKind::ItemDelta(item_delta)) },
    }
}

async fn watch(
    world: &mut World,
    via: u128,
    cursor: Option<agent::Cursor>,
) -> (v1::StreamVerdict, agent::ThreadWatched) {
    let body = Body::WatchThread(agent::WatchThread { thread_id: thread().to_string(), cursor });
    world.send(1, session(via), CommandKind::WatchThread, body).await;
    let receipt = world.receipt().await;
    assert_eq!(receipt.outcome, Outcome::Executed);
    let Some(agent::command_result::Kind::ThreadWatched(watched)) = result(&receipt).kind else { panic!() };
    let subscribed = world.seen.iter().rev().find_map(|kind| match kind {
        v1::connector_frame::Kind::Subscribed(subscribed) => subscribed.verdict.clone(),
        _ => None,
    });
    match subscribed {
        Some(verdict) if verdict.stream_id == watched.stream_id => (verdict, watched),
        // Lanes need no order between them: the verdict may still be under way.
        _ => {
            let verdict = world
                .until("verdict", |kind| match kind {
                    v1::connector_frame::Kind::Subscribed(subscribed) => subscribed.verdict.clone(),
                    _ => None,
                })
                .await;
            (verdict, watched)
        }
    }
}

async fn shared(world: &mut World) -> v1::Event {
    world
        .until("event", |kind| match kind {
            v1::connector_frame::Kind::SharedEvent(event) if event.stream_id != 0 => Some(event.clone()),
            _ => None,
        })
        .await
}

#[tokio::test]
async fn an_enrolled_device_is_admitted_and_gets_the_snapshot() {
    let mut world = World::start().await;
    let snapshot = world.attach(1, session(1)).await.snapshot.unwrap();
    assert_eq!(snapshot.machine_label, "desk");
    assert!(snapshot.own_role() == agent::DeviceRole::Owner);
    world.status.wait_for(|status| status.is_some_and(|status| status.sessions == 1)).await.unwrap();
}

#[tokio::test]
async fn a_device_that_is_not_enrolled_gets_nothing() {
    let mut world = World::start().await;
    world.send(50, session(5), CommandKind::Attach, Body::Attach(agent::Attach::default())).await;
    assert_eq!(world.failure().await, ErrorCode::DeviceNotEnrolled);
    world.send(50, session(5), CommandKind::ListThreads, Body::ListThreads(agent::ListThreads::default())).await;
    assert_eq!(world.failure().await, ErrorCode::DeviceNotEnrolled);
    assert!(!world.seen.iter().any(|kind| matches!(kind, v1::connector_frame::Kind::Subscribed(_))));
    assert_eq!(world.codex.script(|script| script.executed.len()), 0);
}

#[tokio::test]
async fn an_attach_for_another_session_admits_nobody() {
    let mut world = World::start().await;
    let body = agent::CommandBody { kind: Some(Body::Attach(agent::Attach::default())) }.encode_to_vec();
    let header = world.header(1, session(1), CommandKind::Attach, &body);
    world.bring(1, session(2), Role::Owner, signed(1, &header, body)).await;
    assert_eq!(world.failure().await, ErrorCode::NotAdmitted);
    world.start_turn(1, session(2)).await;
    assert_eq!(world.failure().await, ErrorCode::NotAdmitted);
}

#[tokio::test]
async fn a_session_that_comes_back_resumes_from_its_cursor_or_is_told_gap() {
    let mut world = World::start().await;
    world.attach(1, session(1)).await;
    let (verdict, watched) = watch(&mut world, 1, None).await;
    assert!(verdict.verdict == Some(v1::stream_verdict::Verdict::GapAsOf(0)));
    assert!(watched.snapshot.is_some());
    for text in ["a", "b", "c"] {
        world.events.send(delta(text)).await.unwrap();
    }
    for seq in 1..=3 {
        assert_eq!(shared(&mut world).await.seq, seq);
    }
    world.attach(1, session(2)).await;
    let cursor = |seq, boot: [u8; 16]| {
        let boot_id = Bytes::copy_from_slice(&boot);
        Some(agent::Cursor { stream_id: watched.stream_id, boot_id, seq })
    };
    world.seen.clear();
    let boot = *world.boot_id.as_bytes();
    let (verdict, resumed) = watch(&mut world, 2, cursor(1, boot)).await;
    assert!(verdict.verdict == Some(v1::stream_verdict::Verdict::ResumedFrom(1)));
    assert!(resumed.snapshot.is_none());
    for seq in 2..=3 {
        let event = world
            .until_message("replay", |kind| match kind {
                v1::machine_message::Kind::Event(event) => Some(event.clone()),
                _ => None,
            })
            .await;
        assert_eq!(event.seq, seq);
    }
    for wrong in [cursor(9, boot), cursor(1, [0; 16])] {
        world.seen.clear();
        let (verdict, again) = watch(&mut world, 2, wrong).await;
        assert!(verdict.verdict == Some(v1::stream_verdict::Verdict::GapAsOf(3)));
        assert!(again.snapshot.is_some());
    }
}

#[tokio::test]
async fn a_lost_thread_ends_its_stream_and_the_next_watch_has_another() {
    let mut world = World::start().await;
    world.attach(1, session(1)).await;
    let (_, before) = watch(&mut world, 1, None).await;
    world.events.send(CodexEvent::ThreadLost { thread_id: thread() }).await.unwrap();
    let end = world
        .until("end", |kind| match kind {
            v1::connector_frame::Kind::Unsubscribed(ended) => ended.end,
            _ => None,
        })
        .await;
    assert_eq!((end.stream_id, end.code), (before.stream_id, ErrorCode::CodexUnavailable.number().into()));
    let (_, after) = watch(&mut world, 1, None).await;
    assert_ne!(before.stream_id, after.stream_id);
}

#[tokio::test]
async fn a_device_that_the_account_lowers_keeps_only_what_it_is_left() {
    let mut world = World::start().await;
    world.attach(1, session(1)).await;
    for (keeps, expected) in [("viewer", "viewer"), ("owner", "owner")] {
        let device = Bytes::copy_from_slice(device_id(1).as_bytes());
        let lower = v1::RemoveDevice { device_id: device, keeps: keeps.to_owned() };
        world.owner(1, v1::owner_frame::Kind::RemoveDevice(lower)).await;
        let told = world
            .until("lowered", |kind| {
                if let v1::connector_frame::Kind::DeviceRemoved(removed) = kind {
                    Some(removed.keeps.clone())
                } else {
                    None
                }
            })
            .await;
        assert_eq!(told, expected);
    }
    // No word of the relay raised it again, and a new life of the connector knows it too.
    let mut again = World::boot(world.crash().await, 10).await;
    again.own(1, 2).await;
    again.attach(1, session(1)).await;
    again.start_turn(1, session(1)).await;
    assert_eq!(again.receipt().await.outcome, Outcome::Refused(ErrorCode::RoleInsufficient));
}

#[tokio::test]
async fn a_removed_device_loses_its_sessions_and_its_word() {
    let mut world = World::start().await;
    world.attach(1, session(1)).await;
    let remove = v1::RemoveDevice { device_id: Bytes::copy_from_slice(device_id(1).as_bytes()), keeps: String::new() };
    world.owner(1, v1::owner_frame::Kind::RemoveDevice(remove)).await;
    world.until("removed", |kind| matches!(kind, v1::connector_frame::Kind::DeviceRemoved(_)).then_some(())).await;
    world.start_turn(1, session(1)).await;
    assert_eq!(world.failure().await, ErrorCode::DeviceRevoked);
    let mut again = World::boot(world.crash().await, 10).await;
    again.own(1, 2).await;
    again.send(1, session(1), CommandKind::Attach, Body::Attach(agent::Attach::default())).await;
    assert_eq!(again.failure().await, ErrorCode::DeviceRevoked);
}

#[tokio::test]
async fn the_desk_enrols_and_removes() {
    let mut world = World::start().await;
    let (reply, answer) = oneshot::channel();
    let key = flydex_domain::key::PublicKey::of(&key(20));
    let request =
        DeskRequest::Enrol { holder: Holder::Browser, key, role: Role::Owner, label: "new".to_owned(), reply };
    world.desk.send(request).await.unwrap();
    assert_eq!(answer.await.unwrap(), Ok(device_id(20)));
    world.attach(20, session(6)).await;
    let (reply, answer) = oneshot::channel();
    world.desk.send(DeskRequest::Remove { device_id: device_id(20), reply }).await.unwrap();
    assert_eq!(answer.await.unwrap(), Ok(()));
    world.start_turn(20, session(6)).await;
    assert_eq!(world.failure().await, ErrorCode::DeviceRevoked);
}

#[tokio::test]
async fn only_the_highest_epoch_is_obeyed() {
    let mut world = World::start().await;
    world.own(2, 5).await;
    world.epoch = epoch(1);
    world.owner(2, v1::owner_frame::Kind::Attach(v1::AttachOwner {})).await;
    let stale = |kind: &v1::connector_frame::Kind| match kind {
        v1::connector_frame::Kind::Stale(stale) => Some(stale.highest.clone().unwrap().counter),
        _ => None,
    };
    assert_eq!(world.until("stale", stale).await, 5);
    let gone = v1::SessionGone { session_id: Bytes::copy_from_slice(session(1).as_bytes()) };
    world.owner(2, v1::owner_frame::Kind::SessionGone(gone)).await;
    assert_eq!(world.until("stale", stale).await, 5);

    let mut again = World::boot(world.crash().await, 10).await;
    again.own(1, 5).await;
    again.attach(1, session(1)).await;
}

#[tokio::test]
async fn sessions_end_with_their_link() {
    let mut world = World::start().await;
    world.attach(1, session(1)).await;
    world.links.send(LinkEvent::Down { link: 1, code: None }).await.unwrap();
    world.own(1, 1).await;
    world.start_turn(1, session(1)).await;
    assert_eq!(world.failure().await, ErrorCode::NotAdmitted);
}

#[tokio::test]
async fn a_probe_is_answered_with_the_machines_time() {
    let mut world = World::start().await;
    let probe = v1::device_message::Kind::Probe(v1::Probe { nonce: 4 });
    let from = v1::FromSession {
        session_id: Bytes::copy_from_slice(session(1).as_bytes()),
        device_id: Bytes::copy_from_slice(device_id(1).as_bytes()),
        role: "owner".to_owned(),
        message: Some(v1::DeviceMessage { trace: None, kind: Some(probe) }),
    };
    world.owner(1, v1::owner_frame::Kind::FromSession(from)).await;
    let reply = world
        .until_message("reply", |kind| match kind {
            v1::machine_message::Kind::ProbeReply(reply) => Some(*reply),
            _ => None,
        })
        .await;
    assert_eq!((reply.nonce, reply.machine_time_ms), (4, START));
}
