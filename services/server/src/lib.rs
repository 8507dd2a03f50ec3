//! Composition of the server's roles; each role lives in its own crate.

pub mod all;
pub mod assets;
pub mod cli;
pub mod config;
