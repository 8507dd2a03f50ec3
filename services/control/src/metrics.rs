//! The control plane's metrics. Labels come from closed lists: the routes and the error codes.

use std::time::Duration;

use flydex_domain::error::ErrorCode;
use flydex_domain::revocation::Revocation;
use opentelemetry::metrics::{Counter, Histogram, UpDownCounter};
use opentelemetry::{KeyValue, global};

/// The label of a request that succeeded.
const NO_ERROR: &str = "none";

/// Seconds within which requests are counted: from a read of one row to the longest poll and the deadline.
const REQUEST_SECONDS: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0];

/// The instruments, made once in each process.
pub(crate) struct Metrics {
    requests: Counter<u64>,
    request_seconds: Histogram<f64>,
    long_polls: UpDownCounter<i64>,
    revocations: Counter<u64>,
    machines_moved: Counter<u64>,
}

/// Counts a long poll while it waits.
pub(crate) struct WaitingPoll<'a>(&'a Metrics);

impl Metrics {
    pub(crate) fn new() -> Self {
        let meter = global::meter("flydex-control");
        Self {
            requests: meter
                .u64_counter("flydex_control_requests")
                .with_description("API requests answered, by route and error code")
                .build(),
            request_seconds: meter
                .f64_histogram("flydex_control_request_duration")
                .with_unit("s")
                .with_boundaries(REQUEST_SECONDS.to_vec())
                .with_description("Time to answer an API request, long polls included")
                .build(),
            long_polls: meter
                .i64_up_down_counter("flydex_control_long_polls")
                .with_description("Long polls that wait for a pairing to change")
                .build(),
            revocations: meter
                .u64_counter("flydex_control_revocations")
                .with_description("Revocations sent on to gateways and nodes, by what they end")
                .build(),
            machines_moved: meter
                .u64_counter("flydex_control_machines_moved")
                .with_description("Machines that nodes reported in another region than before")
                .build(),
        }
    }

    /// Counts an answer.
    pub(crate) fn answered(&self, route: &str, code: Option<ErrorCode>, took: Duration) {
        let route = KeyValue::new("route", route.to_owned());
        let code = KeyValue::new("code", code.map_or(NO_ERROR, ErrorCode::name));
        self.request_seconds.record(took.as_secs_f64(), std::slice::from_ref(&route));
        self.requests.add(1, &[route, code]);
    }

    /// Counts a long poll until the guard drops.
    pub(crate) fn waiting_poll(&self) -> WaitingPoll<'_> {
        self.long_polls.add(1, &[]);
        WaitingPoll(self)
    }

    /// Counts machines that came to another region.
    pub(crate) fn machines_moved(&self, count: u64) {
        self.machines_moved.add(count, &[]);
    }

    /// Counts a revocation that was sent on.
    pub(crate) fn revocation_sent(&self, revocation: &Revocation) {
        let ended = match revocation {
            Revocation::User { .. } => "user",
            Revocation::Grant { .. } => "grant",
            Revocation::Device { .. } => "device",
            Revocation::Machine { .. } => "machine",
            Revocation::Quarantine { .. } => "quarantine",
            Revocation::Superseded { .. } => "superseded",
        };
        self.revocations.add(1, &[KeyValue::new("ended", ended)]);
    }
}

impl Drop for WaitingPoll<'_> {
    fn drop(&mut self) {
        self.0.long_polls.add(-1, &[]);
    }
}
