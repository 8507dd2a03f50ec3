//! The connector: joins the Codex of one machine to the relay.

pub mod api;
pub mod audit;
pub mod cli;
pub mod codex;
pub mod control;
pub mod core;
pub mod credential;
pub mod doctor;
pub mod epoch;
pub mod helper;
pub mod journal;
pub mod link;
pub mod outbox;
pub mod pair;
pub mod paired;
pub mod qr;
pub mod record;
pub mod regions;
pub mod release;
pub mod rotation;
pub mod spool;
pub mod state;
pub mod storage;
