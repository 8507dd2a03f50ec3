//! Metrics of mTLS. Labels come from closed enums.

use std::sync::Arc;

use arc_swap::ArcSwap;
use opentelemetry::metrics::{Counter, ObservableGauge};
use opentelemetry::{KeyValue, global};

use super::material::Material;

/// The instruments of one process.
pub(super) struct Metrics {
    reloads: Counter<u64>,
    refused: Counter<u64>,
    /// Kept, since the gauge is read as long as it lives.
    _holds_until: ObservableGauge<u64>,
}

/// Which side refused a handshake, or had it refused.
#[derive(Clone, Copy)]
pub(super) enum Side {
    Server,
    Client,
}

impl Metrics {
    pub(super) fn new(current: Arc<ArcSwap<Material>>) -> Self {
        let meter = global::meter("flydex-runtime");
        Self {
            reloads: meter
                .u64_counter("flydex_mutual_reloads")
                .with_description("Times that changed certificate files were taken, or were not")
                .build(),
            refused: meter
                .u64_counter("flydex_mutual_refused")
                .with_description("Handshakes between our processes that did not come about")
                .build(),
            _holds_until: meter
                .u64_observable_gauge("flydex_mutual_certificate_holds_until_seconds")
                .with_description("When the own certificate ends, in seconds since 1970")
                .with_callback(move |observer| observer.observe(current.load().holds_until, &[]))
                .build(),
        }
    }

    pub(super) fn reloaded(&self, taken: bool) {
        let outcome = if taken { "taken" } else { "refused" };
        self.reloads.add(1, &[KeyValue::new("outcome", outcome)]);
    }

    pub(super) fn refused(&self, side: Side) {
        let side = match side {
            Side::Server => "server",
            Side::Client => "client",
        };
        self.refused.add(1, &[KeyValue::new("side", side)]);
    }
}
