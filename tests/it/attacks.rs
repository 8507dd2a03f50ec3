//! Whoever does not keep to the protocol: against the real relay, the real connector and the real Codex.

mod approvals;
mod billing;
mod claims;
mod commands;
mod content;
mod hello;
mod keys;
mod machine;
mod members;
mod office;
mod relay;
mod sign_in;
mod stand;
