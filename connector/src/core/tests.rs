//! The core, driven from both sides: a scripted owner on the link and a scripted Codex.

mod approvals;
mod commands;
mod devices;
mod faults;
mod moves;
mod owners;
mod sessions;
mod world;
