//! Clients that speak the real protocol without a browser: for load, for benches, and for tests that attack.

pub mod account;
pub mod bench;
pub mod device;
pub mod floor;
pub mod rig;
pub mod session;
pub mod stub;
