//! Regions, as a connector chooses among them.

use std::time::Duration;

/// Regions of one list that a connector looks at; a list that is longer is cut.
pub const REGIONS_MAX: usize = 16;
/// Another region is nearer only when its handshake is shorter by this much: less is noise, and nobody feels it.
pub const REGION_GAIN_MIN: Duration = Duration::from_millis(10);
/// And only when its handshake takes at most this part of the present one's: numerator and denominator.
pub const REGION_NEARER_PART: (u32, u32) = (2, 3);
/// Time a machine stays in a region that works before it moves to a nearer one.
pub const REGION_STAY_MIN: Duration = Duration::from_secs(120);
/// Handshakes of one region that are remembered; the shortest counts, since delays only add.
pub const REGION_SAMPLES_MAX: usize = 3;
/// Time after which a handshake says nothing any more: two looks at a far region.
pub const REGION_SAMPLE_KEPT: Duration = Duration::from_secs(2 * 3600 + 1800);
/// Time after which the present region, the second and one that is not measured are looked at again.
pub const REGION_PROBE_INTERVAL: Duration = Duration::from_secs(300);
/// Time after which any other region is looked at again: distances change rarely.
pub const REGION_SURVEY_INTERVAL: Duration = Duration::from_secs(3600);
/// After a link was lost every region is looked at again within this time: the computer may have travelled.
pub const REGION_RESURVEY_WITHIN: Duration = Duration::from_secs(60);
/// How long a region is left alone after its first failure; doubles up to [`REGION_HOLD_MAX`].
pub const REGION_HOLD_MIN: Duration = Duration::from_secs(30);
/// Longest time that a region is left alone after a failure.
pub const REGION_HOLD_MAX: Duration = Duration::from_secs(1800);
/// How long a region is left alone after it said that it drains.
pub const REGION_DRAIN_HOLD: Duration = Duration::from_secs(600);
/// Time over which a region's machines are told to go at least, so that one that comes back finds no revolving door.
pub const REGION_DRAIN_SPREAD_MIN: Duration = Duration::from_secs(2);
/// Times within [`REGION_GO_AWAY_WINDOW`] that one region may tell a machine to go; more, and the region itself drains.
/// A rolling restart of three gateways tells it three times at worst.
pub const REGION_GO_AWAYS_MAX: usize = 3;
/// The window over which these count.
pub const REGION_GO_AWAY_WINDOW: Duration = Duration::from_secs(60);
/// Time one probe of a region may take.
pub const REGION_PROBE_TIMEOUT: Duration = Duration::from_secs(3);
/// Time after which a probe over QUIC is joined by one over TCP, for networks that block UDP.
pub const REGION_PROBE_TCP_AFTER: Duration = Duration::from_millis(300);
/// Time a probe stays connected afterwards, so that the server's TLS tickets arrive and a move resumes the session.
pub const REGION_TICKET_WAIT: Duration = Duration::from_secs(1);
/// Probes under way at once, at the start; later there is one at a time.
pub const REGION_PROBES_AT_ONCE: usize = 8;
/// Longest time that the very first link waits for a region to be measured.
pub const REGION_FIRST_WAIT_MAX: Duration = Duration::from_millis(1500);
/// Time the others have after the first region was measured: the nearest answers first, save for noise.
pub const REGION_FIRST_GRACE: Duration = Duration::from_millis(100);
/// Head start of the present region before the second is dialled as well. With 8 s until a loss is noticed, and a dial,
/// a machine is back well within 15 s.
pub const REGION_HEAD_START: Duration = Duration::from_secs(1);
/// The same while the old link still serves, for its gateway only asked for another: a region that restarts its
/// gateways is slow, and no reason to leave it.
pub const REGION_HEAD_START_SERVED: Duration = Duration::from_secs(5);
/// Time a region has to welcome a link while a second one waits its turn.
pub const REGION_WELCOME_WAIT: Duration = Duration::from_secs(3);
/// Time a planned move has, from the dial until the owner in the new region attaches; the old link serves meanwhile.
pub const REGION_MOVE_TIMEOUT: Duration = Duration::from_secs(15);
/// Interval at which a running connector asks for the list of regions.
pub const REGIONS_REFRESH_INTERVAL: Duration = Duration::from_secs(900);
/// Least pause between two such requests, also when no region can be reached; it doubles while they do not help.
pub const REGIONS_REFRESH_PAUSE: Duration = Duration::from_secs(30);
