//! The connector: joins the Codex of one machine to the relay.

pub mod codex;
pub mod epoch;
pub mod journal;
pub mod paired;
pub mod spool;
pub mod state;
pub mod storage;
