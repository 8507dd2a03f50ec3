//! Process basics: clock, life cycle, configuration, telemetry and TLS. Knows nothing of the domain.

pub mod admin;
pub mod clock;
pub mod config;
pub mod http;
pub mod lifecycle;
pub mod telemetry;
pub mod tls;
