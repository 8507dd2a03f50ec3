//! Of the reports with which nodes tell control where machines are linked.

use std::time::Duration;

/// Machines in one report of links.
pub const LINK_REPORTS_MAX: usize = 1000;
/// Bytes of one such report; each link takes some 60.
pub const LINK_REPORT_BYTES_MAX: usize = 128 * 1024;
/// Reports of links that one control process writes at once; the others wait their turn.
pub const LINK_REPORTS_AT_ONCE: usize = 2;
/// Machines whose new link a node has yet to report; past it all that are linked there are reported instead.
pub const LINK_REPORTS_WAITING_MAX: usize = 20_000;
/// Wait after a first new link before it is reported, so that the links of a storm travel together.
pub const LINK_REPORT_DEBOUNCE: Duration = Duration::from_millis(200);
/// Shortest time between two reports of one node: at most 4,000 links a second, well within what control can write.
pub const LINK_REPORT_INTERVAL_MIN: Duration = Duration::from_millis(250);
/// Time that control has to take one report.
pub const LINK_REPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// First wait after a report that nobody took; it doubles, and each is spread at random.
pub const LINK_REPORT_RETRY_WAIT_MIN: Duration = Duration::from_millis(250);
/// Longest such wait: a move is known that much later once control is back.
pub const LINK_REPORT_RETRY_WAIT_MAX: Duration = Duration::from_secs(5);
/// Interval at which a node reports all that are linked there, for the sake of a database that was restored.
pub const LINK_REPORT_ALL_INTERVAL: Duration = Duration::from_secs(600);
/// How much later than the last reported link another must have begun to count with a lower counter: its connector has
/// lost its own, and clocks of nodes differ by less.
pub const LINK_COUNTER_LOST_AFTER: Duration = Duration::from_secs(600);
