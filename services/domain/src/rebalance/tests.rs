use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::id::NodeId;
use crate::limits::LEASE_SUSPECT_AFTER;
use crate::placement::{NodeRecord, NodeState};

fn node(index: usize) -> Incarnation {
    Incarnation::from_bytes([u8::try_from(index + 1).unwrap(); 16])
}

fn member(index: usize, machines: u32) -> Member {
    let record = NodeRecord {
        incarnation: node(index),
        node_id: NodeId::try_from("node".to_owned()).unwrap(),
        address: "memory://node".to_owned(),
        state: NodeState::Active,
        machines,
    };
    Member { record, silent_for: Duration::ZERO }
}

fn members(loads: &[u32]) -> Vec<Member> {
    loads.iter().enumerate().map(|(index, machines)| member(index, *machines)).collect()
}

/// One round in which every node decides by what it sees; what each has given and got.
fn round(loads: &mut [u32], seen: &[u32]) -> Vec<(u32, u32)> {
    let mut moved = vec![(0, 0); loads.len()];
    let plans: Vec<Vec<Incarnation>> =
        loads.iter().enumerate().map(|(index, held)| plan(node(index), *held, &members(seen))).collect();
    for (from, targets) in plans.into_iter().enumerate() {
        let cap = u64::from(loads[from]).div_ceil(REBALANCE_ROUNDS_OF_LOAD);
        assert!(targets.len() as u64 <= cap, "{} of {}", targets.len(), loads[from]);
        for target in targets {
            let to = usize::from(target.as_bytes()[0]) - 1;
            assert_ne!(from, to, "nobody gives to itself");
            moved[from].0 += 1;
            moved[to].1 += 1;
        }
    }
    for (load, (given, got)) in loads.iter_mut().zip(&moved) {
        *load = *load - given + got;
    }
    moved
}

fn even(loads: &[u32]) -> bool {
    let total: u64 = loads.iter().copied().map(u64::from).sum();
    let loads: Vec<Load> =
        loads.iter().enumerate().map(|(index, held)| Load { node: node(index), machines: (*held).into() }).collect();
    is_even(&loads, total)
}

/// As even as whole machines can be.
fn as_even_as_can_be(loads: &[u32]) -> bool {
    even(loads) || loads.iter().max().unwrap() - loads.iter().min().unwrap() <= 1
}

#[test]
fn a_new_node_gets_its_share_and_then_nothing_moves() {
    let mut loads = [300, 300, 0];
    let mut rounds = 0;
    while !even(&loads) {
        let seen = loads;
        round(&mut loads, &seen);
        rounds += 1;
    }
    assert!(loads[2] >= 170 && rounds < 40, "{loads:?} after {rounds} rounds");
    let before = loads;
    round(&mut loads, &before);
    assert_eq!(loads, before);
}

#[test]
fn a_few_machines_more_or_less_are_left_as_they_are() {
    let few = u32::try_from(REBALANCE_MACHINES_MIN).unwrap();
    for loads in [[20 + few, 20, 20 - few], [few, 0, 0]] {
        assert!(plan(node(0), loads[0], &members(&loads)).is_empty(), "{loads:?}");
    }
    let more = [22 + few, 20, 18 - few];
    assert!(!plan(node(0), more[0], &members(&more)).is_empty());
}

#[test]
fn an_empty_node_among_many_is_not_left_empty() {
    let mut loads = [100; 20];
    loads[0] = 0;
    for _ in 0..20 {
        let seen = loads;
        round(&mut loads, &seen);
    }
    assert!(even(&loads), "{loads:?}");
}

#[test]
fn nothing_moves_while_a_node_drains_or_is_silent_or_is_not_a_member() {
    let busy = [300, 0];
    assert!(!plan(node(0), 300, &members(&busy)).is_empty());
    let mut draining = members(&[300, 0, 100]);
    draining[2].record.state = NodeState::Draining;
    assert!(plan(node(0), 300, &draining).is_empty());
    let mut silent = members(&[300, 0, 100]);
    silent[2].silent_for = LEASE_SUSPECT_AFTER;
    assert!(plan(node(0), 300, &silent).is_empty());
    assert!(plan(node(5), 300, &members(&busy)).is_empty());
    assert!(plan(node(0), 300, &[]).is_empty());
    assert!(plan(node(0), 300, &members(&[300])).is_empty());
}

proptest! {
    #[test]
    fn it_converges_and_nobody_gives_what_it_gets_back(loads in prop::collection::vec(0_u32..2_000, 1..12)) {
        let mut now = loads.clone();
        let (mut gave, mut got) = (vec![false; now.len()], vec![false; now.len()]);
        let mut quiet = false;
        for _ in 0..2_000 {
            let seen = now.clone();
            let moved = round(&mut now, &seen);
            for (index, (given, taken)) in moved.iter().enumerate() {
                gave[index] |= *given > 0;
                got[index] |= *taken > 0;
                prop_assert!(!(gave[index] && got[index]), "{loads:?}: node {index} gave and got, {now:?}");
            }
            quiet = moved.iter().all(|(given, _)| *given == 0);
            if quiet {
                break;
            }
        }
        prop_assert!(quiet, "it ends: {now:?}");
        prop_assert!(as_even_as_can_be(&now), "{loads:?} became {now:?}");
        let (before, after): (u64, u64) = (sum(&loads), sum(&now));
        prop_assert_eq!(before, after);
    }

    #[test]
    fn nodes_that_see_the_round_before_come_to_rest_too(loads in prop::collection::vec(0_u32..2_000, 2..8)) {
        let mut now = loads.clone();
        let mut seen = loads.clone();
        let mut rest = 0;
        for _ in 0..3_000 {
            let before = now.clone();
            let moved = round(&mut now, &seen);
            seen = before;
            rest = if moved.iter().all(|(given, _)| *given == 0) { rest + 1 } else { 0 };
            if rest > 2 {
                break;
            }
        }
        prop_assert!(rest > 2, "it ends: {loads:?}, {now:?}");
    }
}

fn sum(loads: &[u32]) -> u64 {
    loads.iter().copied().map(u64::from).sum()
}
