//! The admin port: `/livez`, `/readyz` and `/metrics`, for the operator's network only.
//!
//! Alive is a process that answers at all; a restart helps one that does not. Ready is one that should get new work:
//! every named condition of its [`Readiness`] holds, and the body says which does not and why.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;

use crate::telemetry::Telemetry;

/// Time that one condition has to be looked at; probes of orchestrators give up soon after.
const LOOK_TIMEOUT: Duration = Duration::from_secs(1);

/// Named conditions that must all hold before a process takes new work. Cheap to clone.
#[derive(Clone, Default)]
pub struct Readiness(Arc<Mutex<BTreeMap<&'static str, Condition>>>);

/// Asks whether something holds now.
type Look = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = bool> + Send>> + Send + Sync>;

#[derive(Clone)]
enum Condition {
    Holds,
    Fails(&'static str),
    Looked { look: Look, reason: &'static str },
}

impl Readiness {
    /// Notes that a condition holds.
    pub fn holds(&self, condition: &'static str) {
        self.insert(condition, Condition::Holds);
    }

    /// Notes that a condition does not hold, and why.
    pub fn fails(&self, condition: &'static str, reason: &'static str) {
        self.insert(condition, Condition::Fails(reason));
    }

    /// Adds a condition that is looked at whenever somebody asks; without an answer in time it does not hold.
    pub fn look<F>(&self, condition: &'static str, reason: &'static str, look: impl Fn() -> F + Send + Sync + 'static)
    where
        F: Future<Output = bool> + Send + 'static,
    {
        let look: Look = Arc::new(move || Box::pin(look()));
        self.insert(condition, Condition::Looked { look, reason });
    }

    /// The conditions that do not hold now, by name, each with its reason.
    pub async fn missing(&self) -> Vec<(&'static str, &'static str)> {
        let conditions = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut missing = Vec::new();
        for (name, condition) in conditions {
            match condition {
                Condition::Holds => {}
                Condition::Fails(reason) => missing.push((name, reason)),
                Condition::Looked { look, reason } => {
                    if !tokio::time::timeout(LOOK_TIMEOUT, look()).await.unwrap_or(false) {
                        missing.push((name, reason));
                    }
                }
            }
        }
        missing
    }

    fn insert(&self, name: &'static str, condition: Condition) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name, condition);
    }
}

/// The routes of the admin port.
pub fn router(readiness: Readiness, telemetry: Arc<Telemetry>) -> Router {
    probes(readiness).route("/metrics", get(metrics).with_state(telemetry))
}

fn probes(readiness: Readiness) -> Router {
    Router::new().route("/livez", get(|| async { "alive\n" })).route("/readyz", get(readyz).with_state(readiness))
}

async fn readyz(State(readiness): State<Readiness>) -> (StatusCode, String) {
    let missing = readiness.missing().await;
    if missing.is_empty() {
        return (StatusCode::OK, "ready\n".to_owned());
    }
    let mut body = "not ready\n".to_owned();
    for (name, reason) in missing {
        // Writing to a string cannot fail.
        let _ = writeln!(body, "{name}: {reason}");
    }
    (StatusCode::SERVICE_UNAVAILABLE, body)
}

async fn metrics(State(telemetry): State<Arc<Telemetry>>) -> ([(&'static str, &'static str); 1], String) {
    ([("content-type", "text/plain; version=0.0.4")], telemetry.prometheus_text())
}

#[cfg(test)]
mod tests;
