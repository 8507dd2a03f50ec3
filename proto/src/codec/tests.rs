use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::v1;

fn ping(nonce: u64) -> v1::SessionUp {
    v1::SessionUp { kind: Some(v1::session_up::Kind::Ping(v1::Ping { nonce })) }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_frame_has_the_documented_bytes() {
    assert_eq!(hex(&encode_message(Lane::Control, &ping(300)).unwrap()), "00320308ac02");
    assert_eq!(hex(&encode_stream(Lane::Control, &ping(300)).unwrap()), "00000005320308ac02");
}

#[test]
fn a_frame_survives_the_wire() {
    let (lane, body) = split_message(encode_message(Lane::Commands, &ping(7)).unwrap()).unwrap();
    assert_eq!(lane, Lane::Commands);
    assert!(decode_body::<v1::SessionUp>(body).unwrap() == ping(7));
}

#[test]
fn nothing_and_an_unknown_lane_are_refused() {
    assert_eq!(split_message(Bytes::new()), Err(FrameError::Truncated));
    assert_eq!(split_message(Bytes::from_static(&[9, 1])), Err(FrameError::UnknownLane(9)));
}

#[test]
fn a_frame_over_the_limit_of_its_lane_is_refused_in_both_directions() {
    for lane in Lane::ALL {
        let bytes = lane.body_bytes_max() + 1;
        let mut frame = vec![0; bytes + 1];
        frame[0] = lane.byte();
        assert_eq!(split_message(frame.into()), Err(FrameError::TooLarge { bytes }));
        let prefix = u32::try_from(bytes).unwrap().to_be_bytes();
        assert_eq!(stream_length(lane, prefix), Err(FrameError::TooLarge { bytes }));
    }
    let event = v1::Event { stream_id: 1, seq: 1, body: vec![0; limits::CONTROL_FRAME_BYTES_MAX].into() };
    assert!(matches!(encode_message(Lane::Control, &event), Err(FrameError::TooLarge { .. })));
}

#[test]
fn a_body_cut_anywhere_is_truncated_or_shorter_and_never_panics() {
    let whole = encode_message(Lane::Control, &ping(u64::MAX)).unwrap().slice(1..);
    for end in 1..whole.len() {
        assert!(decode_body::<v1::SessionUp>(whole.slice(..end)) == Err(FrameError::Truncated), "cut at {end}");
    }
}

#[test]
fn a_hello_and_an_owners_frame_have_the_documented_bytes() {
    let hello = v1::SessionHello {
        version: 1,
        version_min: 1,
        capabilities: vec![v1::Capability::BulkCredit.into()],
        ticket: "t".to_owned(),
        grant: "g".to_owned(),
        device_key: Some(v1::PublicKey { algorithm: v1::KeyAlgorithm::Ed25519.into(), key: vec![7, 7].into() }),
        client: "c".to_owned(),
    };
    let hello = v1::SessionUp { kind: Some(v1::session_up::Kind::Hello(hello)) };
    assert_eq!(
        hex(&encode_message(hello.lane(), &hello).unwrap()),
        "000a18080110011a01012201742a0167320608011202070\
         73a0163"
    );
    let frame = v1::OwnerFrame {
        epoch: Some(v1::Epoch { counter: 2, incarnation: vec![1].into() }),
        kind: Some(v1::owner_frame::Kind::Attach(v1::AttachOwner {})),
    };
    let down = v1::LinkDown { kind: Some(v1::link_down::Kind::Frame(frame)) };
    assert_eq!(hex(&encode_stream(down.lane(), &down).unwrap()), "0000000b1a090a05080212010112 00".replace(' ', ""));
}

#[test]
fn the_newest_common_version_is_spoken_or_none() {
    for (newest, oldest, spoken) in [
        (VERSION, VERSION_MIN, Some(VERSION)),
        (VERSION + 8, VERSION_MIN, Some(VERSION)),
        (VERSION + 8, 0, Some(VERSION)),
        (VERSION + 8, VERSION + 1, None),
        (VERSION_MIN - 1, 0, None),
        (0, 0, None),
        (0, VERSION, None),
    ] {
        assert_eq!(negotiate(newest, oldest), spoken, "{newest}..{oldest}");
    }
}

#[test]
fn a_field_of_a_later_version_is_skipped_and_a_kind_of_one_is_no_kind() {
    // Field 15 of a Ping, then field 31 of SessionUp: both unknown to this version.
    let later_field = Bytes::from_static(&[0x32, 0x04, 0x08, 0x07, 0x78, 0x01]);
    assert!(decode_body::<v1::SessionUp>(later_field).unwrap() == ping(7));
    let later_kind = Bytes::from_static(&[0xfa, 0x01, 0x00]);
    assert!(decode_body::<v1::SessionUp>(later_kind).unwrap() == v1::SessionUp { kind: None });
}

fn lane() -> impl Strategy<Value = Lane> {
    (0..Lane::ALL.len()).prop_map(|index| Lane::ALL[index])
}

fn bytes(longest: usize) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..longest).prop_map(Bytes::from)
}

/// A message that a failing case shows as nothing: messages have no Debug on purpose.
#[derive(Clone)]
struct Hidden<T>(T);

impl<T> std::fmt::Debug for Hidden<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hidden")
    }
}

fn device_message() -> impl Strategy<Value = Hidden<v1::DeviceMessage>> {
    use v1::device_message::Kind;
    let command =
        (bytes(300), bytes(4_000), bytes(70), ".{0,80}").prop_map(|(header, body, signature, audit_receipt)| {
            Hidden(Kind::Command(v1::Command { header, body, signature, audit_receipt, assertion: None }))
        });
    let bulk_credit = (bytes(20), any::<u32>())
        .prop_map(|(command_id, bytes)| Hidden(Kind::BulkCredit(v1::BulkCredit { command_id, bytes })));
    let event_credit = any::<u32>().prop_map(|bytes| Hidden(Kind::EventCredit(v1::EventCredit { bytes })));
    let probe = any::<u64>().prop_map(|nonce| Hidden(Kind::Probe(v1::Probe { nonce })));
    let kind = proptest::option::of(prop_oneof![command, bulk_credit, event_credit, probe]);
    (proptest::option::of((bytes(17), bytes(9), any::<u32>())), kind).prop_map(|(trace, kind)| {
        let trace = trace.map(|(trace_id, span_id, flags)| v1::TraceContext { trace_id, span_id, flags });
        Hidden(v1::DeviceMessage { trace, kind: kind.map(|Hidden(kind)| kind) })
    })
}

fn machine_message() -> impl Strategy<Value = Hidden<v1::MachineMessage>> {
    use v1::machine_message::Kind;
    let event = (any::<u32>(), any::<u64>(), bytes(4_000))
        .prop_map(|(stream_id, seq, body)| Hidden(Kind::Event(v1::Event { stream_id, seq, body })));
    let chunk = (bytes(20), any::<u32>(), bytes(4_000))
        .prop_map(|(command_id, offset, bytes)| Hidden(Kind::Chunk(v1::BulkChunk { command_id, offset, bytes })));
    let receipt = (bytes(4_000), bytes(70))
        .prop_map(|(receipt, signature)| Hidden(Kind::Receipt(v1::SignedReceipt { receipt, signature })));
    prop_oneof![event, chunk, receipt]
        .prop_map(|Hidden(kind)| Hidden(v1::MachineMessage { trace: None, kind: Some(kind) }))
}

/// Writes a message on its lane both ways, reads it back, and cuts it everywhere.
fn survives<M: Message + Default + PartialEq>(lane: Lane, message: &M) {
    let on_message = encode_message(lane, message).unwrap();
    let (read_lane, body) = split_message(on_message.clone()).unwrap();
    assert_eq!(read_lane, lane);
    assert!(decode_body::<M>(body.clone()).unwrap() == *message);

    let on_stream = encode_stream(lane, message).unwrap();
    let prefix = on_stream[..LENGTH_PREFIX_BYTES].try_into().unwrap();
    assert_eq!(stream_length(lane, prefix), Ok(body.len()));
    assert_eq!(on_stream.slice(LENGTH_PREFIX_BYTES..), body);

    for end in 0..on_message.len() {
        if let Ok((_, cut)) = split_message(on_message.slice(..end)) {
            let whole = decode_body::<M>(cut).is_ok_and(|read| read == *message);
            assert!(!whole, "a cut frame is never taken for the whole");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_message_of_a_session_survives_the_wire(
        machine_id in bytes(20), device_message in device_message(), machine_message in machine_message()
    ) {
        let to = v1::ToMachine { machine_id: machine_id.clone(), message: Some(device_message.0) };
        let up = v1::SessionUp { kind: Some(v1::session_up::Kind::ToMachine(to)) };
        survives(up.lane(), &up);
        let from = v1::FromMachine { machine_id, message: Some(machine_message.0) };
        let down = v1::SessionDown { kind: Some(v1::session_down::Kind::FromMachine(from)) };
        survives(down.lane(), &down);
    }

    #[test]
    fn any_message_of_a_link_survives_the_wire(
        counter in any::<u64>(), incarnation in bytes(17), session_id in bytes(17), message in machine_message()
    ) {
        let to = v1::ToSession { session_id, message: Some(message.0) };
        let frame = v1::ConnectorFrame {
            epoch: Some(v1::Epoch { counter, incarnation }),
            kind: Some(v1::connector_frame::Kind::ToSession(to)),
        };
        let up = v1::LinkUp { kind: Some(v1::link_up::Kind::Frame(frame)) };
        survives(up.lane(), &up);
    }
}

proptest! {
    #[test]
    fn any_bytes_are_a_frame_within_its_limit_or_a_typed_refusal(raw in vec(any::<u8>(), 0..2_000)) {
        let raw = Bytes::from(raw);
        match split_message(raw.clone()) {
            Ok((lane, body)) => {
                prop_assert_eq!(lane.byte(), raw[0]);
                prop_assert!(body.len() <= lane.body_bytes_max());
                let _ = decode_body::<v1::SessionUp>(body.clone());
                let _ = decode_body::<v1::SessionDown>(body.clone());
                let _ = decode_body::<v1::LinkUp>(body.clone());
                let _ = decode_body::<v1::LinkDown>(body.clone());
                let _ = decode_body::<v1::GatewayFrame>(body.clone());
                let _ = decode_body::<v1::NodeFrame>(body);
            }
            Err(error) => prop_assert!(error.code().name().starts_with("frame_") || error.code().name() == "unexpected_frame"),
        }
    }

    #[test]
    fn any_announced_length_is_within_the_limit_of_its_lane_or_refused(lane in lane(), prefix in any::<[u8; 4]>()) {
        let announced = u32::from_be_bytes(prefix) as usize;
        match stream_length(lane, prefix) {
            Ok(length) => prop_assert!(length == announced && length <= lane.body_bytes_max()),
            Err(error) => prop_assert_eq!(error, FrameError::TooLarge { bytes: announced }),
        }
    }
}
