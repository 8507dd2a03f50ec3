//! The actor of one machine: a shell that performs what [`Machine`] decides.
//!
//! It knows over which gateway stream each session and link came, and takes a message of a session or link only
//! from that stream. It waits for nothing: sends are queued or end the stream, and the directory is asked in a
//! task that sends the answer back. What it owns it shows to the node's lease keeper, which asserts it when the
//! directory has forgotten.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use flydex_domain::epoch::Epoch;
use flydex_domain::error::ErrorCode;
use flydex_domain::id::{LinkId, SessionId};
use flydex_domain::ledger::CommandKey;
use flydex_domain::machine::effect::{Effect, Note, Subject};
use flydex_domain::machine::message::{DeviceMessage, DeviceMessageKind, Input, OpenLink, Trace};
use flydex_domain::machine::{Machine, Now};
use flydex_domain::placement::LinkRecord;
use flydex_domain::scope::MachineKey;
use flydex_proto::v1;
use flydex_proto::v1::node_frame::Kind;
use flydex_runtime::telemetry::trace::Traceparent;
use flydex_store::directory::{Acquire, Holding};
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tracing::Span;

use crate::ask;
use crate::convert::{copy, wire_machine_message, wire_owner_frame};
use crate::handle::{Envelope, Gate, MachineHandle, Snapshot};
use crate::host::Context;
use crate::metrics;
use crate::peer::Peer;
use crate::report::Linked;

/// The ractor side of a machine.
pub(crate) struct MachineActor;

/// What an actor is started with.
pub(crate) struct Arguments {
    pub(crate) key: MachineKey,
    pub(crate) context: Arc<Context>,
    pub(crate) gate: Arc<Gate>,
}

/// What an actor holds.
pub(crate) struct State {
    machine: Machine,
    context: Arc<Context>,
    gate: Arc<Gate>,
    handle: MachineHandle,
    sessions: BTreeMap<SessionId, Seat>,
    links: BTreeMap<LinkId, Arc<Peer>>,
    commands: BTreeMap<CommandKey, (Span, Instant)>,
    /// What the gate was last told is owned here.
    shown: Shown,
    /// The machine's names as every frame carries them.
    account_id: Bytes,
    machine_id: Bytes,
    span: Span,
}

/// A session as its stream knows it.
struct Seat {
    peer: Arc<Peer>,
    /// Its id as every frame carries it.
    session_id: Bytes,
}

/// The epoch that is owned, and the link that has attached with its counter.
type Shown = (Option<Epoch>, Option<(LinkId, u64)>);

/// Who asked for a session and is refused; the id may be another's.
type Refused<'a> = Option<(SessionId, &'a Arc<Peer>)>;

impl Actor for MachineActor {
    type Msg = Envelope;
    type State = State;
    type Arguments = Arguments;

    async fn pre_start(&self, myself: ActorRef<Envelope>, arguments: Arguments) -> Result<State, ActorProcessingErr> {
        Ok(State::new(myself, arguments))
    }

    async fn handle(
        &self,
        _myself: ActorRef<Envelope>,
        envelope: Envelope,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match envelope {
            // The permit is dropped at the end: its place is free once the message is handled.
            Envelope::Input { input, peer, permit: _permit } => state.take(*input, peer.as_ref()),
            Envelope::Inspect(reply) => {
                // The asker may have stopped waiting.
                let _ = reply.send(state.snapshot());
            }
            #[cfg(test)]
            Envelope::Fail => panic!("a defect, on purpose"),
        }
        Ok(())
    }

    async fn post_stop(&self, _myself: ActorRef<Envelope>, state: &mut State) -> Result<(), ActorProcessingErr> {
        // A session that slipped in while the actor was being retired is told to come again.
        let owned = state.machine.owned().is_some();
        state.take(Input::Drain { successor: None }, None);
        if owned {
            let (context, key) = (Arc::clone(&state.context), state.machine.key());
            state.context.shutdown.spawn(async move { ask::release(&context, key).await });
        }
        Ok(())
    }

    /// A machine has no children; the default would stop it when it had.
    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<Envelope>,
        _event: SupervisionEvent,
        _state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

impl State {
    fn new(myself: ActorRef<Envelope>, arguments: Arguments) -> Self {
        let Arguments { key, context, gate } = arguments;
        let span = tracing::info_span!(
            "machine",
            "account.id" = %key.account_id(),
            "machine.id" = %key.machine_id(),
            "node.id" = %context.node_id,
        );
        Self {
            machine: Machine::new(key, context.incarnation, context.now()),
            handle: MachineHandle::new(myself, Arc::clone(&gate)),
            context,
            gate,
            sessions: BTreeMap::new(),
            links: BTreeMap::new(),
            commands: BTreeMap::new(),
            shown: (None, None),
            account_id: copy(key.account_id().as_bytes()),
            machine_id: copy(key.machine_id().as_bytes()),
            span,
        }
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            status: self.machine.status(),
            sessions: self.machine.session_count(),
            in_flight: self.machine.in_flight(),
            undelivered: self.machine.undelivered(),
        }
    }

    fn take(&mut self, mut input: Input, peer: Option<&Arc<Peer>>) {
        let span = self.span.clone();
        let _entered = span.enter();
        if !self.admit(&input, peer) {
            return;
        }
        let asker =
            if let Input::SessionOpened(open) = &input { peer.map(|peer| (open.session_id, peer)) } else { None };
        let closed_session = if let Input::SessionClosed(session_id) = &input { Some(*session_id) } else { None };
        let closed_link = if let Input::LinkClosed(link_id) = &input { Some(*link_id) } else { None };
        let command = if let Input::SessionMessage { message, .. } = &mut input { open_span(message) } else { None };

        let now = self.context.now();
        let effects = {
            let _entered = command.as_ref().map(|(_, span)| span.enter());
            self.machine.handle(input, now)
        };
        // Before the effects: what is to be asserted must be there to be asserted.
        self.show_holding();
        let refused = asker.filter(|(asked, _)| {
            let ends = |effect: &Effect| matches!(effect, Effect::EndSession { session_id, .. } if session_id == asked);
            effects.iter().any(ends)
        });
        if let Some((session_id, peer)) = asker.filter(|_| refused.is_none()) {
            self.bind_session(session_id, peer);
        }
        for effect in effects {
            self.perform(effect, refused);
        }

        if let Some(session_id) = closed_session {
            self.unbind_session(session_id);
        }
        if let Some(link_id) = closed_link {
            self.unbind_link(link_id);
        }
        self.follow_commands(command, now);
        self.gate.publish(
            self.machine.next_tick(now).map(|tick| self.context.count(tick)),
            self.machine.is_idle(now.instant),
        );
    }

    /// Whether a message of a session or link came over the stream that carries it.
    fn admit(&mut self, input: &Input, peer: Option<&Arc<Peer>>) -> bool {
        let from = peer.map(|peer| peer.number());
        match input {
            Input::SessionMessage { session_id, .. } | Input::SessionClosed(session_id) => {
                from.is_some() && self.sessions.get(session_id).map(|seat| seat.peer.number()) == from
            }
            Input::LinkFrame { link_id, .. } | Input::LinkClosed(link_id) => {
                from.is_some() && self.links.get(link_id).map(|peer| peer.number()) == from
            }
            Input::LinkOpened(open) => peer.is_some_and(|peer| self.bind_link(open, peer)),
            Input::SessionOpened(_) => peer.is_some(),
            Input::Acquired(_)
            | Input::Overtaken(_)
            | Input::Found(_)
            | Input::LinkPlaced { .. }
            | Input::Revoked(_)
            | Input::Tick
            | Input::HandOver
            | Input::Drain { .. } => true,
        }
    }

    fn perform(&mut self, effect: Effect, refused: Refused<'_>) {
        let key = self.machine.key();
        match effect {
            Effect::SessionOpened(session_id) => {
                if let Some(Seat { peer, session_id }) = self.sessions.get(&session_id) {
                    peer.send(key, Kind::SessionOpened(v1::SessionOpened { session_id: session_id.clone() }));
                }
            }
            Effect::ToSession { session_id, message } => {
                if let Some(Seat { peer, session_id }) = self.sessions.get(&session_id) {
                    let message = Some(wire_machine_message(message));
                    let session_id = session_id.clone();
                    let kind = Kind::ToSession(v1::NodeToSession { session_id, message });
                    peer.send_raw(self.account_id.clone(), self.machine_id.clone(), kind);
                }
            }
            Effect::EndSession { session_id, code, retry_after } => {
                self.context.metrics.ended(metrics::Subject::Session, code);
                let refused = refused.filter(|(asked, _)| *asked == session_id).map(|(_, peer)| Arc::clone(peer));
                let peer = refused.or_else(|| self.unbind_session(session_id));
                if let Some(peer) = peer {
                    peer.end_session(key, session_id, code, retry_after);
                }
            }
            Effect::LinkOpened(link_id) => {
                if let Some(peer) = self.links.get(&link_id) {
                    peer.send(key, Kind::LinkOpened(v1::LinkOpened { link_id: copy(link_id.as_bytes()) }));
                }
            }
            Effect::ToLink { link_id, epoch, message } => {
                if let Some(peer) = self.links.get(&link_id) {
                    let frame = Some(wire_owner_frame(epoch, &message));
                    peer.send(key, Kind::ToLink(v1::NodeToLink { link_id: copy(link_id.as_bytes()), frame }));
                }
            }
            Effect::EndLink { link_id, code, retry_after, link_counter } => {
                self.context.metrics.ended(metrics::Subject::Link, code);
                tracing::info!("link.id" = %link_id, error.code = code.name(), "link ends");
                if let Some(peer) = self.unbind_link(link_id) {
                    peer.end_link(key, link_id, code, retry_after, link_counter);
                }
            }
            Effect::NotOwner { subject, owner } => {
                self.context.metrics.not_owner();
                let peer = match subject {
                    Subject::Session(session_id) => self.unbind_session(session_id),
                    Subject::Link(link_id) => self.unbind_link(link_id),
                };
                if let Some(peer) = peer {
                    peer.not_owner(key, subject, owner);
                }
            }
            Effect::Acquire { floor, replacing, cause } => {
                let asker = self.context.incarnation;
                let asked = Acquire { machine: key, asker, floor, replacing, cause };
                self.context.shutdown.spawn(ask::acquire(Arc::clone(&self.context), self.handle.clone(), asked));
            }
            Effect::Assert => self.handle.assert_later(&self.context),
            Effect::Find => self.context.shutdown.spawn(ask::find(Arc::clone(&self.context), self.handle.clone(), key)),
            Effect::SetLink { link_id, counter } => {
                self.set_link(link_id, counter);
                let linked = Linked { counter, at: self.context.now().unix };
                self.gate.linked(linked);
                self.context.reports.note(key, linked);
            }
            Effect::DeviceRemoved(cut) => self.context.revocations.removed(key, cut),
            Effect::Note(note) => self.note(note),
        }
    }

    fn note(&self, note: Note) {
        let metrics = &self.context.metrics;
        match note {
            Note::CommandForwarded(kind) => metrics.command(kind),
            Note::CommandFailed(code) => {
                metrics.command_failed(code);
                tracing::debug!(error.code = code.name(), "command failed at the actor");
            }
            Note::RepeatAnswered => metrics.repeat_answered(),
            Note::ReceiptSeen(outcome) => metrics.receipt(outcome),
            Note::Dropped(reason) => {
                metrics.dropped(reason);
                tracing::debug!(reason = reason.name(), "frame dropped");
            }
            Note::StreamEnded(code) => metrics.stream_ended(code),
            Note::StatusChanged(status) => {
                tracing::info!("machine.status" = status.name(), "machine status changed");
            }
        }
    }

    /// Shows what is owned here to the lease keeper, when it has changed: for an event it has not.
    fn show_holding(&mut self) {
        let owned = (self.machine.owned(), self.machine.linked());
        if self.shown != owned {
            self.shown = owned;
            self.gate.hold(self.holding());
        }
    }

    /// What this node owns here, as the directory is told.
    fn holding(&self) -> Option<Holding> {
        let epoch = self.machine.owned()?;
        let link = self.machine.linked().and_then(|(link_id, counter)| self.link_record(link_id, counter));
        Some(Holding { machine: self.machine.key(), epoch, link })
    }

    /// A gateway that has not said who it is has no place on record.
    fn link_record(&self, link_id: LinkId, counter: u64) -> Option<LinkRecord> {
        let gateway_id = self.links.get(&link_id)?.gateway_id()?.clone();
        Some(LinkRecord { counter, gateway_id })
    }

    fn set_link(&self, link_id: LinkId, counter: u64) {
        let Some(record) = self.link_record(link_id, counter) else { return };
        let (context, handle, key) = (Arc::clone(&self.context), self.handle.clone(), self.machine.key());
        self.context.shutdown.spawn(ask::set_link(context, handle, key, link_id, record));
    }

    fn bind_session(&mut self, session_id: SessionId, peer: &Arc<Peer>) {
        let seat = Seat { peer: Arc::clone(peer), session_id: copy(session_id.as_bytes()) };
        match self.sessions.insert(session_id, seat).map(|before| before.peer) {
            None => self.context.metrics.bound(metrics::Subject::Session, 1),
            Some(before) if before.number() != peer.number() => {
                before.end_session(self.machine.key(), session_id, ErrorCode::Conflict, Duration::ZERO);
            }
            Some(_) => {}
        }
    }

    fn unbind_session(&mut self, session_id: SessionId) -> Option<Arc<Peer>> {
        let peer = self.sessions.remove(&session_id)?.peer;
        self.context.metrics.bound(metrics::Subject::Session, -1);
        Some(peer)
    }

    /// Binds a link to its stream; refuses an id that another stream carries.
    fn bind_link(&mut self, open: &OpenLink, peer: &Arc<Peer>) -> bool {
        let link_id = open.link_id;
        if self.links.contains_key(&link_id) {
            tracing::warn!("link.id" = %link_id, "link id is in use");
            peer.end_link(self.machine.key(), link_id, ErrorCode::Conflict, Duration::ZERO, 0);
            return false;
        }
        self.links.insert(link_id, Arc::clone(peer));
        self.context.metrics.bound(metrics::Subject::Link, 1);
        true
    }

    fn unbind_link(&mut self, link_id: LinkId) -> Option<Arc<Peer>> {
        let peer = self.links.remove(&link_id)?;
        self.context.metrics.bound(metrics::Subject::Link, -1);
        Some(peer)
    }

    /// Keeps the span of a command open until it leaves the flight.
    fn follow_commands(&mut self, command: Option<(CommandKey, Span)>, now: Now) {
        if let Some((key, span)) = command
            && self.machine.is_in_flight(key)
        {
            self.commands.entry(key).or_insert((span, now.instant));
        }
        if self.commands.len() == self.machine.in_flight() {
            return;
        }
        let machine = &self.machine;
        let metrics = &self.context.metrics;
        self.commands.retain(|key, (_, since)| {
            let waits = machine.is_in_flight(*key);
            if !waits {
                metrics.command_took(now.instant.saturating_duration_since(*since).as_secs_f64());
            }
            waits
        });
    }
}

/// Opens the span of a command under its sender's, and puts it in the message's place.
fn open_span(message: &mut DeviceMessage) -> Option<(CommandKey, Span)> {
    let DeviceMessageKind::Command(command) = &message.kind else { return None };
    let header = &command.header;
    let span = tracing::info_span!(
        "machine.command",
        "command.id" = %header.command_id,
        "command.kind" = header.kind.name(),
        "device.id" = %header.device_id,
    );
    if let Some(trace) = message.trace
        && let Some(parent) = Traceparent::from_parts(&trace.trace_id, &trace.span_id, trace.flags)
    {
        parent.adopt(&span);
    }
    if let Some(own) = Traceparent::of(&span) {
        message.trace = Some(Trace { trace_id: own.trace_id, span_id: own.span_id, flags: own.flags.into() });
    }
    Some((CommandKey { device_id: header.device_id, command_id: header.command_id }, span))
}
