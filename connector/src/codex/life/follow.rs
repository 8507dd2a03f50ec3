//! Following threads: taking a thread's state over, snapshots, and letting go.

#![expect(clippy::result_large_err, reason = "refusals are rare, and moved once")]

use flydex_agent_proto::v1;
use flydex_domain::error::ErrorCode;
use flydex_domain::limits::PAGE_BYTES_MAX;
use serde_json::Value;

use super::super::api::{CodexEvent, Refused, ThreadId, WatchId};
use super::super::json::{list, present, text};
use super::super::methods::Method;
use super::super::order::reply_with;
use super::super::pages::{Filled, Page, Place};
use super::super::rpc::{Error as RpcError, Reason};
use super::super::view::ThreadView;
use super::super::{surface, translate};
use super::{FRESH_TRIES_MAX, FRESH_WAIT, Followed, Fresh, Life, PREPARED_FOR, Then, Want, thread_event};

/// Of a snapshot, in bytes, what is not its page: the thread's summary and policy.
const SNAPSHOT_FRAME_BYTES: usize = 20 * 1024;

impl Life {
    pub(super) fn follow(&mut self, thread_id: ThreadId, want: Want, tries: u32) {
        self.ask(Method::ThreadResume, surface::follow(thread_id), Then::Follow(thread_id, want, tries));
    }

    /// Takes the answer of a resume over.
    pub(super) fn follows(&mut self, thread_id: ThreadId, want: Want, tries: u32, outcome: Result<Value, RpcError>) {
        let page = match outcome {
            Ok(result) => {
                let page = present(&result, "initialTurnsPage").cloned().unwrap_or(Value::Null);
                self.take_over(thread_id, &result, list(&page, "data"));
                page
            }
            Err(RpcError::Refused(reason)) if tries < FRESH_TRIES_MAX && self.is_fresh(thread_id, &reason) => {
                let at = self.clock.instant() + FRESH_WAIT;
                return self.fresh.push(Fresh { at, thread_id, want, tries: tries + 1 });
            }
            // Codex knows no history of a thread before its first turn; what is known is here.
            Err(RpcError::Refused(Reason::NoThread)) if self.followed.contains_key(&thread_id) => Value::Null,
            Err(error) => return self.follows_not(thread_id, want, error),
        };
        match want {
            Want::News => {}
            Want::Watch(watch_id) => {
                let snapshot = self.snapshot(thread_id, &page);
                if let Some(followed) = self.followed.get_mut(&thread_id) {
                    followed.watched = true;
                }
                let outcome = snapshot.ok_or_else(|| ErrorCode::ThreadNotFound.into());
                self.told.push(CodexEvent::Watched { watch_id, thread_id, outcome });
            }
            Want::Prepare(reply) => {
                let outcome = self.check_guard(thread_id);
                if let Some(followed) = self.followed.get_mut(&thread_id).filter(|_| outcome.is_ok()) {
                    followed.keep_until = Some(self.clock.instant() + PREPARED_FOR);
                }
                reply_with(reply, outcome);
            }
        }
        self.release(thread_id);
    }

    /// Whether Codex will know more of the thread in a moment: its first turn is just beginning.
    fn is_fresh(&self, thread_id: ThreadId, reason: &Reason) -> bool {
        let running = || self.followed.get(&thread_id).is_some_and(|followed| followed.view.running.is_some());
        match reason {
            Reason::NotYet => true,
            Reason::NoThread => running(),
            Reason::OpenElsewhere | Reason::NoTurn | Reason::OtherTurn(_) | Reason::TooLarge | Reason::Other => false,
        }
    }

    /// Whether a turn may be started now.
    pub(super) fn may_start(&self, thread_id: ThreadId) -> Result<(), Refused> {
        match self.check_guard(thread_id)? {
            Some(turn_id) => Err(Refused::because_of_turn(ErrorCode::TurnRunning, &turn_id)),
            None => Ok(()),
        }
    }

    /// The thread that Codex started is followed from its first moment.
    pub(super) fn thread_started(&mut self, outcome: Result<Value, RpcError>) -> Result<ThreadId, Refused> {
        let result = outcome.map_err(|error| error.refused(true))?;
        let thread = present(&result, "thread").ok_or(ErrorCode::CodexRefused)?;
        let thread_id: ThreadId = text(thread, "id").parse().map_err(|_| ErrorCode::CodexRefused)?;
        self.take_over(thread_id, &result, &[]);
        if let Err(refused) = self.check_guard(thread_id) {
            self.release(thread_id);
            return Err(refused);
        }
        if let Some(followed) = self.followed.get_mut(&thread_id) {
            followed.keep_until = Some(self.clock.instant() + PREPARED_FOR);
        }
        Ok(thread_id)
    }

    /// The turn that Codex started, or joined: its news come after this answer.
    pub(super) fn turn_started(
        &mut self,
        thread_id: ThreadId,
        outcome: Result<Value, RpcError>,
    ) -> Result<v1::TurnAccepted, Refused> {
        let result = outcome.map_err(|error| error.refused(true))?;
        let turn_id = present(&result, "turn").map(|turn| text(turn, "id")).unwrap_or_default().to_owned();
        let running = self.followed.get(&thread_id).and_then(|followed| followed.view.running.as_ref());
        let joined = running.is_some_and(|running| running.turn_id == turn_id);
        Ok(v1::TurnAccepted { turn_id, joined })
    }

    /// It is open elsewhere and can be read: its summary is here, its newest turns are next.
    pub(super) fn read_foreign_history(
        &mut self,
        thread_id: ThreadId,
        watch_id: WatchId,
        outcome: Result<Value, RpcError>,
    ) {
        match outcome {
            Ok(result) => {
                let mut thread = translate::thread(result.get("thread").unwrap_or(&Value::Null), false);
                thread.state = v1::ThreadState::OpenElsewhere.into();
                let then = Then::ReadHistory(thread_id, watch_id, Box::new(thread));
                self.ask(Method::ThreadTurnsList, surface::list_turns(thread_id, None), then);
            }
            Err(error) => self.watch_failed(thread_id, watch_id, error.refused(false)),
        }
    }

    /// Tells what can be read of a thread that is open elsewhere.
    pub(super) fn tell_foreign(
        &mut self,
        thread_id: ThreadId,
        watch_id: WatchId,
        thread: v1::Thread,
        outcome: Result<Value, RpcError>,
    ) {
        let page = match outcome {
            Ok(page) => page,
            Err(error) => return self.watch_failed(thread_id, watch_id, error.refused(false)),
        };
        let mut turns: Vec<v1::Turn> = list(&page, "data").iter().map(translate::turn).collect();
        // Codex takes a turn that runs elsewhere for an interrupted one.
        if let Some(newest) = turns.first_mut().filter(|turn| turn.state() == v1::TurnState::Interrupted) {
            newest.state = v1::TurnState::Unspecified.into();
        }
        let snapshot = v1::ThreadSnapshot {
            thread: Some(thread),
            page: Some(self.page(thread_id, turns, text(&page, "nextCursor"))),
            partial: false,
            effective_policy: String::new(),
            writable: false,
            not_writable_code: ErrorCode::ThreadOpenElsewhere.number().into(),
        };
        self.told.push(CodexEvent::Watched { watch_id, thread_id, outcome: Ok(snapshot) });
    }

    /// Lets go of a thread that nobody needs: no watcher, no turn, no prompt on its way.
    pub(super) fn release(&mut self, thread_id: ThreadId) {
        let Some(followed) = self.followed.get(&thread_id) else { return };
        let busy = followed.watched
            || followed.keep_until.is_some()
            || followed.view.running.is_some()
            || is_active(followed.view.thread.state())
            || self.asked.values().any(|(then, _)| concerns(then, thread_id))
            || self.queue.iter().any(|(_, _, then)| concerns(then, thread_id))
            || self.fresh.iter().any(|fresh| fresh.thread_id == thread_id);
        if busy {
            return;
        }
        self.followed.remove(&thread_id);
        self.ask(Method::ThreadUnsubscribe, surface::about(thread_id), Then::Nothing);
        self.follow_next();
    }

    fn take_over(&mut self, thread_id: ThreadId, result: &Value, turns: &[Value]) {
        let followed = self.followed.entry(thread_id).or_insert_with(|| Followed {
            view: ThreadView::new(v1::Thread { id: thread_id.to_string(), ..Default::default() }),
            watched: false,
            keep_until: None,
        });
        let text = followed.view.flush();
        if let Some(kind) = text.filter(|_| followed.watched) {
            self.told.push(thread_event(thread_id, kind));
        }
        followed.view.resumed(result, turns);
    }

    fn follows_not(&mut self, thread_id: ThreadId, want: Want, error: RpcError) {
        match want {
            Want::News => {}
            Want::Watch(watch_id) if error == RpcError::Refused(Reason::OpenElsewhere) => {
                let then = Then::ReadSummary(thread_id, watch_id);
                self.ask(Method::ThreadRead, surface::summary(thread_id), then);
            }
            Want::Watch(watch_id) => self.watch_failed(thread_id, watch_id, error.refused(false)),
            Want::Prepare(reply) => reply_with(reply, Err(error.refused(false))),
        }
    }

    fn watch_failed(&mut self, thread_id: ThreadId, watch_id: WatchId, refused: Refused) {
        self.told.push(CodexEvent::Watched { watch_id, thread_id, outcome: Err(refused) });
    }

    /// The running turn of a thread that a prompt may be sent to. A policy that is not told is none.
    fn check_guard(&self, thread_id: ThreadId) -> Result<Option<String>, Refused> {
        let followed = self.followed.get(&thread_id).ok_or(ErrorCode::ThreadNotFound)?;
        let unguarded = followed.view.policy.as_ref().is_none_or(|policy| policy.unguarded);
        if unguarded && !self.allowed.borrow().allow_unguarded {
            return Err(ErrorCode::ThreadPolicyRefused.into());
        }
        Ok(followed.view.running.as_ref().map(|running| running.turn_id.clone()))
    }

    fn snapshot(&self, thread_id: ThreadId, page: &Value) -> Option<v1::ThreadSnapshot> {
        let view = &self.followed.get(&thread_id)?.view;
        let mut turns: Vec<v1::Turn> = list(page, "data").iter().map(translate::turn).collect();
        for turn in &mut turns {
            view.overlay(turn);
        }
        let refused = self.check_guard(thread_id).err().map(|refused| refused.code());
        Some(v1::ThreadSnapshot {
            thread: Some(view.thread.clone()),
            page: Some(self.page(thread_id, turns, text(page, "nextCursor"))),
            partial: view.running.as_ref().is_some_and(|running| !running.whole),
            effective_policy: view.policy.as_ref().map(|policy| policy.text.clone()).unwrap_or_default(),
            writable: refused.is_none(),
            not_writable_code: refused.map_or(0, |code| code.number().into()),
        })
    }

    /// The newest turns that fit; `turns` and Codex's cursor are of its newest page.
    fn page(&self, thread_id: ThreadId, turns: Vec<v1::Turn>, next_cursor: &str) -> v1::HistoryPage {
        let bytes_max = u32::try_from(PAGE_BYTES_MAX - SNAPSHOT_FRAME_BYTES).unwrap_or(u32::MAX);
        let mut page = Page::new(bytes_max);
        for turn in turns {
            if let Filled::Full(rest) = page.add(turn) {
                let place = Place::History { thread_id, cursor: None, rest: Some(rest) };
                return page.finish(thread_id, self.give_cursor(place));
            }
        }
        if next_cursor.is_empty() {
            return page.finish(thread_id, String::new());
        }
        let place = Place::History { thread_id, cursor: Some(next_cursor.to_owned()), rest: None };
        page.finish(thread_id, self.give_cursor(place))
    }
}

/// Whether Codex works or waits in it.
pub(super) const fn is_active(state: v1::ThreadState) -> bool {
    match state {
        v1::ThreadState::Running | v1::ThreadState::WaitingOnApproval | v1::ThreadState::WaitingOnInput => true,
        v1::ThreadState::Unspecified
        | v1::ThreadState::NotLoaded
        | v1::ThreadState::Idle
        | v1::ThreadState::Failed
        | v1::ThreadState::OpenElsewhere => false,
    }
}

fn concerns(then: &Then, thread_id: ThreadId) -> bool {
    match then {
        Then::Follow(id, ..) | Then::TurnStarted(id, _) => *id == thread_id,
        Then::LookAtLoaded
        | Then::Tell(_)
        | Then::ReadSummary(..)
        | Then::ReadHistory(..)
        | Then::ThreadStarted(_)
        | Then::Nothing => false,
    }
}
