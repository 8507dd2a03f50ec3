//! How late this process runs, and what it does without while it is late.
//!
//! A task sleeps for a moment and looks how much later it was woken: that is how long everything waits for its turn. Only
//! a delay that stands, the least of the last few, says that there is more to do than can be done; a stall passes by
//! itself. What is shed is shed in the order of what it is worth to the people: newcomers, who find another gateway,
//! then pages of history, new streams of events, and commands. Approvals, interrupts and what keeps a connection alive
//! are never shed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use flydex_domain::limits::{
    RUN_DELAY_LOOK_INTERVAL, RUN_DELAY_LOOKS, SHED_BULK_AFTER, SHED_COMMANDS_AFTER, SHED_EVENTS_AFTER,
    SHED_NEWCOMERS_AFTER,
};
use flydex_proto::v1::CommandKind;
use flydex_runtime::lifecycle::Shutdown;
use tokio::time::Instant;

use crate::metrics::Metrics;

/// What a piece of work is worth, most first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Answers, and what ends work.
    Approval,
    /// A command.
    Command,
    /// A new stream of events.
    Events,
    /// A page.
    Bulk,
    /// A peer that is not in yet.
    Newcomer,
}

impl Class {
    /// The class of a command.
    pub(crate) const fn of(kind: CommandKind) -> Self {
        match kind {
            CommandKind::Interrupt
            | CommandKind::AnswerApproval
            | CommandKind::AnswerQuestion
            | CommandKind::UnwatchThread => Self::Approval,
            CommandKind::Unspecified
            | CommandKind::Attach
            | CommandKind::StartThread
            | CommandKind::StartTurn
            | CommandKind::Steer
            | CommandKind::RenameThread
            | CommandKind::ArchiveThread
            | CommandKind::UnarchiveThread
            | CommandKind::Review
            | CommandKind::EndorseDevice
            | CommandKind::PinPasskey => Self::Command,
            CommandKind::WatchThread => Self::Events,
            CommandKind::ListThreads | CommandKind::ReadThread | CommandKind::ListModels | CommandKind::ListDevices => {
                Self::Bulk
            }
        }
    }

    /// Whether it is shed while everything waits that long.
    const fn is_shed(self, delay: Duration) -> bool {
        let bearable = match self {
            Self::Approval => return false,
            Self::Command => SHED_COMMANDS_AFTER,
            Self::Events => SHED_EVENTS_AFTER,
            Self::Bulk => SHED_BULK_AFTER,
            Self::Newcomer => SHED_NEWCOMERS_AFTER,
        };
        delay.as_nanos() >= bearable.as_nanos()
    }
}

/// The delay of this process.
#[derive(Default)]
pub(crate) struct Load {
    delay_us: AtomicU64,
}

impl Load {
    /// Whether work of that class is to be refused now.
    pub(crate) fn sheds(&self, class: Class) -> bool {
        class.is_shed(Duration::from_micros(self.delay_us.load(Ordering::Relaxed)))
    }

    /// Measures until the drain begins; from then on nothing is shed.
    pub(crate) async fn measure(self: Arc<Self>, shutdown: Shutdown, metrics: Arc<Metrics>) {
        let soft = shutdown.soft();
        let measure = async {
            let mut standing = Standing::default();
            loop {
                let due = Instant::now() + RUN_DELAY_LOOK_INTERVAL;
                tokio::time::sleep_until(due).await;
                let delay = standing.observe(due.elapsed());
                metrics.run_delay(delay);
                self.set(delay);
            }
        };
        tokio::select! {
            () = soft.cancelled() => {}
            () = measure => {}
        }
        self.set(Duration::ZERO);
    }

    pub(crate) fn set(&self, delay: Duration) {
        self.delay_us.store(u64::try_from(delay.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// The least of the last delays.
#[derive(Default)]
struct Standing {
    last: [Duration; RUN_DELAY_LOOKS],
    next: usize,
}

impl Standing {
    /// Takes note of one delay. The least of the last ones.
    fn observe(&mut self, delay: Duration) -> Duration {
        self.last[self.next] = delay;
        self.next = (self.next + 1) % RUN_DELAY_LOOKS;
        self.last.into_iter().min().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newcomers_are_shed_first_then_bulk_events_and_commands_and_approvals_never() {
        let order = [Class::Newcomer, Class::Bulk, Class::Events, Class::Command, Class::Approval];
        let shed = |delay| order.map(|class| class.is_shed(delay));
        assert_eq!(shed(Duration::ZERO), [false; 5]);
        assert_eq!(shed(SHED_NEWCOMERS_AFTER), [true, false, false, false, false]);
        assert_eq!(shed(SHED_BULK_AFTER), [true, true, false, false, false]);
        assert_eq!(shed(SHED_EVENTS_AFTER), [true, true, true, false, false]);
        assert_eq!(shed(SHED_COMMANDS_AFTER), [true, true, true, true, false]);
        assert_eq!(shed(Duration::MAX), [true, true, true, true, false]);
    }

    #[test]
    fn what_stops_something_or_answers_is_never_shed() {
        for kind in [CommandKind::Interrupt, CommandKind::AnswerApproval, CommandKind::AnswerQuestion] {
            assert_eq!(Class::of(kind), Class::Approval);
        }
        assert_eq!(Class::of(CommandKind::ReadThread), Class::Bulk);
        assert_eq!(Class::of(CommandKind::StartTurn), Class::Command);
    }

    #[test]
    fn a_stall_is_no_standing_delay() {
        let mut standing = Standing::default();
        let (short, long) = (Duration::from_millis(2), Duration::from_secs(2));
        for _ in 1..RUN_DELAY_LOOKS {
            assert_eq!(standing.observe(long), Duration::ZERO);
        }
        assert_eq!(standing.observe(long), long, "all of them were long");
        assert_eq!(standing.observe(short), short, "it is over at once");
    }

    #[tokio::test]
    async fn a_thread_that_is_kept_busy_shows_as_delay_until_the_drain() {
        let (load, shutdown) = (Arc::new(Load::default()), Shutdown::new());
        let measuring = tokio::spawn(load.clone().measure(shutdown.clone(), Arc::new(Metrics::new())));
        let began = Instant::now();
        while !load.sheds(Class::Newcomer) {
            // Everything else on this thread waits for as long as this takes.
            let busy_until = Instant::now() + SHED_NEWCOMERS_AFTER * 2;
            while Instant::now() < busy_until {
                std::hint::spin_loop();
            }
            tokio::task::yield_now().await;
            assert!(began.elapsed() < Duration::from_secs(30));
        }
        shutdown.begin();
        measuring.await.unwrap();
        assert!(!load.sheds(Class::Newcomer));
    }
}
