//! What the black-box tests stand on: a scripted model, the real Codex, the real binaries, a real browser.
//!
//! Nothing here links the server: its roles are processes, started and watched from outside, as the connector is. The
//! only part that is not real is the [`model`] behind Codex. Under load connectors are many in one process, and a stub
//! stands in place of Codex (`flydex-loadtest`).

pub mod account;
pub mod attack;
pub mod browser;
pub mod canary;
pub mod cluster;
pub mod codex;
pub mod connector;
pub mod identity_provider;
pub mod log;
pub mod model;
pub mod otlp;
pub mod phone;
pub mod postgres;
pub mod process;
pub mod redis;
pub mod server;
pub mod wait;
pub mod world;
