//! Searching, exporting and checking the audit.

use std::time::Duration;

/// Records of the audit that one search looks through: a rare kind in a long audit costs many small requests and no
/// long one.
pub const AUDIT_SEARCH_ROWS_MAX: u64 = 10_000;
/// Exports of its audit, and signed heads, that an account may begin in a minute.
pub const ACCOUNT_EXPORT_RATE_PER_MINUTE: u32 = 10;
/// Length of a line of an exported audit that is read: far over what a record of ids and hashes takes.
pub const AUDIT_LINE_BYTES_MAX: usize = 4 * 1024;
/// Time that a check of the audit waits for a database that does not answer; nobody waits for it elsewhere.
pub const AUDIT_CHECK_REACH_TIMEOUT: Duration = Duration::from_secs(15);
