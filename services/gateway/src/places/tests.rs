use flydex_domain::id::{AccountId, MachineId};
use flydex_domain::scope::Principal;

use super::*;
use crate::tests::host::life;

fn machine(number: usize) -> MachineKey {
    let account_id = AccountId::try_from([1; 16].as_slice()).unwrap();
    let machine_id = MachineId::try_from((number as u128).to_be_bytes().as_slice()).unwrap();
    MachineKey::new(Principal::Machine { account_id, machine_id }.scope(), machine_id)
}

#[tokio::test(start_paused = true)]
async fn a_place_is_remembered_for_its_time_and_then_asked_for_again() {
    let cache = Cache::default();
    cache.put(machine(1), life(1));
    tokio::time::advance(PLACE_KEPT / 2).await;
    cache.put(machine(2), life(2));
    assert_eq!((cache.get(machine(1)), cache.get(machine(2))), (Some(life(1)), Some(life(2))));
    tokio::time::advance(PLACE_KEPT / 2).await;
    assert_eq!((cache.get(machine(1)), cache.get(machine(2))), (None, Some(life(2))));
}

#[tokio::test(start_paused = true)]
async fn a_correction_names_the_owner_or_takes_back_only_what_was_wrong() {
    let cache = Cache::default();
    cache.put(machine(1), life(1));
    cache.correct(machine(1), life(1), Some(life(2)));
    assert_eq!(cache.get(machine(1)), Some(life(2)));
    cache.correct(machine(1), life(1), None);
    assert_eq!(cache.get(machine(1)), Some(life(2)), "somebody knew better meanwhile");
    cache.correct(machine(1), life(2), None);
    assert_eq!(cache.get(machine(1)), None);
}

#[tokio::test(start_paused = true)]
async fn the_oldest_place_makes_room() {
    let cache = Cache::default();
    for number in 0..=PLACES_MAX {
        cache.put(machine(number), life(1));
        if number < 2 {
            tokio::time::advance(std::time::Duration::from_millis(1)).await;
        }
    }
    assert_eq!(cache.get(machine(0)), None);
    assert_eq!(cache.get(machine(1)), Some(life(1)));
    let state = cache.state();
    assert_eq!((state.nodes.len(), state.by_age.len()), (PLACES_MAX, PLACES_MAX));
}
