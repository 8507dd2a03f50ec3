//! A machine's files, in memory: as durable as this process, which is the only machine there is.
//!
//! What becomes durable is told to a listener before the connector may act on it.

use std::io;

use flydex_connector::storage::Storage;

type Listen = dyn FnMut(&[u8]) + Send;

/// A file in memory.
pub(super) struct Memory {
    content: Vec<u8>,
    listen: Box<Listen>,
}

impl Memory {
    /// A file with this content that nobody listens to.
    pub(super) fn with(content: Vec<u8>) -> Self {
        Self { content, listen: Box::new(|_| {}) }
    }

    /// An empty file; `listen` gets whatever is appended or replaces the rest.
    pub(super) fn heard_by(listen: impl FnMut(&[u8]) + Send + 'static) -> Self {
        Self { content: Vec::new(), listen: Box::new(listen) }
    }
}

impl Storage for Memory {
    fn load(&mut self) -> io::Result<Vec<u8>> {
        Ok(self.content.clone())
    }

    fn truncate(&mut self, bytes: u64) -> io::Result<()> {
        self.content.truncate(usize::try_from(bytes).unwrap_or(usize::MAX));
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.content.extend_from_slice(bytes);
        (self.listen)(bytes);
        Ok(())
    }

    fn replace(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.content.clear();
        self.content.extend_from_slice(bytes);
        (self.listen)(bytes);
        Ok(())
    }

    fn set_aside(&mut self) -> io::Result<()> {
        self.content.clear();
        Ok(())
    }
}
