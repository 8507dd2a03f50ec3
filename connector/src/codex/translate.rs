//! From Codex's JSON to the messages of `agent.proto`: tolerant of what is missing, cut to size, and free of
//! Codex's own error texts.

mod items;
mod problems;
mod threads;

pub(super) use items::{file_changes, item, plan_step};
pub(super) use problems::{problem_code, turn_error};
pub(super) use threads::{model, policy_text, state, thread, turn};

#[cfg(test)]
mod tests;
