//! Clients that speak the real protocol without a browser: for load, for benches, and for tests that attack.
//!
//! A load run goes one way: `scenario` (data) → `schedule` (arrivals, drawn beforehand) → `phone` (sessions) and
//! `machine` (the connector's own core and links) → `record` (the history, judged) and `figures` (the report); `run`
//! joins them.

pub mod account;
pub mod approval;
pub mod bench;
pub mod device;
pub mod dial;
pub mod figures;
pub mod floor;
pub mod hello;
mod line;
mod machine;
pub mod passkey;
mod phone;
pub mod play;
pub mod record;
pub mod rig;
pub mod run;
pub mod scenario;
pub mod schedule;
pub mod session;
pub mod stub;
