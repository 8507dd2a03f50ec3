//! W3C trace context in and out of the current span, for envelopes that carry it in binary and headers in text.

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
        traceparent.named()
    }

    /// Reads a `traceparent` header; nothing when it is malformed. Of a newer version what version 00 knows is read.
    #[must_use]
    pub fn from_header(text: &str) -> Option<Self> {
        let mut fields = text.split('-');
        let [version] = hex(fields.next()?)?;
        let (trace_id, span_id, [flags]) = (hex(fields.next()?)?, hex(fields.next()?)?, hex(fields.next()?)?);
        let complete = version != 0xff && (version != 0 || fields.next().is_none());
        Self { trace_id, span_id, flags }.named().filter(|_| complete)
    }

    /// The text of a `traceparent` or `traceresponse` header.
    #[must_use]
    pub fn to_header(self) -> String {
        format!("00-{}-{:016x}-{:02x}", self.trace_id_text(), u64::from_be_bytes(self.span_id), self.flags)
    }

    /// The trace id as people look it up: 32 hexadecimal digits.
    #[must_use]
    pub fn trace_id_text(self) -> String {
        format!("{:032x}", u128::from_be_bytes(self.trace_id))
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

    fn named(self) -> Option<Self> {
        (self.trace_id != [0; 16] && self.span_id != [0; 8]).then_some(self)
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

/// Reads lower-case hexadecimal digits of exactly `LENGTH` bytes.
fn hex<const LENGTH: usize>(text: &str) -> Option<[u8; LENGTH]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; LENGTH];
    if text.len() != 2 * LENGTH {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01";

    #[test]
    fn a_header_is_read_and_written_as_the_standard_has_it() {
        let traceparent = Traceparent::from_header(HEADER).unwrap();
        assert_eq!(traceparent.trace_id[..2], [0x0a, 0xf7]);
        assert_eq!(traceparent.span_id[..2], [0x00, 0xf0]);
        assert_eq!(traceparent.flags, 1);
        assert_eq!(traceparent.to_header(), HEADER);
        assert_eq!(traceparent.trace_id_text(), "0af7651916cd43dd8448eb211c80319c");
        let newer = format!("01{}-what-comes", &HEADER[2..]);
        assert_eq!(Traceparent::from_header(&newer), Some(traceparent));
    }

    #[test]
    fn a_malformed_header_is_no_context() {
        let malformed = [
            String::new(),
            "00".to_owned(),
            HEADER[..HEADER.len() - 3].to_owned(),
            HEADER.to_uppercase(),
            format!("{HEADER}-more"),
            format!("ff{}", &HEADER[2..]),
            HEADER.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            HEADER.replace("00f067aa0ba902b7", &"0".repeat(16)),
            HEADER.replace("0af7", "0ag7"),
            HEADER.replace("0af7", "+af7"),
            HEADER.replace("0af7", "0\u{e9}7"),
        ];
        for text in malformed {
            assert_eq!(Traceparent::from_header(&text), None, "{text}");
        }
    }

    #[test]
    fn a_zero_or_short_context_is_no_context() {
        assert_eq!(Traceparent::from_parts(&[0; 16], &[1; 8], 1), None);
        assert_eq!(Traceparent::from_parts(&[1; 16], &[0; 8], 1), None);
        assert_eq!(Traceparent::from_parts(&[1; 15], &[1; 8], 1), None);
        assert_eq!(Traceparent::from_parts(&[], &[], 0), None);
        assert!(Traceparent::from_parts(&[1; 16], &[1; 8], 1).is_some());
    }
}
