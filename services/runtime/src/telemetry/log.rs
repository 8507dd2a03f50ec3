//! The log lines: a layer that writes declared fields only.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::io::Write as _;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

use super::LogFormat;
use super::fields::{is_declared, is_written};

/// Whether a log target belongs to FlyDex.
#[must_use]
pub fn is_own(target: &str) -> bool {
    target.starts_with("flydex")
}

/// Writes each event as one line: time, level, target, message, and the declared fields of event and spans.
#[derive(Debug)]
pub struct LogLayer<W> {
    format: LogFormat,
    writer: W,
}

impl<W> LogLayer<W> {
    /// A layer that writes to `writer`.
    pub const fn new(format: LogFormat, writer: W) -> Self {
        Self { format, writer }
    }
}

#[derive(Default)]
struct Declared {
    values: BTreeMap<&'static str, Value>,
    dropped: u64,
}

impl Declared {
    fn put(&mut self, field: &Field, value: Value) {
        if is_written(field.name()) {
            self.values.insert(field.name(), value);
        } else if !is_declared(field.name()) {
            self.dropped += 1;
        }
    }
}

impl Visit for Declared {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, Value::String(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, Value::String(value.to_owned()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.put(field, Value::String(chain(value)));
    }
}

/// An error and its causes in one line; each layer's text says that layer only.
#[must_use]
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}

impl<S, W> Layer<S> for LogLayer<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut declared = Declared::default();
        attributes.record(&mut declared);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(declared);
        }
    }

    fn on_record(&self, id: &Id, record: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(declared) = span.extensions_mut().get_mut::<Declared>()
        {
            record.record(declared);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let metadata = event.metadata();
        if !is_own(metadata.target()) && *metadata.level() > Level::WARN {
            return;
        }
        let mut all = Declared::default();
        for span in context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
            if let Some(declared) = span.extensions().get::<Declared>() {
                all.values.extend(declared.values.iter().map(|(name, value)| (*name, value.clone())));
            }
        }
        event.record(&mut all);
        let message = all.values.remove("message").unwrap_or_default();
        let line = match self.format {
            LogFormat::Json => json_line(metadata, &message, &all),
            LogFormat::Text => text_line(metadata, &message, &all),
        };
        let _ = self.writer.make_writer().write_all(line.as_bytes());
    }
}

#[expect(clippy::disallowed_methods, reason = "log lines carry the wall clock")]
fn timestamp_ms() -> u64 {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}

fn json_line(metadata: &tracing::Metadata<'_>, message: &Value, all: &Declared) -> String {
    let mut object = Map::new();
    object.insert("at_ms".to_owned(), timestamp_ms().into());
    object.insert("level".to_owned(), metadata.level().as_str().into());
    object.insert("target".to_owned(), metadata.target().into());
    object.insert("message".to_owned(), message.clone());
    for (name, value) in &all.values {
        object.insert((*name).to_owned(), value.clone());
    }
    if all.dropped > 0 {
        object.insert("fields.dropped".to_owned(), all.dropped.into());
    }
    let mut line = Value::Object(object).to_string();
    line.push('\n');
    line
}

fn text_line(metadata: &tracing::Metadata<'_>, message: &Value, all: &Declared) -> String {
    let message = message.as_str().unwrap_or_default();
    let mut line = format!("{} {:5} {} {message}", timestamp_ms(), metadata.level(), metadata.target());
    for (name, value) in &all.values {
        let _ = write!(line, " {name}={value}");
    }
    if all.dropped > 0 {
        let _ = write!(line, " fields.dropped={}", all.dropped);
    }
    line.push('\n');
    line
}

#[cfg(test)]
pub(crate) mod tests;
