use std::time::Duration;

use flydex_agent_proto::v1;
use flydex_domain::approval::ApprovalKind;
use flydex_runtime::clock::Clock;

use super::*;

fn table() -> (Table, Clock) {
    (Table::new(Generation::from_bytes([1; 32])), Clock::manual(0))
}

fn command_params() -> Value {
    json!({"kind": "command", "threadId": "T", "turnId": "t", "itemId": "call", "startedAtMs": 5, "reason": "why",
        "command": "/bin/bash -lc 'id'", "cwd": "/w", "proposedExecpolicyAmendment": ["bash"],
        "availableDecisions": ["accept", "cancel"]})
}

fn ask_command(table: &mut Table) -> RequestKey {
    let (asking, _) = read(json!(0), "item/commandExecution/requestApproval", &command_params(), None).expect("told");
    assert!(table.insert("0", asking));
    table.key("0")
}

fn answered(decision: Decision) -> (Table, Clock, RequestKey, u64) {
    let (mut table, clock) = table();
    let key = ask_command(&mut table);
    let (_, waiter) = table.answer(&key, Answer::Decision(decision), clock.instant()).expect("open");
    (table, clock, key, waiter)
}

fn settled(key: RequestKey, waiter: u64, outcome: AnswerOutcome, how: Resolution) -> Vec<Effect> {
    vec![Effect::Settle(waiter, outcome), Effect::Resolved(key, how)]
}

#[test]
fn a_command_approval_shows_what_runs_and_offers_no_amendment() {
    let (_, ask) = read(json!(0), "item/commandExecution/requestApproval", &command_params(), None).expect("told");
    let Ask::Approval { action, risk_high, desk_only, .. } = ask else { panic!("an approval") };
    assert_eq!(
        (action.command.as_str(), action.cwd.as_str(), action.reason.as_str()),
        ("/bin/bash -lc 'id'", "/w", "why")
    );
    assert!(!risk_high && !desk_only);
}

#[test]
fn the_answer_is_codexs_word_for_the_decision_under_its_request_id() {
    let (mut table, clock) = table();
    let key = ask_command(&mut table);
    let (message, _) = table.answer(&key, Answer::Decision(Decision::Accept), clock.instant()).expect("open");
    assert_eq!(message, json!({"id": 0, "result": {"decision": "accept"}}));
}

#[test]
fn a_request_takes_one_answer_and_none_of_another_life_of_codex() {
    let (mut table, clock, key, _) = answered(Decision::Decline);
    assert!(table.answer(&key, Answer::Decision(Decision::Accept), clock.instant()).is_none());
    let other = RequestKey { generation: Generation::from_bytes([2; 32]), request_id: "0".to_owned() };
    assert!(table.answer(&other, Answer::Decision(Decision::Accept), clock.instant()).is_none());
}

#[test]
fn an_accept_is_confirmed_when_the_command_ran() {
    let (mut table, clock, key, waiter) = answered(Decision::Accept);
    assert_eq!(table.resolved("0", clock.instant()), []);
    let effects = table.item_sign("T", "call", Sign::Ran, clock.instant());
    assert_eq!(effects, settled(key, waiter, AnswerOutcome::Confirmed, Resolution::OursConfirmed(Decision::Accept)));
}

#[test]
fn an_accepted_command_that_runs_silently_is_confirmed_after_a_moment() {
    let (mut table, clock, key, waiter) = answered(Decision::Accept);
    assert_eq!(table.resolved("0", clock.instant()), []);
    assert_eq!(table.deadline(), Some(clock.instant() + APPROVAL_CONTRADICTION_WAIT));
    clock.advance(APPROVAL_CONTRADICTION_WAIT);
    let effects = table.due(clock.instant());
    assert_eq!(effects, settled(key, waiter, AnswerOutcome::Confirmed, Resolution::OursConfirmed(Decision::Accept)));
}

#[test]
fn an_outcome_that_contradicts_the_answer_was_decided_at_the_desk() {
    for (decision, sign) in
        [(Decision::Accept, Sign::Declined), (Decision::Decline, Sign::Ran), (Decision::Cancel, Sign::Ran)]
    {
        let (mut table, clock, key, waiter) = answered(decision);
        table.resolved("0", clock.instant());
        let effects = table.item_sign("T", "call", sign, clock.instant());
        assert_eq!(effects, settled(key, waiter, AnswerOutcome::AnsweredAtDesk, Resolution::AtDesk));
    }
}

#[test]
fn a_cancel_is_confirmed_by_the_interrupted_turn_in_either_order() {
    for resolved_first in [true, false] {
        let (mut table, clock, key, waiter) = answered(Decision::Cancel);
        let effects = if resolved_first {
            assert_eq!(table.resolved("0", clock.instant()), []);
            table.turn_sign("T", "t", Sign::Interrupted, clock.instant())
        } else {
            assert_eq!(table.turn_sign("T", "t", Sign::Interrupted, clock.instant()), []);
            table.resolved("0", clock.instant())
        };
        assert_eq!(
            effects,
            settled(key, waiter, AnswerOutcome::Confirmed, Resolution::OursConfirmed(Decision::Cancel))
        );
    }
}

#[test]
fn a_cancel_waits_for_its_turn_after_the_item_was_declined() {
    let (mut table, clock, key, waiter) = answered(Decision::Cancel);
    assert_eq!(table.resolved("0", clock.instant()), []);
    assert_eq!(table.item_sign("T", "call", Sign::Declined, clock.instant()), []);
    let effects = table.turn_sign("T", "t", Sign::Interrupted, clock.instant());
    assert_eq!(effects, settled(key, waiter, AnswerOutcome::Confirmed, Resolution::OursConfirmed(Decision::Cancel)));

    let (mut table, clock, key, waiter) = answered(Decision::Cancel);
    table.resolved("0", clock.instant());
    table.item_sign("T", "call", Sign::Declined, clock.instant());
    assert_eq!(table.turn_sign("T", "t", Sign::TurnEnded, clock.instant()), []);
    clock.advance(APPROVAL_CONFIRM_TIMEOUT);
    assert_eq!(table.due(clock.instant()), settled(key, waiter, AnswerOutcome::AnsweredAtDesk, Resolution::AtDesk));
}

#[test]
fn without_a_word_of_codex_the_outcome_is_unknown_and_may_be_told_later() {
    let (mut table, clock, key, waiter) = answered(Decision::Accept);
    clock.advance(APPROVAL_CONFIRM_TIMEOUT - Duration::from_millis(1));
    assert_eq!(table.due(clock.instant()), []);
    clock.advance(Duration::from_millis(1));
    assert_eq!(table.due(clock.instant()), [Effect::Settle(waiter, AnswerOutcome::Unknown)]);
    assert_eq!(table.deadline(), None);
    table.item_sign("T", "call", Sign::Ran, clock.instant());
    let effects = table.resolved("0", clock.instant());
    assert_eq!(effects, [Effect::Resolved(key, Resolution::OursConfirmed(Decision::Accept))]);
}

#[test]
fn a_request_resolved_without_our_answer_was_answered_at_the_desk_or_withdrawn() {
    let (mut table, clock) = table();
    let key = ask_command(&mut table);
    assert_eq!(table.resolved("0", clock.instant()), [Effect::Resolved(key.clone(), Resolution::AtDesk)]);
    ask_command(&mut table);
    assert_eq!(table.turn_sign("T", "t", Sign::Interrupted, clock.instant()), []);
    assert_eq!(table.resolved("0", clock.instant()), [Effect::Resolved(key, Resolution::Withdrawn)]);
}

#[test]
fn a_repeated_request_is_noted_once() {
    let (mut table, _) = table();
    ask_command(&mut table);
    let (again, _) = read(json!(0), "item/commandExecution/requestApproval", &command_params(), None).expect("told");
    assert!(!table.insert("0", again));
}

#[test]
fn codex_going_away_ends_every_request() {
    let (mut table, _, key, waiter) = answered(Decision::Accept);
    let effects = table.codex_gone();
    assert_eq!(effects, settled(key, waiter, AnswerOutcome::Unknown, Resolution::CodexLost));
    assert_eq!(table.codex_gone(), []);
}

fn approval(
    method: &str,
    params: Value,
    changes: Option<&[v1::FileChange]>,
) -> (Asking, flydex_domain::approval::ApprovalAction, bool, bool) {
    match read(json!(1), method, &params, changes) {
        Some((asking, Ask::Approval { action, risk_high, desk_only, .. })) => (asking, action, risk_high, desk_only),
        _ => panic!("an approval"),
    }
}

#[test]
fn a_file_change_without_its_diff_or_with_a_root_is_for_the_desk() {
    let method = "item/fileChange/requestApproval";
    let params = json!({"threadId": "T", "turnId": "t", "itemId": "f", "startedAtMs": 5, "grantRoot": null});
    let changes = [v1::FileChange {
        path: "/w/a".to_owned(),
        kind: "add".to_owned(),
        diff: "one".to_owned(),
        ..Default::default()
    }];
    let (_, action, _, desk_only) = approval(method, params.clone(), Some(&changes));
    assert!(!desk_only && action.changes.len() == 1 && action.kind == ApprovalKind::FileChange);
    assert!(approval(method, params.clone(), None).3);
    assert!(approval(method, params.clone(), Some(&[])).3);
    let mut rooted = params;
    rooted["grantRoot"] = json!("/");
    let (asking, _, risk_high, desk_only) = approval(method, rooted, Some(&changes));
    assert!(risk_high && desk_only);
    assert!(asking.result(&Answer::Decision(Decision::Accept)).is_none());
}

#[test]
fn permissions_are_granted_exactly_as_shown_and_for_the_turn_only() {
    let asked = json!({"network": {"enabled": true}, "fileSystem": {"read": ["/etc"], "write": null,
        "entries": [{"access": "write", "path": {"type": "path", "path": "/opt"}}]}});
    let params =
        json!({"threadId": "T", "turnId": "t", "itemId": "p", "startedAtMs": 5, "cwd": "/w", "permissions": asked});
    let (asking, action, risk_high, desk_only) = approval("item/permissions/requestApproval", params, None);
    let mut lines = action.permissions.clone();
    lines.sort();
    assert_eq!(lines, ["network", "read:/etc", "write:/opt"]);
    assert!(risk_high && !desk_only);
    assert_eq!(
        asking.result(&Answer::Decision(Decision::Accept)),
        Some(json!({"permissions": asked, "scope": "turn"}))
    );
    assert_eq!(asking.result(&Answer::Decision(Decision::Decline)), Some(json!({"permissions": {}, "scope": "turn"})));
    assert_eq!(asking.result(&Answer::Decision(Decision::AcceptForSession)), None);
}

#[test]
fn what_cannot_be_shown_in_full_is_for_the_desk() {
    for permissions in [
        json!({"novel": {"x": 1}}),
        json!({"fileSystem": {"entries": [{"access": "write", "path": {"type": "special", "value": {"kind": "root"}}}]}}),
    ] {
        let params = json!({"threadId": "T", "turnId": "t", "itemId": "p", "permissions": permissions});
        assert!(approval("item/permissions/requestApproval", params, None).3);
    }
    let mut params = command_params();
    params["kind"] = json!("writeStdin");
    assert!(approval("item/commandExecution/requestApproval", params, None).3);
    let mut params = command_params();
    params["command"] = json!("x".repeat(flydex_domain::limits::APPROVAL_ACTION_BYTES_MAX + 1));
    assert!(approval("item/commandExecution/requestApproval", params, None).3);
}

#[test]
fn secret_questions_and_elicitations_are_for_the_desk_and_others_are_answered_by_part() {
    let question = |secret: bool| {
        json!({"threadId": "T", "turnId": "t", "itemId": "q", "isBlocking": true, "questions": [
        {"id": "colour", "header": "Colour", "question": "Which?", "isSecret": secret, "options": [{"label": "Blue", "description": ""}]}]})
    };
    let method = "item/tool/requestUserInput";
    let Some((_, Ask::Questions { desk_only, .. })) = read(json!(3), method, &question(true), None) else {
        panic!("told")
    };
    assert!(desk_only);
    let Some((asking, Ask::Questions { parts, desk_only })) = read(json!(3), method, &question(false), None) else {
        panic!("told")
    };
    assert!(!desk_only && parts.len() == 1 && !parts[0].free_text);
    let answer = Answer::Questions(vec![("colour".to_owned(), vec!["Blue".to_owned()])]);
    assert_eq!(asking.result(&answer), Some(json!({"answers": {"colour": {"answers": ["Blue"]}}})));
    let foreign = Answer::Questions(vec![("other".to_owned(), vec![])]);
    assert_eq!(asking.result(&foreign), None);
    let params = json!({"threadId": "T", "serverName": "s", "mode": "url", "message": "open", "_meta": null});
    let Some((_, Ask::Questions { desk_only, .. })) = read(json!(4), "mcpServer/elicitation/request", &params, None)
    else {
        panic!("told")
    };
    assert!(desk_only);
}

#[test]
fn requests_that_are_not_handled_are_left_in_silence() {
    for method in [
        "item/tool/call",
        "account/chatgptAuthTokens/refresh",
        "attestation/generate",
        "currentTime/read",
        "applyPatchApproval",
        "execCommandApproval",
        "novel/request",
    ] {
        assert!(read(json!(9), method, &json!({"threadId": "T"}), None).is_none(), "{method}");
    }
}

#[test]
fn whatever_a_tool_server_asks_is_shown_and_takes_no_answer_from_here() {
    for (mode, meta) in [
        ("form", json!({"codex_approval_kind": "mcp_tool_call", "persist": ["session", "always"]})),
        ("form", Value::Null),
        ("openai/form", Value::Null),
        ("url", Value::Null),
        ("openai/userVerification", Value::Null),
        ("novel", Value::Null),
    ] {
        let params = json!({"threadId": "T", "turnId": "t", "serverName": "files", "mode": mode,
            "message": "delete it?", "requestedSchema": {}, "_meta": meta});
        let told = read(json!(4), "mcpServer/elicitation/request", &params, None);
        let Some((asking, Ask::Questions { parts, desk_only: true })) = told else { panic!("{mode} is not told") };
        assert_eq!((parts[0].header.as_str(), parts[0].text.as_str()), ("files", "delete it?"));
        for decision in [Decision::Accept, Decision::AcceptForSession, Decision::Decline, Decision::Cancel] {
            assert_eq!(asking.result(&Answer::Decision(decision)), None, "{mode}");
        }
        let answer = Answer::Questions(vec![("elicitation".to_owned(), vec!["accept".to_owned()])]);
        assert_eq!(asking.result(&answer), None, "{mode}");
    }
}

#[test]
fn a_declined_permission_grants_nothing_and_a_cancel_stops_the_turn() {
    let params = json!({"threadId": "T", "turnId": "t", "itemId": "p", "startedAtMs": 5, "cwd": "/w",
        "permissions": {"network": {"enabled": true}}});
    let (asking, _, risk_high, desk_only) = approval("item/permissions/requestApproval", params, None);
    assert!(risk_high && !desk_only && asking.cancel_needs_interrupt());
    for decision in [Decision::Decline, Decision::Cancel] {
        let result = asking.result(&Answer::Decision(decision));
        assert_eq!(result, Some(json!({"permissions": {}, "scope": "turn"})));
    }
    assert_eq!(asking.result(&Answer::Questions(vec![])), None);
}

#[test]
fn questions_may_be_skipped_and_too_many_are_for_the_desk() {
    let method = "item/tool/requestUserInput";
    let question = |id: usize| json!({"id": id.to_string(), "header": "", "question": "?", "isOther": true});
    let ask = |count: usize| {
        let questions: Vec<Value> = (0..count).map(question).collect();
        let params = json!({"threadId": "T", "turnId": "t", "itemId": "q", "questions": questions});
        read(json!(3), method, &params, None)
    };
    let Some((asking, Ask::Questions { parts, desk_only: false })) = ask(2) else { panic!("told") };
    assert!(parts.iter().all(|part| part.free_text));
    assert_eq!(asking.result(&Answer::Questions(vec![])), Some(json!({"answers": {}})));
    for count in [0, flydex_domain::limits::QUESTION_PARTS_MAX + 1] {
        let Some((asking, Ask::Questions { desk_only, .. })) = ask(count) else { panic!("told") };
        assert!(desk_only && asking.result(&Answer::Questions(vec![])).is_none(), "{count}");
    }
}
