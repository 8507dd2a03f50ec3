//! The local Codex: attaching to its app-server, the narrow surface, threads as they run, and approvals.
//!
//! Everything from the network arrives here as typed fields and leaves as parameters built from scratch;
//! everything from Codex leaves as messages of `agent.proto`, cut to size. No JSON of one side reaches the
//! other. Requests of Codex that are not handled here are left unanswered: an error would be an answer.

pub mod api;
mod config;
mod handle;

pub use api::{
    AnswerOutcome, AskedApproval, AskedQuestion, CodexEvent, CodexHandle, CodexStatus, Refused, RequestKey, Resolution,
    ThreadId, TurnId, WatchId,
};
pub use config::{AllowedDirectory, CodexConfig};
pub use handle::start;
