//! Codex's notifications: to the views of followed threads, to the open requests, and to the machine stream.

use flydex_agent_proto::v1;
use flydex_agent_proto::v1::agent_event::Kind as Event;
use serde_json::Value;

use super::super::api::{CodexEvent, ThreadId};
use super::super::approvals::Sign;
use super::super::json::{list, present, text};
use super::super::methods::Method;
use super::super::rpc::Error as RpcError;
use super::super::{surface, translate};
use super::follow::is_active;
use super::{Life, Then, Want, thread_event};

/// Active threads without room that are remembered, to be followed when there is room again.
const UNFOLLOWED_MAX: usize = 1024;

impl Life {
    /// Takes a notification.
    pub(super) fn news(&mut self, method: &str, params: &Value) {
        let Some(thread_id) = subject(params) else { return };
        if method == "serverRequest/resolved" {
            let request_id = params.get("requestId").unwrap_or(&Value::Null).to_string();
            let effects = self.table.resolved(&request_id, self.clock.instant());
            return self.apply(effects);
        }
        self.tell_followers(thread_id, method, params);
        self.read_signs(method, params);
        match method {
            "thread/started" => {
                let thread = translate::thread(params.get("thread").unwrap_or(&Value::Null), false);
                self.tell_summary(thread);
            }
            "thread/status/changed" => {
                self.refresh(thread_id);
                let state = present(params, "status").map_or(v1::ThreadState::Unspecified, translate::state);
                self.status_changed(thread_id, state);
            }
            "thread/name/updated" | "thread/unarchived" => self.refresh(thread_id),
            "thread/archived" | "thread/deleted" => {
                let archived = method == "thread/archived";
                let removed = v1::ThreadRemoved { thread_id: thread_id.to_string(), archived };
                self.told.push(machine_event(Event::ThreadRemoved(removed)));
            }
            "thread/closed" | "thread/reverted" => self.lose(thread_id, method == "thread/closed"),
            "turn/completed" => self.release(thread_id),
            _ => {}
        }
    }

    /// Looks at each loaded thread: one that works may wait for an approval.
    pub(super) fn look_at_loaded(&mut self, outcome: Result<Value, RpcError>) {
        let Ok(result) = outcome else { return };
        for thread_id in list(&result, "data").iter().filter_map(|id| id.as_str()?.parse().ok()) {
            self.ask(Method::ThreadRead, surface::summary(thread_id), Then::Tell(thread_id));
        }
    }

    /// Tells a thread's summary as just read, and follows it when it is active.
    pub(super) fn tell(&mut self, thread_id: ThreadId, outcome: Result<Value, RpcError>) {
        let Ok(result) = outcome else { return };
        let Some(thread) = present(&result, "thread") else { return };
        let thread = translate::thread(thread, false);
        let state = thread.state();
        self.tell_summary(thread);
        self.status_changed(thread_id, state);
    }

    fn tell_followers(&mut self, thread_id: ThreadId, method: &str, params: &Value) {
        let now = self.clock.instant();
        let Some(followed) = self.followed.get_mut(&thread_id) else { return };
        let events = followed.view.notified(method, params, now);
        if followed.watched {
            self.told.extend(events.into_iter().map(|kind| thread_event(thread_id, kind)));
        }
    }

    /// What items and turns did, for the requests that were answered.
    fn read_signs(&mut self, method: &str, params: &Value) {
        let now = self.clock.instant();
        let thread_id = text(params, "threadId");
        let effects = match method {
            "item/commandExecution/outputDelta" => {
                self.table.item_sign(thread_id, text(params, "itemId"), Sign::Prints, now)
            }
            "item/completed" => {
                let item = params.get("item").unwrap_or(&Value::Null);
                self.table.item_sign(thread_id, text(item, "id"), item_sign(item), now)
            }
            "turn/completed" => {
                let turn = params.get("turn").unwrap_or(&Value::Null);
                let interrupted = text(turn, "status") == "interrupted";
                let sign = if interrupted { Sign::Interrupted } else { Sign::TurnEnded };
                self.table.turn_sign(thread_id, text(turn, "id"), sign, now)
            }
            _ => return,
        };
        self.apply(effects);
    }

    fn status_changed(&mut self, thread_id: ThreadId, state: v1::ThreadState) {
        if !is_active(state) {
            self.unfollowed.remove(&thread_id);
            self.tell_unfollowed();
            return self.release(thread_id);
        }
        let follows = self.followed.contains_key(&thread_id)
            || self.asked.values().any(|(then, _)| matches!(then, Then::Follow(id, ..) if *id == thread_id))
            || self.queue.iter().any(|(_, _, then)| matches!(then, Then::Follow(id, ..) if *id == thread_id))
            || self.fresh.iter().any(|fresh| fresh.thread_id == thread_id);
        if follows {
            return;
        }
        if self.has_room_for(thread_id) {
            self.follow(thread_id, Want::News, 0);
        } else {
            tracing::warn!("too many threads are active to follow them all");
            if self.unfollowed.len() < UNFOLLOWED_MAX {
                self.unfollowed.insert(thread_id);
            }
            self.tell_unfollowed();
        }
    }

    /// Follows an active thread for which there was no room until now.
    pub(super) fn follow_next(&mut self) {
        if let Some(thread_id) = self.unfollowed.first().copied().filter(|thread_id| self.has_room_for(*thread_id)) {
            self.unfollowed.remove(&thread_id);
            self.tell_unfollowed();
            self.follow(thread_id, Want::News, 0);
        }
    }

    /// The desk sees how many there are: their approvals are answered there.
    pub(super) fn tell_unfollowed(&self) {
        let count = self.unfollowed.len();
        self.unfollowed_count.send_if_modified(|told| std::mem::replace(told, count) != count);
    }

    /// Reads a thread's summary again, to tell it.
    fn refresh(&mut self, thread_id: ThreadId) {
        let asked = self.queue.iter().any(|(_, _, then)| matches!(then, Then::Tell(id) if *id == thread_id));
        if !asked {
            self.ask(Method::ThreadRead, surface::summary(thread_id), Then::Tell(thread_id));
        }
    }

    /// A thread without a prompt is a draft of a program at the desk.
    fn tell_summary(&mut self, thread: v1::Thread) {
        if thread.preview.is_empty() && thread.name.is_empty() {
            return;
        }
        self.told.push(machine_event(Event::ThreadChanged(thread)));
    }

    fn lose(&mut self, thread_id: ThreadId, closed: bool) {
        if closed {
            let effects = self.table.thread_gone(&thread_id.to_string());
            self.apply(effects);
        }
        let lost = if closed {
            self.followed.remove(&thread_id).is_some_and(|followed| followed.watched)
        } else {
            let followed = self.followed.get_mut(&thread_id);
            followed.is_some_and(|followed| std::mem::take(&mut followed.watched))
        };
        if lost {
            self.told.push(CodexEvent::ThreadLost { thread_id });
        }
        if closed {
            self.unfollowed.remove(&thread_id);
            self.tell_unfollowed();
            self.follow_next();
        }
    }
}

/// The thread that a notification is about.
fn subject(params: &Value) -> Option<ThreadId> {
    let id = params.get("threadId").or_else(|| params.get("thread")?.get("id"))?;
    id.as_str()?.parse().ok()
}

/// Whether an item that ended was done. A command that failed without an exit code never ran.
fn item_sign(item: &Value) -> Sign {
    let never_ran = match text(item, "status") {
        "declined" => true,
        "failed" => text(item, "type") == "commandExecution" && present(item, "exitCode").is_none(),
        _ => false,
    };
    if never_ran { Sign::Declined } else { Sign::Ran }
}

fn machine_event(kind: Event) -> CodexEvent {
    CodexEvent::Machine(v1::AgentEvent { kind: Some(kind) })
}
