//! The control plane's database.

use std::time::Duration;

/// Connections to the database: readers beside one writer.
pub const SQL_CONNECTIONS_MAX: u32 = 8;
/// Time a statement waits for the database before it fails.
pub const SQL_BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections of one process to PostgreSQL: a hundred requests in flight share them, and ten processes fit a server.
pub const POSTGRES_CONNECTIONS_MAX: u32 = 16;
/// Time a request waits for one of them before it fails.
pub const POSTGRES_ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);
/// Age at which a connection is replaced, so that a server that came back gets its share again.
pub const POSTGRES_LIFETIME_MAX: Duration = Duration::from_secs(30 * 60);
/// Time PostgreSQL gives a statement, its wait for a turn included.
pub const POSTGRES_STATEMENT_TIMEOUT: Duration = Duration::from_secs(4);
/// Time this side gives it: more than PostgreSQL does, for one that says nothing at all.
pub const POSTGRES_ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Time a connection has to begin and to roll back a transaction, or it is let go: far over a round trip, and so
/// short that a host which died without a word costs a request one new connection and not the whole pool.
pub const POSTGRES_PING_TIMEOUT: Duration = Duration::from_secs(1);
/// Silence of a process after which PostgreSQL probes its connection, so that one that died leaves no slot taken.
pub const POSTGRES_KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
/// Interval of those probes.
pub const POSTGRES_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// Probes without an answer after which the connection has ended: 25 s after the last word.
pub const POSTGRES_KEEPALIVE_PROBES: u32 = 3;
/// Time a process may leave a transaction idle before PostgreSQL ends it, so that one that froze holds up nobody long.
pub const POSTGRES_IDLE_IN_CHANGE_MAX: Duration = Duration::from_secs(2);
/// Wait between two attempts to reach PostgreSQL at the start.
pub const POSTGRES_RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// Interval at which that is said again.
pub const POSTGRES_WAITING_SAID_INTERVAL: Duration = Duration::from_secs(10);
