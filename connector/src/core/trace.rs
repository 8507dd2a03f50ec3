//! The machine's span of a command, under the owner's, and the trace that its answers carry back.

use bytes::Bytes;
use flydex_domain::command::CommandHeader;
use flydex_proto::v1;
use flydex_runtime::telemetry::trace::Traceparent;
use tracing::Span;

/// Opens the span of a command under its sender's; the trace is the sender's when nothing is exported here.
pub(super) fn open(header: &CommandHeader, sender: Option<&v1::TraceContext>) -> (Span, Option<Traceparent>) {
    let span = tracing::info_span!(
        "connector.command",
        "command.id" = %header.command_id,
        "command.kind" = header.kind.name(),
        "device.id" = %header.device_id,
    );
    let sender = sender.and_then(read);
    if let Some(sender) = sender {
        sender.adopt(&span);
    }
    let trace = Traceparent::of(&span).or(sender);
    (span, trace)
}

/// The form of an envelope.
pub(super) fn wire(trace: Traceparent) -> v1::TraceContext {
    v1::TraceContext {
        trace_id: Bytes::copy_from_slice(&trace.trace_id),
        span_id: Bytes::copy_from_slice(&trace.span_id),
        flags: trace.flags.into(),
    }
}

fn read(trace: &v1::TraceContext) -> Option<Traceparent> {
    Traceparent::from_parts(&trace.trace_id, &trace.span_id, trace.flags)
}
