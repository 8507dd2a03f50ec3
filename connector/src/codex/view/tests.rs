use flydex_runtime::clock::Clock;
use serde_json::json;

use super::*;

fn view() -> ThreadView {
    ThreadView::new(translate::thread(&json!({"id": "T", "status": {"type": "idle"}}), false))
}

fn now() -> Instant {
    Clock::manual(0).instant()
}

fn feed(view: &mut ThreadView, method: &str, params: Value) -> Vec<Event> {
    view.notified(method, &params, now())
}

fn start(view: &mut ThreadView) {
    feed(view, "turn/started", json!({"threadId": "T", "turn": {"id": "t1", "status": "inProgress", "items": []}}));
    let item = json!({"type": "agentMessage", "id": "a", "text": ""});
    feed(view, "item/started", json!({"turnId": "t1", "item": item, "startedAtMs": 5}));
}

#[test]
fn text_in_flight_is_there_for_those_who_come_later() {
    let mut view = view();
    start(&mut view);
    for piece in ["Hel", "lo"] {
        assert!(
            feed(&mut view, "item/agentMessage/delta", json!({"turnId": "t1", "itemId": "a", "delta": piece}))
                .is_empty()
        );
    }
    let mut turn = translate::turn(&json!({"id": "t1", "status": "inProgress", "items": [
        {"type": "userMessage", "id": "u", "content": []}]}));
    view.overlay(&mut turn);
    assert_eq!(turn.items.len(), 2);
    let Some(ItemKind::AgentMessage(message)) = &turn.items[1].kind else { panic!("a message") };
    assert_eq!(message.text, "Hello");
    assert!(view.running.as_ref().is_some_and(|running| running.whole));
}

#[test]
fn collected_text_goes_before_what_ends_it() {
    let mut view = view();
    start(&mut view);
    feed(&mut view, "item/agentMessage/delta", json!({"turnId": "t1", "itemId": "a", "delta": "Hi"}));
    let item = json!({"type": "agentMessage", "id": "a", "text": "Hi"});
    let events = feed(&mut view, "item/completed", json!({"turnId": "t1", "item": item, "completedAtMs": 9}));
    let [Event::ItemDelta(delta), Event::ItemCompleted(done)] = &events[..] else { panic!("two events") };
    assert_eq!(delta.text, "Hi");
    let item = done.item.as_ref().expect("an item");
    assert_eq!((item.started_at_ms, item.completed_at_ms), (5, 9));
}

#[test]
fn an_interrupted_turn_ends_its_open_items() {
    let mut view = view();
    start(&mut view);
    let events = feed(&mut view, "turn/completed", json!({"turn": {"id": "t1", "status": "interrupted", "items": []}}));
    let [Event::ItemCompleted(item), Event::TurnEnded(ended)] = &events[..] else { panic!("two events") };
    assert!(item.item.as_ref().is_some_and(|item| item.state() == v1::ItemState::Failed));
    assert!(ended.state() == v1::TurnState::Interrupted);
    assert!(view.running.is_none());
}

#[test]
fn a_turn_joined_in_the_middle_is_partial_until_it_ends() {
    let mut view = view();
    let turns = [json!({"id": "t1", "status": "inProgress", "items": [
        {"type": "commandExecution", "id": "c", "status": "inProgress", "command": "make"}]})];
    view.resumed(&json!({"thread": {"id": "T", "status": {"type": "active", "activeFlags": []}}}), &turns);
    assert!(view.running.as_ref().is_some_and(|running| !running.whole && running.open.len() == 1));
    view.resumed(&json!({"thread": {"id": "T", "status": {"type": "active", "activeFlags": []}}}), &turns);
    assert!(view.running.as_ref().is_some_and(|running| running.open.len() == 1));
}

#[test]
fn the_policy_follows_the_settings() {
    let mut view = view();
    let settings = json!({"approvalPolicy": "never", "sandboxPolicy": {"type": "dangerFullAccess"}});
    feed(&mut view, "thread/settings/updated", json!({"threadId": "T", "threadSettings": settings}));
    assert!(view.policy.as_ref().is_some_and(|policy| policy.unguarded));
}

#[test]
fn the_diff_of_a_file_change_in_flight_is_in_hand() {
    let mut view = view();
    start(&mut view);
    let item = json!({"type": "fileChange", "id": "f", "status": "inProgress", "changes": [
        {"path": "/w/a", "kind": {"type": "add"}, "diff": "one"}]});
    feed(&mut view, "item/started", json!({"turnId": "t1", "item": item, "startedAtMs": 5}));
    assert!(view.changes("t1", "f").is_some_and(|(changes, cut)| changes[0].diff == "one" && !cut));
    assert!(view.changes("t2", "f").is_none());
    assert!(view.changes("t1", "a").is_none());
}

#[test]
fn an_unknown_notification_says_nothing() {
    assert!(feed(&mut view(), "thread/novel", json!({})).is_empty());
}
