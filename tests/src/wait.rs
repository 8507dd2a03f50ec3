//! Waiting for a condition: by level, with a deadline, and with a name for what did not come.

use std::future::Future;
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::MissedTickBehavior;

/// How long a test waits for anything: far over what a loaded machine needs, so that only a defect reaches it.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How often a condition is looked at that cannot be awaited.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Looks until `look` answers with a value.
///
/// # Errors
/// When [`PATIENCE`] ends first; `what` says what was waited for.
pub async fn until<T, F, Fut>(what: &str, mut look: F) -> anyhow::Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let looking = async {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Some(value) = look().await {
                return value;
            }
        }
    };
    within(what, looking).await
}

/// Awaits a future for [`PATIENCE`].
///
/// # Errors
/// When it does not end in time; `what` says what was waited for.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> anyhow::Result<T> {
    let waited = tokio::time::timeout(PATIENCE, future).await;
    waited.inspect_err(|_| say(what)).with_context(|| format!("waited {PATIENCE:?} for {what}"))
}

/// Said at once, since what the test drops on its way out may have more to say.
#[expect(clippy::print_stderr, reason = "a test that fails tells why")]
fn say(what: &str) {
    eprintln!("waited {PATIENCE:?} for {what}");
}
