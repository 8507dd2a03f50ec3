//! The gateway's metrics. Labels come from closed enums.

use std::time::Duration;

use flydex_domain::error::ErrorCode;
use opentelemetry::metrics::{Counter, Gauge, UpDownCounter};
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
    /// The session or link was opened at another node, or on an earlier stream of this one.
    NotBound,
}

/// Why a stream to a node is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// The node ended it.
    Ended,
    /// The connection broke, or keepalive went unanswered.
    Broke,
    /// It could not be opened.
    NotReached,
    /// The node's first frame is no hello.
    NoHello,
    /// Another process answers at that address.
    OtherLife,
    /// A node of another region answers.
    OtherRegion,
}

impl Lost {
    /// The label.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::Broke => "broke",
            Self::NotReached => "not_reached",
            Self::NoHello => "no_hello",
            Self::OtherLife => "other_life",
            Self::OtherRegion => "other_region",
        }
    }
}

/// What the choice of a node was built on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// What this gateway remembers.
    Cache,
    /// The directory.
    Directory,
    /// The known nodes alone, since the directory does not answer.
    Rendezvous,
}

impl Source {
    const fn name(self) -> &'static str {
        match self {
            Self::Cache => "cache",
            Self::Directory => "directory",
            Self::Rendezvous => "rendezvous",
        }
    }
}

/// The instruments, made once in each process.
pub(crate) struct Metrics {
    live: UpDownCounter<i64>,
    ended: Counter<u64>,
    commands: Counter<u64>,
    node_streams: UpDownCounter<i64>,
    node_streams_lost: Counter<u64>,
    places: Counter<u64>,
    not_owner: Counter<u64>,
    forwards: Counter<u64>,
    links_replaced: Counter<u64>,
    dropped: Counter<u64>,
    tickets_unspent: Counter<u64>,
    directory_up: Gauge<u64>,
    run_delay: Gauge<f64>,
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
            node_streams_lost: meter
                .u64_counter("flydex_gateway_node_streams_lost")
                .with_description("Streams to a node that broke or were not opened, by reason")
                .build(),
            places: meter
                .u64_counter("flydex_gateway_places")
                .with_description("Nodes chosen for a machine, by what the choice was built on")
                .build(),
            not_owner: meter
                .u64_counter("flydex_gateway_not_owner")
                .with_description("Answers of nodes that another node owns the machine")
                .build(),
            forwards: meter
                .u64_counter("flydex_gateway_forwards")
                .with_description("Opens that were sent on to another node")
                .build(),
            links_replaced: meter
                .u64_counter("flydex_gateway_links_replaced")
                .with_description("Links whose node was lost, and that were placed again")
                .build(),
            dropped: meter
                .u64_counter("flydex_gateway_node_frames_dropped")
                .with_description("Frames of a node that no session or link is there for")
                .build(),
            tickets_unspent: meter
                .u64_counter("flydex_gateway_tickets_unspent")
                .with_description("Tickets taken on the proof alone because the directory did not answer")
                .build(),
            directory_up: meter
                .u64_gauge("flydex_gateway_directory_up")
                .with_description("Whether the directory answered when it was last asked for the nodes")
                .build(),
            run_delay: meter
                .f64_gauge("flydex_gateway_run_delay_seconds")
                .with_description("The least time that work lately waited for its turn")
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

    /// Counts a stream to a node that broke or was not opened.
    pub(crate) fn node_stream_lost(&self, lost: Lost) {
        self.node_streams_lost.add(1, &[KeyValue::new("reason", lost.name())]);
    }

    /// Counts the choice of a node.
    pub(crate) fn place(&self, source: Source) {
        self.places.add(1, &[KeyValue::new("source", source.name())]);
    }

    /// Counts a node's answer that another owns the machine.
    pub(crate) fn not_owner(&self) {
        self.not_owner.add(1, &[]);
    }

    /// Counts an open that goes to another node than the first.
    pub(crate) fn forward(&self) {
        self.forwards.add(1, &[]);
    }

    /// Counts a link whose node was lost.
    pub(crate) fn link_replaced(&self) {
        self.links_replaced.add(1, &[]);
    }

    /// Counts a frame of a node that went nowhere.
    pub(crate) fn dropped(&self, dropped: Dropped) {
        let reason = match dropped {
            Dropped::Malformed => "malformed",
            Dropped::NoSession => "no_session",
            Dropped::NoLink => "no_link",
            Dropped::NotBound => "not_bound",
        };
        self.dropped.add(1, &[KeyValue::new("reason", reason)]);
    }

    /// Says whether the directory answers.
    pub(crate) fn directory_up(&self, up: bool) {
        self.directory_up.record(u64::from(up), &[]);
    }

    /// Says how long work waits for its turn.
    pub(crate) fn run_delay(&self, delay: Duration) {
        self.run_delay.record(delay.as_secs_f64(), &[]);
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
