use flydex_domain::command::{CommandKind, Outcome};
use flydex_domain::gate::Known;
use flydex_domain::id::{CommandHash, CommandId, DeviceId};
use flydex_domain::journal::{Begun, Key, Record, Settled, encode};
use flydex_domain::time::UnixMillis;
use uuid::Uuid;

use super::*;
use crate::storage::memory::MemoryStorage;

fn key() -> Key {
    (DeviceId::from_bytes([1; 32]), CommandId::from_uuid(Uuid::from_u128(1)))
}

fn begun() -> Vec<u8> {
    encode(&Record::Begun(Begun {
        key: key(),
        hash: CommandHash::from_bytes([1; 32]),
        kind: CommandKind::StartTurn,
        issued_at: UnixMillis(1),
        at: UnixMillis(1),
        thread_id: String::new(),
    }))
}

fn settled() -> Vec<u8> {
    encode(&Record::Settled(Settled {
        key: key(),
        hash: CommandHash::from_bytes([1; 32]),
        outcome: Outcome::Executed,
        issued_at: UnixMillis(1),
        at: UnixMillis(1),
        ids: Vec::new(),
    }))
}

fn whole() -> Vec<u8> {
    [HEADER.as_slice(), &begun(), &settled()].concat()
}

fn state(journal: &Journal) -> Option<Known> {
    journal.get(&key()).map(|entry| entry.remembered().state)
}

#[test]
fn a_torn_tail_is_cut_and_the_journal_goes_on_behind_it() {
    let mut content = whole();
    content.truncate(content.len() - 3);
    let mut storage = MemoryStorage::with(content);
    assert_eq!(state(&open(&mut storage).unwrap()), Some(Known::LeftOpen));
    storage.append(&settled()).unwrap();
    assert_eq!(storage.content(), whole());
    assert_eq!(state(&open(&mut storage).unwrap()), Some(Known::Settled(Outcome::Executed)));
}

#[test]
fn a_damaged_journal_is_set_aside_and_a_new_one_begins() {
    let mut content = whole();
    content[20] ^= 1;
    let mut storage = MemoryStorage::with(content.clone());
    assert_eq!(state(&open(&mut storage).unwrap()), None);
    assert_eq!(storage.aside(), Some(content));
    assert_eq!(storage.content(), HEADER);
}

#[tokio::test]
async fn writes_are_told_in_order_and_a_full_disk_is_told_too() {
    let storage = MemoryStorage::with(HEADER.to_vec());
    let shutdown = Shutdown::new();
    let (tx, mut rx) = mpsc::channel(16);
    let writer = JournalWriter::start(Box::new(storage.clone()), tx, &shutdown);
    assert!(writer.send(Write::Append { frames: begun(), token: 1 }));
    assert!(writer.send(Write::Append { frames: settled(), token: 2 }));
    let mut told = Vec::new();
    while told.len() < 2 {
        let written = rx.recv().await.unwrap();
        assert!(written.durable);
        told.extend(written.tokens);
    }
    assert_eq!(told, [1, 2]);
    assert_eq!(storage.content(), whole());

    storage.fill_disk(true);
    assert!(writer.send(Write::Append { frames: settled(), token: 3 }));
    assert!(!rx.recv().await.unwrap().durable);
    storage.fill_disk(false);
    assert!(writer.send(Write::Rewrite { content: HEADER.to_vec(), token: 4 }));
    assert!(rx.recv().await.unwrap().durable);
    assert_eq!(storage.content(), HEADER);
}
