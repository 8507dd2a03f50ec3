//! Sessions that go well, and how they end.

use std::time::Duration;

use bytes::Bytes;
use flydex_domain::error::ErrorCode;
use flydex_domain::key::PublicKey;
use flydex_domain::limits;
use flydex_domain::revocation::{Revocation, RevocationEntry};
use flydex_proto::codec;
use flydex_proto::v1;
use flydex_proto::v1::gateway_frame::Kind as ToNode;
use flydex_proto::v1::node_frame::Kind as FromNode;
use flydex_proto::v1::session_down::Kind as Down;
use flydex_proto::v1::session_up::Kind as Up;
use opentelemetry::trace::TracerProvider as _;
use prost::Message as _;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::host::{Arrived, to_session};
use super::wire::{Browser, Ended, hello};
use super::world::{DRAIN_FOR, World, account, device_key, machine, soon, user};

const EVENT_BYTES: usize = 64 * 1024;

fn wire_machine(tag: u8) -> Bytes {
    Bytes::copy_from_slice(machine(tag).as_bytes())
}

fn open(tag: u8) -> Up {
    Up::Open(v1::OpenMachine { machine_id: wire_machine(tag) })
}

fn command(tag: u8, id: u8, body_bytes: usize) -> Up {
    let header = v1::CommandHeader { command_id: vec![id; 16].into(), ..Default::default() };
    let command =
        v1::Command { header: header.encode_to_vec().into(), body: vec![0; body_bytes].into(), ..Default::default() };
    to_machine(tag, v1::device_message::Kind::Command(command))
}

fn traced(up: Up, trace: Option<v1::TraceContext>) -> Up {
    let Up::ToMachine(mut to) = up else { panic!("only what goes to a machine has a trace") };
    to.message.as_mut().unwrap().trace = trace;
    Up::ToMachine(to)
}

fn to_machine(tag: u8, kind: v1::device_message::Kind) -> Up {
    let message = v1::DeviceMessage { trace: None, kind: Some(kind) };
    Up::ToMachine(v1::ToMachine { machine_id: wire_machine(tag), message: Some(message) })
}

fn event(seq: u64, bytes: usize) -> v1::machine_message::Kind {
    v1::machine_message::Kind::Event(v1::Event { stream_id: 0, seq, body: vec![0; bytes].into() })
}

async fn opened(world: &mut World, ticket: u128) -> (Browser, Bytes, Arrived) {
    let (mut browser, session_id) = Browser::open(world, ticket).await;
    browser.send(open(1)).await;
    let (arrived, _) = soon(world.host.session_opened()).await;
    (browser, session_id, arrived)
}

async fn closed(world: &mut World, session_id: &Bytes) {
    let Some(ToNode::CloseSession(close)) = soon(world.host.next()).await.frame.kind else {
        panic!("the node is told that the session is gone")
    };
    assert_eq!(close.session_id, session_id);
}

fn revoke(world: &World, revocation: Revocation) {
    world.service.handle().revoke(&RevocationEntry { number: 1, at: world.now(), revocation });
}

#[tokio::test]
async fn a_newer_browser_is_answered_in_the_newest_common_version_with_the_documented_bounds() {
    let world = World::start().await;
    let mut browser = Browser::connect(&world).await;
    let hello = v1::SessionHello { version: 9, ..hello(&world, 1) };
    let ticket = hello.ticket.clone();
    let challenge = browser.hello(hello).await.unwrap();
    assert_eq!(challenge.version, codec::VERSION);
    assert_eq!(challenge.server_time_ms, world.now().0);
    let welcome = browser.prove(&challenge, &ticket, &device_key()).await.unwrap();
    assert_eq!(welcome.ping_interval_ms, 4_000);
    assert_eq!(welcome.silence_max_ms, 8_000);
    assert_eq!(welcome.event_window_bytes, limits::EVENT_WINDOW_BYTES);
    browser.send(Up::Ping(v1::Ping { nonce: 3 })).await;
    let Down::Pong(pong) = browser.next().await else { panic!("a pong follows a ping") };
    assert_eq!(pong.nonce, 3);
}

#[tokio::test]
async fn a_browser_that_comes_back_sends_all_it_wants_behind_its_proof() {
    let mut world = World::start().await;
    let mut browser = Browser::connect(&world).await;
    let hello = hello(&world, 1);
    let ticket = hello.ticket.clone();
    let challenge = browser.hello(hello).await.unwrap();
    browser.send_proof(&challenge, &ticket, &device_key()).await;
    browser.send(open(1)).await;
    browser.send(command(1, 7, 10)).await;
    let (_, opened) = soon(world.host.session_opened()).await;
    assert_eq!(opened.session_id, challenge.session_id);
    let arrived = soon(world.host.next()).await;
    assert!(matches!(arrived.frame.kind, Some(ToNode::SessionMessage(_))));
    let Down::Welcome(welcome) = browser.next().await else { panic!("a welcome follows a proof") };
    assert_eq!(welcome.session_id, challenge.session_id);
}

#[tokio::test]
async fn frames_travel_both_ways_under_the_account_of_the_ticket() {
    let mut world = World::start().await;
    let (mut browser, session_id) = Browser::open(&world, 1).await;
    browser.send(open(1)).await;
    let (arrived, opening) = soon(world.host.session_opened()).await;
    assert_eq!(opening.session_id, session_id);
    assert_eq!(opening.grant, world.sign(&world.grant()));
    assert_eq!(arrived.frame.account_id, account(1).as_bytes().as_slice());
    assert_eq!(arrived.frame.machine_id, machine(1).as_bytes().as_slice());

    browser.send(command(1, 5, 10)).await;
    let Some(ToNode::SessionMessage(message)) = soon(world.host.next()).await.frame.kind else {
        panic!("the command arrives")
    };
    assert_eq!(message.session_id, session_id);
    assert!(matches!(message.message.unwrap().kind, Some(v1::device_message::Kind::Command(_))));

    let status = v1::MachineStatus { state: v1::MachineState::Offline.into(), ..Default::default() };
    arrived.answer(to_session(&session_id, v1::machine_message::Kind::Status(status))).await;
    let Down::FromMachine(from) = browser.next().await else { panic!("the status arrives") };
    assert_eq!(from.machine_id, wire_machine(1));
    assert!(matches!(from.message.unwrap().kind, Some(v1::machine_message::Kind::Status(_))));

    browser.send(Up::Close(v1::CloseMachine { machine_id: wire_machine(1) })).await;
    closed(&mut world, &session_id).await;
}

#[tokio::test]
async fn a_foreign_machine_and_a_missing_one_are_opened_alike_under_the_own_account() {
    let mut world = World::start().await;
    // Machine 2 belongs to account 2 and machine 3 to nobody; nothing in the protocol lets the session say so.
    let (mut browser, _) = Browser::open(&world, 1).await;
    for tag in [2, 3] {
        browser.send(command(tag, 1, 0)).await;
        let Down::MachineClosed(closed) = browser.next().await else { panic!("it is not open") };
        assert_eq!(closed.code, u32::from(ErrorCode::NotFound.number()));
        browser.send(open(tag)).await;
        let (arrived, opening) = soon(world.host.session_opened()).await;
        assert_eq!(arrived.frame.account_id, account(1).as_bytes().as_slice());
        let end = v1::EndSession {
            session_id: opening.session_id,
            code: ErrorCode::NotFound.number().into(),
            retry_after_ms: 0,
        };
        arrived.answer(FromNode::EndSession(end)).await;
        let Down::MachineClosed(closed) = browser.next().await else { panic!("the node's answer arrives") };
        assert_eq!((closed.machine_id, closed.code), (wire_machine(tag), ErrorCode::NotFound.number().into()));
    }
}

#[tokio::test]
async fn what_a_node_says_for_another_account_or_a_machine_that_is_not_open_is_dropped() {
    let mut world = World::start().await;
    let (mut browser, session_id, arrived) = opened(&mut world, 1).await;
    let foreign = Bytes::copy_from_slice(account(2).as_bytes());
    arrived.answer_as(foreign, wire_machine(1), to_session(&session_id, event(1, 1))).await;
    arrived.answer_as(arrived.frame.account_id.clone(), wire_machine(4), to_session(&session_id, event(2, 1))).await;
    arrived.answer(to_session(&session_id, event(3, 1))).await;
    let Down::FromMachine(from) = browser.next().await else { panic!("an event arrives") };
    let Some(v1::machine_message::Kind::Event(event)) = from.message.unwrap().kind else { panic!("an event arrives") };
    assert_eq!(event.seq, 3);
}

#[tokio::test]
async fn a_session_may_open_only_so_many_machines() {
    let mut world = World::start().await;
    let (mut browser, _) = Browser::open(&world, 1).await;
    for tag in 0..u8::try_from(limits::SESSION_MACHINES_MAX).unwrap() {
        browser.send(open(tag)).await;
        soon(world.host.session_opened()).await;
    }
    browser.send(open(200)).await;
    let Down::MachineClosed(closed) = browser.next().await else { panic!("one too many is refused") };
    assert_eq!(closed.code, u32::from(ErrorCode::Overloaded.number()));
}

#[tokio::test]
async fn a_browser_that_does_not_read_is_cut_off_and_costs_no_more_than_its_queue() {
    let mut world = World::start().await;
    let (mut browser, session_id, arrived) = opened(&mut world, 1).await;
    // This scripted node minds no window: it sends until the gateway has had enough.
    let mut sent_bytes = 0;
    let closed = loop {
        tokio::select! {
            biased;
            closed = world.host.next() => break closed,
            () = arrived.answer(to_session(&session_id, event(0, EVENT_BYTES))) => sent_bytes += EVENT_BYTES,
        }
        assert!(sent_bytes < 64 * 1024 * 1024, "the socket and the queue have a bound");
    };
    assert!(matches!(closed.frame.kind, Some(ToNode::CloseSession(_))));
    assert!(sent_bytes > limits::EVENT_QUEUE_BYTES_MAX);
    let mut last = browser.next().await;
    while let Down::FromMachine(_) = last {
        last = browser.next().await;
    }
    let Down::End(end) = last else { panic!("it is told why") };
    assert_eq!(end.code, u32::from(ErrorCode::SlowConsumer.number()));
}

#[tokio::test]
async fn a_session_that_lost_its_node_is_told_and_can_open_the_machine_again() {
    let mut world = World::start().await;
    let (mut browser, _, arrived) = opened(&mut world, 1).await;
    arrived.break_stream().await;
    let Down::MachineClosed(closed) = browser.next().await else { panic!("the machine is closed") };
    assert_eq!(closed.code, u32::from(ErrorCode::Moving.number()));
    assert!(closed.retry_after_ms > 0);
    world.service.handle().ready().await;
    browser.send(open(1)).await;
    soon(world.host.session_opened()).await;
}

#[tokio::test]
async fn a_node_that_takes_nothing_makes_commands_fail_as_overloaded() {
    let mut world = World::start().await;
    let (mut browser, _, _) = opened(&mut world, 1).await;
    // The host is not read from here on, so its queue, the pipe and the stream's queue fill up.
    let sent = v1::TraceContext { trace_id: vec![1; 16].into(), span_id: vec![2; 8].into(), flags: 1 };
    let mut failed = None;
    for id in 0..=255 {
        browser.send(traced(command(1, id, limits::COMMAND_BODY_BYTES_MAX), Some(sent.clone()))).await;
        browser.send(Up::Ping(v1::Ping { nonce: 1 })).await;
        let answer = browser.next().await;
        if let Down::FromMachine(from) = answer {
            failed = Some((id, from));
            break;
        }
        assert!(matches!(answer, Down::Pong(_)));
    }
    let (id, from) = failed.expect("the queue has a bound");
    let message = from.message.unwrap();
    assert!(message.trace == Some(sent), "it fails in its own trace");
    let Some(v1::machine_message::Kind::Failure(failure)) = message.kind else { panic!("a failure") };
    assert_eq!(failure.code, u32::from(ErrorCode::Overloaded.number()));
    // The pong of the same round may have overtaken the failure on its more urgent lane.
    assert!(failure.command_id == vec![id; 16] || failure.command_id == vec![id - 1; 16]);
    assert!(failure.retry_after_ms > 0);
}

#[tokio::test]
async fn a_node_that_takes_nothing_for_long_is_still_told_that_a_session_has_left() {
    let mut world = World::start().await;
    let (mut browser, session_id, _) = opened(&mut world, 1).await;
    // The host is not read, so the queue fills until a command fails.
    for id in 0..=255 {
        browser.send(command(1, id, limits::COMMAND_BODY_BYTES_MAX)).await;
        browser.send(Up::Ping(v1::Ping { nonce: 1 })).await;
        if matches!(browser.next().await, Down::FromMachine(_)) {
            break;
        }
    }
    drop(browser);
    tokio::time::pause();
    tokio::time::sleep(limits::NODE_SEND_TIMEOUT * 10).await;
    tokio::time::resume();
    loop {
        match soon(world.host.next()).await.frame.kind {
            Some(ToNode::CloseSession(close)) => break assert_eq!(close.session_id, session_id),
            Some(ToNode::SessionMessage(_)) => {}
            _ => panic!("nothing else was said"),
        }
    }
}

#[tokio::test]
async fn a_ticket_is_taken_on_the_proof_alone_while_the_directory_is_down() {
    let world = World::start().await;
    world.directory.set_away(true);
    Browser::open(&world, 1).await;
}

#[tokio::test]
async fn a_silent_browser_is_cut_off_after_two_pings() {
    let world = World::start().await;
    let silent_since = tokio::time::Instant::now();
    let (mut browser, _) = Browser::open(&world, 1).await;
    tokio::time::pause();
    let Some(Down::End(end)) = browser_next_without_pongs(&mut browser).await else { panic!("the session ends") };
    assert_eq!(end.code, u32::from(ErrorCode::PeerTimeout.number()));
    assert!(silent_since.elapsed() >= limits::PEER_SILENCE_MAX);
}

/// Waits without reading, so that the client's library answers no ping, then reads what came by then. The clock runs
/// for that: one that stands still jumps ahead of a socket.
async fn browser_next_without_pongs(browser: &mut Browser) -> Option<Down> {
    tokio::time::sleep(limits::PEER_SILENCE_MAX + Duration::from_millis(100)).await;
    tokio::time::resume();
    tokio::time::timeout(limits::PEER_SILENCE_MAX, browser.next()).await.ok()
}

#[tokio::test]
async fn a_browser_that_only_answers_pings_stays() {
    let world = World::start().await;
    let (mut browser, _) = Browser::open(&world, 1).await;
    tokio::time::pause();
    // Reading answers the gateway's pings; a page whose timers sleep does the same.
    let waited = tokio::time::timeout(Duration::from_secs(25), browser.socket.next::<v1::SessionDown>()).await;
    assert!(waited.is_err(), "nothing comes, not even an end");
}

#[tokio::test]
async fn a_hello_that_never_comes_ends_the_handshake() {
    let world = World::start().await;
    let mut browser = Browser::connect(&world).await;
    tokio::time::pause();
    assert_eq!(browser.end().await, Ended::with(ErrorCode::DeadlineExceeded));
}

#[tokio::test]
async fn a_drain_tells_sessions_to_go_and_ends_them_when_time_is_up() {
    let mut world = World::start().await;
    let (mut browser, session_id, arrived) = opened(&mut world, 1).await;
    world.shutdown.begin();
    let Down::GoAway(go_away) = browser.next().await else { panic!("it is told to go") };
    assert!(u128::from(go_away.reconnect_in_ms) <= 10, "one peer leaves at once");
    assert_eq!(u128::from(go_away.try_for_ms), DRAIN_FOR.as_millis());
    arrived.answer(to_session(&session_id, event(1, 1))).await;
    assert!(matches!(browser.next().await, Down::FromMachine(_)), "it is served until then");
    world.shutdown.force();
    assert_eq!(browser.end().await, Ended::with(ErrorCode::GoingAway));
}

#[tokio::test]
async fn a_drain_is_over_when_the_last_session_has_left() {
    let mut world = World::start().await;
    let (browser, session_id, _) = opened(&mut world, 1).await;
    let shutdown = world.shutdown.clone();
    let drained = tokio::spawn(async move { shutdown.drain(Duration::from_secs(60)).await });
    drop(browser);
    closed(&mut world, &session_id).await;
    assert!(soon(drained).await.unwrap());
}

#[tokio::test]
async fn a_revoked_user_grant_or_device_loses_its_session_and_cannot_come_back_with_the_same_grant() {
    let device_id = PublicKey::of(&device_key()).device_id();
    let account_id = account(1);
    for (revocation, code) in [
        (Revocation::User { account_id, user_id: user(1) }, ErrorCode::GrantInvalid),
        (Revocation::Device { account_id, device_id, keeps: None }, ErrorCode::DeviceRevoked),
    ] {
        let world = World::start().await;
        let (mut browser, _) = Browser::open(&world, 1).await;
        revoke(&world, revocation);
        assert_eq!(browser.end().await, Ended::with(code));
        let mut again = Browser::connect(&world).await;
        assert_eq!(again.hello(hello(&world, 2)).await.err(), Some(Ended::with(code)));
        world.clock.advance(Duration::from_millis(1));
        let mut anew = Browser::connect(&world).await;
        assert!(anew.hello(hello(&world, 3)).await.is_ok(), "a grant that was signed later holds");
    }
    let world = World::start().await;
    let (mut browser, _) = Browser::open(&world, 1).await;
    revoke(&world, Revocation::Grant { account_id, grant_id: world.grant().grant_id });
    assert_eq!(browser.end().await, Ended::with(ErrorCode::GrantInvalid));
}

#[tokio::test]
async fn a_revocation_in_another_account_touches_nothing() {
    let mut world = World::start().await;
    let (mut browser, session_id, arrived) = opened(&mut world, 1).await;
    let device_id = PublicKey::of(&device_key()).device_id();
    let account_id = account(2);
    revoke(&world, Revocation::User { account_id, user_id: user(1) });
    revoke(&world, Revocation::Device { account_id, device_id, keeps: None });
    revoke(&world, Revocation::Grant { account_id, grant_id: world.grant().grant_id });
    revoke(&world, Revocation::Machine { account_id, machine_id: machine(1) });
    arrived.answer(to_session(&session_id, event(1, 1))).await;
    assert!(matches!(browser.next().await, Down::FromMachine(_)));
}

#[tokio::test]
async fn a_revoked_machine_is_closed_in_its_sessions() {
    let mut world = World::start().await;
    let (mut browser, _, _) = opened(&mut world, 1).await;
    revoke(&world, Revocation::Machine { account_id: account(1), machine_id: machine(1) });
    let Down::MachineClosed(closed) = browser.next().await else { panic!("the machine is closed") };
    assert_eq!(closed.code, u32::from(ErrorCode::MachineRevoked.number()));
    browser.send(Up::Ping(v1::Ping { nonce: 1 })).await;
    assert!(matches!(browser.next().await, Down::Pong(_)), "the session itself goes on");
}

#[tokio::test]
async fn a_command_keeps_its_trace_with_the_gateways_span_as_parent() {
    let mut world = World::start().await;
    let tracer = opentelemetry_sdk::trace::SdkTracerProvider::builder().build();
    let layer = tracing_opentelemetry::layer().with_tracer(tracer.tracer("test"));
    let _guard = tracing_subscriber::registry().with(layer).set_default();
    let (mut browser, _, _) = opened(&mut world, 1).await;
    let sent = v1::TraceContext { trace_id: vec![1; 16].into(), span_id: vec![2; 8].into(), flags: 1 };
    for (trace, trace_id) in [(Some(sent), Some([1; 16])), (None, None)] {
        browser.send(traced(command(1, 1, 0), trace)).await;
        let Some(ToNode::SessionMessage(message)) = soon(world.host.next()).await.frame.kind else {
            panic!("the command arrives")
        };
        let passed_on = message.message.unwrap().trace.expect("the gateway's own span is the parent");
        assert!(trace_id.is_none_or(|trace_id| passed_on.trace_id == trace_id.as_slice()));
        assert!(passed_on.span_id.len() == 8 && passed_on.span_id != vec![2; 8]);
    }
}

#[tokio::test]
async fn opens_without_end_are_slowed_down() {
    let mut world = World::start().await;
    let (mut browser, _) = Browser::open(&world, 1).await;
    for _ in 0..limits::SESSION_OPENS_BURST {
        browser.send(open(1)).await;
    }
    browser.send(open(1)).await;
    let arrived = tokio::spawn(async move { while !soon(world.host.next()).await.frame.machine_id.is_empty() {} });
    let Down::MachineClosed(closed) = browser.next().await else { panic!("one too many is refused") };
    assert_eq!(closed.code, u32::from(ErrorCode::RateLimited.number()));
    drop(arrived);
}
