//! Process basics: clock, life cycle, configuration, telemetry and TLS. Knows nothing of the domain.

pub mod clock;
pub mod lifecycle;
