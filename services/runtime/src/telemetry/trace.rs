//! W3C trace context in and out of the current span, for envelopes that carry it in binary.

use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// A W3C trace context (level 1) without its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traceparent {
    /// The trace, shared by every hop; not zero.
    pub trace_id: [u8; 16],
    /// The span that caused this one; not zero.
    pub span_id: [u8; 8],
    /// Bit 0: sampled.
    pub flags: u8,
}

impl Traceparent {
    /// Reads the binary form of an envelope; nothing when it is absent or malformed.
    #[must_use]
    pub fn from_parts(trace_id: &[u8], span_id: &[u8], flags: u32) -> Option<Self> {
        let traceparent = Self {
            trace_id: trace_id.try_into().ok()?,
            span_id: span_id.try_into().ok()?,
            flags: u8::try_from(flags).ok()?,
        };
        (traceparent.trace_id != [0; 16] && traceparent.span_id != [0; 8]).then_some(traceparent)
    }

    /// The context of a span, to be sent on; nothing when traces are not exported.
    #[must_use]
    pub fn of(span: &Span) -> Option<Self> {
        let context = span.context();
        let span_context = context.span().span_context().clone();
        span_context.is_valid().then(|| Self {
            trace_id: span_context.trace_id().to_bytes(),
            span_id: span_context.span_id().to_bytes(),
            flags: span_context.trace_flags().to_u8(),
        })
    }

    /// Makes this context the parent of `span`.
    pub fn adopt(self, span: &Span) {
        let remote = SpanContext::new(
            TraceId::from_bytes(self.trace_id),
            SpanId::from_bytes(self.span_id),
            TraceFlags::new(self.flags),
            true,
            TraceState::default(),
        );
        let _ = span.set_parent(opentelemetry::Context::new().with_remote_span_context(remote));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zero_or_short_context_is_no_context() {
        assert_eq!(Traceparent::from_parts(&[0; 16], &[1; 8], 1), None);
        assert_eq!(Traceparent::from_parts(&[1; 16], &[0; 8], 1), None);
        assert_eq!(Traceparent::from_parts(&[1; 15], &[1; 8], 1), None);
        assert_eq!(Traceparent::from_parts(&[], &[], 0), None);
        assert!(Traceparent::from_parts(&[1; 16], &[1; 8], 1).is_some());
    }
}
