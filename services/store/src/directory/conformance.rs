//! What every [`Directory`] must do, whatever it is kept in. Each run uses machines, nodes and tickets of its own.
#![expect(clippy::unwrap_used, reason = "a rule that does not hold ends the test that runs the suite")]

use std::time::Duration;

use flydex_domain::epoch::Epoch;
use flydex_domain::id::{AccountId, Incarnation, MachineId, NodeId, TicketId, UserId};
use flydex_domain::placement::{
    Acquisition, LinkPlacement, LinkRecord, NodeRecord, NodeState, OwnerRecord, Reassertion,
};
use flydex_domain::scope::{MachineKey, Principal, Role};
use flydex_domain::time::UnixMillis;
use uuid::Uuid;

use super::{Acquire, Acquired, Cause, Directory, DirectoryError, Holding};

/// Runs every rule against a directory whose leases end soon enough to wait for it.
///
/// # Panics
/// When a rule does not hold.
pub async fn check(directory: &dyn Directory) {
    an_owner_that_asks_again_keeps_its_epoch(directory).await;
    a_live_owner_is_not_dispossessed_unless_it_is_the_one_to_replace(directory).await;
    an_owner_without_a_lease_is_replaced(directory).await;
    an_ownership_is_above_its_floor_and_above_the_last_one(directory).await;
    a_release_keeps_the_epoch_and_only_the_holder_can_release(directory).await;
    the_same_machine_id_in_another_account_is_another_machine(directory).await;
    what_is_found_is_what_was_recorded(directory).await;
    the_newest_link_stays_and_only_the_owner_records_one(directory).await;
    a_reassertion_keeps_the_greater_epoch(directory).await;
    an_epoch_from_the_future_is_refused(directory).await;
    a_node_is_a_member_until_it_leaves_or_falls_silent(directory).await;
    a_renewal_tells_whether_the_lease_was_as_it_was_left(directory).await;
    a_ticket_is_spent_exactly_once(directory).await;
    an_expired_ticket_is_never_spent(directory).await;
}

async fn an_owner_that_asks_again_keeps_its_epoch(directory: &dyn Directory) {
    let (machine, node) = (machine(), node());
    let first = own(directory, machine, node).await;
    assert!(first > Epoch::ZERO);
    assert_eq!(first.incarnation, node);
    assert_eq!(own(directory, machine, node).await, first);
    let again = directory.acquire(Acquire { floor: first, ..acquire(machine, node) }).await;
    assert_eq!(again, Ok(owned(first)));
}

async fn a_live_owner_is_not_dispossessed_unless_it_is_the_one_to_replace(directory: &dyn Directory) {
    let (machine, holder, asker) = (machine(), node(), node());
    directory.renew(record(holder), 1).await.unwrap();
    let epoch = own(directory, machine, holder).await;
    let held = Acquired::Decided(Acquisition::Held(OwnerRecord { holder: Some(holder), epoch, link: None }));
    assert_eq!(directory.acquire(acquire(machine, asker)).await, Ok(held.clone()));
    let wrong = Acquire { replacing: Some(node()), ..acquire(machine, asker) };
    assert_eq!(directory.acquire(wrong).await, Ok(held));
    let right = Acquire { replacing: Some(holder), ..acquire(machine, asker) };
    assert_eq!(directory.acquire(right).await, Ok(owned(epoch.above(asker))));
}

async fn an_owner_without_a_lease_is_replaced(directory: &dyn Directory) {
    let (machine, holder, asker) = (machine(), node(), node());
    let epoch = own(directory, machine, holder).await;
    assert_eq!(directory.acquire(acquire(machine, asker)).await, Ok(owned(epoch.above(asker))));
}

async fn an_ownership_is_above_its_floor_and_above_the_last_one(directory: &dyn Directory) {
    let (machine, first, second) = (machine(), node(), node());
    let one = own(directory, machine, first).await;
    let floor = Epoch { counter: one.counter + 40, incarnation: Incarnation::from_bytes([255; 16]) };
    let above = Acquire { floor, ..acquire(machine, first) };
    assert_eq!(directory.acquire(above).await, Ok(owned(floor.above(first))));
    assert_eq!(directory.acquire(above).await, Ok(owned(floor.above(first))));
    let below = own(directory, machine, second).await;
    assert_eq!(below, floor.above(first).above(second));
    // Of two epochs with one counter the greater incarnation is the greater.
    let tie = Epoch { counter: below.counter, incarnation: Incarnation::from_bytes([255; 16]) };
    let beside = Acquire { floor: tie, ..acquire(machine, second) };
    assert_eq!(directory.acquire(beside).await, Ok(owned(tie.above(second))));
}

async fn a_release_keeps_the_epoch_and_only_the_holder_can_release(directory: &dyn Directory) {
    let (machine, holder, other) = (machine(), node(), node());
    directory.renew(record(holder), 1).await.unwrap();
    let epoch = own(directory, machine, holder).await;
    directory.release(machine, other).await.unwrap();
    assert_eq!(own(directory, machine, holder).await, epoch);
    directory.release(machine, holder).await.unwrap();
    directory.release(machine, holder).await.unwrap();
    assert_eq!(directory.find(machine).await, Ok(Some(OwnerRecord { holder: None, epoch, link: None })));
    assert_eq!(own(directory, machine, other).await, epoch.above(other));
}

async fn the_same_machine_id_in_another_account_is_another_machine(directory: &dyn Directory) {
    let machine_id = MachineId::from_uuid(Uuid::now_v7());
    let (one, other) = (key(machine_id), key(machine_id));
    own(directory, one, node()).await;
    assert_eq!(directory.find(other).await, Ok(None));
}

async fn what_is_found_is_what_was_recorded(directory: &dyn Directory) {
    let (machine, holder) = (machine(), node());
    assert_eq!(directory.find(machine).await, Ok(None));
    let epoch = own(directory, machine, holder).await;
    assert_eq!(directory.find(machine).await, Ok(Some(OwnerRecord { holder: Some(holder), epoch, link: None })));
    directory.set_link(machine, holder, link(3)).await.unwrap();
    let linked = OwnerRecord { holder: Some(holder), epoch, link: Some(link(3)) };
    assert_eq!(directory.find(machine).await, Ok(Some(linked)));
}

async fn the_newest_link_stays_and_only_the_owner_records_one(directory: &dyn Directory) {
    let (machine, holder, other) = (machine(), node(), node());
    assert_eq!(directory.set_link(machine, holder, link(1)).await, Ok(LinkPlacement::NotHeld));
    own(directory, machine, holder).await;
    assert_eq!(directory.set_link(machine, other, link(9)).await, Ok(LinkPlacement::NotHeld));
    assert_eq!(directory.set_link(machine, holder, link(5)).await, Ok(LinkPlacement::Newest));
    assert_eq!(directory.set_link(machine, holder, link(5)).await, Ok(LinkPlacement::Newest));
    let superseded = LinkPlacement::Superseded { counter: 5 };
    assert_eq!(directory.set_link(machine, holder, link(4)).await, Ok(superseded));
    assert_eq!(directory.set_link(machine, holder, link(1 << 40)).await, Ok(LinkPlacement::Absurd));
    // Counters follow the clock: one of today is the first on a record that knows none.
    let fresh = self::machine();
    own(directory, fresh, holder).await;
    assert_eq!(directory.set_link(fresh, holder, link(1_800_000_000)).await, Ok(LinkPlacement::Newest));
    // The counter outlives the ownership.
    own(directory, machine, other).await;
    assert_eq!(directory.set_link(machine, other, link(4)).await, Ok(superseded));
}

async fn a_reassertion_keeps_the_greater_epoch(directory: &dyn Directory) {
    let (known, unknown, taken) = (machine(), machine(), machine());
    let (holder, other) = (node(), node());
    let epoch = own(directory, known, holder).await;
    own(directory, taken, holder).await;
    let later = own(directory, taken, other).await;
    let holding = |machine, link| Holding { machine, epoch, link };
    let holdings = vec![holding(known, Some(link(2))), holding(unknown, None), holding(taken, Some(link(2)))];
    let lost = OwnerRecord { holder: Some(other), epoch: later, link: None };
    let answers = vec![Reassertion::Kept, Reassertion::Kept, Reassertion::Lost(lost.clone())];
    assert_eq!(directory.reassert(holdings.clone()).await, Ok(answers.clone()));
    assert_eq!(directory.reassert(holdings).await, Ok(answers));
    let kept = |link| OwnerRecord { holder: Some(holder), epoch, link };
    assert_eq!(directory.find(known).await, Ok(Some(kept(Some(link(2))))));
    assert_eq!(directory.find(unknown).await, Ok(Some(kept(None))));
    assert_eq!(directory.find(taken).await, Ok(Some(lost)));
    // An older link than the one on record does not come back.
    directory.set_link(known, holder, link(7)).await.unwrap();
    directory.reassert(vec![holding(known, Some(link(2)))]).await.unwrap();
    assert_eq!(directory.find(known).await, Ok(Some(kept(Some(link(7))))));
    // A greater epoch without a link proves nothing against another holder; with nobody there it is taken.
    let greater = Epoch { counter: later.counter + 5, incarnation: other };
    let unlinked = || vec![Holding { machine: known, epoch: greater, link: None }];
    let held = Reassertion::Lost(kept(Some(link(7))));
    assert_eq!(directory.reassert(unlinked()).await, Ok(vec![held]));
    directory.release(known, holder).await.unwrap();
    assert_eq!(directory.reassert(unlinked()).await, Ok(vec![Reassertion::Kept]));
    let record = OwnerRecord { holder: Some(other), epoch: greater, link: Some(link(7)) };
    assert_eq!(directory.find(known).await, Ok(Some(record)));
}

async fn an_epoch_from_the_future_is_refused(directory: &dyn Directory) {
    let machine = machine();
    let floor = Epoch { counter: u64::MAX, incarnation: node() };
    let absurd = Acquire { floor, ..acquire(machine, node()) };
    assert_eq!(directory.acquire(absurd).await, Err(DirectoryError::FromTheFuture));
    let holding = Holding { machine, epoch: floor, link: None };
    assert_eq!(directory.reassert(vec![holding]).await, Err(DirectoryError::FromTheFuture));
    assert_eq!(directory.find(machine).await, Ok(None));
}

async fn a_node_is_a_member_until_it_leaves_or_falls_silent(directory: &dyn Directory) {
    let (leaver, silent) = (node(), node());
    directory.renew(record(leaver), 1).await.unwrap();
    directory.renew(record(silent), 1).await.unwrap();
    let draining = NodeRecord { state: NodeState::Draining, machines: 7, ..record(leaver) };
    directory.renew(draining.clone(), 2).await.unwrap();
    let members = directory.members().await.unwrap().members;
    assert!(members.iter().any(|member| member.record == draining));
    assert!(members.iter().any(|member| member.record == record(silent)));
    assert!(members.is_sorted_by_key(|member| member.record.incarnation));
    directory.leave(leaver).await.unwrap();
    directory.leave(leaver).await.unwrap();
    assert!(!is_member(directory, leaver).await);
    while is_member(directory, silent).await {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn a_renewal_tells_whether_the_lease_was_as_it_was_left(directory: &dyn Directory) {
    let node = node();
    let first = directory.renew(record(node), 1).await.unwrap();
    assert!(!first.continuous);
    for beat in [2, 3, 3, 4] {
        let renewal = directory.renew(record(node), beat).await.unwrap();
        assert!(renewal.continuous, "beat {beat}");
        assert_eq!(renewal.life, first.life);
    }
    // The directory has gone back to a time before beat 5 to 8.
    assert!(!directory.renew(record(node), 9).await.unwrap().continuous);
    directory.leave(node).await.unwrap();
    assert!(!directory.renew(record(node), 10).await.unwrap().continuous);
    assert_eq!(directory.members().await.unwrap().life, first.life);
    directory.leave(node).await.unwrap();
}

async fn a_ticket_is_spent_exactly_once(directory: &dyn Directory) {
    let ticket_id = TicketId::from_uuid(Uuid::now_v7());
    let (expires_at, now) = (UnixMillis(60_000), UnixMillis(0));
    assert_eq!(directory.spend_ticket(ticket_id, expires_at, now).await, Ok(true));
    assert_eq!(directory.spend_ticket(ticket_id, expires_at, now).await, Ok(false));
    assert_eq!(directory.spend_ticket(ticket_id, expires_at, expires_at).await, Ok(false));
    assert_eq!(directory.spend_ticket(TicketId::from_uuid(Uuid::now_v7()), expires_at, now).await, Ok(true));
}

async fn an_expired_ticket_is_never_spent(directory: &dyn Directory) {
    let ticket_id = TicketId::from_uuid(Uuid::now_v7());
    let late = UnixMillis(10_000_000);
    assert_eq!(directory.spend_ticket(ticket_id, UnixMillis(60_000), late).await, Ok(false));
}

/// A node that nobody else is.
#[must_use]
pub fn node() -> Incarnation {
    Incarnation::from_bytes(*Uuid::new_v4().as_bytes())
}

/// A machine of an account that nobody else has.
#[must_use]
pub fn machine() -> MachineKey {
    key(MachineId::from_uuid(Uuid::now_v7()))
}

/// What a node says of itself.
#[must_use]
pub fn record(node: Incarnation) -> NodeRecord {
    let node_id = NodeId::try_from("node".to_owned()).expect("the name is lower case");
    let address = "https://node.internal:7443".to_owned();
    NodeRecord { incarnation: node, node_id, address, state: NodeState::Active, machines: 3 }
}

/// A request for a machine because its connector has come.
#[must_use]
pub const fn acquire(machine: MachineKey, asker: Incarnation) -> Acquire {
    Acquire { machine, asker, floor: Epoch::ZERO, replacing: None, cause: Cause::Link }
}

/// Makes a node the owner.
///
/// # Panics
/// When another is.
pub async fn own(directory: &dyn Directory, machine: MachineKey, asker: Incarnation) -> Epoch {
    match directory.acquire(acquire(machine, asker)).await {
        Ok(Acquired::Decided(Acquisition::Owned(epoch))) => epoch,
        other => panic!("not owned: {other:?}"),
    }
}

const fn owned(epoch: Epoch) -> Acquired {
    Acquired::Decided(Acquisition::Owned(epoch))
}

fn link(counter: u64) -> LinkRecord {
    LinkRecord { counter, gateway_id: NodeId::try_from("gateway".to_owned()).expect("the name is lower case") }
}

async fn is_member(directory: &dyn Directory, node: Incarnation) -> bool {
    let members = directory.members().await.expect("the directory is up").members;
    members.iter().any(|member| member.record.incarnation == node)
}

fn key(machine_id: MachineId) -> MachineKey {
    let principal = Principal::User {
        account_id: AccountId::from_uuid(Uuid::now_v7()),
        user_id: UserId::from_uuid(Uuid::now_v7()),
        role: Role::Owner,
    };
    MachineKey::new(principal.scope(), machine_id)
}
