//! Reading a request of Codex: what it is about, what may be answered remotely, and how an answer is written.

use flydex_agent_proto::v1;
use flydex_domain::approval::{ApprovalAction, ApprovalKind, FileChange};
use flydex_domain::command::Decision;
use flydex_domain::limits::{APPROVAL_ACTION_BYTES_MAX, LINE_BYTES_MAX, QUESTION_PARTS_MAX};
use serde_json::{Map, Value, json};

use super::Answer;
use crate::codex::cut::{self, Budget};
use crate::codex::json::{flag, list, number, present, text};

/// A request as the table keeps it: enough to answer it and to recognise its end.
pub(in crate::codex) struct Asking {
    /// Codex's request id, as JSON.
    pub(in crate::codex) id: Value,
    /// Codex's thread.
    pub(in crate::codex) thread_id: String,
    /// Codex's turn; may be empty.
    pub(in crate::codex) turn_id: String,
    /// Codex's item; may be empty.
    pub(in crate::codex) item_id: String,
    /// When the item started, by Codex; may be 0.
    pub(in crate::codex) started_at_ms: u64,
    form: Form,
}

/// What kind of answer a request takes.
enum Form {
    Command,
    FileChange,
    /// With exactly what was asked for.
    Permissions(Value),
    Questions(Vec<String>),
    /// Told, never answered here.
    DeskOnly,
}

/// A request for the core.
pub(in crate::codex) enum Ask {
    /// May this happen?
    Approval {
        /// Exactly what.
        action: ApprovalAction,
        /// It reaches further than usual.
        risk_high: bool,
        /// Codex knows "for this session" for it.
        session_scope: bool,
        /// Answered at the desk only.
        desk_only: bool,
    },
    /// What shall it be?
    Questions {
        /// The questions.
        parts: Vec<v1::QuestionPart>,
        /// Answered at the desk only.
        desk_only: bool,
    },
}

/// Reads a request that is told; `None` for one that is left to the desk in silence.
///
/// `changes` are those of the item, when they are in hand and whole.
pub(in crate::codex) fn read(
    id: Value,
    method: &str,
    params: &Value,
    changes: Option<&[v1::FileChange]>,
) -> Option<(Asking, Ask)> {
    let (form, ask) = match method {
        "item/commandExecution/requestApproval" => command(params),
        "item/fileChange/requestApproval" => file_change(params, changes),
        "item/permissions/requestApproval" => permissions(params),
        "item/tool/requestUserInput" => questions(params),
        "mcpServer/elicitation/request" => elicitation(params),
        _ => return None,
    };
    let asking = Asking {
        id,
        thread_id: text(params, "threadId").to_owned(),
        turn_id: text(params, "turnId").to_owned(),
        item_id: text(params, "itemId").to_owned(),
        started_at_ms: number(params, "startedAtMs"),
        form,
    };
    Some((asking, ask))
}

impl Asking {
    /// The result that carries an answer; `None` when that answer is not one to this request.
    pub(super) fn result(&self, answer: &Answer) -> Option<Value> {
        match (&self.form, answer) {
            (Form::Command | Form::FileChange, Answer::Decision(decision)) => {
                let decision = match decision {
                    Decision::Accept => "accept",
                    Decision::AcceptForSession => "acceptForSession",
                    Decision::Decline => "decline",
                    Decision::Cancel => "cancel",
                };
                Some(json!({"decision": decision}))
            }
            (Form::Permissions(asked), Answer::Decision(decision)) => match decision {
                Decision::Accept => Some(json!({"permissions": asked, "scope": "turn"})),
                Decision::AcceptForSession => None,
                Decision::Decline | Decision::Cancel => Some(json!({"permissions": {}, "scope": "turn"})),
            },
            (Form::Questions(ids), Answer::Questions(answers)) => {
                let mut by_id = Map::new();
                for (id, texts) in answers {
                    if !ids.contains(id) {
                        return None;
                    }
                    by_id.insert(id.clone(), json!({"answers": texts}));
                }
                Some(json!({"answers": by_id}))
            }
            (Form::DeskOnly, _)
            | (Form::Command | Form::FileChange | Form::Permissions(_), Answer::Questions(_))
            | (Form::Questions(_), Answer::Decision(_)) => None,
        }
    }

    /// Whether the item tells afterwards which answer counted.
    pub(super) const fn shows_outcome(&self) -> bool {
        match self.form {
            Form::Command | Form::FileChange => true,
            Form::Permissions(_) | Form::Questions(_) | Form::DeskOnly => false,
        }
    }

    /// Codex has no word for "no, and stop": the turn is to be interrupted after the answer.
    pub(in crate::codex) const fn cancel_needs_interrupt(&self) -> bool {
        matches!(self.form, Form::Permissions(_))
    }
}

fn command(params: &Value) -> (Form, Ask) {
    let kind = params.get("kind").and_then(Value::as_str).unwrap_or("command");
    let network = present(params, "networkApprovalContext")
        .map(|context| format!("{}://{}", text(context, "protocol"), text(context, "host")));
    let asked = present(params, "additionalPermissions");
    let shown = asked.map_or(Some(Vec::new()), permission_lines);
    let command = text(params, "command");
    let mut desk_only = kind != "command" || shown.is_none() || (command.is_empty() && network.is_none());
    let action = ApprovalAction {
        kind: ApprovalKind::Command,
        command: command.to_owned(),
        cwd: text(params, "cwd").to_owned(),
        network,
        permissions: shown.unwrap_or_default(),
        changes: Vec::new(),
        reason: text(params, "reason").to_owned(),
    };
    let action = fit(action, &mut desk_only);
    let risk_high = action.network.is_some() || asked.is_some();
    let form = if desk_only { Form::DeskOnly } else { Form::Command };
    (form, Ask::Approval { action, risk_high, session_scope: !desk_only, desk_only })
}

fn file_change(params: &Value, changes: Option<&[v1::FileChange]>) -> (Form, Ask) {
    let grants_root = present(params, "grantRoot").is_some();
    let mut desk_only = grants_root || changes.is_none_or(<[v1::FileChange]>::is_empty);
    let changes = changes.unwrap_or_default().iter().map(|change| FileChange {
        path: change.path.clone(),
        kind: change.kind.clone(),
        moved_to: change.has_moved_to.then(|| change.moved_to.clone()),
        diff: change.diff.clone(),
    });
    let action = ApprovalAction {
        kind: ApprovalKind::FileChange,
        command: String::new(),
        cwd: String::new(),
        network: None,
        permissions: Vec::new(),
        changes: changes.collect(),
        reason: text(params, "reason").to_owned(),
    };
    let action = fit(action, &mut desk_only);
    let form = if desk_only { Form::DeskOnly } else { Form::FileChange };
    (form, Ask::Approval { action, risk_high: grants_root, session_scope: !desk_only, desk_only })
}

fn permissions(params: &Value) -> (Form, Ask) {
    let asked = present(params, "permissions").cloned().unwrap_or(Value::Null);
    let shown = permission_lines(&asked);
    let mut desk_only = shown.as_ref().is_none_or(Vec::is_empty);
    let action = ApprovalAction {
        kind: ApprovalKind::Permissions,
        command: String::new(),
        cwd: text(params, "cwd").to_owned(),
        network: None,
        permissions: shown.unwrap_or_default(),
        changes: Vec::new(),
        reason: text(params, "reason").to_owned(),
    };
    let action = fit(action, &mut desk_only);
    let form = if desk_only { Form::DeskOnly } else { Form::Permissions(asked) };
    (form, Ask::Approval { action, risk_high: true, session_scope: false, desk_only })
}

/// Every permission that is asked for, one a line; `None` when something cannot be shown in full, so that
/// nothing is granted that nobody saw.
fn permission_lines(asked: &Value) -> Option<Vec<String>> {
    let mut lines = Vec::new();
    for (area, value) in asked.as_object()? {
        match (area.as_str(), value) {
            (_, Value::Null) => {}
            ("network", Value::Object(network)) => {
                for (field, value) in network {
                    match (field.as_str(), value) {
                        (_, Value::Null) => {}
                        ("enabled", Value::Bool(true)) => lines.push("network".to_owned()),
                        ("enabled", Value::Bool(false)) => {}
                        _ => return None,
                    }
                }
            }
            ("fileSystem", Value::Object(file_system)) => file_system_lines(file_system, &mut lines)?,
            _ => return None,
        }
    }
    Some(lines)
}

fn file_system_lines(file_system: &Map<String, Value>, lines: &mut Vec<String>) -> Option<()> {
    for (field, value) in file_system {
        match (field.as_str(), value) {
            (_, Value::Null) => {}
            ("read" | "write", Value::Array(paths)) => {
                for path in paths {
                    lines.push(format!("{field}:{}", path.as_str()?));
                }
            }
            ("entries", Value::Array(entries)) => {
                for entry in entries {
                    lines.push(entry_line(entry)?);
                }
            }
            _ => return None,
        }
    }
    Some(())
}

fn entry_line(entry: &Value) -> Option<String> {
    let access = entry.get("access")?.as_str().filter(|access| ["read", "write", "deny"].contains(access))?;
    let path = entry.get("path")?;
    let shown = match text(path, "type") {
        "path" => path.get("path")?.as_str()?,
        "glob_pattern" => path.get("pattern")?.as_str()?,
        _ => return None,
    };
    Some(format!("{access}:{shown}"))
}

/// What is too long to be shown whole is cut, and then answered at the desk only.
fn fit(action: ApprovalAction, desk_only: &mut bool) -> ApprovalAction {
    let mut budget = Budget::new(APPROVAL_ACTION_BYTES_MAX);
    let mut take = |text: &str| budget.take(text);
    let network = action.network.as_deref().map(&mut take);
    let fitted = ApprovalAction {
        kind: action.kind,
        command: take(&action.command),
        cwd: take(&action.cwd),
        network,
        reason: take(&action.reason),
        permissions: action.permissions.iter().map(|line| take(line)).collect(),
        changes: action
            .changes
            .iter()
            .map(|change| FileChange {
                path: take(&change.path),
                kind: take(&change.kind),
                moved_to: change.moved_to.as_deref().map(&mut take),
                diff: take(&change.diff),
            })
            .collect(),
    };
    *desk_only |= budget.cut();
    fitted
}

fn questions(params: &Value) -> (Form, Ask) {
    let questions = list(params, "questions");
    let mut budget = Budget::new(APPROVAL_ACTION_BYTES_MAX);
    let mut desk_only = questions.len() > QUESTION_PARTS_MAX;
    let mut parts = Vec::new();
    for question in questions.iter().take(QUESTION_PARTS_MAX) {
        let secret = flag(question, "isSecret");
        let options = list(question, "options");
        desk_only |= secret || options.len() > QUESTION_PARTS_MAX;
        parts.push(v1::QuestionPart {
            id: budget.take(text(question, "id")),
            header: budget.take(text(question, "header")),
            text: budget.take(text(question, "question")),
            free_text: options.is_empty() || flag(question, "isOther"),
            options: options
                .iter()
                .take(QUESTION_PARTS_MAX)
                .map(|option| question_option(option, &mut budget))
                .collect(),
        });
    }
    desk_only |= budget.cut() || parts.is_empty();
    let ids = parts.iter().map(|part| part.id.clone()).collect();
    let form = if desk_only { Form::DeskOnly } else { Form::Questions(ids) };
    (form, Ask::Questions { parts, desk_only })
}

fn question_option(option: &Value, budget: &mut Budget) -> v1::QuestionOption {
    v1::QuestionOption {
        label: budget.take(text(option, "label")),
        description: budget.take(text(option, "description")),
    }
}

/// What a tool server asks for is shown, and answered at the desk: an approval of a tool's call has no digest
/// here, and a page to open or a form may ask for secrets.
fn elicitation(params: &Value) -> (Form, Ask) {
    let part = v1::QuestionPart {
        id: "elicitation".to_owned(),
        header: cut::head(text(params, "serverName"), LINE_BYTES_MAX).0.to_owned(),
        text: cut::head(text(params, "message"), LINE_BYTES_MAX).0.to_owned(),
        free_text: false,
        options: Vec::new(),
    };
    (Form::DeskOnly, Ask::Questions { parts: vec![part], desk_only: true })
}
