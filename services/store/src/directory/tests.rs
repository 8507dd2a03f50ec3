use flydex_domain::id::{AccountId, MachineId};
use flydex_domain::scope::Principal;
use uuid::Uuid;

use super::*;

#[tokio::test]
async fn the_in_process_directory_conforms() {
    conformance::check(&InProcessDirectory::new()).await;
}

#[tokio::test]
async fn a_full_directory_forgets_released_machines_and_else_refuses() {
    let directory = InProcessDirectory::with_bounds(2, 1);
    let holder = Incarnation::from_bytes([1; 16]);
    directory.acquire(machine(1), holder, Epoch::ZERO).await.unwrap();
    directory.acquire(machine(2), holder, Epoch::ZERO).await.unwrap();
    assert_eq!(directory.acquire(machine(3), holder, Epoch::ZERO).await, Err(DirectoryError::Full));
    directory.release(machine(1), holder).await.unwrap();
    assert!(directory.acquire(machine(3), holder, Epoch::ZERO).await.is_ok());
    assert_eq!(directory.records().owners.len(), 2);
}

#[tokio::test]
async fn spent_tickets_are_forgotten_when_they_expire_and_bounded_until_then() {
    let directory = InProcessDirectory::with_bounds(1, 1);
    let ticket = |number| TicketId::from_uuid(Uuid::from_u128(number));
    let (end, now) = (UnixMillis(60_000), UnixMillis(0));
    assert_eq!(directory.spend_ticket(ticket(1), end, now).await, Ok(true));
    assert_eq!(directory.spend_ticket(ticket(2), end, now).await, Err(DirectoryError::Full));
    let later = end.plus(TOKEN_SKEW_MAX);
    assert_eq!(directory.spend_ticket(ticket(2), UnixMillis(200_000), later).await, Ok(true));
    assert_eq!(directory.records().spent.len(), 1);
    assert_eq!(directory.records().spent_until.len(), 1);
}

#[tokio::test]
async fn racing_spenders_of_one_ticket_have_one_winner() {
    let directory = InProcessDirectory::new();
    let ticket = TicketId::from_uuid(Uuid::from_u128(7));
    let wins = std::thread::scope(|scope| {
        let spend = || {
            futures_util::FutureExt::now_or_never(directory.spend_ticket(ticket, UnixMillis(60_000), UnixMillis(0)))
                .unwrap()
                .unwrap()
        };
        let racers: Vec<_> = (0..8).map(|_| scope.spawn(spend)).collect();
        racers.into_iter().map(|racer| usize::from(racer.join().unwrap())).sum::<usize>()
    });
    assert_eq!(wins, 1);
}

fn machine(number: u128) -> MachineKey {
    let machine = Principal::Machine {
        account_id: AccountId::from_uuid(Uuid::from_u128(1)),
        machine_id: MachineId::from_uuid(Uuid::from_u128(number)),
    };
    MachineKey::new(machine.scope(), MachineId::from_uuid(Uuid::from_u128(number)))
}
