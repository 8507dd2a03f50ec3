//! Threads that sessions watch: one stream each, followed at Codex once, however many look on (INV-ORDER).
//!
//! Codex answers a watch in its place among the thread's events, so a snapshot as of number n and the events
//! after n fit without a hole. A thread that nobody watches any more is followed a little longer, so that a
//! phone that lost its network resumes from the ring.

use std::collections::BTreeSet;
use std::time::Instant;

use bytes::Bytes;
use flydex_agent_proto::v1 as agent;
use flydex_agent_proto::v1::command_result::Kind as ResultKind;
use flydex_domain::command::Outcome;
use flydex_domain::error::ErrorCode;
use flydex_domain::id::SessionId;
use flydex_domain::limits::{EVENT_BODY_BYTES_MAX, SESSION_STREAMS_MAX, WATCH_LINGER, WATCHED_THREADS_MAX};
use flydex_domain::secret::Payload;
use flydex_domain::stream::{Position, StreamId, Verdict};
use flydex_proto::v1;
use prost::Message as _;

use super::port::CodexPort;
use super::receipt::{Answer, Asked};
use super::{Core, Done};
use crate::codex::{Refused, ThreadId, WatchId};

/// A thread that is followed.
pub(super) struct Followed {
    stream_id: StreamId,
    watchers: BTreeSet<SessionId>,
    /// Codex's events arrive: the first snapshot has come.
    live: bool,
    idle_since: Option<Instant>,
}

/// A watch that Codex has not answered.
pub(super) struct PendingWatch {
    asked: Asked,
    thread_id: ThreadId,
}

/// What the task that speaks to Codex about watches does, in order.
pub(super) enum WatchAsk {
    Watch(ThreadId, WatchId),
    Unwatch(ThreadId),
}

impl<P: CodexPort> Core<P> {
    pub(super) fn watch_thread(&mut self, asked: Asked, watch: &agent::WatchThread) {
        let Ok(thread_id) = watch.thread_id.parse::<ThreadId>() else {
            return self.finish(asked, Outcome::Refused(ErrorCode::ThreadNotFound), Answer::default());
        };
        let streams = self.sessions.get(&asked.session_id).map_or(0, |session| session.streams.len());
        let watches = |followed: &Followed| followed.watchers.contains(&asked.session_id);
        if streams > SESSION_STREAMS_MAX
            || (streams == SESSION_STREAMS_MAX && !self.threads.get(&thread_id).is_some_and(watches))
        {
            return self.finish(asked, Outcome::Refused(ErrorCode::Overloaded), Answer::default());
        }
        if self.resume_thread(&asked, thread_id, watch.cursor.as_ref()) {
            return;
        }
        if !self.follow(thread_id) {
            return self.finish(asked, Outcome::Refused(ErrorCode::Overloaded), Answer::default());
        }
        let watch_id = WatchId(self.next_number());
        self.pending_watches.insert(watch_id, PendingWatch { asked, thread_id });
        if self.watch_tx.try_send(WatchAsk::Watch(thread_id, watch_id)).is_err() {
            self.watch_refused(watch_id, &ErrorCode::Overloaded.into());
        }
    }

    /// Answers from the ring when the session has missed nothing that is not in it.
    fn resume_thread(&mut self, asked: &Asked, thread_id: ThreadId, cursor: Option<&agent::Cursor>) -> bool {
        let Some(followed) = self.threads.get(&thread_id).filter(|followed| followed.live) else { return false };
        let stream_id = followed.stream_id;
        let verdict = self.rings.verdict(stream_id, cursor.and_then(position));
        let Some(Verdict::Resumed { from }) = verdict else { return false };
        self.add_watcher(thread_id, asked.session_id);
        self.send_subscribed(asked, stream_id, Verdict::Resumed { from });
        self.replay(asked.session_id, stream_id, from);
        let watched = agent::ThreadWatched { thread_id: thread_id.to_string(), stream_id: stream_id.0, snapshot: None };
        let answer = Answer::of(ResultKind::ThreadWatched(watched)).at(self.rings.position(stream_id));
        self.finish(*asked, Outcome::Executed, answer);
        true
    }

    /// Codex's answer to a watch.
    pub(super) fn watched(&mut self, watch_id: WatchId, outcome: Result<agent::ThreadSnapshot, Refused>) {
        let snapshot = match outcome {
            Ok(snapshot) => snapshot,
            Err(refused) => return self.watch_refused(watch_id, &refused),
        };
        let Some(PendingWatch { asked, thread_id }) = self.pending_watches.remove(&watch_id) else { return };
        if !self.follow(thread_id) {
            return self.finish(asked, Outcome::Refused(ErrorCode::Overloaded), Answer::default());
        }
        let Some(followed) = self.threads.get_mut(&thread_id) else { return };
        followed.live = true;
        let stream_id = followed.stream_id;
        if !self.sessions.contains_key(&asked.session_id) {
            self.linger(thread_id);
            return self.finish(asked, Outcome::Refused(ErrorCode::NotAdmitted), Answer::default());
        }
        self.add_watcher(thread_id, asked.session_id);
        let as_of = self.rings.position(stream_id);
        let seq = as_of.map_or(0, |position| position.seq);
        self.send_subscribed(&asked, stream_id, Verdict::Gap { as_of: seq });
        let thread_id = thread_id.to_string();
        let watched = agent::ThreadWatched { thread_id, stream_id: stream_id.0, snapshot: Some(snapshot) };
        self.finish(asked, Outcome::Executed, Answer::of(ResultKind::ThreadWatched(watched)).at(as_of));
    }

    pub(super) fn watch_refused(&mut self, watch_id: WatchId, refused: &Refused) {
        let Some(PendingWatch { asked, thread_id }) = self.pending_watches.remove(&watch_id) else { return };
        self.linger(thread_id);
        self.finish(asked, Outcome::Refused(refused.code()), Answer::default());
    }

    pub(super) fn unwatch_thread(&mut self, asked: Asked, unwatch: &agent::UnwatchThread) {
        let Ok(thread_id) = unwatch.thread_id.parse::<ThreadId>() else {
            return self.finish(asked, Outcome::Refused(ErrorCode::ThreadNotFound), Answer::default());
        };
        if let Some(followed) = self.threads.get_mut(&thread_id)
            && followed.watchers.remove(&asked.session_id)
        {
            let stream_id = followed.stream_id;
            if let Some(session) = self.sessions.get_mut(&asked.session_id) {
                session.streams.remove(&stream_id);
            }
            self.send_unsubscribed(asked.session_id, stream_id, ErrorCode::NotFound);
            self.linger(thread_id);
        }
        self.finish(asked, Outcome::Executed, Answer::default());
    }

    /// A session is gone.
    pub(super) fn unwatch_all(&mut self, session_id: SessionId) {
        let mut left = Vec::new();
        for (thread_id, followed) in &mut self.threads {
            if followed.watchers.remove(&session_id) {
                left.push(*thread_id);
            }
        }
        for thread_id in left {
            self.linger(thread_id);
        }
    }

    /// An event of a thread that is followed.
    pub(super) fn thread_event(&mut self, thread_id: ThreadId, event: &agent::AgentEvent) {
        let Some(followed) = self.threads.get(&thread_id) else { return };
        let (stream_id, is_watched) = (followed.stream_id, !followed.watchers.is_empty());
        let body = Bytes::from(event.encode_to_vec());
        if body.len() > EVENT_BODY_BYTES_MAX {
            tracing::error!("an event of codex is over its limit; its watchers must look again");
            return self.thread_lost(thread_id, ErrorCode::PageTooLarge);
        }
        self.publish(stream_id, body, is_watched);
    }

    /// The thread is no longer followed at Codex: whoever watches must watch again.
    pub(super) fn thread_lost(&mut self, thread_id: ThreadId, code: ErrorCode) {
        let Some(followed) = self.threads.remove(&thread_id) else { return };
        for session_id in followed.watchers {
            if let Some(session) = self.sessions.get_mut(&session_id) {
                session.streams.remove(&followed.stream_id);
            }
            self.send_unsubscribed(session_id, followed.stream_id, code);
        }
        self.rings.close(followed.stream_id);
    }

    /// Stops following what nobody has watched for a while.
    pub(super) fn forget_idle_threads(&mut self) {
        let now = self.clock.instant();
        let over = |followed: &Followed| {
            followed.idle_since.is_some_and(|since| now.saturating_duration_since(since) >= WATCH_LINGER)
        };
        let idle: Vec<_> =
            self.threads.iter().filter(|(_, followed)| over(followed)).map(|(thread_id, _)| *thread_id).collect();
        for thread_id in idle {
            self.unfollow(thread_id);
        }
    }

    /// Numbers an event, keeps it, and sends it once for all who are subscribed.
    pub(super) fn publish(&mut self, stream_id: StreamId, body: Bytes, is_watched: bool) {
        let Some(seq) = self.rings.push(stream_id, Payload::new(body.clone())) else { return };
        if is_watched {
            let event = v1::Event { stream_id: stream_id.0, seq, body };
            self.to_owner(v1::connector_frame::Kind::SharedEvent(event));
        }
    }

    pub(super) fn send_subscribed(&self, asked: &Asked, stream_id: StreamId, verdict: Verdict) {
        let verdict = match verdict {
            Verdict::Resumed { from } => v1::stream_verdict::Verdict::ResumedFrom(from),
            Verdict::Gap { as_of } => v1::stream_verdict::Verdict::GapAsOf(as_of),
        };
        let verdict = v1::StreamVerdict {
            command_id: Bytes::copy_from_slice(asked.key.1.as_bytes()),
            stream_id: stream_id.0,
            boot_id: Bytes::copy_from_slice(self.boot_id.as_bytes()),
            verdict: Some(verdict),
        };
        let subscribed = v1::Subscribed {
            session_id: Bytes::copy_from_slice(asked.session_id.as_bytes()),
            device_id: Bytes::copy_from_slice(asked.key.0.as_bytes()),
            verdict: Some(verdict),
        };
        self.to_owner(v1::connector_frame::Kind::Subscribed(subscribed));
    }

    /// Sends one session what it missed, before anything newer of that stream.
    pub(super) fn replay(&self, session_id: SessionId, stream_id: StreamId, from: u64) {
        for (seq, body) in self.rings.after(stream_id, from) {
            let event = v1::Event { stream_id: stream_id.0, seq, body: body.expose().clone() };
            self.to_session(session_id, v1::machine_message::Kind::Event(event));
        }
    }

    fn add_watcher(&mut self, thread_id: ThreadId, session_id: SessionId) {
        let Some(followed) = self.threads.get_mut(&thread_id) else { return };
        followed.watchers.insert(session_id);
        followed.idle_since = None;
        let stream_id = followed.stream_id;
        self.subscribe(session_id, stream_id);
    }

    /// Makes room for and opens a thread's stream. False when too many threads are watched.
    fn follow(&mut self, thread_id: ThreadId) -> bool {
        if let Some(followed) = self.threads.get_mut(&thread_id) {
            followed.idle_since = None;
            return true;
        }
        if self.threads.len() >= WATCHED_THREADS_MAX {
            let idle = self.threads.iter().filter(|(_, followed)| followed.idle_since.is_some());
            let Some(oldest) = idle.min_by_key(|(_, followed)| followed.idle_since).map(|(thread_id, _)| *thread_id)
            else {
                return false;
            };
            self.unfollow(oldest);
        }
        let stream_id = self.rings.open();
        let followed = Followed { stream_id, watchers: BTreeSet::new(), live: false, idle_since: None };
        self.threads.insert(thread_id, followed);
        true
    }

    fn linger(&mut self, thread_id: ThreadId) {
        let is_pending = self.pending_watches.values().any(|pending| pending.thread_id == thread_id);
        let now = self.clock.instant();
        let Some(followed) = self.threads.get_mut(&thread_id) else { return };
        if !followed.watchers.is_empty() || is_pending {
            return;
        }
        if followed.live {
            followed.idle_since.get_or_insert(now);
        } else {
            self.unfollow(thread_id);
        }
    }

    fn unfollow(&mut self, thread_id: ThreadId) {
        self.thread_lost(thread_id, ErrorCode::NotFound);
        if self.watch_tx.try_send(WatchAsk::Unwatch(thread_id)).is_err() {
            tracing::warn!("codex goes on following a thread that nobody watches");
        }
    }
}

/// Speaks to Codex about watches in the order in which the core decided.
pub(super) async fn run<P: CodexPort>(
    port: P,
    mut rx: tokio::sync::mpsc::Receiver<WatchAsk>,
    done: tokio::sync::mpsc::Sender<Done>,
) {
    while let Some(ask) = rx.recv().await {
        match ask {
            WatchAsk::Watch(thread_id, watch_id) => {
                if let Err(refused) = port.watch(thread_id, watch_id).await
                    && done.send(Done::WatchRefused(watch_id, refused)).await.is_err()
                {
                    return;
                }
            }
            WatchAsk::Unwatch(thread_id) => port.unwatch(thread_id).await,
        }
    }
}

/// A cursor of a device, when it is one.
pub(super) fn position(cursor: &agent::Cursor) -> Option<Position> {
    let boot_id = cursor.boot_id.as_ref().try_into().ok()?;
    Some(Position { stream_id: StreamId(cursor.stream_id), boot_id, seq: cursor.seq })
}
