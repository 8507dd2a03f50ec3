//! One followed thread as it runs: what Codex does not tell again to those who come later.
//!
//! Codex has no replay: deltas are told once, and an item in flight is not in its history. The view keeps the
//! items in flight with their text so far, the running turn and the policy, and turns notifications into
//! events. Pure: the time is a parameter.

use std::time::Instant;

use flydex_agent_proto::v1;
use flydex_agent_proto::v1::agent_event::Kind as Event;
use flydex_agent_proto::v1::item::Kind as ItemKind;
use flydex_domain::limits::{DELTA_COALESCE_AFTER, DELTA_COALESCE_BYTES_MAX, ITEM_TEXT_BYTES_MAX, TURN_DIFF_BYTES_MAX};
use serde_json::Value;

use super::coalesce::{Coalescer, Delta, Field, Target};
use super::cut::{self, Budget};
use super::json::{flag, list, number, present, text};
use super::policy::Policy;
use super::translate;

/// Items in flight of one turn; more are not kept for those who come later.
const OPEN_ITEMS_MAX: usize = 64;

/// A followed thread.
pub(super) struct ThreadView {
    /// Its summary, as last told.
    pub(super) thread: v1::Thread,
    /// What it may do without asking.
    pub(super) policy: Option<Policy>,
    /// The running turn.
    pub(super) running: Option<Running>,
    coalescer: Coalescer,
}

/// A running turn.
pub(super) struct Running {
    /// Its id.
    pub(super) turn_id: String,
    /// The connector has seen it from its start.
    pub(super) whole: bool,
    /// Items that are not complete, in the order they began.
    open: Vec<v1::Item>,
}

impl ThreadView {
    /// A view of a thread that nothing is known of but its summary.
    pub(super) fn new(thread: v1::Thread) -> Self {
        let coalescer = Coalescer::new(DELTA_COALESCE_AFTER, DELTA_COALESCE_BYTES_MAX);
        Self { thread, policy: None, running: None, coalescer }
    }

    /// Takes over what Codex says on a resume, keeping what only this view knows.
    pub(super) fn resumed(&mut self, result: &Value, turns: &[Value]) {
        if let Some(thread) = present(result, "thread") {
            self.thread = translate::thread(thread, self.thread.archived);
        }
        self.policy = Policy::read(result, "sandbox");
        let running = turns.iter().find(|turn| text(turn, "status") == "inProgress");
        match running {
            None if self.thread.state() == v1::ThreadState::Idle => self.running = None,
            None => {}
            Some(turn) => {
                let turn_id = text(turn, "id");
                if self.running.as_ref().is_some_and(|running| running.turn_id == turn_id) {
                    return;
                }
                let open = list(turn, "items")
                    .iter()
                    .filter(|item| text(item, "status") == "inProgress")
                    .take(OPEN_ITEMS_MAX)
                    .map(|item| translate::item(item, true))
                    .collect();
                self.running = Some(Running { turn_id: turn_id.to_owned(), whole: false, open });
            }
        }
    }

    /// Puts the items in flight, as far as they are known here, into a turn of Codex's history.
    pub(super) fn overlay(&self, turn: &mut v1::Turn) {
        let Some(running) = self.running.as_ref().filter(|running| running.turn_id == turn.id) else { return };
        for open in &running.open {
            match turn.items.iter_mut().find(|item| item.id == open.id) {
                Some(item) => *item = open.clone(),
                None => turn.items.push(open.clone()),
            }
        }
    }

    /// The changes of a file change in flight.
    pub(super) fn changes(&self, turn_id: &str, item_id: &str) -> Option<(&[v1::FileChange], bool)> {
        let running = self.running.as_ref().filter(|running| running.turn_id == turn_id)?;
        let item = running.open.iter().find(|item| item.id == item_id)?;
        match &item.kind {
            Some(ItemKind::FileEdit(edit)) => Some((&edit.changes, item.truncated)),
            _ => None,
        }
    }

    /// Takes a notification about this thread; gives the events for those who watch, in order.
    pub(super) fn notified(&mut self, method: &str, params: &Value, now: Instant) -> Vec<Event> {
        let turn_id = text(params, "turnId");
        match method {
            "item/agentMessage/delta" | "item/plan/delta" => self.delta(params, Field::Text, now),
            "item/reasoning/summaryTextDelta" => self.delta(params, Field::Summary, now),
            "item/reasoning/summaryPartAdded" => self.next_summary_part(params, now),
            "item/commandExecution/outputDelta" => self.delta(params, Field::Output, now),
            "turn/started" => self.turn_started(params),
            "turn/completed" => self.turn_completed(params),
            "item/started" => self.item_started(turn_id, params),
            "item/completed" => self.item_completed(turn_id, params),
            "item/fileChange/patchUpdated" => self.patch_updated(turn_id, params),
            "turn/plan/updated" => self.after_text(plan_updated(turn_id, params)),
            "turn/diff/updated" => self.after_text(diff_updated(turn_id, params)),
            "thread/tokenUsage/updated" => self.after_text(token_usage(params)),
            "error" => self.after_text(problem(params)),
            "thread/settings/updated" => {
                if let Some(settings) = present(params, "threadSettings") {
                    self.policy = Policy::read(settings, "sandboxPolicy");
                }
                Vec::new()
            }
            "thread/status/changed" => {
                let state = present(params, "status").map_or(v1::ThreadState::Unspecified, translate::state);
                self.thread.state = state.into();
                self.after_text(Event::ThreadState(self.thread.clone()))
            }
            "thread/name/updated" => {
                let name = cut::chars(text(params, "threadName"), flydex_domain::limits::THREAD_NAME_CHARS_MAX);
                name.clone_into(&mut self.thread.name);
                self.after_text(Event::ThreadState(self.thread.clone()))
            }
            _ => Vec::new(),
        }
    }

    /// When collected text is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.coalescer.deadline()
    }

    /// Collected text that is due by `now`.
    pub(super) fn due(&mut self, now: Instant) -> Option<Event> {
        self.coalescer.due(now).map(delta_event)
    }

    /// All collected text.
    pub(super) fn flush(&mut self) -> Option<Event> {
        self.coalescer.flush().map(delta_event)
    }

    fn after_text(&mut self, event: Event) -> Vec<Event> {
        self.flush().into_iter().chain([event]).collect()
    }

    fn open_item(&mut self, item_id: &str) -> Option<&mut v1::Item> {
        self.running.as_mut()?.open.iter_mut().find(|item| item.id == item_id)
    }

    fn delta(&mut self, params: &Value, field: Field, now: Instant) -> Vec<Event> {
        let (item_id, piece) = (text(params, "itemId"), text(params, "delta"));
        if let Some(item) = self.open_item(item_id) {
            append(item, piece);
        }
        let target = Target { turn_id: text(params, "turnId").to_owned(), item_id: item_id.to_owned(), field };
        self.coalescer.push(target, piece, now).into_iter().map(delta_event).collect()
    }

    /// Parts of a reasoning summary are paragraphs.
    fn next_summary_part(&mut self, params: &Value, now: Instant) -> Vec<Event> {
        if number(params, "summaryIndex") == 0 {
            return Vec::new();
        }
        let mut params = params.clone();
        params["delta"] = Value::from("\n\n");
        self.delta(&params, Field::Summary, now)
    }

    fn turn_started(&mut self, params: &Value) -> Vec<Event> {
        let Some(turn) = present(params, "turn") else { return Vec::new() };
        let turn_id = text(turn, "id").to_owned();
        self.running = Some(Running { turn_id: turn_id.clone(), whole: true, open: Vec::new() });
        let started_at_ms = number(turn, "startedAt").saturating_mul(1000);
        self.after_text(Event::TurnStarted(v1::TurnStarted { turn_id, started_at_ms }))
    }

    /// Codex does not complete the items of an interrupted turn; here they end with it.
    fn turn_completed(&mut self, params: &Value) -> Vec<Event> {
        let Some(turn) = present(params, "turn") else { return Vec::new() };
        let turn = translate::turn(turn);
        let mut events: Vec<Event> = self.flush().into_iter().collect();
        if let Some(running) = self.running.take_if(|running| running.turn_id == turn.id) {
            for mut item in running.open {
                let ended = turn.state() == v1::TurnState::Completed;
                item.state = if ended { v1::ItemState::Completed } else { v1::ItemState::Failed }.into();
                events.push(Event::ItemCompleted(v1::ItemEvent { turn_id: turn.id.clone(), item: Some(item) }));
            }
        }
        events.push(Event::TurnEnded(v1::TurnEnded {
            turn_id: turn.id,
            state: turn.state,
            error: turn.error,
            completed_at_ms: turn.completed_at_ms,
        }));
        events
    }

    fn item_started(&mut self, turn_id: &str, params: &Value) -> Vec<Event> {
        let Some(value) = present(params, "item") else { return Vec::new() };
        let mut item = translate::item(value, true);
        item.started_at_ms = number(params, "startedAtMs");
        let running =
            self.running.get_or_insert_with(|| Running { turn_id: turn_id.to_owned(), whole: false, open: Vec::new() });
        if running.turn_id == turn_id && running.open.len() < OPEN_ITEMS_MAX {
            running.open.retain(|open| open.id != item.id);
            running.open.push(item.clone());
        }
        self.after_text(Event::ItemStarted(v1::ItemEvent { turn_id: turn_id.to_owned(), item: Some(item) }))
    }

    fn item_completed(&mut self, turn_id: &str, params: &Value) -> Vec<Event> {
        let Some(value) = present(params, "item") else { return Vec::new() };
        let mut item = translate::item(value, false);
        item.completed_at_ms = number(params, "completedAtMs");
        if let Some(running) = &mut self.running {
            if let Some(open) = running.open.iter().find(|open| open.id == item.id) {
                item.started_at_ms = open.started_at_ms;
            }
            running.open.retain(|open| open.id != item.id);
        }
        self.after_text(Event::ItemCompleted(v1::ItemEvent { turn_id: turn_id.to_owned(), item: Some(item) }))
    }

    fn patch_updated(&mut self, turn_id: &str, params: &Value) -> Vec<Event> {
        let mut budget = Budget::new(ITEM_TEXT_BYTES_MAX);
        let changes = translate::file_changes(list(params, "changes"), &mut budget);
        let Some(item) = self.open_item(text(params, "itemId")) else { return Vec::new() };
        item.kind = Some(ItemKind::FileEdit(v1::FileEdit { changes }));
        item.truncated = budget.cut();
        let item = item.clone();
        self.after_text(Event::ItemStarted(v1::ItemEvent { turn_id: turn_id.to_owned(), item: Some(item) }))
    }
}

fn append(item: &mut v1::Item, piece: &str) {
    let field = match &mut item.kind {
        Some(ItemKind::AgentMessage(message)) => &mut message.text,
        Some(ItemKind::Plan(plan)) => &mut plan.text,
        Some(ItemKind::Reasoning(reasoning)) => &mut reasoning.summary,
        Some(ItemKind::CommandExecution(command)) => &mut command.output,
        Some(
            ItemKind::UserMessage(_)
            | ItemKind::FileEdit(_)
            | ItemKind::ToolCall(_)
            | ItemKind::WebSearch(_)
            | ItemKind::Notice(_)
            | ItemKind::Unknown(_),
        )
        | None => return,
    };
    let (head, cut) = cut::head(piece, ITEM_TEXT_BYTES_MAX.saturating_sub(field.len()));
    if !item.truncated {
        field.push_str(head);
    }
    item.truncated |= cut;
}

fn delta_event(delta: Delta) -> Event {
    let field = match delta.target.field {
        Field::Text => v1::DeltaField::Text,
        Field::Summary => v1::DeltaField::Summary,
        Field::Output => v1::DeltaField::Output,
    };
    Event::ItemDelta(v1::ItemDelta {
        turn_id: delta.target.turn_id,
        item_id: delta.target.item_id,
        field: field.into(),
        text: delta.text,
    })
}

fn plan_updated(turn_id: &str, params: &Value) -> Event {
    let mut budget = Budget::new(ITEM_TEXT_BYTES_MAX);
    let text = budget.take(text(params, "explanation"));
    let steps = list(params, "plan").iter().map(|step| translate::plan_step(step, &mut budget)).collect();
    Event::PlanUpdated(v1::PlanUpdated { turn_id: turn_id.to_owned(), plan: Some(v1::Plan { text, steps }) })
}

fn diff_updated(turn_id: &str, params: &Value) -> Event {
    let (diff, truncated) = cut::head(text(params, "diff"), TURN_DIFF_BYTES_MAX);
    Event::DiffUpdated(v1::DiffUpdated { turn_id: turn_id.to_owned(), diff: diff.to_owned(), truncated })
}

fn token_usage(params: &Value) -> Event {
    let usage = params.get("tokenUsage").unwrap_or(&Value::Null);
    let total_tokens = usage.get("last").map_or(0, |last| number(last, "totalTokens"));
    Event::TokenUsage(v1::TokenUsage { total_tokens, context_window: number(usage, "modelContextWindow") })
}

fn problem(params: &Value) -> Event {
    let code = translate::problem_code(params.get("error").unwrap_or(&Value::Null));
    Event::Problem(v1::ThreadProblem { code: code.number().into(), will_retry: flag(params, "willRetry") })
}

#[cfg(test)]
mod tests;
