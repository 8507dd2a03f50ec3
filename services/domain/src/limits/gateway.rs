//! Bounds of a gateway: who is sent away and how fast, what is shed, and how nodes are found without the directory.

use std::time::Duration;

// === Sending away ===

/// Peers whose token ends are told to come back spread over this time.
pub const NOTICE_SPREAD: Duration = Duration::from_secs(5);
/// Peers that any gateway surely welcomes in a second: TLS and signatures take one core a millisecond, and what follows in
/// other processes as much again.
pub const ACCEPT_RATE_MIN: u32 = 300;
/// The time over which arrivals are counted to know how many more it welcomes.
pub const ACCEPT_RATE_WINDOW: Duration = Duration::from_secs(1);
/// A drain sends as many away in a second as half of the highest rate at which they came: others have peers of their
/// own to welcome.
pub const DRAIN_RATE_DIVISOR: u32 = 2;

// === QUIC ===

/// Interval of a connector's pings on QUIC: a gateway that was killed says nothing, and the one that gets the next packet in
/// its place tells the connector so.
pub const QUIC_PING_INTERVAL: Duration = Duration::from_secs(2);
/// Least time between two such answers of one gateway: the links of a whole gateway are told within seconds, and nonsense
/// from the network costs little.
pub const QUIC_RESET_INTERVAL_MIN: Duration = Duration::from_micros(100);

// === Shedding ===

/// Interval at which a gateway looks how late it is woken.
pub const RUN_DELAY_LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// Looks that must all have been late for a delay to count: one alone is a stall that is over when it is seen.
pub const RUN_DELAY_LOOKS: usize = 5;
/// Delay from which a gateway takes no newcomers: their handshakes alone would wait for a second.
pub const SHED_NEWCOMERS_AFTER: Duration = Duration::from_millis(100);
/// Delay from which it takes no requests for pages.
pub const SHED_BULK_AFTER: Duration = Duration::from_millis(200);
/// Delay from which it takes no requests for new streams of events.
pub const SHED_EVENTS_AFTER: Duration = Duration::from_millis(300);
/// Delay from which it takes no commands but those that answer or stop something.
pub const SHED_COMMANDS_AFTER: Duration = Duration::from_millis(500);

// === Nodes without the directory ===

/// Interval at which nodes are looked for by name while the directory does not answer; each wait is spread at random.
pub const SEEDS_LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// Time that names have to lead to addresses.
pub const SEEDS_RESOLVE_TIMEOUT: Duration = Duration::from_secs(1);
/// Addresses that are asked at once who is there.
pub const SEEDS_ASKED_AT_ONCE: usize = 32;
