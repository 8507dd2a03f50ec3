//! Composition of the server's roles; each role lives in its own crate.

pub mod all;
pub mod assets;
pub mod audit;
mod billing;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod control;
pub mod drain_region;
pub mod follow;
pub mod gateway;
pub mod launch;
pub mod machines;
pub mod migrate;
mod quic;
pub mod token_key;
pub mod web;
