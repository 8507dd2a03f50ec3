//! A command is one span here, between its sender's and the connector's, and every answer to it is in its trace.

use flydex_domain::error::ErrorCode;
use flydex_domain::scope::Role;
use flydex_proto::v1;
use flydex_proto::v1::connector_frame::Kind as FromConnector;
use flydex_proto::v1::device_message::Kind as Asked;
use flydex_proto::v1::machine_message::Kind as Said;
use flydex_proto::v1::node_frame::Kind as FromNode;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::fixture::*;

fn trace(number: u8) -> v1::TraceContext {
    v1::TraceContext { trace_id: copy(&[number; 16]), span_id: copy(&[number; 8]), flags: 1 }
}

impl Gateway {
    /// The trace of the first thing of a kind that a session is told.
    async fn trace_of(&mut self, session: u128, fits: impl Fn(&Said) -> bool) -> v1::TraceContext {
        self.find(|kind| {
            let FromNode::ToSession(to) = kind else { return None };
            let message = to.message.as_ref().filter(|_| to.session_id == id(session))?;
            message.kind.as_ref().is_some_and(&fits).then(|| message.trace.clone())
        })
        .await
        .expect("it carries a trace")
    }
}

#[tokio::test]
async fn every_answer_to_a_command_is_in_its_trace_below_the_actors_span() {
    let exporter = InMemorySpanExporter::default();
    let tracer = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let layer = tracing_opentelemetry::layer().with_tracer(tracer.tracer("test"));
    let _guard = tracing_subscriber::registry().with(layer).set_default();
    let node = Node::start().await;
    let mut gateway = node.gateway().await;
    let epoch = gateway.linked(&node, 1, 1, 1).await;
    gateway.opened(&node, 1, 1, Role::Owner).await;
    gateway.state(1, v1::MachineState::CodexReady).await;

    let command = start_turn(1, 1, "hello");
    gateway.session_traced(1, Some(trace(3)), Asked::Command(command.clone())).await;
    let forwarded = gateway.forwarded(1).await.message.and_then(|message| message.trace).expect("a trace");
    assert!(forwarded.trace_id == trace(3).trace_id && forwarded.span_id != trace(3).span_id);
    assert!(gateway.trace_of(1, |said| matches!(said, Said::Progress(_))).await == forwarded);

    // The connector says nothing of traces; the actor knows what its words belong to.
    let chunk = v1::BulkChunk { command_id: id(1), offset: 0, bytes: copy(b"x") };
    gateway.answer(1, &epoch, 1, Said::Chunk(chunk)).await;
    assert!(gateway.trace_of(1, |said| matches!(said, Said::Chunk(_))).await == forwarded);
    gateway.answer(1, &epoch, 1, Said::Receipt(executed(&command))).await;
    assert!(gateway.trace_of(1, |said| matches!(said, Said::Receipt(_))).await == forwarded);

    // What the connector says in a trace of its own is passed on as it is.
    let message = Some(v1::MachineMessage { trace: Some(trace(4)), kind: Some(Said::ProbeReply(Default::default())) });
    let to = v1::ToSession { session_id: id(1), message };
    gateway.connector(1, &epoch, FromConnector::ToSession(to)).await;
    assert!(gateway.trace_of(1, |said| matches!(said, Said::ProbeReply(_))).await == trace(4));

    let spans = exporter.get_finished_spans().unwrap();
    let span = spans.iter().find(|span| span.name == "machine.command").expect("the span ended with its receipt");
    assert_eq!(span.span_context.trace_id().to_bytes(), [3; 16]);
    assert_eq!(span.parent_span_id.to_bytes(), [3; 8]);
    assert_eq!(span.span_context.span_id().to_bytes().as_slice(), forwarded.span_id);
}

#[tokio::test]
async fn a_command_that_is_refused_on_the_way_fails_in_its_trace() {
    let node = Node::start().await;
    let mut gateway = node.gateway().await;
    gateway.opened(&node, 1, 1, Role::Owner).await;
    let mut malformed = start_turn(1, 1, "hello");
    malformed.header = copy(b"\xff\xff\xff");
    let failed = |code: ErrorCode| move |said: &Said| matches!(said, Said::Failure(failure) if failure.code == u32::from(code.number()));
    gateway.session_traced(1, Some(trace(5)), Asked::Command(malformed)).await;
    assert!(gateway.trace_of(1, failed(ErrorCode::BadRequest)).await == trace(5));
    gateway.session_traced(1, Some(trace(6)), Asked::Command(start_turn(1, 2, "hello"))).await;
    assert!(gateway.trace_of(1, failed(ErrorCode::MachineOffline)).await == trace(6));
}
