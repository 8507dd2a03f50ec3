//! Clients that speak the real protocol without a browser: for load, for benches, and for tests that attack.

pub mod account;
pub mod device;
pub mod session;
