//! The local Codex: attaching to its app-server, the narrow surface, threads as they run, and approvals.
//!
//! Everything from the network arrives here as typed fields and leaves as parameters built from scratch
//! (`surface`); everything from Codex leaves as messages of `agent.proto`, cut to size (`translate`). No JSON
//! of one side reaches the other. Requests of Codex that are not handled here are left unanswered: an error
//! would be an answer.
//!
//! `attach` keeps a connection (`socket`, `process`, `transport`, `rpc`), `life` reads it in order and follows
//! threads (`view`, `approvals`), `handle` turns commands into requests.

pub mod api;
mod approvals;
mod attach;
mod coalesce;
mod config;
mod cut;
mod generation;
mod handle;
mod history;
mod json;
mod life;
mod methods;
mod order;
mod pages;
mod policy;
pub mod probe;
mod process;
mod rpc;
mod socket;
mod surface;
mod translate;
mod transport;
mod version;
mod view;

pub use api::{
    AnswerOutcome, AskedApproval, AskedQuestion, CodexEvent, CodexHandle, CodexStatus, Refused, RequestKey, Resolution,
    ThreadId, TurnId, WatchId,
};
pub use config::{Allowed, AllowedDirectory, CodexConfig};
pub use handle::start;
