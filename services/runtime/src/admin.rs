//! The admin port: `/livez`, `/readyz` and `/metrics`, for the operator's network only.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;

use crate::telemetry::Telemetry;

/// Named conditions that must all hold before a process takes new work. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<BTreeMap<&'static str, bool>>>);

impl Readiness {
    /// Notes whether a condition holds; one that was never noted does not count.
    pub fn set(&self, condition: &'static str, holds: bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(condition, holds);
    }

    /// The conditions that do not hold.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let conditions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        conditions.iter().filter(|(_, holds)| !**holds).map(|(name, _)| *name).collect()
    }
}

/// The routes of the admin port.
pub fn router(readiness: Readiness, telemetry: Arc<Telemetry>) -> Router {
    Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(readyz).with_state(readiness))
        .route("/metrics", get(metrics).with_state(telemetry))
}

async fn readyz(State(readiness): State<Readiness>) -> (StatusCode, String) {
    let missing = readiness.missing();
    if missing.is_empty() {
        return (StatusCode::OK, "ready\n".to_owned());
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}\n", missing.join(", ")))
}

async fn metrics(State(telemetry): State<Arc<Telemetry>>) -> ([(&'static str, &'static str); 1], String) {
    ([("content-type", "text/plain; version=0.0.4")], telemetry.prometheus_text())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_ready_when_every_noted_condition_holds() {
        let readiness = Readiness::default();
        assert!(readiness.missing().is_empty());
        readiness.set("database", false);
        readiness.set("nodes", true);
        assert_eq!(readiness.missing(), ["database"]);
        readiness.set("database", true);
        assert!(readiness.missing().is_empty());
    }
}
