use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn frame(bytes: usize) -> Bytes {
    vec![0; bytes].into()
}

#[test]
fn the_more_urgent_lane_goes_first_and_a_lane_keeps_its_order() {
    let mut lanes = Lanes::new();
    for (lane, name) in [
        (Lane::Bulk, "bulk"),
        (Lane::Events, "event 1"),
        (Lane::Events, "event 2"),
        (Lane::Commands, "command"),
        (Lane::Control, "ping"),
    ] {
        lanes.push(lane, Bytes::from_static(name.as_bytes())).unwrap();
    }
    let order: Vec<_> = std::iter::from_fn(|| lanes.pop()).map(|(_, frame)| frame).collect();
    assert_eq!(order, ["ping", "command", "event 1", "event 2", "bulk"]);
    assert!(lanes.is_empty());
}

#[test]
fn a_full_lane_refuses_and_leaves_the_others_their_room() {
    let mut lanes = Lanes::new();
    while lanes.push(Lane::Events, frame(limits::EVENT_BODY_BYTES_MAX)).is_ok() {}
    assert_eq!(lanes.push(Lane::Events, frame(limits::EVENT_BODY_BYTES_MAX)), Err(Full { lane: Lane::Events }));
    for lane in [Lane::Control, Lane::Commands, Lane::Bulk] {
        assert_eq!(lanes.push(lane, frame(lane.body_bytes_max())), Ok(()));
    }
}

#[test]
fn empty_frames_are_bounded_too() {
    let mut lanes = Lanes::new();
    let taken = std::iter::repeat_with(|| lanes.push(Lane::Control, Bytes::new())).take_while(Result::is_ok).count();
    assert_eq!(taken, limits::CONTROL_QUEUE_BYTES_MAX / limits::QUEUED_FRAME_OVERHEAD_BYTES);
}

#[test]
fn a_page_gets_its_turn_behind_endless_events() {
    let mut lanes = Lanes::new();
    lanes.push(Lane::Bulk, frame(1)).unwrap();
    let mut overtaken = 0;
    loop {
        lanes.push(Lane::Events, frame(16 * 1024)).unwrap();
        match lanes.pop().unwrap() {
            (Lane::Bulk, _) => break,
            (_, event) => overtaken += event.len(),
        }
    }
    assert_eq!(overtaken, limits::LANE_OVERTAKEN_BYTES_MAX);
}

#[test]
fn control_goes_before_an_overdue_lane() {
    let mut lanes = Lanes::new();
    lanes.push(Lane::Bulk, frame(1)).unwrap();
    lanes.push(Lane::Events, frame(limits::LANE_OVERTAKEN_BYTES_MAX)).unwrap();
    lanes.push(Lane::Events, frame(1)).unwrap();
    assert_eq!(lanes.pop().unwrap().0, Lane::Events);
    lanes.push(Lane::Control, frame(1)).unwrap();
    let order: Vec<_> = std::iter::from_fn(|| lanes.pop()).map(|(lane, _)| lane).collect();
    assert_eq!(order, [Lane::Control, Lane::Bulk, Lane::Events]);
}

fn lane() -> impl Strategy<Value = Lane> {
    (0..Lane::ALL.len()).prop_map(|index| Lane::ALL[index])
}

proptest! {
    #[test]
    fn what_was_taken_comes_out_once_in_the_order_of_its_lane(
        steps in vec(prop_oneof![(lane(), 0_usize..20_000).prop_map(Some), Just(None)], 0..400)
    ) {
        let mut lanes = Lanes::new();
        let mut expected: [VecDeque<usize>; 4] = Default::default();
        let check = |popped: Option<(Lane, Bytes)>, expected: &mut [VecDeque<usize>; 4]| match popped {
            Some((lane, frame)) => {
                prop_assert_eq!(expected[usize::from(lane.byte())].pop_front(), Some(frame.len()));
                prop_assert!(lane == Lane::Control || expected[0].is_empty());
                Ok(())
            }
            None => {
                prop_assert!(expected.iter().all(VecDeque::is_empty));
                Ok(())
            }
        };
        for step in steps {
            match step {
                Some((lane, bytes)) => {
                    if lanes.push(lane, frame(bytes)).is_ok() {
                        expected[usize::from(lane.byte())].push_back(bytes);
                    }
                    prop_assert!(lanes.queued_bytes(lane) <= queue_bytes_max(lane));
                }
                None => check(lanes.pop(), &mut expected)?,
            }
        }
        while !lanes.is_empty() {
            check(lanes.pop(), &mut expected)?;
        }
        check(None, &mut expected)?;
    }
}
