use std::future::{Ready, ready};
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::routing::get;
use http::StatusCode;
use opentelemetry::trace::{SpanId, Status, TracerProvider as _};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use tower::ServiceExt as _;
use tracing::Span;
use tracing::instrument::WithSubscriber as _;
use tracing_subscriber::layer::SubscriberExt as _;

use super::*;

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01";

#[derive(Clone, Debug, Default)]
struct Exported(Arc<Mutex<Vec<SpanData>>>);

impl SpanExporter for Exported {
    fn export(&self, mut batch: Vec<SpanData>) -> impl Future<Output = OTelSdkResult> + Send {
        self.0.lock().unwrap().append(&mut batch);
        let done: Ready<OTelSdkResult> = ready(Ok(()));
        done
    }
}

/// Sends a request with these `traceparent` headers. The answer, and the one span that was exported.
async fn ask(method: Method, path: &str, traceparents: &[&str]) -> (Response, SpanData) {
    let router = Router::new()
        .route("/things/{id}", get(async || Traceparent::of(&Span::current()).unwrap().trace_id_text()))
        .route("/broken", get(async || StatusCode::INTERNAL_SERVER_ERROR));
    let mut request = Request::builder().method(method).uri(path);
    for traceparent in traceparents {
        request = request.header(TRACEPARENT, *traceparent);
    }
    let request = request.body(Body::empty()).unwrap();
    let exported = Exported::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exported.clone()).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let answered = traced(router).oneshot(request).with_subscriber(tracing_subscriber::registry().with(layer));
    let response = answered.await.unwrap();
    let mut spans = std::mem::take(&mut *exported.0.lock().unwrap());
    assert_eq!(spans.len(), 1, "{spans:?}");
    (response, spans.remove(0))
}

fn traceresponse(response: &Response) -> Traceparent {
    Traceparent::from_header(response.headers()[TRACERESPONSE].to_str().unwrap()).unwrap()
}

#[tokio::test]
async fn a_request_continues_the_trace_that_it_names_and_the_answer_says_so() {
    let (response, span) = ask(Method::GET, "/things/7", &[PARENT]).await;
    let parent = Traceparent::from_header(PARENT).unwrap();
    assert_eq!(span.span_context.trace_id().to_bytes(), parent.trace_id);
    assert_eq!(span.parent_span_id.to_bytes(), parent.span_id);
    let told = traceresponse(&response);
    assert_eq!(told.trace_id, parent.trace_id);
    assert_eq!(told.span_id, span.span_context.span_id().to_bytes());
    let seen = axum::body::to_bytes(response.into_body(), 64).await.unwrap();
    assert_eq!(seen, parent.trace_id_text(), "the handler runs within the span");
}

#[tokio::test]
async fn a_request_without_one_valid_context_begins_a_trace() {
    let mangled = PARENT.replace("00-0af", "00-0AF");
    for traceparents in [vec![], vec![mangled.as_str()], vec![PARENT, PARENT]] {
        let (response, span) = ask(Method::GET, "/things/7", &traceparents).await;
        assert_eq!(span.parent_span_id, SpanId::INVALID, "{traceparents:?}");
        assert_eq!(traceresponse(&response).trace_id, span.span_context.trace_id().to_bytes());
    }
}

#[tokio::test]
async fn a_span_has_the_routes_template_and_never_the_path_or_the_query() {
    let (_, span) = ask(Method::GET, "/things/path-secret?token=query-secret", &[]).await;
    assert_eq!(span.name, "GET /things/{id}");
    assert!(!format!("{span:?}").contains("secret"), "{span:?}");
    let (_, span) = ask(Method::GET, "/path-secret?token=query-secret", &[]).await;
    assert_eq!(span.name, "GET unmatched");
    assert!(!format!("{span:?}").contains("secret"), "{span:?}");
    let (_, span) = ask(Method::from_bytes(b"SECRET").unwrap(), "/things/7", &[]).await;
    assert_eq!(span.name, "OTHER /things/{id}");
}

#[tokio::test]
async fn a_server_error_fails_its_span_and_a_refusal_does_not() {
    let (_, broken) = ask(Method::GET, "/broken", &[]).await;
    assert!(matches!(broken.status, Status::Error { .. }), "{broken:?}");
    let (_, refused) = ask(Method::POST, "/broken", &[]).await;
    assert_eq!(refused.status, Status::Unset);
    let statuses = [broken, refused].map(|span| {
        let status = span.attributes.iter().find(|attribute| attribute.key.as_str() == "http.status");
        status.map(|status| status.value.to_string())
    });
    assert_eq!(statuses, [Some("500".to_owned()), Some("405".to_owned())]);
}

#[tokio::test]
async fn without_an_exporter_there_is_no_trace_to_name() {
    let router = traced(Router::new().route("/", get(async || "")));
    let request = Request::get("/").header(TRACEPARENT, PARENT).body(Body::empty()).unwrap();
    let response = router.oneshot(request).await.unwrap();
    assert!(!response.headers().contains_key(TRACERESPONSE));
}
