//! Threads, turns and models.

use std::path::Path;

use flydex_agent_proto::v1;
use flydex_domain::limits::{LINE_BYTES_MAX, PREVIEW_BYTES_MAX, THREAD_NAME_CHARS_MAX};
use serde_json::Value;

use super::{item, turn_error};
use crate::codex::cut;
use crate::codex::json::{flag, list, number, present, text};

/// A thread's summary. `archived` is what the caller knows; Codex's rows say it only by where the thread is kept.
pub(in crate::codex) fn thread(value: &Value, archived: bool) -> v1::Thread {
    let branch = present(value, "gitInfo").map_or("", |info| text(info, "branch"));
    v1::Thread {
        id: line(text(value, "id")),
        name: cut::chars(text(value, "name"), THREAD_NAME_CHARS_MAX).to_owned(),
        preview: cut::head(text(value, "preview"), PREVIEW_BYTES_MAX).0.to_owned(),
        cwd: line(text(value, "cwd")),
        created_at_ms: number(value, "createdAt").saturating_mul(1000),
        updated_at_ms: number(value, "updatedAt").saturating_mul(1000),
        state: present(value, "status").map_or(v1::ThreadState::Unspecified, state).into(),
        archived: archived || is_kept_archived(value),
        model_provider: line(text(value, "modelProvider")),
        git_branch: line(branch),
    }
}

/// Codex moves what is archived into a folder of that name.
fn is_kept_archived(value: &Value) -> bool {
    Path::new(text(value, "path")).components().any(|part| part.as_os_str() == "archived_sessions")
}

/// A thread's state by Codex's status.
pub(in crate::codex) fn state(status: &Value) -> v1::ThreadState {
    match text(status, "type") {
        "notLoaded" => v1::ThreadState::NotLoaded,
        "idle" => v1::ThreadState::Idle,
        "systemError" => v1::ThreadState::Failed,
        "active" => {
            let has = |flag: &str| list(status, "activeFlags").iter().any(|active| active == flag);
            if has("waitingOnApproval") {
                v1::ThreadState::WaitingOnApproval
            } else if has("waitingOnUserInput") {
                v1::ThreadState::WaitingOnInput
            } else {
                v1::ThreadState::Running
            }
        }
        _ => v1::ThreadState::Unspecified,
    }
}

/// A turn with its items.
pub(in crate::codex) fn turn(value: &Value) -> v1::Turn {
    let state = match text(value, "status") {
        "inProgress" => v1::TurnState::Running,
        "completed" => v1::TurnState::Completed,
        "interrupted" => v1::TurnState::Interrupted,
        "failed" => v1::TurnState::Failed,
        _ => v1::TurnState::Unspecified,
    };
    let error = if state == v1::TurnState::Failed { turn_error(present(value, "error")) } else { String::new() };
    v1::Turn {
        id: line(text(value, "id")),
        state: state.into(),
        items: list(value, "items").iter().map(|value| item(value, false)).collect(),
        error,
        started_at_ms: number(value, "startedAt").saturating_mul(1000),
        completed_at_ms: number(value, "completedAt").saturating_mul(1000),
    }
}

/// A model that Codex offers.
pub(in crate::codex) fn model(value: &Value) -> v1::Model {
    let efforts = list(value, "supportedReasoningEfforts")
        .iter()
        .map(|effort| line(effort.as_str().unwrap_or_else(|| text(effort, "reasoningEffort"))))
        .take(16)
        .collect();
    v1::Model {
        id: line(text(value, "id")),
        display_name: line(text(value, "displayName")),
        efforts,
        is_default: flag(value, "isDefault"),
    }
}

/// A thread's approval policy and sandbox, for people.
pub(in crate::codex) fn policy_text(approval: &Value, sandbox: &Value) -> String {
    let approval = approval.as_str().map_or_else(|| "granular".to_owned(), line);
    format!("approvals: {approval}, sandbox: {}", line(text(sandbox, "type")))
}

fn line(text: &str) -> String {
    cut::head(text, LINE_BYTES_MAX).0.to_owned()
}
