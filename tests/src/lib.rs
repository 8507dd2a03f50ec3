//! What the black-box tests stand on: a scripted model, the real Codex, the real binaries, a real browser.
//!
//! Nothing here links the server or the connector: they are processes, started and watched from outside. The
//! only part that is not real is the [`model`] behind Codex.

pub mod browser;
pub mod canary;
pub mod codex;
pub mod connector;
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
