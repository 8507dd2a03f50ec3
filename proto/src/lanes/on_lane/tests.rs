use std::collections::BTreeSet;

use prost::Message;

use super::*;
use crate::codec::{FrameError, decode_on};

/// A top-level message of one kind, the kinds it goes through by their field numbers, and the lane it belongs on.
struct Row<M> {
    message: M,
    path: Vec<u32>,
    lane: Lane,
}

fn row<M>(message: M, path: &[u32], lane: Lane) -> Row<M> {
    Row { message, path: path.to_vec(), lane }
}

fn device_messages() -> Vec<Row<v1::DeviceMessage>> {
    use v1::device_message::Kind;
    let of = |kind| v1::DeviceMessage { trace: None, kind: Some(kind) };
    vec![
        row(of(Kind::Command(v1::Command::default())), &[2], Lane::Commands),
        row(of(Kind::EventCredit(v1::EventCredit::default())), &[3], Lane::Commands),
        row(of(Kind::BulkCredit(v1::BulkCredit::default())), &[4], Lane::Commands),
        row(of(Kind::Probe(v1::Probe::default())), &[5], Lane::Control),
    ]
}

fn machine_messages() -> Vec<Row<v1::MachineMessage>> {
    use v1::machine_message::Kind;
    let of = |kind| v1::MachineMessage { trace: None, kind: Some(kind) };
    vec![
        row(of(Kind::Status(v1::MachineStatus::default())), &[2], Lane::Control),
        row(of(Kind::Progress(v1::Progress::default())), &[3], Lane::Commands),
        row(of(Kind::Receipt(v1::SignedReceipt::default())), &[4], Lane::Commands),
        row(of(Kind::Verdict(v1::StreamVerdict::default())), &[5], Lane::Events),
        row(of(Kind::Event(v1::Event::default())), &[6], Lane::Events),
        row(of(Kind::Chunk(v1::BulkChunk::default())), &[7], Lane::Bulk),
        row(of(Kind::ProbeReply(v1::ProbeReply::default())), &[8], Lane::Control),
        row(of(Kind::Failure(v1::Failure::default())), &[9], Lane::Commands),
        row(of(Kind::StreamEnd(v1::StreamEnd::default())), &[10], Lane::Events),
    ]
}

fn session_ups() -> Vec<Row<v1::SessionUp>> {
    use v1::session_up::Kind;
    let of = |kind| v1::SessionUp { kind: Some(kind) };
    let mut rows = vec![
        row(of(Kind::Hello(v1::SessionHello::default())), &[1], Lane::Control),
        row(of(Kind::Proof(v1::SessionProof::default())), &[2], Lane::Control),
        row(of(Kind::Open(v1::OpenMachine::default())), &[3], Lane::Control),
        row(of(Kind::Close(v1::CloseMachine::default())), &[4], Lane::Control),
        row(of(Kind::Ping(v1::Ping::default())), &[6], Lane::Control),
    ];
    rows.extend(device_messages().into_iter().map(|inner| {
        let to = v1::ToMachine { machine_id: Default::default(), message: Some(inner.message) };
        row(of(Kind::ToMachine(to)), &below(5, &inner.path), inner.lane)
    }));
    rows
}

fn session_downs() -> Vec<Row<v1::SessionDown>> {
    use v1::session_down::Kind;
    let of = |kind| v1::SessionDown { kind: Some(kind) };
    let mut rows = vec![
        row(of(Kind::Challenge(v1::SessionChallenge::default())), &[1], Lane::Control),
        row(of(Kind::Welcome(v1::SessionWelcome::default())), &[2], Lane::Control),
        row(of(Kind::MachineClosed(v1::MachineClosed::default())), &[4], Lane::Control),
        row(of(Kind::Pong(v1::Pong::default())), &[5], Lane::Control),
        row(of(Kind::GoAway(v1::GoAway::default())), &[6], Lane::Control),
        row(of(Kind::End(v1::SessionEnd::default())), &[7], Lane::Control),
    ];
    rows.extend(machine_messages().into_iter().map(|inner| {
        let from = v1::FromMachine { machine_id: Default::default(), message: Some(inner.message) };
        row(of(Kind::FromMachine(from)), &below(3, &inner.path), inner.lane)
    }));
    rows
}

fn link_ups() -> Vec<Row<v1::LinkUp>> {
    use v1::connector_frame::Kind as FrameKind;
    use v1::link_up::Kind;
    let of = |kind| v1::LinkUp { kind: Some(kind) };
    let frame = |kind| of(Kind::Frame(v1::ConnectorFrame { epoch: None, kind: Some(kind) }));
    let mut rows = vec![
        row(of(Kind::Hello(v1::LinkHello::default())), &[1], Lane::Control),
        row(of(Kind::Proof(v1::LinkProof::default())), &[2], Lane::Control),
        row(of(Kind::Ping(v1::Ping::default())), &[4], Lane::Control),
        row(of(Kind::Pong(v1::Pong::default())), &[5], Lane::Control),
        row(frame(FrameKind::Attached(v1::Attached::default())), &[3, 2], Lane::Control),
        row(frame(FrameKind::Stale(v1::Stale::default())), &[3, 3], Lane::Control),
        row(frame(FrameKind::Report(v1::MachineReport::default())), &[3, 4], Lane::Control),
        row(frame(FrameKind::Subscribed(v1::Subscribed::default())), &[3, 6], Lane::Events),
        row(frame(FrameKind::Unsubscribed(v1::Unsubscribed::default())), &[3, 7], Lane::Events),
        row(frame(FrameKind::SharedEvent(v1::Event::default())), &[3, 8], Lane::Events),
        row(frame(FrameKind::DeviceRemoved(v1::DeviceRemoved::default())), &[3, 9], Lane::Control),
    ];
    rows.extend(machine_messages().into_iter().map(|inner| {
        let to = v1::ToSession { session_id: Default::default(), message: Some(inner.message) };
        row(frame(FrameKind::ToSession(to)), &below(3, &below(5, &inner.path)), inner.lane)
    }));
    rows
}

fn link_downs() -> Vec<Row<v1::LinkDown>> {
    use v1::link_down::Kind;
    use v1::owner_frame::Kind as FrameKind;
    let of = |kind| v1::LinkDown { kind: Some(kind) };
    let frame = |kind| of(Kind::Frame(v1::OwnerFrame { epoch: None, kind: Some(kind) }));
    let mut rows = vec![
        row(of(Kind::Challenge(v1::LinkChallenge::default())), &[1], Lane::Control),
        row(of(Kind::Welcome(v1::LinkWelcome::default())), &[2], Lane::Control),
        row(of(Kind::Ping(v1::Ping::default())), &[4], Lane::Control),
        row(of(Kind::Pong(v1::Pong::default())), &[5], Lane::Control),
        row(of(Kind::GoAway(v1::GoAway::default())), &[6], Lane::Control),
        row(of(Kind::End(v1::SessionEnd::default())), &[7], Lane::Control),
        row(frame(FrameKind::Attach(v1::AttachOwner {})), &[3, 2], Lane::Control),
        row(frame(FrameKind::SessionGone(v1::SessionGone::default())), &[3, 4], Lane::Commands),
        row(frame(FrameKind::RemoveDevice(v1::RemoveDevice::default())), &[3, 5], Lane::Control),
    ];
    rows.extend(device_messages().into_iter().map(|inner| {
        let from = v1::FromSession { message: Some(inner.message), ..Default::default() };
        row(frame(FrameKind::FromSession(from)), &below(3, &below(3, &inner.path)), inner.lane)
    }));
    rows
}

fn below(first: u32, rest: &[u32]) -> Vec<u32> {
    std::iter::once(first).chain(rest.iter().copied()).collect()
}

fn check<M: Message + Default + OnLane + PartialEq>(rows: Vec<Row<M>>, kinds: &[Vec<u32>]) {
    let covered: BTreeSet<_> = rows.iter().map(|row| row.path.clone()).collect();
    assert_eq!(covered, kinds.iter().cloned().collect(), "every kind of the schema has a row");
    for row in rows {
        assert_eq!(row.message.lane(), row.lane, "{:?}", row.path);
        for lane in Lane::ALL {
            let read = decode_on::<M>(lane, row.message.encode_to_vec().into());
            let expected = if lane == row.lane { Ok(()) } else { Err(FrameError::WrongLane(lane)) };
            assert_eq!(read.map(drop), expected, "{:?} on {lane:?}", row.path);
        }
    }
}

/// The field numbers of a message's kinds, as the schema lists them; those that lead on to `inner` are extended by it.
fn kinds(schema: &str, message: &str, inner: &[(u32, &[Vec<u32>])]) -> Vec<Vec<u32>> {
    let body = schema.split_once(&format!("message {message} {{")).expect("the schema has the message").1;
    let oneof = body.split_once("oneof kind {").expect("it has kinds").1.split_once('}').expect("they end").0;
    let numbers = oneof.lines().filter_map(|line| line.split_once('=')?.1.split_once(';')?.0.trim().parse().ok());
    let extended = |number: u32| match inner.iter().find(|(of, _)| *of == number) {
        Some((_, paths)) => paths.iter().map(|path| below(number, path)).collect(),
        None => vec![vec![number]],
    };
    numbers.flat_map(extended).collect()
}

#[test]
fn every_kind_of_message_is_taken_on_its_lane_and_refused_on_every_other() {
    let (session, link) =
        (include_str!("../../../flydex/v1/session.proto"), include_str!("../../../flydex/v1/link.proto"));
    let relay = include_str!("../../../flydex/v1/relay.proto");
    let device = kinds(relay, "DeviceMessage", &[]);
    let machine = kinds(relay, "MachineMessage", &[]);
    let connector = kinds(link, "ConnectorFrame", &[(5, &machine)]);
    let owner = kinds(link, "OwnerFrame", &[(3, &device)]);
    check(device_messages(), &device);
    check(machine_messages(), &machine);
    check(session_ups(), &kinds(session, "SessionUp", &[(5, &device)]));
    check(session_downs(), &kinds(session, "SessionDown", &[(3, &machine)]));
    check(link_ups(), &kinds(link, "LinkUp", &[(3, &connector)]));
    check(link_downs(), &kinds(link, "LinkDown", &[(3, &owner)]));
}

#[test]
fn a_kind_of_a_later_version_is_taken_on_any_lane() {
    // Field 31 of SessionUp, unknown to this version.
    let later = bytes::Bytes::from_static(&[0xfa, 0x01, 0x00]);
    for lane in Lane::ALL {
        assert!(decode_on::<v1::SessionUp>(lane, later.clone()).is_ok_and(|message| message.kind.is_none()));
    }
}
