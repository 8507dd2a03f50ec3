//! A request's trace: where it continues, what the answer says of it, and what no span has.

use std::future::ready;
use std::sync::{Arc, Mutex};

use flydex_domain::error::ErrorCode;
use flydex_runtime::telemetry::trace::Traceparent;
use http::{HeaderValue, Method};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use serde_json::{Value, json};
use tracing::instrument::WithSubscriber as _;
use tracing_subscriber::layer::SubscriberExt as _;

use super::harness::{Answer, World, assert_code, encode, page_request};

/// Far over what a loaded machine needs.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);
const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01";
const TRACE_ID: &str = "0af7651916cd43dd8448eb211c80319c";

#[derive(Clone, Debug, Default)]
struct Exported(Arc<Mutex<Vec<SpanData>>>);

impl SpanExporter for Exported {
    fn export(&self, mut batch: Vec<SpanData>) -> impl Future<Output = OTelSdkResult> + Send {
        self.0.lock().expect("no panic meanwhile").append(&mut batch);
        ready(Ok(()))
    }
}

/// Asks within the trace of [`PARENT`]. The answer, and every span that was exported.
async fn traced(world: &World, method: Method, path: &str, body: Option<Value>) -> (Answer, Vec<SpanData>) {
    let mut request = page_request(None, method, path, body);
    request.headers_mut().insert("traceparent", HeaderValue::from_static(PARENT));
    let exported = Exported::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exported.clone()).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let answer = world.send(request).with_subscriber(tracing_subscriber::registry().with(layer)).await;
    // The database's own thread may hold the span for a moment after the answer.
    let ended = async {
        loop {
            let spans = std::mem::take(&mut *exported.0.lock().expect("no panic meanwhile"));
            if !spans.is_empty() {
                return spans;
            }
            tokio::task::yield_now().await;
        }
    };
    (answer, tokio::time::timeout(PATIENCE, ended).await.expect("the request's span ends"))
}

#[tokio::test]
async fn a_request_is_a_span_of_its_route_in_the_callers_trace() {
    let world = World::start().await;
    let (answer, spans) = traced(&world, Method::GET, "/api/regions", None).await;
    let span = spans.iter().find(|span| span.name == "GET /api/regions").expect("the request's span");
    assert_eq!(span.span_context.trace_id().to_string(), TRACE_ID);
    assert_eq!(span.parent_span_id.to_string(), "00f067aa0ba902b7");
    let told = answer.headers["traceresponse"].to_str().ok().and_then(Traceparent::from_header).expect("a context");
    assert_eq!(told.trace_id_text(), TRACE_ID);
    assert_eq!(told.span_id, span.span_context.span_id().to_bytes());
}

#[tokio::test]
async fn an_error_names_its_trace_where_there_is_one_and_nothing_more_of_it() {
    let world = World::start().await;
    let (answer, _) = traced(&world, Method::GET, "/api/machines", None).await;
    assert_code(&answer, ErrorCode::Unauthenticated);
    assert_eq!(answer.body["error"]["trace_id"], TRACE_ID);
    assert!(!answer.body.to_string().contains("00f067aa0ba902b7"), "{answer:?}");
    let untraced = world.page(None, Method::GET, "/api/machines", None).await;
    assert_eq!(untraced.body["error"].get("trace_id"), None);
    assert!(!untraced.headers.contains_key("traceresponse"));
}

#[tokio::test]
async fn a_refusal_before_any_handler_is_in_the_trace_too() {
    let world = World::start().await;
    let mut foreign = page_request(None, Method::POST, "/api/sign-out", None);
    foreign.headers_mut().insert(http::header::ORIGIN, HeaderValue::from_static("https://elsewhere.example"));
    foreign.headers_mut().insert("traceparent", HeaderValue::from_static(PARENT));
    let provider = SdkTracerProvider::builder().with_simple_exporter(Exported::default()).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let answer = world.send(foreign).with_subscriber(tracing_subscriber::registry().with(layer)).await;
    assert_code(&answer, ErrorCode::OriginRefused);
    assert_eq!(answer.body["error"]["trace_id"], TRACE_ID);
}

#[tokio::test]
async fn no_span_has_a_path_a_query_or_a_secret() {
    let world = World::start().await;
    let secret = encode(&[0xab; 32]);
    let sign_in = Some(json!({ "token": secret }));
    let mut all = traced(&world, Method::POST, "/api/sign-in", sign_in).await.1;
    for path in [
        format!("/api/sessions?token={secret}"),
        format!("/api/machines/{secret}"),
        format!("/api/nothing/{secret}?q={secret}"),
        format!("/api/local-connect/{secret}?after={secret}"),
    ] {
        all.extend(traced(&world, Method::GET, &path, None).await.1);
    }
    assert!(all.len() >= 5, "{all:?}");
    assert!(!format!("{all:?}").contains(&secret), "{all:?}");
}
