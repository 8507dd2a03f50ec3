//! A file in memory whose disk can be filled, for tests.

use std::io;
use std::sync::{Arc, Mutex, mpsc};

use super::Storage;

/// Shared with the test: content that survives a restart, and the fault.
#[derive(Clone, Default)]
pub(crate) struct MemoryStorage(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    content: Vec<u8>,
    aside: Option<Vec<u8>>,
    full: bool,
    before_write: Option<Box<dyn FnMut() + Send>>,
}

impl MemoryStorage {
    pub(crate) fn with(content: Vec<u8>) -> Self {
        let storage = Self::default();
        storage.0.lock().unwrap().content = content;
        storage
    }

    pub(crate) fn fill_disk(&self, full: bool) {
        self.0.lock().unwrap().full = full;
    }

    /// Does something before each write: what a slow disk lets happen.
    pub(crate) fn before_write(&self, happens: impl FnMut() + Send + 'static) {
        self.0.lock().unwrap().before_write = Some(Box::new(happens));
    }

    /// Whoever writes waits until what is returned is dropped.
    pub(crate) fn hold(&self) -> mpsc::Sender<()> {
        let (release, released) = mpsc::channel();
        let (held_tx, held) = mpsc::channel();
        let state = self.0.clone();
        std::thread::spawn(move || {
            let _state = state.lock().unwrap();
            held_tx.send(()).unwrap();
            // Dropped, never sent.
            let _ = released.recv();
        });
        held.recv().unwrap();
        release
    }

    pub(crate) fn content(&self) -> Vec<u8> {
        self.0.lock().unwrap().content.clone()
    }

    pub(crate) fn aside(&self) -> Option<Vec<u8>> {
        self.0.lock().unwrap().aside.clone()
    }

    fn write(&self, change: impl FnOnce(&mut State)) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        if let Some(happens) = &mut state.before_write {
            happens();
        }
        if state.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        change(&mut state);
        Ok(())
    }
}

impl Storage for MemoryStorage {
    fn load(&mut self) -> io::Result<Vec<u8>> {
        Ok(self.content())
    }

    fn truncate(&mut self, bytes: u64) -> io::Result<()> {
        self.write(|state| state.content.truncate(usize::try_from(bytes).unwrap()))
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write(|state| state.content.extend_from_slice(bytes))
    }

    fn replace(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write(|state| state.content = bytes.to_vec())
    }

    fn set_aside(&mut self) -> io::Result<()> {
        self.write(|state| state.aside = Some(std::mem::take(&mut state.content)))
    }
}
