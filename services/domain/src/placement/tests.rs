use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::id::{AccountId, MachineId};
use crate::scope::Principal;

const NOBODY_LOST: fn(Incarnation) -> bool = |_| false;

#[test]
fn an_owner_that_is_alive_keeps_its_machine() {
    let members = [member(1, 900), member(2, 0)];
    assert_eq!(place(Some(&held(1)), &members, NOBODY_LOST, [0, 0]), Place::Owner(node(1)));
}

#[test]
fn a_draining_owner_keeps_its_machine_until_it_hands_it_over() {
    let members = [draining(member(1, 9)), member(2, 0)];
    assert_eq!(place(Some(&held(1)), &members, NOBODY_LOST, [0, 0]), Place::Owner(node(1)));
}

#[test]
fn an_owner_that_is_suspect_gone_or_does_not_answer_is_replaced_at_once() {
    let instead = Place::Candidate { node: node(2), replacing: Some(node(1)) };
    let suspect = [silent(member(1, 0), LEASE_SUSPECT_AFTER), member(2, 5)];
    assert_eq!(place(Some(&held(1)), &suspect, NOBODY_LOST, [0, 0]), instead);
    assert_eq!(place(Some(&held(1)), &[member(2, 5)], NOBODY_LOST, [0, 0]), instead);
    let alive = [member(1, 0), member(2, 5)];
    assert_eq!(place(Some(&held(1)), &alive, |lost| lost == node(1), [0, 0]), instead);
}

#[test]
fn the_less_loaded_of_two_is_chosen_and_a_draining_or_suspect_node_never() {
    let members = [member(1, 50), member(2, 10), draining(member(3, 0)), silent(member(4, 0), LEASE_SUSPECT_AFTER)];
    for draws in [[0, 1], [1, 0]] {
        assert_eq!(place(None, &members, NOBODY_LOST, draws), Place::Candidate { node: node(2), replacing: None });
    }
    for draws in [[2, 3], [0, 2], [u64::MAX, 7]] {
        let Place::Candidate { node: chosen, replacing: None } = place(None, &members, NOBODY_LOST, draws) else {
            panic!("two nodes take machines on");
        };
        assert!([node(1), node(2)].contains(&chosen));
    }
}

#[test]
fn a_suspect_owner_is_better_than_none_and_a_lost_one_is_not() {
    let members = [silent(member(1, 0), LEASE_SUSPECT_AFTER), draining(member(2, 0))];
    assert_eq!(place(Some(&held(1)), &members, NOBODY_LOST, [0, 0]), Place::Owner(node(1)));
    assert_eq!(place(Some(&held(1)), &members, |lost| lost == node(1), [0, 0]), Place::Nowhere);
    assert_eq!(place(Some(&held(1)), &[draining(member(2, 0))], NOBODY_LOST, [0, 0]), Place::Nowhere);
    assert_eq!(place(None, &[], NOBODY_LOST, [0, 0]), Place::Nowhere);
}

#[test]
fn without_a_directory_everybody_agrees_and_only_the_machines_of_a_lost_node_move() {
    let members: Vec<Member> = (1..=5).map(|tag| member(tag, 0)).collect();
    let mut backwards = members.clone();
    backwards.reverse();
    let mut moved = 0;
    for number in 0..200 {
        let machine = machine(number);
        let before = place_by_rendezvous(machine, &members, NOBODY_LOST);
        assert_eq!(place_by_rendezvous(machine, &backwards, NOBODY_LOST), before);
        let after = place_by_rendezvous(machine, &members, |lost| lost == node(3));
        assert_ne!(after, Place::Candidate { node: node(3), replacing: None });
        let was_there = before == Place::Candidate { node: node(3), replacing: None };
        moved += usize::from(was_there);
        assert_eq!(after != before, was_there);
    }
    assert!((20..=60).contains(&moved), "{moved} of 200 machines were on one of five nodes");
}

#[test]
fn a_live_holder_is_not_dispossessed_unless_it_is_the_one_to_replace() {
    let record = held(1);
    let refused = Acquisition::Held(record.clone());
    assert_eq!(acquire(Some(&record), node(2), Epoch::ZERO, None, true), refused);
    assert_eq!(acquire(Some(&record), node(2), Epoch::ZERO, Some(node(3)), true), refused);
    let taken = Acquisition::Owned(record.epoch.above(node(2)));
    assert_eq!(acquire(Some(&record), node(2), Epoch::ZERO, Some(node(1)), true), taken);
    assert_eq!(acquire(Some(&record), node(2), Epoch::ZERO, None, false), taken);
}

#[test]
fn a_lower_link_counter_is_superseded_and_one_from_the_far_future_absurd() {
    assert_eq!(set_link(None, 0), LinkPlacement::Newest);
    assert_eq!(set_link(None, 1_800_000_000), LinkPlacement::Newest);
    assert_eq!(set_link(Some(7), 7), LinkPlacement::Newest);
    assert_eq!(set_link(Some(7), 6), LinkPlacement::Superseded { counter: 7 });
    assert_eq!(set_link(Some(7), 8 + LINK_COUNTER_JUMP_MAX), LinkPlacement::Absurd);
    let first_set_to_2026 = 1_800_000_000;
    assert_eq!(set_link(Some(7), first_set_to_2026), LinkPlacement::Newest);
}

proptest! {
    #[test]
    fn an_ownership_is_above_the_floor_and_above_every_other_holders(
        counter in 0_u64..1_000, holder in 0_u8..4, floor_counter in 0_u64..1_000, floor_tag in 0_u8..4,
        asker in 1_u8..4, replacing in 0_u8..4, leased: bool,
    ) {
        let holder = (holder > 0).then(|| node(holder));
        let record = OwnerRecord { holder, epoch: epoch(counter, 9), link: None };
        let floor = epoch(floor_counter, floor_tag);
        let replacing = (replacing > 0).then(|| node(replacing));
        match acquire(Some(&record), node(asker), floor, replacing, leased) {
            Acquisition::Owned(owned) if holder == Some(node(asker)) && record.epoch >= floor => {
                prop_assert_eq!(owned, record.epoch);
            }
            Acquisition::Owned(owned) => {
                prop_assert!(owned > record.epoch && owned > floor);
                prop_assert_eq!(owned.incarnation, node(asker));
            }
            Acquisition::Held(found) => {
                prop_assert!(leased && holder.is_some() && holder != Some(node(asker)) && holder != replacing);
                prop_assert_eq!(found, record);
            }
        }
    }

    #[test]
    fn of_two_reassertions_the_greater_epoch_stays_in_either_order(first in 0_u64..50, second in 0_u64..50) {
        let (first, second) = (epoch(first, 1), epoch(second, 2));
        let after = |one: Epoch, other: Epoch| {
            let record = OwnerRecord { holder: Some(one.incarnation), epoch: one, link: None };
            match reassert(Some(&record), other, true) {
                Reassertion::Kept => other,
                Reassertion::Lost(record) => record.epoch,
            }
        };
        prop_assert_eq!(after(first, second), first.max(second));
        prop_assert_eq!(after(second, first), first.max(second));
    }

    #[test]
    fn without_a_link_an_owner_replaces_nobody(first in 0_u64..50, second in 0_u64..50, released: bool) {
        let holder = (!released).then(|| node(1));
        let record = OwnerRecord { holder, epoch: epoch(first, 1), link: None };
        let kept = reassert(Some(&record), epoch(second, 2), false) == Reassertion::Kept;
        prop_assert_eq!(kept, released && second >= first);
        let own = reassert(Some(&record), epoch(second, 1), false) == Reassertion::Kept;
        prop_assert_eq!(own, second >= first, "what it holds itself it may assert");
    }
}

fn node(tag: u8) -> Incarnation {
    Incarnation::from_bytes([tag; 16])
}

fn epoch(counter: u64, tag: u8) -> Epoch {
    Epoch { counter, incarnation: node(tag) }
}

fn held(tag: u8) -> OwnerRecord {
    OwnerRecord { holder: Some(node(tag)), epoch: epoch(4, tag), link: None }
}

fn member(tag: u8, machines: u32) -> Member {
    let record = NodeRecord {
        incarnation: node(tag),
        node_id: NodeId::try_from(format!("node-{tag}")).unwrap(),
        address: format!("https://node-{tag}.internal:7443"),
        state: NodeState::Active,
        machines,
    };
    Member { record, silent_for: Duration::ZERO }
}

fn draining(mut member: Member) -> Member {
    member.record.state = NodeState::Draining;
    member
}

fn silent(member: Member, silent_for: Duration) -> Member {
    Member { silent_for, ..member }
}

fn machine(number: u128) -> MachineKey {
    let machine_id = MachineId::from_uuid(Uuid::from_u128(number));
    let principal = Principal::Machine { account_id: AccountId::from_uuid(Uuid::from_u128(1)), machine_id };
    MachineKey::new(principal.scope(), machine_id)
}
