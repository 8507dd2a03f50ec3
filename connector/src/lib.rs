//! The connector: joins the Codex of one machine to the relay.

pub mod codex;
pub mod paired;
pub mod state;
