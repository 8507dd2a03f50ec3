//! What this crate counts. Labels come from closed enums.

use flydex_domain::command::CommandKind;
use flydex_domain::error::ErrorCode;
use flydex_domain::machine::effect::Dropped;
use flydex_domain::machine::message::OutcomeKind;
use flydex_domain::placement::Reassertion;
use opentelemetry::metrics::{Counter, Histogram, UpDownCounter};
use opentelemetry::{KeyValue, global};

/// The instruments of one node.
#[derive(Debug)]
pub(crate) struct Metrics {
    actors: UpDownCounter<i64>,
    actor_failures: Counter<u64>,
    gateway_streams: UpDownCounter<i64>,
    sessions: UpDownCounter<i64>,
    links: UpDownCounter<i64>,
    ends: Counter<u64>,
    commands: Counter<u64>,
    command_failures: Counter<u64>,
    command_seconds: Histogram<f64>,
    repeats_answered: Counter<u64>,
    receipts: Counter<u64>,
    dropped: Counter<u64>,
    streams_ended: Counter<u64>,
    overloads: Counter<u64>,
    malformed_frames: Counter<u64>,
    revocations: Counter<u64>,
    lease_renewals: Counter<u64>,
    amnesias: Counter<u64>,
    assertions: Counter<u64>,
    not_owners: Counter<u64>,
    hand_overs: Counter<u64>,
    link_reports: Counter<u64>,
    links_reported: Counter<u64>,
}

/// Why a machine is handed over.
#[derive(Clone, Copy, Debug)]
pub(crate) enum HandOverCause {
    /// The node goes.
    Drain,
    /// Another node has fewer.
    Rebalance,
}

/// What ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Subject {
    /// A session.
    Session,
    /// A link.
    Link,
}

impl Metrics {
    /// Instruments of the process's meter provider.
    pub(crate) fn new() -> Self {
        let meter = global::meter("flydex_machines");
        Self {
            actors: meter.i64_up_down_counter("flydex_machines_actors").build(),
            actor_failures: meter.u64_counter("flydex_machines_actor_failures").build(),
            gateway_streams: meter.i64_up_down_counter("flydex_machines_gateway_streams").build(),
            sessions: meter.i64_up_down_counter("flydex_machines_sessions").build(),
            links: meter.i64_up_down_counter("flydex_machines_links").build(),
            ends: meter.u64_counter("flydex_machines_ends").build(),
            commands: meter.u64_counter("flydex_machines_commands").build(),
            command_failures: meter.u64_counter("flydex_machines_command_failures").build(),
            command_seconds: meter.f64_histogram("flydex_machines_command_seconds").with_unit("s").build(),
            repeats_answered: meter.u64_counter("flydex_machines_repeats_answered").build(),
            receipts: meter.u64_counter("flydex_machines_receipts").build(),
            dropped: meter.u64_counter("flydex_machines_dropped").build(),
            streams_ended: meter.u64_counter("flydex_machines_streams_ended").build(),
            overloads: meter.u64_counter("flydex_machines_mailbox_overloads").build(),
            malformed_frames: meter.u64_counter("flydex_machines_malformed_frames").build(),
            revocations: meter.u64_counter("flydex_machines_revocations").build(),
            lease_renewals: meter.u64_counter("flydex_machines_lease_renewals").build(),
            amnesias: meter.u64_counter("flydex_machines_directory_amnesias").build(),
            assertions: meter.u64_counter("flydex_machines_assertions").build(),
            not_owners: meter.u64_counter("flydex_machines_not_owner").build(),
            hand_overs: meter.u64_counter("flydex_machines_hand_overs").build(),
            link_reports: meter.u64_counter("flydex_machines_link_reports").build(),
            links_reported: meter.u64_counter("flydex_machines_links_reported").build(),
        }
    }

    pub(crate) fn actor_started(&self) {
        self.actors.add(1, &[]);
    }

    pub(crate) fn actor_ended(&self, failed: bool) {
        self.actors.add(-1, &[]);
        if failed {
            self.actor_failures.add(1, &[]);
        }
    }

    pub(crate) fn gateway_stream(&self, change: i64) {
        self.gateway_streams.add(change, &[]);
    }

    pub(crate) fn bound(&self, subject: Subject, change: i64) {
        match subject {
            Subject::Session => self.sessions.add(change, &[]),
            Subject::Link => self.links.add(change, &[]),
        }
    }

    pub(crate) fn ended(&self, subject: Subject, code: ErrorCode) {
        let subject = match subject {
            Subject::Session => "session",
            Subject::Link => "link",
        };
        self.ends.add(1, &[KeyValue::new("subject", subject), code_label(code)]);
    }

    pub(crate) fn command(&self, kind: CommandKind) {
        self.commands.add(1, &[KeyValue::new("kind", kind.name())]);
    }

    pub(crate) fn command_failed(&self, code: ErrorCode) {
        self.command_failures.add(1, &[code_label(code)]);
    }

    pub(crate) fn command_took(&self, seconds: f64) {
        self.command_seconds.record(seconds, &[]);
    }

    pub(crate) fn repeat_answered(&self) {
        self.repeats_answered.add(1, &[]);
    }

    pub(crate) fn receipt(&self, outcome: OutcomeKind) {
        let outcome = match outcome {
            OutcomeKind::Executed => "executed",
            OutcomeKind::Refused => "refused",
            OutcomeKind::Unknown => "unknown",
        };
        self.receipts.add(1, &[KeyValue::new("outcome", outcome)]);
    }

    pub(crate) fn dropped(&self, reason: Dropped) {
        self.dropped.add(1, &[KeyValue::new("reason", reason.name())]);
    }

    pub(crate) fn stream_ended(&self, code: ErrorCode) {
        self.streams_ended.add(1, &[code_label(code)]);
    }

    pub(crate) fn overloaded(&self) {
        self.overloads.add(1, &[]);
    }

    pub(crate) fn malformed_frame(&self) {
        self.malformed_frames.add(1, &[]);
    }

    pub(crate) fn revocation(&self) {
        self.revocations.add(1, &[]);
    }

    /// A renewal was answered, or failed with a code.
    pub(crate) fn lease_renewed(&self, failure: Option<ErrorCode>) {
        let result = failure.map_or("answered", ErrorCode::name);
        self.lease_renewals.add(1, &[KeyValue::new("result", result)]);
    }

    /// The directory had forgotten something.
    pub(crate) fn amnesia(&self) {
        self.amnesias.add(1, &[]);
    }

    /// An ownership was asserted, and kept or lost.
    pub(crate) fn asserted(&self, result: &Reassertion) {
        let result = match result {
            Reassertion::Kept => "kept",
            Reassertion::Lost(_) => "lost",
        };
        self.assertions.add(1, &[KeyValue::new("result", result)]);
    }

    /// A machine was handed over.
    pub(crate) fn handed_over(&self, cause: HandOverCause) {
        let cause = match cause {
            HandOverCause::Drain => "drain",
            HandOverCause::Rebalance => "rebalance",
        };
        self.hand_overs.add(1, &[KeyValue::new("cause", cause)]);
    }

    /// A report of links was taken by control, or not.
    pub(crate) fn links_reported(&self, taken: bool, links: usize) {
        let result = if taken { "taken" } else { "failed" };
        self.link_reports.add(1, &[KeyValue::new("result", result)]);
        if taken {
            self.links_reported.add(u64::try_from(links).unwrap_or(u64::MAX), &[]);
        }
    }

    /// A session or link was sent to another node.
    pub(crate) fn not_owner(&self) {
        self.not_owners.add(1, &[]);
    }
}

fn code_label(code: ErrorCode) -> KeyValue {
    KeyValue::new("code", code.name())
}
