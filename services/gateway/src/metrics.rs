//! The gateway's metrics. Labels come from closed enums.

use flydex_domain::error::ErrorCode;
use opentelemetry::metrics::{Counter, UpDownCounter};
use opentelemetry::{KeyValue, global};

use crate::ending::End;

/// What a peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// A browser's session.
    Session,
    /// A connector's link over a WebSocket.
    WebSocketLink,
    /// A connector's link over QUIC.
    QuicLink,
}

/// Why a frame of a node went nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// It names no account, machine or kind.
    Malformed,
    /// No such session of that account with that machine open.
    NoSession,
    /// No such link of that machine.
    NoLink,
}

/// The instruments, made once in each process.
pub(crate) struct Metrics {
    live: UpDownCounter<i64>,
    ended: Counter<u64>,
    commands: Counter<u64>,
    node_streams: UpDownCounter<i64>,
    dropped: Counter<u64>,
    tickets_unspent: Counter<u64>,
}

/// Counts a welcomed peer until it ends.
pub(crate) struct LivePeer<'a> {
    metrics: &'a Metrics,
    peer: Peer,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let meter = global::meter("flydex-gateway");
        Self {
            live: meter
                .i64_up_down_counter("flydex_gateway_peers")
                .with_description("Welcomed sessions and links")
                .build(),
            ended: meter
                .u64_counter("flydex_gateway_ended")
                .with_description("Sessions and links that ended or were refused, by error code")
                .build(),
            commands: meter
                .u64_counter("flydex_gateway_commands")
                .with_description("Commands passed to a node, or answered with an error code")
                .build(),
            node_streams: meter
                .i64_up_down_counter("flydex_gateway_node_streams")
                .with_description("Streams to a node that are up")
                .build(),
            dropped: meter
                .u64_counter("flydex_gateway_node_frames_dropped")
                .with_description("Frames of a node that no session or link is there for")
                .build(),
            tickets_unspent: meter
                .u64_counter("flydex_gateway_tickets_unspent")
                .with_description("Tickets taken on the proof alone because the directory did not answer")
                .build(),
        }
    }

    /// Counts a welcomed peer until the guard drops.
    pub(crate) fn live(&self, peer: Peer) -> LivePeer<'_> {
        self.live.add(1, &[peer.label()]);
        LivePeer { metrics: self, peer }
    }

    /// Counts the end or refusal of a peer.
    pub(crate) fn ended(&self, peer: Peer, end: End) {
        self.ended.add(1, &[peer.label(), code_label(end.code())]);
    }

    /// Counts a command that went to a node, or why it did not.
    pub(crate) fn command(&self, refused: Option<ErrorCode>) {
        self.commands.add(1, &[code_label(refused)]);
    }

    /// Counts a stream to a node up or down.
    pub(crate) fn node_stream_up(&self, up: bool) {
        self.node_streams.add(if up { 1 } else { -1 }, &[]);
    }

    /// Counts a frame of a node that went nowhere.
    pub(crate) fn dropped(&self, dropped: Dropped) {
        let reason = match dropped {
            Dropped::Malformed => "malformed",
            Dropped::NoSession => "no_session",
            Dropped::NoLink => "no_link",
        };
        self.dropped.add(1, &[KeyValue::new("reason", reason)]);
    }

    /// Counts a ticket that could not be spent.
    pub(crate) fn ticket_unspent(&self) {
        self.tickets_unspent.add(1, &[]);
    }
}

impl Drop for LivePeer<'_> {
    fn drop(&mut self) {
        self.metrics.live.add(-1, &[self.peer.label()]);
    }
}

impl Peer {
    fn label(self) -> KeyValue {
        let peer = match self {
            Self::Session => "session",
            Self::WebSocketLink => "link_websocket",
            Self::QuicLink => "link_quic",
        };
        KeyValue::new("peer", peer)
    }
}

fn code_label(code: Option<ErrorCode>) -> KeyValue {
    KeyValue::new("code", code.map_or("none", ErrorCode::name))
}
