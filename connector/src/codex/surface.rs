//! The parameters of every request to Codex, built from typed fields and nothing else.

use flydex_agent_proto::v1;
use flydex_agent_proto::v1::review::Target;
use flydex_domain::error::ErrorCode;
use flydex_domain::id::CommandId;
use flydex_domain::limits::{PAGE_TURNS_MAX, PROMPT_BYTES_MAX, THREAD_NAME_CHARS_MAX, THREAD_PAGE_ROWS_MAX};
use serde_json::{Map, Value, json};

use super::api::{ThreadId, TurnId};
use super::config::AllowedDirectory;
use super::methods::NOTIFICATIONS_UNWANTED;

/// Who we are to Codex; it becomes the `originator` of what we start.
const CLIENT_NAME: &str = "flydex_connector";
/// A model id, an effort, a branch: texts of Codex's own making, in bytes.
const NAME_BYTES_MAX: usize = 256;

/// The handshake.
pub(super) fn initialize(version: &str) -> Value {
    json!({
        "clientInfo": {"name": CLIENT_NAME, "title": "FlyDex", "version": version},
        "capabilities": {
            "experimentalApi": true,
            "requestAttestation": false,
            "optOutNotificationMethods": NOTIFICATIONS_UNWANTED,
        },
    })
}

/// Subscribes to a thread and asks for its newest turns with their items. Nothing else is set: an override
/// would change the sandbox or folder of a thread that is not loaded.
pub(super) fn follow(thread_id: ThreadId) -> Value {
    json!({
        "threadId": thread_id.to_string(),
        "excludeTurns": true,
        "initialTurnsPage": {"limit": PAGE_TURNS_MAX, "sortDirection": "desc", "itemsView": "full"},
    })
}

/// A request about a thread and nothing more.
pub(super) fn about(thread_id: ThreadId) -> Value {
    json!({"threadId": thread_id.to_string()})
}

/// A thread's summary without its turns.
pub(super) fn summary(thread_id: ThreadId) -> Value {
    json!({"threadId": thread_id.to_string(), "includeTurns": false})
}

/// A page of threads, most recently used first.
pub(super) fn list_threads(command: &v1::ListThreads, cursor: Option<&str>) -> Result<Value, ErrorCode> {
    if command.search.len() > NAME_BYTES_MAX {
        return Err(ErrorCode::BadRequest);
    }
    let limit = match command.limit {
        0 => THREAD_PAGE_ROWS_MAX,
        limit => limit.min(THREAD_PAGE_ROWS_MAX),
    };
    let mut params = Map::from_iter([
        ("limit".to_owned(), json!(limit)),
        ("archived".to_owned(), json!(command.archived)),
        ("sortKey".to_owned(), json!("updated_at")),
    ]);
    if let Some(cursor) = cursor {
        params.insert("cursor".to_owned(), json!(cursor));
    }
    if !command.search.is_empty() {
        params.insert("searchTerm".to_owned(), json!(command.search));
    }
    Ok(Value::Object(params))
}

/// Some turns with their items, newest first.
pub(super) fn list_turns(thread_id: ThreadId, cursor: Option<&str>) -> Value {
    let thread_id = thread_id.to_string();
    match cursor {
        None => json!({"threadId": thread_id, "limit": PAGE_TURNS_MAX, "sortDirection": "desc", "itemsView": "full"}),
        Some(cursor) => json!({
            "threadId": thread_id, "cursor": cursor, "limit": PAGE_TURNS_MAX, "sortDirection": "desc",
            "itemsView": "full",
        }),
    }
}

/// A new thread in one of the machine's own folders, with Codex's own policies.
pub(super) fn start_thread(command: &v1::StartThread, allowed: &[AllowedDirectory]) -> Result<Value, ErrorCode> {
    let allowed = allowed.iter().filter_map(|directory| directory.path.to_str());
    let cwd = allowed.into_iter().find(|path| *path == command.directory).ok_or(ErrorCode::DirectoryNotAllowed)?;
    let mut params = Map::from_iter([("cwd".to_owned(), json!(cwd))]);
    insert_name(&mut params, "model", &command.model)?;
    Ok(Value::Object(params))
}

/// A new turn with a text.
pub(super) fn start_turn(
    thread_id: ThreadId,
    command_id: CommandId,
    command: &v1::StartTurn,
) -> Result<Value, ErrorCode> {
    let mut params = prompt(thread_id, command_id, &command.text)?;
    insert_name(&mut params, "model", &command.model)?;
    insert_name(&mut params, "effort", &command.effort)?;
    Ok(Value::Object(params))
}

/// A text for the running turn, and for no other.
pub(super) fn steer(
    thread_id: ThreadId,
    command_id: CommandId,
    expected: &TurnId,
    text: &str,
) -> Result<Value, ErrorCode> {
    let mut params = prompt(thread_id, command_id, text)?;
    params.insert("expectedTurnId".to_owned(), json!(expected.as_str()));
    Ok(Value::Object(params))
}

/// Stops a turn.
pub(super) fn interrupt(thread_id: ThreadId, turn_id: &TurnId) -> Value {
    json!({"threadId": thread_id.to_string(), "turnId": turn_id.as_str()})
}

/// Gives a thread a name of one line.
pub(super) fn rename(thread_id: ThreadId, name: &str) -> Result<Value, ErrorCode> {
    let name = name.trim();
    if name.is_empty() || name.chars().count() > THREAD_NAME_CHARS_MAX || name.chars().any(char::is_control) {
        return Err(ErrorCode::BadRequest);
    }
    Ok(json!({"threadId": thread_id.to_string(), "name": name}))
}

/// A review within the thread.
pub(super) fn review(thread_id: ThreadId, target: Option<&Target>) -> Result<Value, ErrorCode> {
    let target = match target {
        Some(Target::UncommittedChanges(true)) => json!({"type": "uncommittedChanges"}),
        Some(Target::BaseBranch(branch)) if is_revision(branch) => json!({"type": "baseBranch", "branch": branch}),
        Some(Target::Commit(sha)) if is_commit(sha) => json!({"type": "commit", "sha": sha}),
        Some(Target::UncommittedChanges(false) | Target::BaseBranch(_) | Target::Commit(_)) | None => {
            return Err(ErrorCode::BadRequest);
        }
    };
    Ok(json!({"threadId": thread_id.to_string(), "target": target, "delivery": "inline"}))
}

/// The models that people choose from.
pub(super) fn list_models() -> Value {
    json!({"limit": flydex_domain::limits::MODELS_MAX, "includeHidden": false})
}

fn prompt(thread_id: ThreadId, command_id: CommandId, text: &str) -> Result<Map<String, Value>, ErrorCode> {
    check_prompt(text)?;
    Ok(Map::from_iter([
        ("threadId".to_owned(), json!(thread_id.to_string())),
        ("input".to_owned(), json!([{"type": "text", "text": text, "text_elements": []}])),
        ("clientUserMessageId".to_owned(), json!(command_id.to_string())),
    ]))
}

/// A prompt says something and is not too long.
pub(super) fn check_prompt(text: &str) -> Result<(), ErrorCode> {
    if text.trim().is_empty() {
        return Err(ErrorCode::PromptEmpty);
    }
    if text.len() > PROMPT_BYTES_MAX {
        return Err(ErrorCode::PromptTooLarge);
    }
    Ok(())
}

fn insert_name(params: &mut Map<String, Value>, field: &str, name: &str) -> Result<(), ErrorCode> {
    if name.is_empty() {
        return Ok(());
    }
    if name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(ErrorCode::BadRequest);
    }
    params.insert(field.to_owned(), json!(name));
    Ok(())
}

/// A branch as git allows it here: it reaches git's command line and so never begins with a dash.
fn is_revision(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./+@#".contains(&byte);
    !text.is_empty()
        && text.len() <= NAME_BYTES_MAX
        && !text.starts_with('-')
        && !text.contains("..")
        && !text.contains("@{")
        && text.bytes().all(allowed)
}

fn is_commit(text: &str) -> bool {
    (4..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests;
