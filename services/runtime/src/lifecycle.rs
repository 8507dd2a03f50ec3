//! Soft and hard stop: every task is tracked, told to finish, and after a deadline told to end at once.

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The stop signals of a process and the tasks that must end before it does. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    soft: CancellationToken,
    hard: CancellationToken,
    tasks: TaskTracker,
}

impl Shutdown {
    /// A process that runs.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks every task to finish what it has begun, and to begin nothing.
    pub fn begin(&self) {
        self.soft.cancel();
    }

    /// Asks every task to end at once.
    pub fn force(&self) {
        self.soft.cancel();
        self.hard.cancel();
    }

    /// Cancelled when the drain begins.
    #[must_use]
    pub fn soft(&self) -> CancellationToken {
        self.soft.clone()
    }

    /// Cancelled when waiting is over.
    #[must_use]
    pub fn hard(&self) -> CancellationToken {
        self.hard.clone()
    }

    /// Runs a task that the stop waits for.
    pub fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tasks.spawn(task);
    }

    /// Drains: soft stop, then after `grace` the hard stop, then `grace` again at most. True when all ended.
    pub async fn drain(&self, grace: Duration) -> bool {
        self.begin();
        self.tasks.close();
        if tokio::time::timeout(grace, self.tasks.wait()).await.is_ok() {
            return true;
        }
        self.force();
        tokio::time::timeout(grace, self.tasks.wait()).await.is_ok()
    }

    /// Waits for SIGINT or SIGTERM, begins the soft stop, and makes a second signal the hard one.
    ///
    /// # Errors
    /// When the signals cannot be listened for.
    pub async fn on_signals(&self) -> std::io::Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        self.begin();
        let shutdown = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            shutdown.force();
        });
        Ok(())
    }
}
