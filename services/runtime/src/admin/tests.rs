use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use tower::ServiceExt as _;

use super::*;

async fn get(readiness: &Readiness, path: &str) -> (StatusCode, String) {
    let request = Request::get(path).body(Body::empty()).unwrap();
    let response = probes(readiness.clone()).oneshot(request).await.unwrap();
    let status = response.status();
    let body = to_bytes(response.into_body(), 1024).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

fn ready() -> (StatusCode, String) {
    (StatusCode::OK, "ready\n".to_owned())
}

fn not_ready(lines: &str) -> (StatusCode, String) {
    (StatusCode::SERVICE_UNAVAILABLE, format!("not ready\n{lines}"))
}

#[tokio::test]
async fn a_process_is_ready_when_every_condition_holds_and_says_which_do_not() {
    let readiness = Readiness::default();
    assert_eq!(get(&readiness, "/readyz").await, ready());
    readiness.fails("started", "still starting");
    readiness.holds("nodes");
    readiness.fails("links", "no certificate");
    assert_eq!(get(&readiness, "/readyz").await, not_ready("links: no certificate\nstarted: still starting\n"));
    readiness.holds("started");
    readiness.holds("links");
    assert_eq!(get(&readiness, "/readyz").await, ready());
}

#[tokio::test]
async fn a_looked_at_condition_follows_what_it_looks_at() {
    let readiness = Readiness::default();
    let up = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&up);
    readiness.look("database", "does not answer", move || std::future::ready(seen.load(Ordering::SeqCst)));
    assert_eq!(get(&readiness, "/readyz").await, not_ready("database: does not answer\n"));
    up.store(true, Ordering::SeqCst);
    assert_eq!(get(&readiness, "/readyz").await, ready());
}

#[tokio::test(start_paused = true)]
async fn a_condition_that_never_answers_does_not_hold_and_does_not_hang() {
    let readiness = Readiness::default();
    readiness.look("database", "does not answer", std::future::pending);
    assert_eq!(get(&readiness, "/readyz").await, not_ready("database: does not answer\n"));
}

#[tokio::test]
async fn a_process_that_is_not_ready_is_alive_all_the_same() {
    let readiness = Readiness::default();
    readiness.fails("started", "still starting");
    assert_eq!(get(&readiness, "/livez").await, (StatusCode::OK, "alive\n".to_owned()));
}
