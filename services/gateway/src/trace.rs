//! The gateway's span of a command, between the browser's and the owner's.

use bytes::Bytes;
use flydex_proto::v1;
use flydex_runtime::telemetry::trace::Traceparent;
use tracing::Span;

/// Makes the message's trace context the parent of `span`, and `span` the parent of what follows.
pub(crate) fn reparent(trace: &mut Option<v1::TraceContext>, span: &Span) {
    match trace.as_ref().and_then(read) {
        Some(parent) => parent.adopt(span),
        None => *trace = None,
    }
    if let Some(own) = Traceparent::of(span) {
        *trace = Some(v1::TraceContext {
            trace_id: Bytes::copy_from_slice(&own.trace_id),
            span_id: Bytes::copy_from_slice(&own.span_id),
            flags: own.flags.into(),
        });
    }
}

fn read(trace: &v1::TraceContext) -> Option<Traceparent> {
    Traceparent::from_parts(&trace.trace_id, &trace.span_id, trace.flags)
}
