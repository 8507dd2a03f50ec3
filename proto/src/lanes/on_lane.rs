//! Which lane each kind of message travels on.
//!
//! What must stay in order shares a lane: the verdict, events and end of a stream; a session's commands and its
//! going; everything about an ownership.

use crate::codec::Lane;
use crate::v1;

/// A message that has its place on one of the lanes.
pub trait OnLane {
    /// The lane of the message's kind; nothing when it has no kind that this version knows.
    fn lane_of_kind(&self) -> Option<Lane>;

    /// The lane that carries the message; control when it has no kind.
    fn lane(&self) -> Lane {
        self.lane_of_kind().unwrap_or(Lane::Control)
    }
}

impl OnLane for v1::DeviceMessage {
    fn lane_of_kind(&self) -> Option<Lane> {
        use v1::device_message::Kind;
        Some(match self.kind.as_ref()? {
            Kind::Probe(_) => Lane::Control,
            Kind::Command(_) | Kind::EventCredit(_) | Kind::BulkCredit(_) => Lane::Commands,
        })
    }
}

impl OnLane for v1::MachineMessage {
    fn lane_of_kind(&self) -> Option<Lane> {
        use v1::machine_message::Kind;
        Some(match self.kind.as_ref()? {
            Kind::Status(_) | Kind::ProbeReply(_) => Lane::Control,
            Kind::Progress(_) | Kind::Receipt(_) | Kind::Failure(_) => Lane::Commands,
            Kind::Verdict(_) | Kind::Event(_) | Kind::StreamEnd(_) => Lane::Events,
            Kind::Chunk(_) => Lane::Bulk,
        })
    }
}

impl OnLane for v1::SessionUp {
    fn lane_of_kind(&self) -> Option<Lane> {
        use v1::session_up::Kind;
        match self.kind.as_ref()? {
            Kind::Hello(_) | Kind::Proof(_) | Kind::Open(_) | Kind::Close(_) | Kind::Ping(_) => Some(Lane::Control),
            Kind::ToMachine(to) => to.message.as_ref()?.lane_of_kind(),
        }
    }
}

impl OnLane for v1::SessionDown {
    fn lane_of_kind(&self) -> Option<Lane> {
        use v1::session_down::Kind;
        match self.kind.as_ref()? {
            Kind::Challenge(_)
            | Kind::Welcome(_)
            | Kind::MachineClosed(_)
            | Kind::Pong(_)
            | Kind::GoAway(_)
            | Kind::End(_) => Some(Lane::Control),
            Kind::FromMachine(from) => from.message.as_ref()?.lane_of_kind(),
        }
    }
}

impl OnLane for v1::ConnectorFrame {
    fn lane_of_kind(&self) -> Option<Lane> {
        use v1::connector_frame::Kind;
        match self.kind.as_ref()? {
            Kind::Attached(_) | Kind::Stale(_) | Kind::Report(_) | Kind::DeviceRemoved(_) => Some(Lane::Control),
            Kind::ToSession(to) => to.message.as_ref()?.lane_of_kind(),
            Kind::Subscribed(_) | Kind::Unsubscribed(_) | Kind::SharedEvent(_) => Some(Lane::Events),
        }
    }
}

impl OnLane for v1::OwnerFrame {
    fn lane_of_kind(&self) -> Option<Lane> {
        use v1::owner_frame::Kind;
        match self.kind.as_ref()? {
            Kind::Attach(_) | Kind::RemoveDevice(_) => Some(Lane::Control),
            Kind::FromSession(from) => from.message.as_ref()?.lane_of_kind(),
            Kind::SessionGone(_) => Some(Lane::Commands),
        }
    }
}

impl OnLane for v1::LinkUp {
    fn lane_of_kind(&self) -> Option<Lane> {
        use v1::link_up::Kind;
        match self.kind.as_ref()? {
            Kind::Hello(_) | Kind::Proof(_) | Kind::Ping(_) | Kind::Pong(_) => Some(Lane::Control),
            Kind::Frame(frame) => frame.lane_of_kind(),
        }
    }
}

impl OnLane for v1::LinkDown {
    fn lane_of_kind(&self) -> Option<Lane> {
        use v1::link_down::Kind;
        match self.kind.as_ref()? {
            Kind::Challenge(_) | Kind::Welcome(_) | Kind::Ping(_) | Kind::Pong(_) | Kind::GoAway(_) | Kind::End(_) => {
                Some(Lane::Control)
            }
            Kind::Frame(frame) => frame.lane_of_kind(),
        }
    }
}

#[cfg(test)]
mod tests;
