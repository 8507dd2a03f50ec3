//! Links and the machine's owner: which epoch counts, what it brings, and what ends with it (INV-FENCE).

use std::collections::BTreeSet;

use bytes::Bytes;
use flydex_domain::command::SignedCommand;
use flydex_domain::epoch::{Attach, Epoch};
use flydex_domain::error::ErrorCode;
use flydex_domain::id::{CommandId, DeviceId, SessionId};
use flydex_domain::invariant::fenced;
use flydex_domain::revocation::DeviceCut;
use flydex_domain::scope::Role;
use flydex_domain::stream::StreamId;
use flydex_proto::v1;

use super::port::CodexPort;
use super::{Core, trace};
use crate::outbox::Outbox;
use crate::paired::{Channel, LinkStatus};

/// Names a link within this life of the connector.
pub type LinkNumber = u64;

/// What links bring.
#[expect(clippy::large_enum_variant, reason = "events are moved once, from a link to the core")]
pub enum LinkEvent {
    /// A link is open.
    Up {
        /// Which.
        link: LinkNumber,
        /// Its outgoing queue.
        outbox: Outbox,
        /// What it runs over.
        channel: Channel,
    },
    /// A frame of an owner.
    Frame {
        /// Over which link.
        link: LinkNumber,
        /// The frame.
        frame: v1::OwnerFrame,
    },
    /// A link has ended, or none could be opened.
    Down {
        /// Which.
        link: LinkNumber,
        /// Why.
        code: Option<ErrorCode>,
    },
}

/// The link over which the owner has attached.
pub(super) struct ActiveLink {
    pub(super) number: LinkNumber,
    pub(super) outbox: Outbox,
    pub(super) channel: Channel,
    pub(super) epoch: Epoch,
}

/// A session that the machine admitted.
pub(super) struct Session {
    pub(super) device_id: DeviceId,
    pub(super) streams: BTreeSet<StreamId>,
}

/// A link on which no owner has attached yet.
pub(super) struct WaitingLink {
    pub(super) outbox: Outbox,
    pub(super) channel: Channel,
}

impl<P: CodexPort> Core<P> {
    pub(super) async fn link_event(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Up { link, outbox, channel } => {
                self.waiting_links.insert(link, WaitingLink { outbox, channel });
                if self.link.is_none() {
                    self.set_link_status(LinkStatus::Linked(channel));
                }
            }
            LinkEvent::Frame { link, frame } => self.owner_frame(link, frame).await,
            LinkEvent::Down { link, code } => {
                self.waiting_links.remove(&link);
                if self.link.as_ref().is_some_and(|active| active.number == link) {
                    self.link = None;
                    self.end_sessions();
                }
                if self.link.is_none() {
                    self.set_link_status(LinkStatus::Down(code));
                }
            }
        }
    }

    async fn owner_frame(&mut self, link: LinkNumber, frame: v1::OwnerFrame) {
        let (Some(Ok(epoch)), Some(kind)) = (frame.epoch.map(Epoch::try_from), frame.kind) else {
            tracing::debug!("an owner frame without epoch or kind was dropped");
            return;
        };
        if let v1::owner_frame::Kind::Attach(v1::AttachOwner {}) = kind {
            self.attach(link, epoch).await;
            return;
        }
        let current = self.link.as_ref().is_some_and(|active| active.number == link && active.epoch == epoch);
        if !current {
            self.tell_stale(link, epoch);
            return;
        }
        debug_assert_eq!(fenced(self.fence.highest(), epoch), Ok(()));
        match kind {
            v1::owner_frame::Kind::Attach(v1::AttachOwner {}) => {}
            v1::owner_frame::Kind::FromSession(from) => self.session_message(from),
            v1::owner_frame::Kind::SessionGone(gone) => {
                if let Ok(session_id) = SessionId::try_from(gone.session_id.as_ref()) {
                    self.end_session(session_id);
                }
            }
            v1::owner_frame::Kind::RemoveDevice(remove) => {
                if let Ok(device_id) = DeviceId::try_from(remove.device_id.as_ref()) {
                    // A role that this connector does not know is no role.
                    self.owner_cuts(DeviceCut { device_id, keeps: remove.keeps.parse().ok() }, remove.keeps).await;
                }
            }
        }
    }

    async fn attach(&mut self, number: LinkNumber, asked: Epoch) {
        let Some((outbox, channel)) = self.outbox_of(number) else { return };
        let fence = self.fence.clone();
        let ruled = tokio::task::spawn_blocking(move || fence.attach(asked)).await;
        match ruled {
            Ok(Ok(Attach::Accept(epoch))) => self.attached(ActiveLink { number, outbox, channel, epoch }),
            Ok(Ok(Attach::Continue)) => self.attached(ActiveLink { number, outbox, channel, epoch: asked }),
            Ok(Ok(Attach::Stale { highest })) => tell(&outbox, asked, stale(highest)),
            Ok(Ok(Attach::Absurd)) => {
                tracing::warn!(link.epoch = %asked, "an implausible epoch was refused");
                outbox.close(ErrorCode::EpochRefused);
            }
            Ok(Err(_)) | Err(_) => {
                tracing::error!("an epoch cannot be kept; the link ends");
                outbox.close(ErrorCode::JournalUnavailable);
            }
        }
    }

    fn attached(&mut self, link: ActiveLink) {
        let same = self.link.as_ref().is_some_and(|active| active.number == link.number && active.epoch == link.epoch);
        self.waiting_links.remove(&link.number);
        let channel = link.channel;
        tracing::info!(link.epoch = %link.epoch, "the machine's owner attached");
        if let Some(before) = self.link.replace(link)
            && !same
        {
            if self.link.as_ref().is_some_and(|active| active.number != before.number) {
                before.outbox.close(ErrorCode::LinkSuperseded);
            }
            self.end_sessions();
            // Over the same link: nobody takes what was meant for the owner before.
            before.outbox.drop_owners_frames();
        }
        let highest = self.fence.highest();
        self.to_owner(v1::connector_frame::Kind::Attached(v1::Attached { highest: Some(highest.into()) }));
        self.send_report();
        self.set_link_status(LinkStatus::Attached(channel));
    }

    fn outbox_of(&self, link: LinkNumber) -> Option<(Outbox, Channel)> {
        let waiting = self.waiting_links.get(&link).map(|waiting| (waiting.outbox.clone(), waiting.channel));
        let active = self.link.as_ref().filter(|active| active.number == link);
        waiting.or_else(|| active.map(|active| (active.outbox.clone(), active.channel)))
    }

    fn tell_stale(&self, link: LinkNumber, epoch: Epoch) {
        let highest = self.fence.highest();
        if let Some((outbox, _)) = self.outbox_of(link).filter(|_| epoch < highest) {
            tell(&outbox, epoch, stale(highest));
        }
    }

    pub(super) fn send_report(&self) {
        self.to_owner(v1::connector_frame::Kind::Report(self.report()));
    }

    fn session_message(&mut self, from: v1::FromSession) {
        let (Ok(session_id), Ok(device_id)) =
            (SessionId::try_from(from.session_id.as_ref()), DeviceId::try_from(from.device_id.as_ref()))
        else {
            return;
        };
        // An unknown role gives no right at all.
        let Ok(role) = from.role.parse::<Role>() else { return };
        let Some(v1::DeviceMessage { trace, kind: Some(kind) }) = from.message else { return };
        match kind {
            v1::device_message::Kind::Command(command) => match SignedCommand::try_from(command) {
                Ok(command) => {
                    let (span, trace) = trace::open(&command.header, trace.as_ref());
                    span.in_scope(|| self.command(session_id, device_id, role, &command, trace));
                }
                Err(_) => {
                    let failure = v1::Failure { code: ErrorCode::BadRequest.number().into(), ..Default::default() };
                    self.to_session(session_id, v1::machine_message::Kind::Failure(failure));
                }
            },
            v1::device_message::Kind::EventCredit(_) => {}
            v1::device_message::Kind::BulkCredit(credit) => {
                if let Ok(command_id) = CommandId::try_from(credit.command_id.as_ref()) {
                    self.bulk.credit(session_id, command_id, credit.bytes);
                    self.pump_bulk();
                }
            }
            v1::device_message::Kind::Probe(probe) => {
                let reply = v1::ProbeReply { nonce: probe.nonce, machine_time_ms: self.now().0 };
                self.to_session(session_id, v1::machine_message::Kind::ProbeReply(reply));
            }
        }
    }

    // === Sessions ===

    pub(super) fn subscribe(&mut self, session_id: SessionId, stream_id: StreamId) {
        if let Some(session) = self.sessions.get_mut(&session_id) {
            session.streams.insert(stream_id);
        }
    }

    pub(super) fn admit(&mut self, session_id: SessionId, device_id: DeviceId) {
        self.sessions.insert(session_id, Session { device_id, streams: BTreeSet::new() });
        self.publish_status();
    }

    /// The owner has told that a session is gone.
    fn end_session(&mut self, session_id: SessionId) {
        if self.sessions.remove(&session_id).is_some() {
            self.bulk.end_session(session_id);
            self.unwatch_all(session_id);
            self.publish_status();
        }
    }

    /// Without a link there are no sessions; they attach again over the next one.
    fn end_sessions(&mut self) {
        for session_id in self.sessions.keys().copied().collect::<Vec<_>>() {
            self.end_session(session_id);
        }
        self.bulk.clear();
    }

    /// Ends the sessions of a device that is no longer on the list.
    pub(super) fn end_sessions_of(&mut self, device_id: DeviceId, code: ErrorCode) {
        let of_device = self.sessions.iter().filter(|(_, session)| session.device_id == device_id);
        let ended: Vec<_> = of_device.map(|(session_id, session)| (*session_id, session.streams.clone())).collect();
        for (session_id, streams) in ended {
            for stream_id in streams {
                self.send_unsubscribed(session_id, stream_id, code);
            }
            self.end_session(session_id);
        }
    }

    pub(super) fn send_unsubscribed(&self, session_id: SessionId, stream_id: StreamId, code: ErrorCode) {
        let last_seq = self.rings.position(stream_id).map_or(0, |position| position.seq);
        let end = v1::StreamEnd { stream_id: stream_id.0, last_seq, code: code.number().into() };
        let session_id = Bytes::copy_from_slice(session_id.as_bytes());
        self.to_owner(v1::connector_frame::Kind::Unsubscribed(v1::Unsubscribed { session_id, end: Some(end) }));
    }
}

fn stale(highest: Epoch) -> v1::connector_frame::Kind {
    v1::connector_frame::Kind::Stale(v1::Stale { highest: Some(highest.into()) })
}

fn tell(outbox: &Outbox, epoch: Epoch, kind: v1::connector_frame::Kind) {
    // A closed outbox tells the core by the link's end.
    let _ = outbox.send_frame(v1::ConnectorFrame { epoch: Some(epoch.into()), kind: Some(kind) });
}
