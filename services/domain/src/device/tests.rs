use ed25519_dalek::SigningKey;
use proptest::prelude::*;

use super::*;

fn key(seed: u16) -> PublicKey {
    let mut bytes = [7; 32];
    bytes[..2].copy_from_slice(&seed.to_be_bytes());
    PublicKey::of(&SigningKey::from_bytes(&bytes))
}

fn listed(role: Role) -> (DeviceList, DeviceId) {
    let mut list = DeviceList::default();
    let device_id = list.enrol(key(1), role, "phone", UnixMillis(1)).unwrap();
    (list, device_id)
}

#[test]
fn the_account_can_only_reduce_what_the_list_allows() {
    let roles = [Role::Viewer, Role::Operator, Role::Owner];
    for listed_role in roles {
        for account_role in roles {
            let (list, device_id) = listed(listed_role);
            let effective = list.effective_role(&device_id, account_role).unwrap();
            assert!(effective <= listed_role && effective <= account_role);
        }
    }
    let (list, _) = listed(Role::Owner);
    assert_eq!(list.effective_role(&key(2).device_id(), Role::Owner), None);
}

#[test]
fn a_removed_device_stays_removed_until_the_desk_says_yes_again() {
    let (mut list, device_id) = listed(Role::Owner);
    assert!(list.remove(&device_id, UnixMillis(2)));
    assert!(list.get(&device_id).is_none() && list.is_removed(&device_id));
    assert!(!list.reduce(&device_id, Role::Viewer));
    assert!(!list.remove(&device_id, UnixMillis(3)));
    list.enrol(key(1), Role::Viewer, "phone", UnixMillis(4)).unwrap();
    assert!(!list.is_removed(&device_id));
    assert_eq!(list.get(&device_id).unwrap().role, Role::Viewer);
}

#[test]
fn a_reduction_never_raises() {
    let (mut list, device_id) = listed(Role::Operator);
    assert!(!list.reduce(&device_id, Role::Owner));
    assert!(!list.reduce(&device_id, Role::Operator));
    assert!(list.reduce(&device_id, Role::Viewer));
    assert_eq!(list.get(&device_id).unwrap().role, Role::Viewer);
}

#[test]
fn a_full_list_takes_no_other_device_and_keeps_the_known_ones() {
    let mut list = DeviceList::default();
    for seed in 0..DEVICE_LIST_MAX {
        list.enrol(key(u16::try_from(seed).unwrap()), Role::Owner, "", UnixMillis(1)).unwrap();
    }
    assert_eq!(list.enrol(key(900), Role::Owner, "", UnixMillis(1)), Err(ErrorCode::DeviceListFull));
    assert!(list.enrol(key(3), Role::Viewer, "again", UnixMillis(1)).is_ok());
    assert_eq!(list.devices().count(), DEVICE_LIST_MAX);
}

#[test]
fn the_oldest_tombstone_goes_first() {
    let mut list = DeviceList::default();
    for seed in 0..=u16::try_from(DEVICE_TOMBSTONES_MAX).unwrap() {
        let device_id = list.enrol(key(seed), Role::Owner, "", UnixMillis(0)).unwrap();
        list.remove(&device_id, UnixMillis(u64::from(seed)));
    }
    assert!(!list.is_removed(&key(0).device_id()));
    assert!(list.is_removed(&key(1).device_id()));
}

#[test]
fn a_label_is_cut_and_freed_of_control_characters() {
    let mut list = DeviceList::default();
    let label = format!("a\u{1b}[31m\n{}", "ä".repeat(100));
    let device_id = list.enrol(key(1), Role::Owner, &label, UnixMillis(0)).unwrap();
    let label = &list.get(&device_id).unwrap().label;
    assert_eq!(label.chars().count(), LABEL_CHARS_MAX);
    assert!(!label.chars().any(char::is_control));
}

#[test]
fn a_stored_list_that_names_a_device_twice_is_refused() {
    let (list, device_id) = listed(Role::Owner);
    let mut json = serde_json::to_value(&list).unwrap();
    json["tombstones"][device_id.to_string()] = 5.into();
    assert!(serde_json::from_value::<DeviceList>(json).is_err());
    let mut json = serde_json::to_value(&list).unwrap();
    let device = json["devices"][0].clone();
    json["devices"].as_array_mut().unwrap().push(device);
    assert!(serde_json::from_value::<DeviceList>(json).is_err());
}

proptest! {
    #[test]
    fn any_history_survives_storage_and_only_the_desk_widens(
        steps in proptest::collection::vec((0_u8..3, 0_u16..6, 0_u8..3), 0..60),
    ) {
        let roles = [Role::Viewer, Role::Operator, Role::Owner];
        let mut list = DeviceList::default();
        for (index, (step, seed, role)) in steps.into_iter().enumerate() {
            let now = UnixMillis(index as u64);
            let role = roles[usize::from(role)];
            let device_id = key(seed).device_id();
            let before = list.get(&device_id).map(|device| device.role);
            match step {
                0 => { list.enrol(key(seed), role, "x", now).unwrap(); }
                1 => { list.remove(&device_id, now); }
                _ => { list.reduce(&device_id, role); }
            }
            if step != 0 {
                prop_assert!(list.get(&device_id).map(|device| device.role) <= before);
            }
            let stored = serde_json::to_string(&list).unwrap();
            prop_assert_eq!(serde_json::from_str::<DeviceList>(&stored).unwrap(), list.clone());
        }
    }
}
