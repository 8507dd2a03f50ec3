//! Sessions: what each one watches, its event credit, and the fan-out of a machine's events.
//!
//! A session out of credit gets `stream_end(slow_consumer)` with the last event that it was sent and leaves the
//! fan-out of that stream; other sessions go on. The connector is not told: it numbers and keeps the events
//! whoever listens, and the session watches again with its cursor once it has caught up.

use std::collections::BTreeMap;

use crate::error::ErrorCode;
use crate::id::{DeviceId, SessionId};
use crate::invariant::follows;
use crate::ledger::CommandKey;
use crate::limits::{EVENT_WINDOW_BYTES, SESSION_STREAMS_MAX};
use crate::machine::effect::{Dropped, Effect, Note};
use crate::machine::message::{Event, MachineMessageKind, StreamEnd, StreamVerdict, Trace};
use crate::machine::{Effects, Machine, to_session};
use crate::stream::{StreamId, Verdict};
use crate::token::Grant;

/// One session that has the machine open.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) grant: Grant,
    /// Whether the present connector has heard of it, and so must hear of its end.
    pub(super) known_to_connector: bool,
    streams: BTreeMap<StreamId, Watch>,
    credit: u32,
}

/// One stream that a session watches.
#[derive(Clone, Copy, Debug)]
struct Watch {
    /// The last event that it was sent.
    last_seq: u64,
    /// The trace of the attach or watch that asked for it.
    trace: Option<Trace>,
}

impl Session {
    pub(super) const fn new(grant: Grant) -> Self {
        Self { grant, known_to_connector: false, streams: BTreeMap::new(), credit: EVENT_WINDOW_BYTES }
    }

    pub(super) fn device_id(&self) -> DeviceId {
        self.grant.device_key.0.device_id()
    }

    pub(super) fn credited(&mut self, bytes: u32) {
        self.credit = self.credit.saturating_add(bytes).min(EVENT_WINDOW_BYTES);
    }

    /// Decides on one event, and spends credit on it when it is delivered.
    fn offer(&mut self, event: &Event) -> Offer {
        let Some(watch) = self.streams.get_mut(&event.stream_id) else { return Offer::NotSubscribed };
        if event.seq <= watch.last_seq {
            return Offer::Seen;
        }
        if event.seq != watch.last_seq + 1 {
            return Offer::End(ErrorCode::Internal);
        }
        let cost = u32::try_from(event.body.len()).unwrap_or(u32::MAX);
        let Some(credit) = self.credit.checked_sub(cost) else { return Offer::End(ErrorCode::SlowConsumer) };
        self.credit = credit;
        debug_assert_eq!(follows(watch.last_seq, event.seq), Ok(()));
        watch.last_seq = event.seq;
        Offer::Deliver(watch.trace)
    }
}

/// What becomes of an event at one session.
enum Offer {
    /// It goes out, in the trace of the subscription.
    Deliver(Option<Trace>),
    /// It went out before, as part of a replay.
    Seen,
    /// It cannot go out in order and within the credit: the subscription ends.
    End(ErrorCode),
    /// The session does not watch that stream.
    NotSubscribed,
}

impl Machine {
    pub(super) fn subscribed(
        &mut self,
        session_id: SessionId,
        device_id: DeviceId,
        verdict: StreamVerdict,
        effects: &mut Effects,
    ) {
        let boot_id = self.link.as_ref().map(|link| link.open().boot_id);
        let Some(session) = self.sessions.get_mut(&session_id) else {
            effects.push(dropped(Dropped::UnknownSession));
            return;
        };
        if session.device_id() != device_id {
            effects.push(dropped(Dropped::ForeignDevice));
            return;
        }
        if boot_id != Some(verdict.boot_id) {
            effects.push(dropped(Dropped::Unexpected));
            return;
        }
        let (Verdict::Resumed { from: last_seq } | Verdict::Gap { as_of: last_seq }) = verdict.verdict;
        let trace = self.ledger.trace(CommandKey { device_id, command_id: verdict.command_id });
        effects.push(to_session(session_id, trace, MachineMessageKind::Verdict(verdict)));
        let full = session.streams.len() >= SESSION_STREAMS_MAX && !session.streams.contains_key(&verdict.stream_id);
        if full {
            let end = StreamEnd { stream_id: verdict.stream_id, last_seq, code: ErrorCode::Overloaded };
            effects.push(to_session(session_id, trace, MachineMessageKind::StreamEnd(end)));
            return;
        }
        session.streams.insert(verdict.stream_id, Watch { last_seq, trace });
    }

    pub(super) fn unsubscribed(&mut self, session_id: SessionId, end: StreamEnd, effects: &mut Effects) {
        let Some(session) = self.sessions.get_mut(&session_id) else {
            effects.push(dropped(Dropped::UnknownSession));
            return;
        };
        let Some(Watch { last_seq, trace }) = session.streams.remove(&end.stream_id) else {
            effects.push(dropped(Dropped::NotSubscribed));
            return;
        };
        effects.push(to_session(session_id, trace, MachineMessageKind::StreamEnd(StreamEnd { last_seq, ..end })));
    }

    /// Sends an event to every session that watches its stream.
    pub(super) fn shared_event(&mut self, event: &Event, effects: &mut Effects) {
        for (session_id, session) in &mut self.sessions {
            deliver(*session_id, session, event, None, effects);
        }
    }

    /// Sends a replayed event to one session.
    pub(super) fn replayed_event(
        &mut self,
        session_id: SessionId,
        event: &Event,
        trace: Option<Trace>,
        effects: &mut Effects,
    ) {
        let Some(session) = self.sessions.get_mut(&session_id) else {
            effects.push(dropped(Dropped::UnknownSession));
            return;
        };
        if !session.streams.contains_key(&event.stream_id) {
            effects.push(dropped(Dropped::NotSubscribed));
            return;
        }
        deliver(session_id, session, event, trace, effects);
    }

    /// Ends every subscription: the link that fed them is gone.
    pub(super) fn end_streams(&mut self, code: ErrorCode, effects: &mut Effects) {
        for (session_id, session) in &mut self.sessions {
            session.known_to_connector = false;
            for (stream_id, Watch { last_seq, trace }) in std::mem::take(&mut session.streams) {
                let end = StreamEnd { stream_id, last_seq, code };
                effects.push(to_session(*session_id, trace, MachineMessageKind::StreamEnd(end)));
                effects.push(Effect::Note(Note::StreamEnded(code)));
            }
        }
    }
}

fn deliver(session_id: SessionId, session: &mut Session, event: &Event, trace: Option<Trace>, effects: &mut Effects) {
    match session.offer(event) {
        Offer::Deliver(of_watch) => {
            effects.push(to_session(session_id, trace.or(of_watch), MachineMessageKind::Event(event.clone())));
        }
        Offer::Seen | Offer::NotSubscribed => {}
        Offer::End(code) => {
            let Some(Watch { last_seq, trace }) = session.streams.remove(&event.stream_id) else { return };
            let end = StreamEnd { stream_id: event.stream_id, last_seq, code };
            effects.push(to_session(session_id, trace, MachineMessageKind::StreamEnd(end)));
            effects.push(Effect::Note(Note::StreamEnded(code)));
        }
    }
}

pub(super) const fn dropped(reason: Dropped) -> Effect {
    Effect::Note(Note::Dropped(reason))
}
