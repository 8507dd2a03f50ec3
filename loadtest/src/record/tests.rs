mod approvals;

use std::sync::Arc;

use flydex_domain::id::{Incarnation, SessionId};
use uuid::Uuid;

use super::*;

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn what_was_found_while_it_happened_is_found_again_in_the_file() {
    let file = Shared::default();
    let recorder = Recorder::new(Some(Box::new(file.clone())));
    let machine = MachineId::from_uuid(Uuid::from_u128(1));
    let (device, hash) = (DeviceId::from_bytes([2; 32]), CommandHash::from_bytes([3; 32]));
    let (session, id) = (SessionId::from_uuid(Uuid::from_u128(5)), CommandId::from_uuid(Uuid::from_u128(4)));
    let epoch = Epoch { counter: 1, incarnation: Incarnation::from_bytes([1; 16]) };
    recorder.take(1, machine, Entry::Attached { epoch });
    recorder.take(
        2,
        machine,
        Entry::Asked { device, id, hash, kind: "start_turn".to_owned(), effect: true, intended_us: 2 },
    );
    recorder.take(3, machine, Entry::Journalled { device, id, hash });
    recorder.acted(4, machine, id, epoch);
    recorder.take(5, machine, Entry::Told { device, id, hash, effect: true, word: TheWord::Executed });
    recorder.take(6, machine, Entry::Watches { session, stream: 0, after: 7, resumed: Some(7) });
    recorder.take(7, machine, Entry::Seen { session, stream: 0, seq: 8 });
    let clean = recorder.verdict().unwrap();
    assert_eq!((clean.broken, clean.unanswered, clean.acted, clean.seen), (0, 0, 1, 1), "{:?}", clean.violations);

    recorder.acted(8, machine, id, epoch);
    recorder.take(9, machine, Entry::Seen { session, stream: 0, seq: 10 });
    recorder.take(10, machine, Entry::Watches { session, stream: 0, after: 12, resumed: Some(11) });
    recorder.acted(11, machine, CommandId::from_uuid(Uuid::from_u128(9)), epoch);
    let told = recorder.verdict().unwrap();
    let read = check(file.0.lock().unwrap().as_slice()).unwrap();
    assert_eq!((told.broken, told.lines), (4, 11));
    assert_eq!((read.broken, read.violations), (told.broken, told.violations));
}

#[test]
fn a_line_that_is_none_is_named() {
    let error = check(&b"{\"t\":1}\n"[..]).unwrap_err().to_string();
    assert!(error.starts_with("line 1: "), "{error}");
}
