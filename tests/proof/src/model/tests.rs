use super::*;

/// Expects a model without one protection to break this property.
fn breaks(protection: Protection, property: &'static str) {
    let walk = walk(Relay { bounds: QUICK[0], without: Some(protection) }, Some(property));
    let broken = walk.broken.iter().find(|(name, _)| *name == property);
    let (_, path) = broken.expect("a protection that this property does not need");
    println!("without {protection:?}, after {} states, {property} is broken by:\n{path}", walk.states);
}

#[test]
fn with_every_protection_no_order_of_events_breaks_an_invariant() {
    for bounds in QUICK {
        let walk = walk(Relay { bounds, without: None }, None);
        assert!(walk.broken.is_empty(), "{bounds:?}: {:#?}", walk.broken);
        assert!(walk.states > 50_000, "{bounds:?}: a model that does nothing breaks nothing");
    }
}

#[test]
fn without_the_fence_a_stale_owner_executes() {
    breaks(Protection::Fence, FENCE);
}

#[test]
fn without_the_fence_a_hand_over_alone_leaves_two_owners_that_are_obeyed() {
    let bounds = Bounds { faults: 0, epochs: 2, commands: 1, force: false };
    let walk = walk(Relay { bounds, without: Some(Protection::Fence) }, Some(FENCE));
    let (_, path) = walk.broken.iter().find(|(name, _)| *name == FENCE).expect("the fence is what makes it safe");
    assert!(path.contains("HandOver"), "the successor has attached, and the one before still sends:\n{path}");
}

#[test]
fn without_the_journal_a_command_takes_effect_twice() {
    breaks(Protection::Journal, ONCE);
}

#[test]
fn without_the_incarnation_in_the_epoch_two_owners_are_obeyed() {
    breaks(Protection::Incarnation, FENCE);
}

#[test]
fn with_an_ack_before_the_journal_a_delivered_command_is_forgotten() {
    breaks(Protection::AckAfterJournal, SAFE);
}

#[test]
fn without_the_boot_in_the_command_a_lost_journal_makes_it_run_again() {
    breaks(Protection::Boot, ONCE);
}

#[test]
fn without_unknown_a_device_is_told_a_guess() {
    breaks(Protection::Unknown, FINAL);
}
