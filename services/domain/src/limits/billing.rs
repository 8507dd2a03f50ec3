//! Bounds of billing.

use std::time::Duration;

/// How long a late payment changes nothing: a card that expired is found and replaced in that time.
pub const BILLING_GRACE: Duration = Duration::from_secs(14 * 24 * 3600);
/// Age, either way, past which a signed event of the payment provider is refused as a replay.
pub const BILLING_TOLERANCE: Duration = Duration::from_secs(300);
/// Signatures of one event that are looked at: a secret that changes has two, and room.
pub const BILLING_SIGNATURES_MAX: usize = 8;
/// The header with them, in bytes.
pub const BILLING_SIGNATURE_HEADER_BYTES_MAX: usize = 2048;
/// Names that the provider gives, in bytes: theirs are under 255.
pub const BILLING_NAME_BYTES_MAX: usize = 255;
/// How long events are remembered, so that none counts twice: the provider tries again for three days.
pub const BILLING_EVENT_KEPT: Duration = Duration::from_secs(30 * 24 * 3600);
