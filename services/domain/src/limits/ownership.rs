//! Owning machines: looking for their links, attaching, handing over, spreading.

use std::time::Duration;

/// First wait before a machine with sessions and no link looks whether another node owns it; it doubles.
pub const OWNER_LOOK_WAIT_MIN: Duration = Duration::from_millis(500);
/// Longest wait between two such looks.
pub const OWNER_LOOK_WAIT_MAX: Duration = Duration::from_secs(10);
/// The part of such a wait by which a look may come early, so that machines whose links broke together look apart.
pub const OWNER_LOOK_JITTER: f64 = 0.3;
/// Time a link may take from its opening at a node to its attach: the connector syncs an epoch to its disk once, or twice.
pub const LINK_ATTACH_WAIT: Duration = Duration::from_secs(10);
/// Time a draining node waits for a machine to have what was forwarded to it.
pub const HAND_OVER_WAIT: Duration = Duration::from_millis(250);
/// How often it looks meanwhile.
pub const HAND_OVER_LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// Machines that a draining node hands over at once, most of which wait for their connectors.
pub const HAND_OVERS_AT_ONCE: usize = 200;
/// Machines that are without an owner at once: few, for each waits only as long as its successor is busy with others.
/// With 200 at once, 100 machines with 2,000 sessions were each away for 900 ms (p99, a debug build), with 8 for 180 ms,
/// and the whole took no longer.
pub const HAND_OVERS_OPEN_MAX: usize = 8;
/// Time a node waits for the successor to own a machine, before it lets another go in its place.
pub const HAND_OVER_TAKEN_WAIT: Duration = Duration::from_millis(100);
/// How often a node looks whether others have much fewer machines.
pub const REBALANCE_INTERVAL: Duration = Duration::from_secs(10);
/// The share of its machines that a node gives away each time is one in this many, rounded up.
pub const REBALANCE_ROUNDS_OF_LOAD: u64 = 100;
/// Percent of the mean load above which a node gives machines away; one below the mean by as much is given some.
pub const REBALANCE_LOAD_PERCENT_MAX: u64 = 115;
/// Machines more or fewer than the mean that are left as they are: evening them out spares a node nothing, and each that
/// moves costs its sessions a moment.
pub const REBALANCE_MACHINES_MIN: u64 = 8;
/// How often a node asserts everything that it owns, needed or not: another that took a machine by force, because its
/// gateway could not reach the owner, hides the owner's link until that hears of it.
pub const ASSERT_ALL_INTERVAL: Duration = Duration::from_secs(30);
/// How often two connectors may take a machine from each other within [`LINK_ALTERNATION_WINDOW`].
pub const LINK_ALTERNATIONS_MAX: usize = 3;
/// The window over which alternations count, and the length of the quarantine after them.
pub const LINK_ALTERNATION_WINDOW: Duration = Duration::from_secs(60);
