use std::path::PathBuf;

use uuid::Uuid;

use super::*;

fn thread_id() -> ThreadId {
    ThreadId::from_uuid(Uuid::from_u128(1))
}

fn command_id() -> CommandId {
    CommandId::from_uuid(Uuid::from_u128(2))
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

#[test]
fn a_start_carries_the_text_and_nothing_that_changes_what_codex_may_do() {
    let command = v1::StartTurn { text: "hi".to_owned(), model: "m".to_owned(), ..Default::default() };
    let params = start_turn(thread_id(), command_id(), &command).expect("params");
    assert_eq!(keys(&params), ["clientUserMessageId", "input", "model", "threadId"]);
    assert_eq!(params["clientUserMessageId"], command_id().to_string());
    assert_eq!(params["input"], json!([{"type": "text", "text": "hi", "text_elements": []}]));
}

#[test]
fn an_empty_or_endless_prompt_is_refused() {
    let command = |text: String| v1::StartTurn { text, ..Default::default() };
    assert_eq!(start_turn(thread_id(), command_id(), &command(" \n".to_owned())), Err(ErrorCode::PromptEmpty));
    let long = command("x".repeat(PROMPT_BYTES_MAX + 1));
    assert_eq!(start_turn(thread_id(), command_id(), &long), Err(ErrorCode::PromptTooLarge));
}

#[test]
fn a_thread_starts_in_a_listed_folder_only() {
    let allowed = [AllowedDirectory { path: PathBuf::from("/srv/app"), label: "app".to_owned() }];
    let command = |directory: &str| v1::StartThread { directory: directory.to_owned(), ..Default::default() };
    assert_eq!(start_thread(&command("/srv/app"), &allowed), Ok(json!({"cwd": "/srv/app"})));
    for directory in ["/", "/srv", "/srv/app/", "/srv/app/../..", "", "app"] {
        assert_eq!(start_thread(&command(directory), &allowed), Err(ErrorCode::DirectoryNotAllowed), "{directory}");
    }
}

#[test]
fn a_list_is_bounded_whatever_is_asked() {
    let command = v1::ListThreads { limit: 10_000, ..Default::default() };
    assert_eq!(list_threads(&command, None).expect("params")["limit"], THREAD_PAGE_ROWS_MAX);
    assert_eq!(list_threads(&v1::ListThreads::default(), None).expect("params")["limit"], THREAD_PAGE_ROWS_MAX);
}

#[test]
fn a_name_is_one_line_of_bounded_length() {
    assert!(rename(thread_id(), "A name").is_ok());
    assert_eq!(rename(thread_id(), "two\nlines"), Err(ErrorCode::BadRequest));
    assert_eq!(rename(thread_id(), &"n".repeat(201)), Err(ErrorCode::BadRequest));
    assert_eq!(rename(thread_id(), "  "), Err(ErrorCode::BadRequest));
}

#[test]
fn a_review_names_a_revision_and_never_an_option() {
    let base = |branch: &str| review(thread_id(), Some(&Target::BaseBranch(branch.to_owned())));
    assert!(base("feature/a-1").is_ok());
    for branch in ["", "-x", "--output=/etc/passwd", "a..b", "a b", "a;b", "a@{1}"] {
        assert_eq!(base(branch), Err(ErrorCode::BadRequest), "{branch}");
    }
    assert!(review(thread_id(), Some(&Target::Commit("deadbeef".to_owned()))).is_ok());
    assert!(review(thread_id(), Some(&Target::Commit("HEAD".to_owned()))).is_err());
    assert!(review(thread_id(), Some(&Target::UncommittedChanges(false))).is_err());
    assert!(review(thread_id(), None).is_err());
}

#[test]
fn following_a_thread_overrides_nothing() {
    assert_eq!(keys(&follow(thread_id())), ["excludeTurns", "initialTurnsPage", "threadId"]);
}
