//! Items of a turn.

use flydex_agent_proto::v1;
use flydex_agent_proto::v1::item::Kind;
use flydex_domain::limits::{ITEM_TEXT_BYTES_MAX, LINE_BYTES_MAX};
use serde_json::Value;

use crate::codex::cut::{self, Budget};
use crate::codex::json::{list, number, present, text};

/// An item, cut to [`ITEM_TEXT_BYTES_MAX`]. `running` is for kinds that carry no status of their own.
pub(in crate::codex) fn item(value: &Value, running: bool) -> v1::Item {
    let mut budget = Budget::new(ITEM_TEXT_BYTES_MAX);
    let kind = kind(value, &mut budget);
    v1::Item {
        id: line(text(value, "id")),
        state: state(value, running).into(),
        started_at_ms: number(value, "startedAtMs"),
        completed_at_ms: number(value, "completedAtMs"),
        truncated: budget.cut(),
        kind: Some(kind),
    }
}

/// The changes of a file change item or a patch, within the budget.
pub(in crate::codex) fn file_changes(changes: &[Value], budget: &mut Budget) -> Vec<v1::FileChange> {
    let mut all = Vec::new();
    for change in changes {
        if budget.is_spent() {
            budget.note_cut();
            break;
        }
        let kind = present(change, "kind");
        let moved_to = kind.and_then(|kind| kind.get("move_path")).and_then(Value::as_str);
        all.push(v1::FileChange {
            path: budget.take(text(change, "path")),
            kind: line(kind.map_or("update", |kind| text(kind, "type"))),
            moved_to: budget.take(moved_to.unwrap_or_default()),
            has_moved_to: moved_to.is_some(),
            diff: budget.take(text(change, "diff")),
        });
    }
    all
}

/// A step of a plan.
pub(in crate::codex) fn plan_step(value: &Value, budget: &mut Budget) -> v1::PlanStep {
    let state = match text(value, "status") {
        "completed" => v1::PlanStepState::Completed,
        "inProgress" => v1::PlanStepState::Running,
        "pending" => v1::PlanStepState::Pending,
        _ => v1::PlanStepState::Unspecified,
    };
    v1::PlanStep { text: budget.take(text(value, "step")), state: state.into() }
}

fn kind(value: &Value, budget: &mut Budget) -> Kind {
    match text(value, "type") {
        "userMessage" => Kind::UserMessage(user_message(value, budget)),
        "agentMessage" => Kind::AgentMessage(v1::AgentMessage { text: budget.take(text(value, "text")) }),
        "reasoning" => Kind::Reasoning(v1::Reasoning { summary: joined(list(value, "summary"), budget) }),
        "plan" => Kind::Plan(v1::Plan { text: budget.take(text(value, "text")), steps: Vec::new() }),
        "commandExecution" => Kind::CommandExecution(command_execution(value, budget)),
        "fileChange" => Kind::FileEdit(v1::FileEdit { changes: file_changes(list(value, "changes"), budget) }),
        "mcpToolCall" => Kind::ToolCall(mcp_tool_call(value, budget)),
        "dynamicToolCall" => Kind::ToolCall(tool_call(value, "namespace", "tool", budget)),
        "functionCallOutput" => Kind::ToolCall(tool_call(value, "namespace", "name", budget)),
        "collabAgentToolCall" => Kind::ToolCall(v1::ToolCall {
            server: "agents".to_owned(),
            tool: line(text(value, "tool")),
            arguments: budget.take(text(value, "prompt")),
            result: String::new(),
        }),
        "webSearch" => Kind::WebSearch(v1::WebSearch { query: budget.take(text(value, "query")) }),
        "enteredReviewMode" => notice("Review started"),
        "exitedReviewMode" => review_ended(value, budget),
        "contextCompaction" => notice("Context compacted"),
        "imageView" => notice("Image viewed"),
        "imageGeneration" => notice("Image generated"),
        "sleep" => notice("Waited"),
        "subAgentActivity" => notice("Another agent was active"),
        other => Kind::Unknown(v1::UnknownItem { r#type: cut::head(other, 64).0.to_owned() }),
    }
}

fn state(value: &Value, running: bool) -> v1::ItemState {
    match text(value, "status") {
        "inProgress" => v1::ItemState::Running,
        "completed" => v1::ItemState::Completed,
        "failed" => v1::ItemState::Failed,
        "declined" => v1::ItemState::Declined,
        _ if running => v1::ItemState::Running,
        _ => v1::ItemState::Completed,
    }
}

fn user_message(value: &Value, budget: &mut Budget) -> v1::UserMessage {
    let mut whole = String::new();
    for input in list(value, "content") {
        if !whole.is_empty() {
            whole.push('\n');
        }
        match text(input, "type") {
            "text" => whole.push_str(&budget.take(text(input, "text"))),
            "image" | "localImage" => whole.push_str("[image]"),
            "audio" | "localAudio" => whole.push_str("[audio]"),
            "skill" | "mention" => whole.push_str(&budget.take(text(input, "name"))),
            _ => whole.push_str("[attachment]"),
        }
        if budget.is_spent() {
            budget.note_cut();
            break;
        }
    }
    v1::UserMessage { text: whole, client_id: cut::head(text(value, "clientId"), 64).0.to_owned() }
}

fn command_execution(value: &Value, budget: &mut Budget) -> v1::CommandExecution {
    let exit_code = value.get("exitCode").and_then(Value::as_i64).and_then(|code| i32::try_from(code).ok());
    v1::CommandExecution {
        command: budget.take(text(value, "command")),
        cwd: line(text(value, "cwd")),
        output: budget.take_ends(text(value, "aggregatedOutput")),
        exit_code: exit_code.unwrap_or_default(),
        has_exit_code: exit_code.is_some(),
        duration_ms: number(value, "durationMs"),
    }
}

fn mcp_tool_call(value: &Value, budget: &mut Budget) -> v1::ToolCall {
    let mut call = tool_call(value, "server", "tool", budget);
    if let Some(result) = present(value, "result") {
        let texts: Vec<Value> = list(result, "content").iter().filter_map(|part| part.get("text").cloned()).collect();
        call.result = joined(&texts, budget);
    }
    if present(value, "error").is_some() {
        call.result.push_str("The tool failed.");
    }
    call
}

fn tool_call(value: &Value, server: &str, tool: &str, budget: &mut Budget) -> v1::ToolCall {
    let arguments = present(value, "arguments").map(ToString::to_string).unwrap_or_default();
    v1::ToolCall {
        server: line(text(value, server)),
        tool: line(text(value, tool)),
        arguments: budget.take(&arguments),
        result: budget.take(text(value, "output")),
    }
}

fn review_ended(value: &Value, budget: &mut Budget) -> Kind {
    let review = text(value, "review");
    if review.is_empty() { notice("Review ended") } else { Kind::Notice(v1::Notice { text: budget.take(review) }) }
}

fn joined(parts: &[Value], budget: &mut Budget) -> String {
    let mut whole = String::new();
    for part in parts {
        if !whole.is_empty() {
            whole.push_str("\n\n");
        }
        whole.push_str(&budget.take(part.as_str().unwrap_or_default()));
    }
    whole
}

fn notice(text: &str) -> Kind {
    Kind::Notice(v1::Notice { text: text.to_owned() })
}

fn line(text: &str) -> String {
    cut::head(text, LINE_BYTES_MAX).0.to_owned()
}
