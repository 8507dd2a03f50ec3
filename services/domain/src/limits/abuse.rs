//! What a flood may take: rates of the API beside those of a single caller, and QUIC handshakes.

use std::time::Duration;

use super::GATEWAY_HANDSHAKES_MAX;

/// A site of IPv6 (/48) may ask for this many times what one of its networks (/64) may: an office has a few dozen.
pub const RATE_SITE_FACTOR: u32 = 16;
/// Places that callers share for whom a table of rates has no room, so that a flood of them is bounded too.
pub const RATE_CROWD_PLACES: u64 = 4096;
/// Least time between two looks for callers whose rate is whole again, each of which looks at a whole table.
pub const RATE_SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Machines that the rate limits remember.
pub const RATE_MACHINES_MAX: usize = 65_536;
/// Requests that a machine signs, per minute: a renewal is due every 12 hours, and an upload carries many records.
pub const MACHINE_RATE_PER_MINUTE: u32 = 120;
/// Handshakes under way from which a QUIC peer must prove its address first: a forged one must not take a place.
pub const QUIC_RETRY_HANDSHAKES: usize = GATEWAY_HANDSHAKES_MAX / 2;
