use bytes::Bytes;
use proptest::prelude::*;

use super::*;

const BOOT: BootId = BootId::from_bytes([1; 16]);

fn body(bytes: usize) -> Payload {
    Payload::new(Bytes::from(vec![0; bytes]))
}

fn cursor(stream_id: StreamId, seq: u64) -> Option<Position> {
    Some(Position { stream_id, boot_id: BOOT, seq })
}

#[test]
fn numbers_start_at_one_and_a_cursor_within_the_ring_resumes() {
    let mut rings = Rings::new(BOOT);
    let machine = StreamId::MACHINE;
    assert_eq!(rings.verdict(machine, cursor(machine, 0)), Some(Verdict::Resumed { from: 0 }));
    assert_eq!(rings.push(machine, body(1)), Some(1));
    assert_eq!(rings.push(machine, body(1)), Some(2));
    assert_eq!(rings.verdict(machine, cursor(machine, 1)), Some(Verdict::Resumed { from: 1 }));
    assert_eq!(rings.after(machine, 1).map(|(seq, _)| seq).collect::<Vec<_>>(), [2]);
    assert_eq!(rings.after(machine, 2).count(), 0);
}

#[test]
fn a_cursor_of_another_boot_stream_or_the_future_is_a_gap() {
    let mut rings = Rings::new(BOOT);
    let machine = StreamId::MACHINE;
    rings.push(machine, body(1));
    let gap = Some(Verdict::Gap { as_of: 1 });
    assert_eq!(rings.verdict(machine, None), gap);
    assert_eq!(rings.verdict(machine, cursor(machine, 2)), gap);
    assert_eq!(rings.verdict(machine, cursor(machine, u64::MAX)), gap);
    assert_eq!(rings.verdict(machine, cursor(StreamId(1), 1)), gap);
    let other = Position { stream_id: machine, boot_id: BootId::from_bytes([2; 16]), seq: 1 };
    assert_eq!(rings.verdict(machine, Some(other)), gap);
    assert_eq!(rings.verdict(StreamId(5), None), None);
    assert_eq!(rings.push(StreamId(5), body(1)), None);
}

#[test]
fn a_closed_stream_is_forgotten_and_its_id_never_comes_back() {
    let mut rings = Rings::new(BOOT);
    let first = rings.open();
    rings.push(first, body(100));
    rings.close(first);
    rings.close(StreamId::MACHINE);
    assert_eq!(rings.bytes(), 0);
    assert_ne!(rings.open(), first);
    assert!(rings.position(StreamId::MACHINE).is_some());
}

#[test]
fn all_rings_together_stay_within_the_total() {
    let mut rings = Rings::new(BOOT);
    let streams: Vec<_> = (0..100).map(|_| rings.open()).collect();
    for _ in 0..9 {
        for stream_id in &streams {
            rings.push(*stream_id, body(120_000));
            assert!(rings.bytes() <= RINGS_TOTAL_BYTES_MAX);
        }
    }
    assert!(rings.bytes() > RINGS_TOTAL_BYTES_MAX / 2);
}

proptest! {
    /// INV-ORDER: a resumed session gets exactly the numbers after its cursor, in order; else it is told gap.
    #[test]
    fn a_resume_has_no_holes(
        sizes in proptest::collection::vec(0_usize..130_000, 0..60), seq in 0_u64..70,
    ) {
        let mut rings = Rings::new(BOOT);
        let stream_id = rings.open();
        for size in &sizes {
            rings.push(stream_id, body(*size));
        }
        prop_assert!(rings.bytes() <= RING_BYTES_MAX);
        let last = sizes.len() as u64;
        match rings.verdict(stream_id, cursor(stream_id, seq)).unwrap() {
            Verdict::Resumed { from } => {
                prop_assert_eq!(from, seq);
                let replayed: Vec<_> = rings.after(stream_id, from).collect();
                prop_assert_eq!(replayed.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), (seq + 1..=last).collect::<Vec<_>>());
                for (number, body) in replayed {
                    prop_assert_eq!(body.len(), sizes[usize::try_from(number).unwrap() - 1]);
                }
            }
            Verdict::Gap { as_of } => {
                prop_assert_eq!(as_of, last);
                let ring = &rings.rings[&stream_id];
                prop_assert!(seq > last || seq + 1 < ring.first_kept());
            }
        }
    }
}
