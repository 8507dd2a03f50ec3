use flydex_domain::epoch::Epoch;
use flydex_domain::id::{AccountId, MachineId};
use flydex_domain::scope::Principal;
use uuid::Uuid;

use super::*;
use crate::directory::{Cause, conformance};

#[tokio::test]
async fn the_in_process_directory_conforms() {
    conformance::check(&InProcessDirectory::with_lease(Duration::from_millis(200))).await;
}

#[tokio::test]
async fn a_full_directory_forgets_released_machines_and_else_refuses() {
    let directory = InProcessDirectory { bounds: Bounds { machines_max: 2, ..few() }, ..InProcessDirectory::new() };
    let holder = Incarnation::from_bytes([1; 16]);
    directory.acquire(acquire(1)).await.unwrap();
    directory.acquire(acquire(2)).await.unwrap();
    assert_eq!(directory.acquire(acquire(3)).await, Err(DirectoryError::Full));
    directory.release(acquire(1).machine, holder).await.unwrap();
    assert!(directory.acquire(acquire(3)).await.is_ok());
    assert_eq!(directory.records().owners.len(), 2);
}

#[tokio::test]
async fn spent_tickets_are_forgotten_when_they_expire_and_bounded_until_then() {
    let directory = InProcessDirectory { bounds: few(), ..InProcessDirectory::new() };
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

fn few() -> Bounds {
    Bounds { machines_max: 1, tickets_max: 1, lease_dead_after: LEASE_DEAD_AFTER }
}

fn acquire(number: u128) -> Acquire {
    let machine = Principal::Machine {
        account_id: AccountId::from_uuid(Uuid::from_u128(1)),
        machine_id: MachineId::from_uuid(Uuid::from_u128(number)),
    };
    Acquire {
        machine: MachineKey::new(machine.scope(), MachineId::from_uuid(Uuid::from_u128(number))),
        asker: Incarnation::from_bytes([1; 16]),
        floor: Epoch::ZERO,
        replacing: None,
        cause: Cause::Link,
    }
}
