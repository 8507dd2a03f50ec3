use ed25519_dalek::SigningKey;
use uuid::Uuid;

use super::*;
use crate::limits::DEVICE_LIST_MAX;

const NOW: UnixMillis = UnixMillis(1_000_000);

fn key(seed: u8) -> PublicKey {
    PublicKey::of(&SigningKey::from_bytes(&[seed; 32]))
}

fn list() -> DeviceList {
    let mut list = DeviceList::default();
    for (seed, role) in [(1, Role::Owner), (2, Role::Operator), (3, Role::Viewer)] {
        list.enrol(key(seed), role, "phone", UnixMillis(1)).unwrap();
    }
    list
}

fn endorser(seed: u8, role: Role) -> Endorser {
    Endorser { device_id: key(seed).device_id(), role }
}

fn endorsement() -> Endorsement {
    Endorsement {
        key: key(9),
        role: Role::Viewer,
        label: "laptop".to_owned(),
        expires_at: UnixMillis(NOW.0 + 60_000),
        list_version: 3,
        introduction_mac: [7; 32],
    }
}

fn admitted(list: &DeviceList, endorsement: &Endorsement) -> Result<(), ErrorCode> {
    admit(list, true, endorser(1, Role::Owner), endorsement, NOW)
}

#[test]
fn an_owner_device_endorses_up_to_its_own_role() {
    for role in [Role::Viewer, Role::Operator, Role::Owner] {
        let mut list = list();
        let endorsement = Endorsement { role, ..endorsement() };
        admitted(&list, &endorsement).unwrap();
        let device_id = enrol(&mut list, endorser(1, Role::Owner), &endorsement, NOW).unwrap();
        let device = list.get(&device_id).unwrap();
        assert_eq!((device.role, device.label.as_str(), device.enrolled_at), (role, "laptop", NOW));
        assert_eq!(device.introducer, Some(Introducer { device_id: key(1).device_id(), mac: [7; 32] }));
        assert_eq!(list.version(), 4);
    }
}

#[test]
fn nobody_but_an_enrolled_owner_endorses() {
    let list = list();
    for who in [
        endorser(1, Role::Operator),
        endorser(2, Role::Owner),
        endorser(2, Role::Operator),
        endorser(3, Role::Viewer),
        endorser(8, Role::Owner),
    ] {
        assert_eq!(admit(&list, true, who, &endorsement(), NOW), Err(ErrorCode::RoleInsufficient));
    }
    let denied = admit(&list, false, endorser(1, Role::Owner), &endorsement(), NOW);
    assert_eq!(denied, Err(ErrorCode::EnrolmentAtDeskOnly));
}

#[test]
fn what_is_old_stale_removed_or_malformed_is_refused_with_its_own_code() {
    let mut removed = list();
    let gone = removed.enrol(key(9), Role::Viewer, "laptop", UnixMillis(2)).unwrap();
    assert!(removed.remove(&gone, UnixMillis(3)));
    let at = |list: &DeviceList| Endorsement { list_version: list.version(), ..endorsement() };
    assert_eq!(admitted(&removed, &at(&removed)), Err(ErrorCode::DeviceRevoked));
    for (changed, code) in [
        (Endorsement { expires_at: NOW, ..endorsement() }, ErrorCode::EndorsementExpired),
        (
            Endorsement { expires_at: NOW.plus(ENDORSEMENT_LIFETIME_MAX * 2), ..endorsement() },
            ErrorCode::LifetimeTooLong,
        ),
        (Endorsement { list_version: 2, ..endorsement() }, ErrorCode::DeviceListStale),
        (Endorsement { list_version: 4, ..endorsement() }, ErrorCode::DeviceListStale),
        (Endorsement { key: key(1), ..endorsement() }, ErrorCode::BadRequest),
        (Endorsement { label: " ".to_owned(), ..endorsement() }, ErrorCode::BadRequest),
        (Endorsement { label: "a\u{1b}[2J".to_owned(), ..endorsement() }, ErrorCode::BadRequest),
        (Endorsement { label: "x".repeat(LABEL_CHARS_MAX + 1), ..endorsement() }, ErrorCode::BadRequest),
    ] {
        assert_eq!(admitted(&list(), &changed), Err(code));
    }
}

#[test]
fn a_full_list_takes_no_new_device_and_may_change_a_listed_one() {
    let mut full = list();
    for seed in 10..10 + u8::try_from(DEVICE_LIST_MAX - 3).unwrap() {
        full.enrol(key(seed), Role::Viewer, "other", UnixMillis(1)).unwrap();
    }
    let new = Endorsement { list_version: full.version(), ..endorsement() };
    assert_eq!(admitted(&full, &new), Err(ErrorCode::DeviceListFull));
    let listed = Endorsement { key: key(3), role: Role::Operator, ..new };
    admitted(&full, &listed).unwrap();
    enrol(&mut full, endorser(1, Role::Owner), &listed, NOW).unwrap();
    assert_eq!(full.get(&key(3).device_id()).unwrap().role, Role::Operator);
}

#[test]
fn an_introduction_holds_for_its_terms_and_its_secret_only() {
    let terms = IntroductionTerms {
        origin: "https://relay.example".to_owned(),
        account_id: AccountId::from_uuid(Uuid::from_u128(1)),
        machine_id: MachineId::from_uuid(Uuid::from_u128(2)),
        machine_key: key(4),
        device_key: key(9),
        role: Role::Viewer,
    };
    let secret = SecretKey::new([5; 32]);
    let mac = terms.mac(&secret);
    assert!(terms.verify_mac(&secret, &mac));
    assert!(!terms.verify_mac(&SecretKey::new([6; 32]), &mac));
    for other in [
        IntroductionTerms { origin: "https://other.example".to_owned(), ..terms.clone() },
        IntroductionTerms { account_id: AccountId::from_uuid(Uuid::from_u128(9)), ..terms.clone() },
        IntroductionTerms { machine_id: MachineId::from_uuid(Uuid::from_u128(9)), ..terms.clone() },
        IntroductionTerms { machine_key: key(9), ..terms.clone() },
        IntroductionTerms { device_key: key(4), ..terms.clone() },
        IntroductionTerms { role: Role::Owner, ..terms.clone() },
    ] {
        assert!(!other.verify_mac(&secret, &mac));
    }
}
