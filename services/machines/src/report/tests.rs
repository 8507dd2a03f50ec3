use flydex_domain::id::{AccountId, MachineId};
use flydex_domain::scope::Principal;

use super::*;

fn machine(number: u8) -> MachineKey {
    let account_id = AccountId::try_from([1; 16].as_slice()).unwrap();
    let machine_id = MachineId::try_from([number; 16].as_slice()).unwrap();
    MachineKey::new(Principal::Machine { account_id, machine_id }.scope(), machine_id)
}

fn linked(counter: u64) -> Linked {
    Linked { counter, at: UnixMillis(counter) }
}

fn taken_in(reports: &Reports) -> Vec<(MachineKey, Linked)> {
    std::mem::take(&mut reports.waiting().links).into_iter().collect()
}

#[test]
fn without_anybody_to_tell_nothing_is_kept() {
    let reports = Reports::default();
    reports.note(machine(1), linked(1));
    assert!(taken_in(&reports).is_empty());
}

#[test]
fn of_one_machine_the_newest_link_is_kept() {
    let reports = Reports::default();
    reports.waiting().on = true;
    for counter in [1, 3, 2] {
        reports.note(machine(1), linked(counter));
    }
    assert_eq!(taken_in(&reports), [(machine(1), linked(3))]);
}

#[test]
fn past_the_bound_everything_is_reported_instead() {
    let reports = Reports::with_bound(1);
    reports.waiting().on = true;
    reports.note(machine(1), linked(1));
    assert!(!reports.waiting().all);
    reports.note(machine(1), linked(2));
    assert!(!reports.waiting().all, "a machine that waits already takes no place");
    reports.note(machine(2), linked(1));
    assert!(reports.waiting().all);
    assert_eq!(taken_in(&reports), [(machine(1), linked(2))]);
}
