//! Process basics: clock, life cycle, configuration, addresses, HTTP, telemetry and TLS. Knows nothing of the domain.

pub mod admin;
pub mod client;
pub mod clock;
pub mod config;
pub mod files;
pub mod http;
pub mod lifecycle;
pub mod memory;
pub mod mutual;
pub mod origin;
pub mod telemetry;
pub mod tls;
