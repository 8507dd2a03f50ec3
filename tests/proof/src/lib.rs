//! The proof that commands run at most once and that nobody is told what is not so: a model that is walked
//! exhaustively, and a simulation of the real state machines under one seeded scheduler.
//!
//! Both call the functions that decide in production (`flydex_domain::{epoch, placement, gate}`; the simulation also
//! `machine` and `journal`) and judge by the same invariants (`flydex_domain::invariant`).

pub mod model;
pub mod simulation;
