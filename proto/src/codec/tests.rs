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
