//! The directory on a real Redis: the rules that every directory keeps, and what it does when Redis is away, slow,
//! forgetful, in the past, a replica, or of another kind.

mod faults;
mod records;
mod sentinel;

use std::time::Duration;

use flydex_store::directory::RedisDirectory;
use flydex_store::directory::redis::{Endpoint, Keeper};
use flydex_tests::wait;
use tokio_util::task::AbortOnDropHandle;

/// A lease that ends soon enough to wait for it.
const LEASE: Duration = Duration::from_millis(300);

/// A directory and the task that keeps its connection up.
struct Connected {
    directory: RedisDirectory,
    keeper: Keeper,
    _task: AbortOnDropHandle<()>,
}

/// Connects and waits until the connection is up.
async fn connect(endpoint: Endpoint) -> anyhow::Result<Connected> {
    let connected = dial(endpoint);
    wait::within("the connection to the directory", connected.keeper.up()).await?;
    Ok(connected)
}

/// Begins to connect.
fn dial(endpoint: Endpoint) -> Connected {
    let (keeper, keep_up) = Keeper::new(endpoint);
    let task = AbortOnDropHandle::new(tokio::spawn(keep_up));
    Connected { directory: RedisDirectory::with_lease(keeper.clone(), LEASE), keeper, _task: task }
}
