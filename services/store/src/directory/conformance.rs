//! What every [`Directory`] must do, whatever it is kept in. Each run uses machines and tickets of its own.

use flydex_domain::epoch::Epoch;
use flydex_domain::id::{AccountId, Incarnation, MachineId, TicketId, UserId};
use flydex_domain::scope::{MachineKey, Principal, Role};
use flydex_domain::time::UnixMillis;
use uuid::Uuid;

use super::Directory;

/// Runs every rule against a directory.
pub(crate) async fn check(directory: &dyn Directory) {
    an_owner_that_asks_again_keeps_its_epoch(directory).await;
    another_holder_gets_a_greater_epoch(directory).await;
    an_acquire_is_never_below_its_floor(directory).await;
    a_release_keeps_the_epoch_and_only_the_holder_can_release(directory).await;
    the_same_machine_id_in_another_account_is_another_machine(directory).await;
    a_ticket_is_spent_exactly_once(directory).await;
    an_expired_ticket_is_never_spent(directory).await;
}

async fn an_owner_that_asks_again_keeps_its_epoch(directory: &dyn Directory) {
    let machine = machine();
    let first = directory.acquire(machine, holder(1), Epoch::ZERO).await.unwrap();
    assert!(first > Epoch::ZERO);
    assert_eq!(first.incarnation, holder(1));
    assert_eq!(directory.acquire(machine, holder(1), Epoch::ZERO).await, Ok(first));
    assert_eq!(directory.acquire(machine, holder(1), first).await, Ok(first));
}

async fn another_holder_gets_a_greater_epoch(directory: &dyn Directory) {
    let machine = machine();
    let first = directory.acquire(machine, holder(2), Epoch::ZERO).await.unwrap();
    let second = directory.acquire(machine, holder(1), Epoch::ZERO).await.unwrap();
    let third = directory.acquire(machine, holder(2), Epoch::ZERO).await.unwrap();
    assert!(first < second && second < third);
}

async fn an_acquire_is_never_below_its_floor(directory: &dyn Directory) {
    let machine = machine();
    let own = directory.acquire(machine, holder(1), Epoch::ZERO).await.unwrap();
    let floor = Epoch { counter: own.counter + 40, incarnation: holder(9) };
    let above = directory.acquire(machine, holder(1), floor).await.unwrap();
    assert!(above > floor);
    assert_eq!(directory.acquire(machine, holder(1), floor).await, Ok(above));
}

async fn a_release_keeps_the_epoch_and_only_the_holder_can_release(directory: &dyn Directory) {
    let machine = machine();
    let first = directory.acquire(machine, holder(1), Epoch::ZERO).await.unwrap();
    directory.release(machine, holder(2)).await.unwrap();
    assert_eq!(directory.acquire(machine, holder(1), Epoch::ZERO).await, Ok(first));
    directory.release(machine, holder(1)).await.unwrap();
    directory.release(machine, holder(1)).await.unwrap();
    assert!(directory.acquire(machine, holder(2), Epoch::ZERO).await.unwrap() > first);
}

async fn the_same_machine_id_in_another_account_is_another_machine(directory: &dyn Directory) {
    let machine_id = MachineId::from_uuid(Uuid::now_v7());
    let first = directory.acquire(key(machine_id), holder(1), Epoch::ZERO).await.unwrap();
    let foreign = directory.acquire(key(machine_id), holder(2), Epoch::ZERO).await.unwrap();
    assert_eq!(first.counter, foreign.counter);
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

fn holder(tag: u8) -> Incarnation {
    Incarnation::from_bytes([tag; 16])
}

fn machine() -> MachineKey {
    key(MachineId::from_uuid(Uuid::now_v7()))
}

/// A machine of an account that nobody else has.
fn key(machine_id: MachineId) -> MachineKey {
    let principal = Principal::User {
        account_id: AccountId::from_uuid(Uuid::now_v7()),
        user_id: UserId::from_uuid(Uuid::now_v7()),
        role: Role::Owner,
    };
    MachineKey::new(principal.scope(), machine_id)
}
