//! The one way to the CLI's own output: standard output, line by line. Logs go to standard error.

use std::fmt;
use std::io::{self, IsTerminal as _, Write};
use std::sync::{Arc, Mutex, PoisonError};

/// Standard output, or a buffer of a test. Cheap to clone.
#[derive(Clone)]
pub struct Screen {
    out: Arc<Mutex<Box<dyn Write + Send>>>,
    terminal: bool,
}

impl Screen {
    /// Standard output.
    #[must_use]
    pub fn stdout() -> Self {
        Self { out: Arc::new(Mutex::new(Box::new(io::stdout()))), terminal: io::stdout().is_terminal() }
    }

    /// Writes into anything else, as if it were a pipe.
    #[must_use]
    pub fn of(out: impl Write + Send + 'static) -> Self {
        Self { out: Arc::new(Mutex::new(Box::new(out))), terminal: false }
    }

    /// Whether a person looks at it directly.
    #[must_use]
    pub const fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Writes a line. That nobody reads any more is no error of ours.
    pub fn line(&self, text: &str) {
        self.write(&format!("{text}\n"));
    }

    /// Writes a question; a person answers on the same line, a program reads whole lines.
    pub fn prompt(&self, text: &str) {
        let end = if self.terminal { " " } else { "\n" };
        self.write(&format!("{text}{end}"));
    }

    fn write(&self, text: &str) {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}

impl fmt::Debug for Screen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Screen")
    }
}
