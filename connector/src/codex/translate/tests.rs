use flydex_agent_proto::v1;
use flydex_agent_proto::v1::item::Kind;
use flydex_domain::limits::ITEM_TEXT_BYTES_MAX;
use prost::Message as _;
use serde_json::json;

use super::*;

#[test]
fn a_command_keeps_the_end_of_a_long_output() {
    let value = json!({
        "type": "commandExecution", "id": "call_1", "status": "failed", "command": "/bin/bash -lc make", "cwd": "/w",
        "commandActions": [], "aggregatedOutput": format!("{}THE END", "x".repeat(2 * ITEM_TEXT_BYTES_MAX)),
        "exitCode": 2, "durationMs": 1500,
    });
    let item = item(&value, false);
    assert!(item.truncated);
    assert!(item.state() == v1::ItemState::Failed);
    let Some(Kind::CommandExecution(command)) = item.kind else { panic!("a command") };
    assert!(command.output.ends_with("THE END"));
    assert!(command.output.len() <= ITEM_TEXT_BYTES_MAX);
    assert_eq!((command.exit_code, command.has_exit_code, command.duration_ms), (2, true, 1500));
}

#[test]
fn a_command_without_exit_code_says_so() {
    let value =
        json!({"type": "commandExecution", "id": "c", "status": "inProgress", "command": "ls", "exitCode": null});
    let item = item(&value, true);
    assert!(item.state() == v1::ItemState::Running);
    let Some(Kind::CommandExecution(command)) = item.kind else { panic!("a command") };
    assert!(!command.has_exit_code);
}

#[test]
fn an_item_of_an_unknown_type_is_a_plain_card() {
    let item = item(&json!({"type": "hologram", "id": "h", "secret": "never shown"}), false);
    let Some(Kind::Unknown(unknown)) = &item.kind else { panic!("unknown") };
    assert_eq!(unknown.r#type, "hologram");
    assert!(!String::from_utf8_lossy(&item.encode_to_vec()).contains("never shown"));
}

#[test]
fn a_user_message_keeps_its_client_id_and_hides_local_paths() {
    let value = json!({"type": "userMessage", "id": "u", "clientId": "abc", "content": [
        {"type": "text", "text": "look", "text_elements": []}, {"type": "localImage", "path": "/home/me/secret.png"}]});
    let Some(Kind::UserMessage(message)) = item(&value, false).kind else { panic!("a message") };
    assert_eq!((message.text.as_str(), message.client_id.as_str()), ("look\n[image]", "abc"));
}

#[test]
fn a_file_change_tells_path_kind_move_and_diff() {
    let value = json!({"type": "fileChange", "id": "f", "status": "inProgress", "changes": [
        {"path": "/w/a", "kind": {"type": "update", "move_path": "/w/b"}, "diff": "@@ -1 +1 @@"},
        {"path": "/w/c", "kind": {"type": "add"}, "diff": "new"}]});
    let Some(Kind::FileEdit(edit)) = item(&value, false).kind else { panic!("an edit") };
    let told: Vec<_> = edit.changes.iter().map(|c| (c.path.as_str(), c.kind.as_str(), c.has_moved_to)).collect();
    assert_eq!(told, [("/w/a", "update", true), ("/w/c", "add", false)]);
    assert_eq!(edit.changes[0].moved_to, "/w/b");
}

#[test]
fn a_thread_is_cut_to_size_and_loses_its_path() {
    let value = json!({"id": "01a2", "name": "n".repeat(500), "preview": "ä".repeat(1000), "cwd": "/w", "createdAt": 7,
        "updatedAt": 8, "status": {"type": "active", "activeFlags": ["waitingOnApproval"]}, "modelProvider": "p",
        "path": "/home/me/.codex/sessions/x", "gitInfo": {"branch": "main", "originUrl": "git@host"}});
    let thread = thread(&value, false);
    assert_eq!(thread.name.chars().count(), 200);
    assert!(thread.preview.len() <= 240);
    assert_eq!((thread.created_at_ms, thread.git_branch.as_str()), (7000, "main"));
    assert!(thread.state() == v1::ThreadState::WaitingOnApproval);
    let bytes = thread.encode_to_vec();
    assert!(!String::from_utf8_lossy(&bytes).contains(".codex") && !String::from_utf8_lossy(&bytes).contains("git@"));
}

#[test]
fn errors_of_codex_are_told_in_our_words() {
    let error =
        json!({"message": "unexpected status 401 url: http://127.0.0.1:8799/v1", "codexErrorInfo": "unauthorized"});
    assert_eq!(turn_error(Some(&error)), "The model provider refused the machine's credentials.");
    let error = json!({"message": "x", "codexErrorInfo": {"httpConnectionFailed": {"httpStatusCode": null}}});
    assert_eq!(turn_error(Some(&error)), "The model provider could not be reached.");
    assert_eq!(turn_error(Some(&json!({"message": "x"}))), "The turn failed on the machine.");
    assert_eq!(turn_error(None), "");
}

#[test]
fn a_thread_that_is_kept_among_the_archived_is_archived_whoever_tells_of_it() {
    let kept = |path: &str| threads::thread(&json!({"id": "T", "path": path}), false).archived;
    assert!(kept("/home/ada/.codex/archived_sessions/rollout-1.jsonl"));
    assert!(!kept("/home/ada/.codex/sessions/2026/11/22/rollout-1.jsonl"));
    assert!(!kept("/home/archived_sessions_of_ada/.codex/sessions/rollout-1.jsonl"));
}
